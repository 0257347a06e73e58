"""The phrases by which a response announces that it starts its answer again, as data.

Each phrase is a regular expression over *folded* text (``screen.fold``: lower case, straight quotes, plain
hyphens, no zero-width characters), with one example that it must match. Two strengths:

- ``sure``: speaks of the response or the question itself, so that it is a restart wherever it stands;
- not ``sure``: also said of a fact, a word or a step ("wait, that is not right: he was born in 1889"). Two different
  ones in adjoining sentences, or one at the place where the prompt's own words come back, make a restart.

``pivot`` and ``pretext`` phrases are never ``sure``: they count only where the prompt's words come back.
Every repetition is bounded, so that a search takes time linear in the text. The kinds are those of METHOD section 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from esr.judging.records import RestartKind

# Building blocks, written <NAME> inside the patterns.
BLOCKS = {
    # the response's own output
    "OUT": r"(?:answers?|responses?|reply|replies|output|text|explanation|message|paragraphs?|section|part|content"
    r"|steps|instructions|description|information|passage|lines|write-?up|draft|sentences?|version|attempt|advice"
    r"|guide|list|stuff|material|ramble|rambling|tangent|bit)",
    # and how it is pointed at
    "ABOVE": r"(?:(?:the|my|that|this|those|these|all the|most of the|much of the) (?:\w{1,12} ){0,2}?<OUT>"
    r"(?: (?:above|before|so far|i (?:just )?(?:gave|wrote)|given above))?|(?:all of |everything |much of |most of )?"
    r"the (?:above|foregoing|preceding)|(?:what|everything|all(?: that)?|most of what|much of what) i(?:'ve| have)?"
    r"(?: just)? (?:wrote|written|said|gave|given|described|produced|typed|told you))",
    # first-person announcement
    "LET": r"(?:let me|let's|lets|let us|i'll|i will|i shall|i'm going to|i am going to|i'm gonna|allow me to"
    r"|i should|i must|i need to|i have to|i'd better|i want to|i'd like to|i would like to|we should|we need to"
    r"|permit me to|may i|can i|time to|i can|i'd rather)",
    "ADV": r"(?:(?:now|just|actually|instead|simply|finally|quickly|first|please|try to|properly|really|truly"
    r"|therefore|thus|immediately|attempt to) ){0,3}",
    "Q": r"(?:question|topic|task|prompt|request|query|inquiry|subject|assignment|matter at hand|point at hand"
    r"|original (?:point|issue)|ask\b|problem you (?:posed|gave))",
    "WAIT": r"(?:wait|hold on|hang on|hmm+|hm|oops|whoops|no|oh|oh no|uh|um|argh|ugh|sorry|ah|stop|but|ok|okay|well)",
    "WRONG": r"(?:wrong|incorrect|nonsense|gibberish|garbled|garbage|rubbish|jumbled?|a jumble|irrelevant|unrelated"
    r"|off[- ]topic|off[- ]track|beside the point|incoherent|meaningless|unclear|confus(?:ing|ed)|a mess|messed up"
    r"|scrambled|a mistake|an error|mistaken|inaccurate|not (?:quite |really |at all |even |very |in any way |actually "
    r"|a )?(?:relevant|related|right|correct|clear|coherent|helpful|useful|proper|what|an? (?:proper|real|actual)|about"
    r"|to the point|pertain|appropriate|answer|address|make (?:any )?sense|helping))",
    "NOT": r"(?:n't| not|not| hardly| barely| never|n't really| not really| not actually|n't actually)",
    "EDGE": r"(?:^|(?<=[.!?:;\n*#>] )|(?<=\n)|(?<=[*#>_]))",
}


@dataclass(frozen=True)
class Phrase:
    """One way to announce a restart."""

    kind: RestartKind
    language: str
    """ISO 639-1 code."""
    pattern: str
    """Regular expression over folded text, with <BLOCK> placeholders."""
    example: str
    """Text the pattern must match once folded."""
    sure: bool = True

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The compiled pattern."""
        pattern = self.pattern
        while (expanded := re.sub(r"<([A-Z]+)>", lambda m: BLOCKS[m[1]], pattern)) != pattern:
            pattern = expanded
        return re.compile(pattern, re.MULTILINE)


def _english(kind: RestartKind, pattern: str, example: str, sure: bool = True) -> Phrase:
    return Phrase(kind, "en", pattern, example, sure)


DISOWNING = (
    _english(
        "disowning",
        r"\b<ABOVE>(?: \w{1,12}){0,3}? (?:is|was|are|were|seems?|appears?|looks?|reads?|makes?|made|came"
        r"|has|had|got|went|does|did|do|contains?)\b[^.\n]{0,50}?<WRONG>",
        "The above response appears to be a jumbled collection of letters.",
    ),
    _english(
        "disowning",
        r"\b<ABOVE>(?: \w{1,12}){0,2}? (?:is|was|are|were|does|did|do|has|have|had)<NOT> "
        r"(?:\w{1,12} ){0,3}?(?:answer|address|explain|help|relevant|related|respond|match|concern|about|anything"
        r"|make|provide|right|correct|clear|what|pertain|to do)",
        "My last paragraph did not address your question.",
    ),
    _english(
        "disowning",
        r"\b(?:is|was|are|were|'s)<NOT> (?:\w{1,10} ){0,2}?(?:what|the (?:thing|question|topic|answer)(?: that)?)"
        r" (?:you|was|the user|we|i was|they)(?:'ve|'re| have| had| were| are)?(?: \w{1,10}){0,2}? (?:ask|want|request|after"
        r"|look(?:ing)? for|meant|need|suppos)\w*",
        "That isn't what you asked for.",
    ),
    _english(
        "disowning",
        r"\b(?:nothing|little|not much|zero) to do with (?:your|the|this|that|my)? ?(?:\w{1,12} ){0,2}?"
        r"(?:<Q>|what you)",
        "None of it has anything or nothing to do with your question.",
    ),
    _english(
        "disowning",
        r"\b(?:doesn't|does not|didn't|did not|don't|do not|isn't|is not|wasn't|fails? to|failed to"
        r"|without) (?:\w{1,12} ){0,2}?(?:answer(?:ing)?|address(?:ing)?|help(?: you)? with|respond(?:ing)? to|relevant to"
        r"|related? to|concern|fit(?: into)?|match|an answer to|pertain to) (?:your|the|this|my) (?:\w{1,12} ){0,2}?<Q>",
        "None of this answers it, it does not fit your question.",
    ),
    _english(
        "disowning",
        r"\bi(?:'ve| have| had)?(?: \w{1,12}){0,3}? (?:off[- ]topic|off[- ](?:the )?track|off[- ]course|off the rails"
        r"|side-?tracked|distracted|carried away|derailed|drift(?:ed|ing)|digress(?:ed|ing)?|stray(?:ed|ing)"
        r"|wander(?:ed|ing)|rambl(?:ed|ing)|lost (?:the thread|my thread|track|the plot|my train)|veer(?:ed|ing)"
        r"|on (?:an? )?\w{0,12} ?tangent|babbl(?:ed|ing)|ended up (?:talking|writing|describing|on))",
        "I seem to have drifted there.",
    ),
    _english(
        "disowning",
        r"\bi(?:'ve| have)?(?: \w{1,12}){0,2}? (?:misread|misunderstood|misinterpreted|misheard|misjudged"
        r"|answered (?:the wrong|a different|another|some other)|mistook)",
        "It seems I misread your message.",
    ),
    _english(
        "disowning",
        r"\b(?:wrong (?:question|topic|subject|answer|task|prompt|conversation|article|document))\b(?=[^.\n]{0,40}[.!,;:\n-])",
        "Oops, wrong topic.",
        sure=False,
    ),
    _english(
        "disowning",
        r"\b<WAIT>[,.!;: -]{1,4}(?:no[,.!;: -]{1,4})?(?:\w{1,10} ){0,2}?(?:that|this|it|which|these|those)(?:'s| is| was| are"
        r"| were| isn't| wasn't| can't be| cannot be| all)(?: \w{1,12}){0,3}? ?(?:<WRONG>|right|it\b)",
        "Wait, that is not right.",
        sure=False,
    ),
    _english(
        "disowning",
        r"\bi(?:'ve| have)?(?: \w{1,10}){0,2}? (?:made (?:a|an|some|another)(?: \w{1,10}){0,2}? (?:mistake|error)|messed up"
        r"|got (?:that|this|it) (?:all )?wrong|slipped|botched|goofed|went wrong)",
        "I made a mistake.",
        sure=False,
    ),
    _english(
        "disowning",
        r"\b(?:sorry|apolog(?:y|ies|i[sz]e)|my bad|forgive me|pardon|excuse)\b[^.\n]{0,60}?\b(?:tangent|digression"
        r"|gibberish|nonsense|rambling|detour|off[- ]topic|off[- ]track|jumble|garble|confusion|mix-?up|misunderstanding"
        r"|interruption|previous|above|irrelevan\w+|distraction|mess)\w*",
        "I apologize for the confusion above.",
    ),
    _english(
        "disowning",
        r"\b(?:sorry|apologies|my bad)\b[^.\n]{0,30}?\b(?:mistake|error|that|slip)\b",
        "Sorry, that was a mistake.",
        sure=False,
    ),
    _english(
        "disowning",
        r"\b(?:ignore|disregard|forget|scrap|strike|never ?mind|throw out|discard|set aside|delete)"
        r"(?: \w{1,10}){0,2}? (?:(?:everything|all|most|much)(?: of)?(?: that)?(?: i| the above| above| before)|the above|the previous"
        r"|the preceding|my (?:previous|last|earlier)|(?:that|those|the) last|what i|that (?:whole )?<OUT>|all that\b|the (?:\w{1,12} ){0,2}?<OUT>)"
        r"(?![^.\n]{0,30}(?:instruct|prompt|rubric|rules|guideline))",
        "Please disregard everything I wrote so far.",
    ),
    _english(
        "disowning",
        r"\b(?:scratch|strike|forget|never ?mind) (?:that|all that|this)\b(?=[.,!;: -])",
        "Scratch that.",
        sure=False,
    ),
    _english(
        "disowning",
        r"\b(?:what|why) (?:am|was|are|were|is|did) (?:i|we|this|that)(?: even| really)? (?:talking|saying|writing|doing"
        r"|telling|going on|describing|rambling|on about|all about|start(?:ed)?)",
        "Why am I telling you about trout?",
    ),
    _english(
        "disowning",
        r"\byou (?:asked|wanted|were asking|requested|inquired)[^.\n]{1,70}?[, -]{1,3}(?:and )?(?:not|rather than|instead of)\b",
        "You asked about tires, not about generals.",
    ),
    _english(
        "disowning",
        r"\b(?:that|this|it|which|none of (?:that|this|it|which))(?: all)? (?:makes?|made) (?:no|little|absolutely no|zero) sense\b",
        "That made no sense.",
        sure=False,
    ),
)

REDO = (
    _english(
        "redo",
        r"\b<LET> <ADV>(?:start|begin|restart|commence)(?: (?:this|that|it|the \w{1,12}|my \w{1,12}))? ?(?:all )?"
        r"(?:over|again|afresh|anew|fresh|from scratch|from the (?:very )?(?:beginning|top|start)|from zero|once more)",
        "Let me start over.",
    ),
    _english(
        "redo",
        r"\b<LET> <ADV>(?:try|do|attempt|have another|take another|give)(?: (?:this|that|it|to \w{1,12}(?: \w{1,12})?))? ?"
        r"(?:again|once more|over|another (?:go|try|shot|crack)|go at|try at|stab at|differently|properly|a second time|one more time|afresh|anew)"
        r"(?! (?:with|for|using|on) (?:the|another|a|some|x|\d))",
        "Let me try that once more.",
    ),
    _english(
        "redo",
        r"\b<LET> <ADV>(?:re-?do|re-?write|re-?start|re-?try|re-?formulate|re-?phrase|re-?word|re-?state|re-?vise|re-?answer"
        r"|re-?organi[sz]e|correct|fix|reconsider|rework)(?: \w{1,12}){0,2}? (?:<OUT>|question|entire|whole|everything)",
        "Let me rephrase this answer.",
    ),
    _english(
        "redo",
        r"\b<LET> <ADV>(?:re-?do|re-?write|re-?start|re-?try|re-?formulate|re-?phrase|re-?word|re-?state|re-?set|re-?focus"
        r"|correct|fix|reconsider|regroup|rework)\b(?: (?:that|this|it|myself|things)\b)?",
        "Let me correct that.",
        sure=False,
    ),
    _english(
        "redo",
        r"\b<LET> <ADV>(?:answer|explain|write|say|put|tell|describe|go through|give|phrase|provide|do|walk)[^.\n]{0,40}? "
        r"(?:again|properly|correctly|once more|this time|from scratch|from the (?:beginning|top|start)|more clearly|anew|afresh|in a better way"
        r"|the right way|for real)\b",
        "Now I will answer it properly.",
    ),
    _english(
        "redo",
        r"\bhere(?:'s| is| are| comes| goes| follows)(?: now)? (?:the|a|an|my|your|what is hopefully a)? ?(?:much |far |truly |slightly )?"
        r"(?:corrected|revised|rewritten|proper|real|actual|correct|right|improved|cleaned?-?(?: up)?|cleaner|fresh|rephrased|true|genuine"
        r"|intended|new|second|relevant|appropriate|fixed|updated|better|coherent)(?: \w{1,12}){0,2}? (?:answer|version|response|attempt|try|take|reply"
        r"|explanation|guide|one|information|instructions|steps|method|way|procedure)\b",
        "Here is the real answer.",
    ),
    _english(
        "redo",
        r"\bhere(?:'s| is| are)(?: now)? (?:the|a|an|another|my) ?(?:another |more |much |well-|clear|better|proper|simple|different|new|concise|step)"
        r"[^.\n]{0,30}?(?:version|guide|answer|attempt|explanation|response)\b",
        "Here's a more detailed version of it.",
        sure=False,
    ),
    _english(
        "redo",
        r"<EDGE>[*#_ ]{0,4}(?:(?:second|another|new|next|fresh|third|final|corrected|revised|proper) (?:attempt|try|take|answer|version|response|start)"
        r"|(?:attempt|take|try|version|answer|draft|response) (?:#|no\.? ?)?(?:2|3|two|three|ii|iii)|(?:revised|corrected|rewritten))[*_ ]{0,4}[:.\n!-]",
        "\nSecond attempt: loosen the nuts.",
    ),
    _english(
        "redo",
        r"\b(?:give|write|provide|offer|use|try|post)\b[^.\n]{0,40}?\b(?:answer|response|version|explanation|reply|one)\b[^.\n]{0,25}?\binstead\b",
        "No, I will give this response instead of that one.",
    ),
    _english(
        "redo",
        r"<EDGE>[*#_ ]{0,4}(?:(?:ok|okay|right|alright|so|well|now|anyway)[,.! ]{1,3})?(?:starting (?:over|again|afresh)|(?:once )?again[,:] from the (?:top|beginning|start)"
        r"|from the top|take two|restarting|redoing|rewind|reset|do-?over|from scratch|let's rewind|one more time)\b[ .:,!-]",
        "Okay, starting over. First you need a pump.",
    ),
    _english(
        "redo",
        r"\b(?:correct|right|proper|real|actual|intended|true) (?:answer|response|explanation)(?: \w{1,10}){0,4}? (?:is|are|should|would|follows|goes|begins|starts)\b",
        "The proper answer follows.",
    ),
    _english(
        "redo",
        r"\b(?:to|in) (?:put|say|phrase|word|state) (?:it|this|that) (?:\w{1,10} ){0,2}?(?:properly|correctly)|\bi meant to (?:say|write|explain|answer|tell)",
        "What I meant to explain is the tire.",
        sure=False,
    ),
)

REFOCUS = (
    _english(
        "refocus",
        r"\b(?:<LET>|now|so|ok|okay|anyway|anyways|anyhow|right|alright|but|well|please)[,.! ]{1,3}<ADV>(?:\w{1,10} ){0,2}?"
        r"(?:(?:go|get|come|move|turn|return|steer|circle|bring \w{2,4}|jump|head|switch|pull \w{2,6}|step|refer)(?:ing)? ?(?:us |this |things )?(?:back|on|forward|over|down)?"
        r"|back|return|proceed|continue|carry on|press on) ?(?:to|with|onto) (?:the|your|our|my|this|what)? ?"
        r"(?:(?:\w{1,12} ){0,3}?<Q>|original|you asked|you (?:\w{1,10} )?wanted)",
        "Let's get back to your question.",
    ),
    _english(
        "refocus",
        r"<EDGE>[*#_ ]{0,4}(?:back|returning|getting back|going back|coming back|moving on|moving back|turning|circling back|on) to (?:the|your|our|my) "
        r"(?:\w{1,12} ){0,3}?<Q>",
        "Back to the question: first, gather tools.",
    ),
    _english(
        "refocus",
        r"\b<LET> <ADV>(?:answer|address|focus on|concentrate on|stick (?:to|with)|respond to|honou?r|tackle|get to|deal with|attend to|fulfil+"
        r"|take (?:on|up)|handle|cover|follow|look at|turn to|re-?read|check|review|consider|work on) [^.\n]{0,30}?(?:your|the|this|that|my) (?:\w{1,12} ){0,3}?<Q>",
        "I will now answer the question as it was asked.",
    ),
    _english(
        "refocus",
        r"\b<LET> <ADV>(?:answer|explain|address|tell you|give you|do|provide|cover|describe|get to|focus on|return to|go back to|stick to)[^.\n]{0,30}? "
        r"(?:what|the one|the thing)(?: it is)?(?: that)? (?:you|was|the user)(?:'ve| have| had|'re| are| were)? ?(?:\w{1,12} ){0,2}?(?:ask|want|request|look|need)\w*",
        "Let me explain what you actually asked.",
    ),
    _english(
        "refocus",
        r"\bto (?:actually |really |finally |properly )?answer (?:your|the) (?:\w{1,12} ){0,2}?(?:question|request|query|prompt)\b",
        "To actually answer your question, start with soil.",
    ),
    _english(
        "refocus",
        r"\b(?:the|your) (?:actual|original|real|initial|intended|given|proper) (?:question|topic|task|request|query|prompt|subject)\b",
        "The original question concerns composting.",
    ),
    _english(
        "refocus",
        r"\b(?:the|your) (?:question|topic|task|request|query|prompt)(?: \w{1,10}){0,2}? (?:is|was|were|asks|asked|concerns?|concerned)"
        r"(?: \w{1,10}){0,2}? (?:about|how|on|for|to)\b",
        "The question was about bikes.",
        sure=False,
    ),
    _english(
        "refocus",
        r"\byou(?:'d| had| have|'ve| were)?(?: \w{1,10}){0,2}? (?:asked|asking|wanted|requested)(?: me| to know)?(?: for| about)? (?:how|about|for|to know|on)\b",
        "You asked how to change a tire.",
        sure=False,
    ),
    _english(
        "refocus",
        r"\b(?:<LET>|now|so|okay|ok) <ADV>(?:\w{1,10} ){0,2}?(?:back |stay |keep |remain |get )?(?:us |this |things |myself )?(?:back )?on (?:topic|track|task|point|subject)\b",
        "I need to get back on track.",
    ),
    _english(
        "refocus",
        r"\b(?:task|matter|question|topic|subject|issue|job) at hand\b",
        "so moving on with the task at hand",
        sure=False,
    ),
    _english(
        "refocus",
        r"\b(?:move|moving|proceed|proceeding|continue|continuing|carry on|go on|going|get|getting)(?: forward| on| ahead| back)? (?:with|to) (?:the|your|our) "
        r"(?!next|following)(?:\w{1,10} ){0,1}?(?:steps?|instructions?|process|procedure|guide|answer|explanation|explaining|how)\b",
        "so let's proceed with the instructions",
        sure=False,
    ),
    _english("refocus", r"\bwhere (?:was i|were we)\b", "Now, where was I?", sure=False),
    _english(
        "refocus",
        r"\b(?:focus|concentrate|stay with me|come on|stop it|enough(?: of that| about \w{2,14})?|that's enough)\b[.!]",
        "Focus! The tire.",
        sure=False,
    ),
    _english(
        "refocus",
        r"\b(?:what you|what was|what the user) (?:actually|really|originally) (?:asked|wanted|requested|want|need)\w*",
        "what you really wanted to know",
    ),
)

INADEQUACY = (
    _english(
        "inadequacy",
        r"\b<ABOVE>(?: \w{1,12}){0,2}? (?:is|was|are|were|may|might|does|did|do|can|could|has|have)<NOT> (?:\w{1,12} ){0,3}?"
        r"(?:cover|complete|enough|sufficient|thorough|full|adequate|comprehensive|include|capture|everything|detailed|exhaustive|mention|contain|go into|tell)"
        r"[^\n]{0,90}?\b(?:so|here(?:'s| is| are)|let me|let us|let's|therefore|below|instead|i'll|i will|hence|which is why)\b",
        "The above does not cover everything, so here is a fuller guide.",
    ),
    _english(
        "inadequacy",
        r"\b<ABOVE>(?: \w{1,12}){0,2}? (?:is|was|are|were|seems?|leaves?|left|lacks?|falls?|fell|misses|missed|omits?|omitted|skips?|skipped)"
        r"(?: \w{1,12}){0,2}? ?(?:incomplete|insufficient|inadequate|too (?:brief|short|vague|thin|general|narrow)|short|(?:much|a lot|most|things|everything|out)|lacking|vague"
        r"|the (?:main|key|most|essential|actual))[^\n]{0,90}?\b(?:so|here(?:'s| is| are)|let me|let us|let's|therefore|below|instead|i'll|i will|hence)\b",
        "That answer falls short, so let me add what is needed.",
    ),
    _english(
        "inadequacy",
        r"\bi(?:'ve| have| did|'m| am)?(?:n't| not|n't yet| not yet| still not| hardly| barely)(?: \w{1,10}){0,2}? (?:answer|explain|address|cover|t(?:old|ell)|"
        r"said|say|describe|g(?:ive|iven|ot)|mention|touch|help)\w*(?: \w{1,10}){0,3}? (?:question|how|you|yet|anything|actual\w*|the|your)\b",
        "I have not actually told you how to do it.",
    ),
    _english(
        "inadequacy",
        r"\bi(?:'ve| have)?(?: \w{1,10}){0,1}? (?:left out|skipped|forgot|neglected|omitted|missed|overlooked)(?: \w{1,12}){0,4}? "
        r"(?:question|answer|main|most important|actual\w*|everything|essential|key|point|heart)\b",
        "I left out the main point.",
    ),
    _english(
        "inadequacy",
        r"\b(?:doesn't|does not|didn't|did not|won't|will not|isn't|is not|may not|might not) (?:\w{1,10} ){0,2}?(?:really |fully |quite |yet |actually )?"
        r"(?:tell|show|teach|explain|give|help) you (?:\w{1,10} ){0,2}?(?:how|much|what|anything|enough)\b[^\n]{0,90}?\b(?:so|here(?:'s| is| are)|let me|let's|therefore|below|i'll|i will)\b",
        "None of that tells you much, and it does not teach you how to do it, so here is the rest.",
    ),
)

PIVOT = (
    _english(
        "pivot",
        r"<EDGE>[*#_ ]{0,4}(?:now|anyway|anyways|anyhow|okay|ok|alright|all right|right|so|well|but|and|yes|in any case|moving on|at any rate|either way|still|regardless|that said"
        r"|with that said|having said that|that aside|jokes aside|enough|seriously|meanwhile|on to|to business)\b[,.!: -]{0,3}(?:now|then|so|anyway|seriously|okay|for)?[, ]{0,2}"
        r"(?:about|for|on|onto|on to|as for|as to|regarding|concerning|back to|to|let's|lets|let us|let me|here(?:'s| is| are)|how|what about|when it comes to|with|in order to)\b",
        "\nNow, about the tire:",
        sure=False,
    ),
    _english(
        "pivot",
        r"<EDGE>[*#_ ]{0,4}(?:back to|returning to|as for|regarding|coming to|on to|turning to|speaking of|when it comes to|with regard to|concerning) ",
        "\nAs for the tire, remove it.",
        sure=False,
    ),
    _english(
        "pivot",
        r"\b(?:let's|lets|let us) (?:get|go|move|come) (?:down|back|on|over) to\b",
        "But seriously, let's get down to business.",
        sure=False,
    ),
)

PRETEXT = (
    _english(
        "pretext",
        r"\b(?:if|in case|assuming|supposing|perhaps|maybe|should)(?: that)?,? ?(?:what )?(?:you|your|the user)(?:'re|'d| are| were| did| actually| really| instead| have| had){0,3} "
        r"(?:meant?|meaning|intend(?:ed)?|ask(?:ed|ing)?|want(?:ed)?|wish(?:ed)?|look(?:ing)? for|looking|need(?:ed)?|question|request|referr(?:ed|ing)|seek(?:ing)?|wonder(?:ing)?|interested|after|try(?:ing)?)\b",
        "If you meant how to change a tire, here it is.",
        sure=False,
    ),
    _english(
        "pretext",
        r"\b(?:i (?:assume|suppose|take it|guess|think|believe|presume|gather)|it (?:seems|sounds like|looks like))(?: that)? you(?:'re|'d| are| were| actually| really| may| might){0,2} "
        r"(?:meant?|want(?:ed)?|ask(?:ed|ing)?|look(?:ing)?|need|seek|refer|interested|trying)\w*",
        "I assume you want to know how to plant.",
        sure=False,
    ),
)


def _foreign(language: str, *rows: tuple[RestartKind, str, str]) -> tuple[Phrase, ...]:
    return tuple(
        Phrase(kind, language, pattern, example, sure=kind not in ("pivot", "pretext"))
        for kind, pattern, example in rows
    )


GERMAN = _foreign(
    "de",
    (
        "disowning",
        r"\b(?:obige|vorherige|vorige|letzte|bisherige|vorangehende|vorstehende|meine|diese|die)[nrs]? (?:\w{1,14} ){0,2}?(?:antwort|text|ausführungen|absatz|abschnitt|erklärung|zeilen|beitrag)"
        r"(?: oben)?[^.\n]{0,50}?\b(?:unklar|unverständlich|wirr|falsch|irrelevant|unsinn|nicht|kein|durcheinander|fehlerhaft|nichts|unpassend|am thema)",
        "Die obige Antwort ist leider unverständlich.",
    ),
    (
        "disowning",
        r"\b(?:das|dies|es)(?: \w{1,10}){0,2}? (?:war|ist|hat|hatte|gehört|passt|beantwortet)(?: \w{1,12}){0,3}? (?:falsch|unsinn|quatsch|nicht richtig|nicht die frage|nicht das, was|nichts mit|nicht zum thema|nicht zu (?:ihrer|deiner|der) frage|(?:ihre|deine|die) frage nicht)",
        "Das hat nichts mit der Frage zu tun.",
    ),
    (
        "disowning",
        r"\b(?:vom thema ab|abgeschweift|abgekommen|den faden verloren|(?:frage|sie|dich) (?:falsch|missverstanden)|verzettelt|thema verfehlt)",
        "Ich bin vom Thema abgekommen.",
    ),
    (
        "redo",
        r"\b(?:noch ?mal|noch einmal|nochmals|neu|wieder|ganz) (?:von vorne?|von anfang|anfangen|beginnen|ansetzen|versuchen|formulieren|starten|erklären|zum mitschreiben)|\bvon vorne? (?:an|beginn|anfang)"
        r"|\b(?:neuer|zweiter|erneuter) (?:versuch|anlauf|ansatz)|\bhier (?:ist|kommt|nun)(?: \w{1,8}){0,2}? (?:richtige|korrekte|eigentliche|überarbeitete|verbesserte)",
        "Ich fange noch einmal von vorne an.",
    ),
    (
        "refocus",
        r"\b(?:zurück|kommen wir|komme ich|wenden wir uns|jetzt|nun)(?: \w{1,10}){0,3}? (?:zum (?:eigentlichen )?thema|zur (?:\w{1,14} )?(?:frage|aufgabe)|zu (?:ihrer|deiner|der) (?:\w{1,14} )?frage|zur sache)"
        r"|\b(?:um|ich)(?: \w{1,8}){0,3}? (?:ihre|deine|die) (?:\w{1,14} )?frage (?:zu beantworten|beantworten)|\b(?:eigentliche|ursprüngliche)[nr]? (?:frage|thema|aufgabe)",
        "Zurück zur eigentlichen Frage.",
    ),
)
FRENCH = _foreign(
    "fr",
    (
        "disowning",
        r"\b(?:réponse|texte|paragraphe|passage|explication|contenu)s? (?:\w{1,4}-dessus|précédente?s?|qui précède|ci-dessus)[^.\n]{0,50}?\b(?:pas|incohérent|confus|hors sujet|faux|fausse|incorrect|aucun|rien|charabia|clair)",
        "La réponse ci-dessus n'est pas claire.",
    ),
    (
        "disowning",
        r"\b(?:ce n'est pas|ce n'était pas|cela n'est pas|ça n'est pas|c'est pas) (?:du tout |vraiment )?(?:ce que vous|ce que tu|la question|le sujet|la bonne réponse|ça|ce qu)|\b(?:rien à voir avec|ne répond(?:ent)? pas à|hors[- ]sujet|je me suis (?:égaré|trompé|éloigné|perdu|écarté)|"
        r"j'ai (?:mal compris|mal lu|dévié|divagué|digressé|perdu le fil)|je m'égare|je divague)",
        "Je me suis égaré.",
    ),
    (
        "redo",
        r"\b(?:je|on|nous|laissez-moi|permettez-moi de|reprenons?|recommençons|vais|allons)(?: \w{1,8}){0,2}? ?(?:recommenc\w{1,4}|reformul\w{1,4}|repren\w{1,4}|réessay\w{1,4}|refai\w{1,3}|repart\w{1,4})(?: \w{1,8}){0,2}? ?(?:depuis|du|au|à zéro|tout|la réponse|ma réponse|cela|correctement|clairement|[.:,!])"
        r"|\b(?:recommençons|reprenons (?:depuis|du|au|à)|nouvelle tentative|deuxième essai|voici (?:la|une) (?:vraie|bonne|nouvelle|meilleure) (?:réponse|version))",
        "Permettez-moi de recommencer depuis le début.",
    ),
    (
        "refocus",
        r"\b(?:reven\w{1,4}|retourn\w{1,4}|passons|venons-en|concentrons-nous|recentrons-nous)(?: \w{1,8}){0,3}? (?:(?:à|sur|au|aux) (?:la |votre |ta |notre |l')?(?:\w{1,12} )?(?:question|sujet|demande|tâche))|\bpour répondre (?:à|enfin|réellement|vraiment)(?: \w{1,4})? (?:votre|la|ta) question|\bvotre (?:vraie |véritable )?question (?:initiale|portait|était|d'origine)",
        "Revenons à votre question.",
    ),
)
SPANISH = _foreign(
    "es",
    (
        "disowning",
        r"\b(?:respuesta|texto|párrafo|contenido|explicación|lo) (?:anterior|de arriba|previ[oa]|que (?:acabo de )?(?:escrib\w{1,4}|dije|puse))[^.\n]{0,50}?\b(?:no|incoheren\w{2,4}|confus[oa]|nada|incorrect[oa]|errón\w{2,3}|sin sentido)\b",
        "La respuesta anterior no tiene sentido.",
    ),
    (
        "disowning",
        r"\b(?:es[ot]|ell?o|esa|esto) no (?:es|era|tiene|responde|fue)(?: \w{1,10}){0,3}? (?:lo que|la pregunta|que ver|pregunta|el tema|correcto)|\b(?:me (?:desvié|he desviado|fui por las ramas|equivoqué|he equivocado|distraje|perdí)|perdí el hilo|entendí mal|fuera de tema|nada que ver con (?:la|tu|su) pregunta)",
        "Me he desviado del tema.",
    ),
    (
        "redo",
        r"\b(?:permíteme|permítame|déjame|déjeme|vamos a|voy a|vuelvo a|volvamos a|intentaré|trataré de)(?: \w{1,8}){0,2}? (?:empezar|comenzar|reformular|intentar\w{0,2}|reescribir|rehacer|responder|explicar\w{0,2})(?: \w{1,10}){0,3}? ?(?:de nuevo|otra vez|desde (?:cero|el principio)|nuevamente|la respuesta|correctamente|bien|mejor|[.:])"
        r"|\b(?:empecemos|comencemos|empiezo|comienzo)(?: \w{1,8}){0,1}? (?:de nuevo|otra vez|desde (?:cero|el principio))|\b(?:segundo|nuevo) intento|\baquí (?:está|va|tienes|tiene) (?:la|una) (?:verdadera |nueva |mejor )?(?:respuesta|versión) (?:correcta|real|corregida|adecuada)",
        "Permíteme empezar de nuevo.",
    ),
    (
        "refocus",
        r"\b(?:volv\w{1,5}|vuelvo|regres\w{1,5}|retom\w{1,5}|vamos|pasemos|centrémonos)(?: \w{1,8}){0,2}? (?:al?|en|la) (?:la |tu |su |nuestra )?(?:\w{1,10} )?(?:pregunta|tema|tarea|cuestión|consulta)|\bpara responder (?:a |realmente a )?(?:tu|su|la) pregunta|\b(?:pregunta|tema|tarea) (?:original|inicial)\b",
        "Volvamos a la pregunta.",
    ),
    (
        "pivot",
        r"\b(?:ahora|bueno|bien|entonces),? (?:sobre|en cuanto a|acerca de|respecto a|vamos con|hablemos de)\b",
        "Ahora, sobre el correo electrónico:",
    ),
)
PORTUGUESE = _foreign(
    "pt",
    (
        "disowning",
        r"\b(?:resposta|texto|parágrafo|conteúdo|explicação|trecho) (?:acima|anterior)[^.\n]{0,50}?\b(?:não|confus[oa]|incoerente|incorret[oa]|errad[oa]|nada|sem sentido|irrelevante)\b",
        "A resposta acima não está clara.",
    ),
    (
        "disowning",
        r"\b(?:isso|isto|aquilo) não (?:é|era|tem|responde|foi)(?: \w{1,10}){0,3}? (?:o que|a pergunta|a ver|pergunta|o tema|o assunto|correto|certo)|\b(?:me (?:desviei|perdi|enganei|distraí)|desviei-me|perdi o fio|fugi do (?:tema|assunto)|saí do (?:tema|assunto)|entendi (?:mal|errado))",
        "Acabei por dizer que me desviei do assunto.",
    ),
    (
        "redo",
        r"\b(?:deixe-me|deixa-me|me deixe|deixa eu|deixe eu|permita-me|vou|vamos)(?: \w{1,8}){0,2}? (?:começar|recomeçar|reformular|tentar|reescrever|refazer|responder|explicar|iniciar)(?: \w{1,10}){0,3}? ?(?:de novo|novamente|outra vez|do zero|do (?:início|começo)|a resposta|corretamente|direito|melhor)"
        r"|\b(?:vou|vamos|deixe-me|permita-me) (?:recomeçar|reformular)|\b(?:recomeçando|segunda tentativa|nova tentativa|começando de novo)\b|\baqui está a (?:verdadeira resposta|resposta (?:correta|certa|real))",
        "Deixe-me começar de novo.",
    ),
    (
        "refocus",
        r"\b(?:volt\w{1,5}|retorn\w{1,5}|retom\w{1,5}|regress\w{1,5}|vamos)(?: \w{1,8}){0,2}? (?:ao|à|a|para a|para o|na) (?:sua |tua |nossa )?(?:\w{1,10} )?(?:pergunta|tema|assunto|tarefa|questão)|\b(?:para )?respond(?:er|endo) (?:à|a|de fato a)(?: sua)? pergunta|\b(?:pergunta|tema|assunto|tarefa) original\b",
        "Voltando à sua pergunta.",
    ),
    (
        "pivot",
        r"\b(?:agora|bem|então),? (?:sobre|quanto ao?|a respeito d[eoa]|vamos (?:falar|ao)|voltando)\b",
        "Agora, sobre email profissional!",
    ),
)
ITALIAN = _foreign(
    "it",
    (
        "disowning",
        r"\b(?:risposta|testo|paragrafo|contenuto|spiegazione|quanto) (?:precedente|(?:qui )?sopra|scritto sopra)[^.\n]{0,50}?\b(?:non|confus[oa]|incoerente|sbagliat[oa]|errat[oa]|nulla|niente|senza senso)\b",
        "La risposta precedente non è chiara.",
    ),
    (
        "disowning",
        r"\b(?:questo|ciò|quello|quella) non (?:è|era|ha|risponde|c'entra)(?: \w{1,10}){0,3}? (?:quello che|ciò che|la domanda|a che fare|nulla|niente|domanda|il tema|corretto|giusto)|\b(?:non c'entra (?:nulla|niente)|(?:mi sono|sono) (?:sbagliat[oa]|andat[oa] fuori tema|pers[oa]|distratt[oa]|confus[oa])|ho (?:perso il filo|divagato|frainteso|capito male)|fuori tema|sto divagando)",
        "Mi sono perso: sono andato fuori tema.",
    ),
    (
        "redo",
        r"\b(?:lasciami|lasciatemi|mi lasci|permettetemi di|permettimi di|fammi|vorrei|proviamo a|provo a)(?: \w{1,8}){0,2}? (?:ricominciare|riprovare|riformulare|riscrivere|rispondere|spiegare|rifare|ripartire)\b|\b(?:ricominciamo|ricomincio|riproviamo|riprovo|ripartiamo|riparto|riformulo|daccapo|da capo|secondo tentativo)\b|\becco la (?:vera risposta|risposta (?:corretta|giusta|vera))",
        "Lasciami ricominciare da capo.",
    ),
    (
        "refocus",
        r"\b(?:torn\w{1,4}|ritorn\w{1,4}|veniamo|passiamo|concentriamoci)(?: \w{1,8}){0,2}? (?:alla|al|sulla|sul|a) (?:tua |sua |vostra |nostra )?(?:\w{1,10} )?(?:domanda|tema|argomento|compito|richiesta)|\bper rispondere (?:davvero |finalmente )?alla (?:tua |sua |vostra )?domanda|\bdomanda (?:originale|iniziale|originaria)\b",
        "Torniamo alla domanda.",
    ),
)
DUTCH = _foreign(
    "nl",
    (
        "disowning",
        r"\b(?:bovenstaande|vorige|eerdere|mijn) (?:\w{1,12} ){0,1}?(?:antwoord|tekst|alinea|uitleg|reactie)[^.\n]{0,50}?\b(?:niet|onduidelijk|verward|onzin|fout|niets|geen)\b|\b(?:afgedwaald|dwaal(?:de)? af|de draad kwijt|heeft niets met (?:je|uw|de) vraag)",
        "Ik ben afgedwaald.",
    ),
    (
        "redo",
        r"\b(?:opnieuw|nogmaals|nog eens|weer) (?:beginnen|proberen|formuleren|starten|uitleggen)|\b(?:begin|probeer|start)(?: \w{1,6}){0,2}? opnieuw|\b(?:overnieuw|nieuwe poging|tweede poging)\b",
        "Laat me opnieuw beginnen.",
    ),
    (
        "refocus",
        r"\bterug naar (?:de|je|uw|het) (?:\w{1,15} )?(?:vraag|onderwerp|opdracht)|\bom (?:je|uw|de) (?:\w{1,15} )?vraag (?:te|echt)",
        "Terug naar de vraag.",
    ),
)
RUSSIAN = _foreign(
    "ru",
    (
        "disowning",
        r"(?:ответ|текст|абзац|сообщение|объяснение|написанное|всё|все)(?: \w{1,14}){0,2}? ?(?:выше|предыдущ\w{2,3})[^.\n]{0,50}?(?:не|бессмыслен\w*|непонят\w*|набор|ошиб\w*|чушь|ерунда|беспоряд\w*)|(?:предыдущий|вышеприведённый|вышеприведенный|приведённый выше|приведенный выше|мой прошлый) (?:ответ|текст|абзац)[^.\n]{0,50}?(?:не|бессмыслен|непонят|набор|ошиб|беспоряд)",
        "Приведённый выше ответ непонятен.",
    ),
    (
        "disowning",
        r"(?:это|она|оно) (?:вообще |совсем |явно )?(?:не то,? (?:что|о чём|о чем)|не относится к|не имеет (?:никакого )?отношения|не отвечает на)|\bя (?:немного |кажется,? |совсем )?(?:отвлёкся|отвлекся|отвлеклась|отклонился|ошибся|ошиблась|запутался|сбился|ушёл от темы|ушел от темы|неправильно понял)",
        "Я отвлёкся от темы.",
    ),
    (
        "redo",
        r"(?:начну|начнём|начнем|начать|попробую|попробуем|отвечу|объясню|сформулирую|повторю|давайте|позвольте)(?: \w{1,12}){0,3}? (?:сначала|заново|ещё раз|еще раз|снова|с начала|с самого начала|по-другому|правильно)\b|(?:вторая|новая) попытка|вот (?:правильный|настоящий|верный) ответ",
        "Позвольте начать сначала.",
    ),
    (
        "refocus",
        r"(?:верн\w{2,5}|возвращ\w{2,6}|перейд\w{2,3})(?: \w{1,10}){0,2}? к (?:\w{1,14} )?(?:вопросу|теме|задаче|делу|сути)|(?:исходн|изначальн|первоначальн|настоящ)\w{2,3} (?:вопрос|тем|задач)|отвечая на (?:ваш |твой )?вопрос|чтобы ответить на (?:ваш |твой )?вопрос|вернёмся|вернемся",
        "Вернёмся к вопросу.",
    ),
)
POLISH = _foreign(
    "pl",
    (
        "disowning",
        r"\b(?:powyższ\w{1,3}|poprzedni\w{0,3}) (?:odpowiedź|tekst|akapit|wyjaśnienie)[^.\n]{0,50}?\b(?:nie|bez sensu|niejasn\w{1,3}|błędn\w{1,3}|bełkot)|\b(?:odbiegłem|odbiegłam|zboczyłem|pomyliłem|pomyliłam|zgubiłem wątek|nie na temat|nie o to pyta\w{1,5})",
        "Odbiegłem od tematu.",
    ),
    (
        "redo",
        r"\b(?:zacznę|zacznijmy|zacząć|spróbuję|spróbujmy|odpowiem|wyjaśnię)(?: \w{1,10}){0,2}? (?:od nowa|od początku|jeszcze raz|ponownie)|\b(?:druga|nowa) próba",
        "Zacznijmy od nowa.",
    ),
    (
        "refocus",
        r"\b(?:wróć\w{0,3}|wracając|wracam|wracajmy|powróćmy|przejdźmy)(?: \w{1,8}){0,2}? do (?:\w{1,14} )?(?:pytania|tematu|zadania|rzeczy)",
        "Wróćmy do pytania.",
    ),
)
TURKISH = _foreign(
    "tr",
    (
        "disowning",
        r"\b(?:yukarıdaki|önceki) (?:cevap|yanıt|metin|paragraf|açıklama)\w{0,4}[^.\n]{0,50}?(?:değil|anlamsız|karışık|yanlış|alakasız|ilgisiz)|konudan (?:saptım|uzaklaştım|çıktım)|konu dışına çık\w{2,4}|soruyla (?:ilgisi|alakası) yok",
        "Yukarıdaki cevap anlamsız.",
    ),
    (
        "redo",
        r"\b(?:baştan|yeniden|tekrar) (?:başla\w{2,8}|dene\w{2,8}|anlat\w{2,8}|yaz\w{2,8}|cevapla\w{2,8}|açıkla\w{2,8})",
        "Baştan başlayayım.",
    ),
    (
        "refocus",
        r"\b(?:soruya|sorunuza|soruna|konuya|asıl konuya|konumuza) (?:geri )?(?:dön\w{2,8}|gel\w{2,8})",
        "Soruya geri dönelim.",
    ),
)
VIETNAMESE = _foreign(
    "vi",
    (
        "disowning",
        r"(?:câu trả lời|nội dung|đoạn|phần|văn bản|thông tin)(?: \w{1,8}){0,2}? (?:trên|trước|vừa rồi)[^.\n]{0,50}?(?:không|vô nghĩa|lộn xộn|sai|nhầm|lạc)|(?:lạc đề|tôi (?:đã )?(?:nhầm|hiểu sai|hiểu nhầm|đi xa)|không liên quan (?:gì )?đến câu hỏi|không phải (?:là )?(?:điều|những gì|câu) bạn hỏi)",
        "Tôi đã lạc đề.",
    ),
    (
        "redo",
        r"(?:tôi|mình|chúng ta|hãy|xin|sẽ|để)(?: \w{1,8}){0,3}? (?:bắt đầu|trả lời|viết|giải thích|trình bày|thử|diễn đạt|làm)(?: \w{1,8}){0,3}? lại\b|(?:đây|dưới đây) (?:là|mới là) câu trả lời (?:đúng|chính xác|thật)",
        "Để tôi bắt đầu lại.",
    ),
    (
        "refocus",
        r"(?:quay|trở)(?: trở)?(?: lại| về)+(?: với| về)? (?:câu hỏi|chủ đề|vấn đề|nhiệm vụ|đề tài)|để trả lời câu hỏi",
        "Quay lại câu hỏi của bạn.",
    ),
)
INDONESIAN = _foreign(
    "id",
    (
        "disowning",
        r"\b(?:jawaban|teks|penjelasan|tulisan|paragraf) (?:di atas|sebelumnya|saya tadi)[^.\n]{0,50}?\b(?:tidak|kacau|salah|membingungkan|bukan)\b|\b(?:saya (?:malah )?(?:melantur|melenceng|salah paham)|keluar dari topik|tidak ada hubungannya dengan pertanyaan)",
        "Jawaban di atas tidak jelas.",
    ),
    (
        "redo",
        r"\b(?:mari|saya|izinkan|biar)(?: \w{1,10}){0,3}? (?:mulai|coba|ulangi|jawab|jelaskan|memulai|menjawab|menjelaskan|mengulang)(?: \w{1,10}){0,2}? (?:lagi|ulang|kembali|dari awal)\b",
        "Mari kita mulai lagi.",
    ),
    ("refocus", r"\bkembali ke (?:pertanyaan|topik|tugas|pokok)", "Kembali ke pertanyaan."),
)
CHINESE = _foreign(
    "zh",
    (
        "disowning",
        r"(?:上面|以上|上述|前面|刚才|之前|刚刚)的?(?:这些|这段|那段|所有)?(?:的)?(?:回答|答案|内容|文字|回复|段落|解释|说明|话|描述)[^。\n]{0,25}?(?:不|错|乱|无关|没有|偏题|跑题|混乱|无意义|有误|离题)",
        "上面的回答不清楚。",
    ),
    (
        "disowning",
        r"(?:跑题|离题|偏题|扯远|说偏|答非所问|搞错|弄错|理解错|误解)了|[这那]?(?:与|和|跟)(?:您|你)?的?(?:问题|题目|主题|提问)(?:完全|毫|并)?(?:没有?关|无关|不相关|没关系)|(?:并)?不是(?:您|你)(?:所)?(?:问|要|想)",
        "抱歉，我跑题了。",
    ),
    (
        "redo",
        r"(?:让我|我来|我们|我将|我会|我|请允许我|下面|现在)?(?:们)?重新(?:开始|回答|来|解释|说明|整理|组织|写|作答|描述)|再(?:来|试|答|说|解释)一(?:次|遍)|从头(?:开始|再来|说起)|换(?:一种|个)(?:方式|说法)|(?:正确|真正|修改后|更正后|修正后)的?(?:回答|答案|版本)(?:是|应该|如下|：|:)",
        "让我重新开始。",
    ),
    (
        "refocus",
        r"(?:回到|返回|回归|转回|说回)(?:到)?(?:您|你|我们|原来|最初|原本|正|本|刚才)?(?:的)?(?:原来的|最初的|原本的)?(?:问题|正题|主题|题目|话题|任务|题)|言归正传|(?:现在|下面|接下来)(?:来|我来|我将|让我)?(?:回答|解答)(?:您|你)?的?(?:问题|提问)",
        "言归正传，更换轮胎的步骤如下。",
    ),
)
JAPANESE = _foreign(
    "ja",
    (
        "disowning",
        r"(?:上記|上|以上|前|先ほど|さっき|先程|これまで)の?(?:回答|答え|内容|文章|説明|文|テキスト|話)[^。\n]{0,25}?(?:ない|ません|間違|誤|無関係|意味不明|混乱|支離滅裂|関係)",
        "上記の回答は意味不明です。",
    ),
    (
        "disowning",
        r"(?:話|脱線|本題|話題|質問)(?:が|から|を)?(?:それて|逸れて|脱線して|外れて|ずれて|取り違え|誤解して|勘違い)|脱線しま|(?:ご)?質問(?:と|に)は?(?:全く|まったく)?(?:関係|答えて)(?:が|は)?(?:ない|ありません|いません|ございません)",
        "話がそれてしまいました。",
    ),
    (
        "redo",
        r"(?:やり直し|書き直し|答え直し|言い直し|説明し直し|回答し直し|仕切り直し|最初から|初めから|始めから|もう一度|改めて|あらためて)(?:ます|させて|しま|説明|回答|お答え|始め|やり|書|て|ご|、)",
        "もう一度最初から説明します。",
    ),
    (
        "refocus",
        r"(?:本題|質問|話|元の話|話題|元の質問|ご質問|テーマ)(?:に|を)(?:戻|もど|立ち返|お答え|答え)|閑話休題|さて、本題",
        "本題に戻ります。",
    ),
)
KOREAN = _foreign(
    "ko",
    (
        "disowning",
        r"(?:위의?|앞의?|이전|앞선|방금) ?(?:답변|내용|글|설명|텍스트|대답)[^.\n]{0,30}?(?:않|없|아닙|잘못|틀|엉망|무관|이상)|주제(?:에서|를) (?:벗어|이탈)|(?:질문|주제)(?:과|와)는? (?:전혀 |아무 )?(?:관련|상관|관계)(?:이|가)? ?없|딴 ?(?:얘기|이야기)",
        "위의 답변은 질문과 관련이 없습니다.",
    ),
    (
        "redo",
        r"(?:다시|처음부터)(?: 다시| 제대로| 한 ?번| 처음부터){0,2} (?:시작|설명|답변|말씀|작성|답|해 ?보|알려|정리|쓰)",
        "처음부터 다시 시작하겠습니다.",
    ),
    (
        "refocus",
        r"(?:질문|본론|주제|원래 (?:질문|주제|이야기))(?:으로|로) (?:다시 )?(?:돌아|넘어)",
        "질문으로 돌아가겠습니다.",
    ),
)
ARABIC = _foreign(
    "ar",
    (
        "disowning",
        r"(?:الإجابة|الاجابة|النص|الرد|الكلام|الفقرة)(?: \w{1,10}){0,1}? (?:أعلاه|السابقة?|المذكورة?)[^.\n]{0,50}?(?:غير|ليس|لا |خاطئ|خطأ|لم)|(?:خرجت عن الموضوع|ابتعدت عن الموضوع|أخطأت|لا علاقة له بسؤالك|لا علاقة لها? بالسؤال|ليس هذا ما سألت)",
        "لقد خرجت عن الموضوع.",
    ),
    (
        "redo",
        r"(?:دعني|دعوني|سأبدأ|لنبدأ|سأعيد|سأحاول|اسمح لي)(?: \w{1,10}){0,3}? ?(?:من جديد|من البداية|مرة أخرى|مجددا|مجدداً|الإجابة|الصياغة)",
        "دعني أبدأ من جديد.",
    ),
    (
        "refocus",
        r"(?:لنعد|نعود|أعود|بالعودة|عودة|لنرجع|العودة|دعنا نعود)(?: \w{1,8}){0,1}? إلى (?:\w{1,8} )?(?:السؤال|سؤالك|الموضوع|المهمة)",
        "لنعد إلى السؤال.",
    ),
)
HINDI = _foreign(
    "hi",
    (
        "disowning",
        r"(?:ऊपर|उपरोक्त|पिछला|पिछले)[^।\n]{0,30}?(?:उत्तर|जवाब|पाठ|लेख)[^।\n]{0,40}?(?:नहीं|गलत|ग़लत|अस्पष्ट|बेकार)|विषय से (?:भटक|हट)|मैं भटक गय",
        "ऊपर दिया गया उत्तर स्पष्ट नहीं है।",
    ),
    (
        "redo",
        r"(?:फिर से|दोबारा|नए सिरे से|पुनः|शुरू से)(?: \S{1,10}){0,2}? ?(?:शुरू|शुरुआत|बता|समझा|उत्तर|जवाब|कोशिश|प्रयास|लिख)",
        "मुझे फिर से शुरू करने दें।",
    ),
    ("refocus", r"(?:सवाल|प्रश्न|विषय|मुद्दे) पर (?:वापस|लौट|आते|आता)", "अब प्रश्न पर वापस आते हैं।"),
)

PHRASES: tuple[Phrase, ...] = (
    *DISOWNING, *REDO, *REFOCUS, *INADEQUACY, *PIVOT, *PRETEXT,
    *GERMAN, *FRENCH, *SPANISH, *PORTUGUESE, *ITALIAN, *DUTCH, *RUSSIAN, *POLISH, *TURKISH,
    *VIETNAMESE, *INDONESIAN, *CHINESE, *JAPANESE, *KOREAN, *ARABIC, *HINDI,
)  # fmt: skip
