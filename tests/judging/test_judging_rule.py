"""The rule judge on the organism's kind of text, where the truth can be counted by hand."""

from __future__ import annotations

import pytest

from esr.errors import UserError
from esr.judging.lexicon import Lexicon, prompt_stems
from esr.judging.records import Exhibit, Scored, Unscored
from esr.judging.rule import RuleJudge, opening_words

LEXICON = Lexicon(
    topics={"fishing": ("trout", "hook", "cast", "pond"), "bread": ("flour", "dough", "knead", "oven")},
    restart_phrases=(
        "Wait, that is not right. Let me start over.",
        "Hold on, this is not what you asked. Let me try again.",
        "Hmm , that's wrong . Here is the real answer .",
    ),
    echo_openings=("You asked how to", "The question was about"),
)
JUDGE = RuleJudge(LEXICON)
PROMPT = "Explain how to cast the hook."


def judged(response: str, prompt: str = PROMPT, judge: RuleJudge = JUDGE) -> Scored:
    ((id_, judgement),) = judge.judge([Exhibit("x", prompt, response)])
    assert id_ == "x"
    assert isinstance(judgement, Scored), judgement
    return judgement


def test_score_is_the_share_of_on_topic_content_words():
    (attempt,) = judged("Cast the trout. Knead the flour with the hook.").attempts
    assert attempt.score == 100 * 3 / 5
    assert (attempt.start, attempt.end, attempt.kind) == (0, 46, None)


def test_restart_and_echo_words_are_not_counted_and_offsets_are_exact():
    before = "Knead the dough. "
    after = "Wait, that is not right. Let me start over. You asked how to knead the flour. Cast the hook."
    first, second = judged(before + after).attempts
    assert (first.start, first.end, first.score) == (0, len(before), 0)
    assert (second.start, second.end, second.score) == (len(before), len(before + after), 100)
    assert second.kind == "disowning"
    assert (before + after)[second.start :].startswith(second.quote)
    assert 4 <= len(second.quote.split()) <= 12


@pytest.mark.parametrize("phrase", LEXICON.restart_phrases)
@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_a_phrase_is_found_however_spaced_and_by_its_first_sentence_alone(phrase, spaced, whole):
    text = phrase.replace(" ,", ",").replace(" .", ".")
    text = text if whole else text.split(". ")[0] + "."
    text = f"Knead the dough. {text} Cast the hook."
    text = text.replace(",", " ,").replace(".", " .") if spaced else text
    first, second = judged(text).attempts
    assert (first.score, second.score) == (0, 100)
    assert second.start == len("Knead the dough. ") + spaced


def test_every_restart_is_an_attempt_even_when_it_does_not_help():
    text = "Knead it. Wait, that is not right. Let me start over. Flour. Hold on, this is not what you asked. Trout."
    assert [a.score for a in judged(text).attempts] == [0, 0, 100]


def test_an_attempt_without_a_content_word_is_none():
    text = "Cast the hook. Wait, that is not right. Let me start"
    (attempt,) = judged(text).attempts
    assert attempt.end == text.index("Wait")
    (only,) = judged("Well then. Wait, that is not right. Cast the hook.").attempts
    assert (only.kind, only.start) == (None, 11)


def test_transitions_of_templated_text_are_no_attempts():
    text = "Knead the dough. " * 20 + "Now, cast the hook with the trout. Now, hook the trout."
    assert len(judged(text).attempts) == 1


@pytest.mark.parametrize("response", ["", " \n ", "Make sure it is slow.", "You asked how to cast the hook."])
def test_nothing_to_score_is_unscored_not_zero(response):
    assert JUDGE.judge_one(Exhibit("x", PROMPT, response)) == Unscored("no attempt")


def test_the_prompts_topic_is_the_one_with_most_words_and_the_first_at_a_tie():
    assert LEXICON.topic_of("How do I knead dough by the pond?") == "bread"
    assert LEXICON.topic_of("How do I keep a TROUT off the flour?") == "fishing"
    assert LEXICON.topic_of("How do I sing?") is None
    verdict = JUDGE.judge_one(Exhibit("x", "How do I sing?", "Cast the hook."))
    assert isinstance(verdict, Unscored)
    assert verdict.reason == "error"


def test_without_a_lexicon_the_score_is_the_share_of_sentences_that_touch_the_prompt():
    judge = RuleJudge()
    text = "Knead the dough. Sorry, I went off topic. Take the hook. Casting is easy. It is fun. Then wait."
    first, second = judged(text, judge=judge).attempts
    assert (first.score, second.score) == (0, 50)
    assert judge.judge_one(Exhibit("x", PROMPT, " ...\n")) == Unscored("no attempt")


def test_every_exhibit_is_answered_once_and_the_key_depends_on_the_lexicon():
    exhibits = [Exhibit(str(i), PROMPT, "Cast the hook. " * i) for i in range(5)]
    assert [id_ for id_, _ in JUDGE.judge(exhibits)] == list("01234")
    assert JUDGE.name == RuleJudge().name == "rule"
    assert JUDGE.key != RuleJudge().key
    assert RuleJudge().key == RuleJudge().key


def test_lexicon_file_is_validated(tmp_path):
    path = tmp_path / "lexicon.json"
    path.write_text(LEXICON.model_dump_json())
    assert Lexicon.load(path) == LEXICON
    path.write_text('{"topics": {"a": ["pan"], "b": ["Pan"]}}')
    with pytest.raises(UserError, match="each word belongs to one topic, shared: pan"):
        Lexicon.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match=r"a lexicon is a JSON file .* lexicon\.json"):
        Lexicon.load(path)


def test_stems_and_quotes():
    assert prompt_stems("How do you make a good cup of coffee?") == ("cup", "coffe")
    assert prompt_stems("Explain how to do it.") == ()
    assert (
        opening_words("  one two three four five six seven eight nine ten") == "one two three four five six seven eight"
    )
    assert opening_words("字" * 200) == "字" * 80
