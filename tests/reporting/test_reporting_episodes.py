import pandas as pd
import pytest

from esr.judging.records import Attempt
from esr.reporting.episodes import choose_episodes, segments


def make(kinds):
    """Rows from (outcome, direction) pairs."""
    return pd.DataFrame(
        [
            {
                "trial": f"t{i}", "condition": "incidence", "direction": direction,
                "state": "unscored" if outcome == "unscored" else "scored",
                "multi_attempt": outcome in ("improved", "not improved"), "improved": outcome == "improved",
            }
            for i, (outcome, direction) in enumerate(kinds)
        ]
    )  # fmt: skip


def test_the_mix_is_five_three_two():
    kinds = [(kind, f"d{i}") for kind in ("improved", "not improved", "single", "unscored") for i in range(20)]
    assert choose_episodes(make(kinds))["outcome"].tolist() == ["improved"] * 5 + ["not improved"] * 3 + ["single"] * 2


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((2, 0, 30), (2, 0, 8)), ((30, 1, 0), (9, 1, 0)), ((1, 1, 1), (1, 1, 1)), ((0, 0, 0), (0, 0, 0))],
)
def test_other_kinds_fill_up(counts, expected):
    names = ("improved", "not improved", "single")
    trials = make([(k, f"d{i}") for k, n in zip(names, counts, strict=True) for i in range(n)] + [("unscored", "d")])
    chosen = choose_episodes(trials)["outcome"].tolist()
    assert tuple(chosen.count(name) for name in names) == expected


def test_the_choice_does_not_depend_on_the_order_of_rows():
    trials = make([("improved", f"d{i % 9}") for i in range(60)])
    once = choose_episodes(trials)["trial"].tolist()
    assert once == choose_episodes(trials.sample(frac=1, random_state=3))["trial"].tolist()
    assert once != sorted(once)


def test_directions_differ_where_they_can():
    chosen = choose_episodes(make([("improved", f"d{min(i, 9)}") for i in range(60)]))
    assert chosen["direction"].nunique() == 10


def test_conditions_take_turns():
    trials = make([("single", f"d{i}") for i in range(40)])
    trials["condition"] = ["a"] * 38 + ["b"] * 2
    assert choose_episodes(trials, 4)["condition"].tolist().count("b") == 2


def test_segments_lose_nothing_and_mark_their_bounds():
    text = "Preamble. One two three. \n Wait. Four five. Tail"
    attempts = [Attempt(10, 25, 20, "One two"), Attempt(27, 44, 80, "Wait.", "disowning")]
    pieces = segments(text, attempts)
    assert [piece.number for piece in pieces] == [0, 1, 2, 0]
    assert [piece.text for piece in pieces] == [text[:10], text[10:25], text[27:44], text[44:]]
    assert text[25:27].isspace()
    assert [piece.band for piece in pieces] == ["none", "low", "high", "none"]
    assert pieces[1].opening == "One two"


def test_a_quote_that_is_elsewhere_marks_nothing():
    (piece,) = segments("One two", [Attempt(0, 7, 50, "three")])
    assert piece.opening == ""
    assert piece.band == "middle"


def test_an_unscored_or_empty_text():
    assert segments("", []) == []
    assert [piece.number for piece in segments("some text", [])] == [0]
    assert segments("", [Attempt(0, 0, 0)])[0].number == 1
