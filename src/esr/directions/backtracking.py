"""Backtracking latents: those whose label speaks of taking something back (METHOD section 5, "activations").

Found by keywords, as in the published study, which names self-correction, apology and mistake and leaves errors of
software out; the lists are our own, and English. A label is what somebody or some model wrote about a latent: it
selects what to look at and is no evidence of what the latent does.

Words with many senses count only in the one meant here: "correct" of oneself or of something earlier, "restart" of a
phrase or an answer, "wait" as a word of its own in a list or in quotes. Whatever keyword it holds, a label on software,
on spelling, or on mistakes as a topic is left out, and ``Match.excluded_by`` says why.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

READ = 500
"""Characters of a label that are read: labels are short, and whatever stands in a file is untrusted."""

_EARLIER = r"(?:own|previous|earlier|prior|initial|preceding|last)"
_SAID = r"(?:answers?|responses?|repl(?:y|ies)|explanations?|sentences?|statements?|claims?|words|remarks?|attempts?)"

KEYWORDS: tuple[tuple[str, str], ...] = (
    (
        "self-correction",
        r"\bself[- ]?correct\w*|\bcorrect\w* (?:it|my|your|him|her|one|our|them)sel(?:f|ves)\b"
        rf"|\b(?:to correct|correct(?:s|ed|ing|ions?)) (?:[\w']+ ){{0,3}}{_EARLIER}\b"
        r"|\bcorrections? (?:and|or) clarif\w*",
    ),
    ("apology", r"\bapolog(?:y|ies|i[sz]e[sd]?|i[sz]ing|etic\w*)\b|\bsorry\b"),
    ("mistake", r"\bmistakes?\b|\bmisspoke\b|\bmisspeaking\b|\boops\b|\bwhoops\b"),
    ("error", r"\b(?:admit|acknowledg|recogni[sz]|notic|reali[sz])\w* (?:[\w']+ ){0,3}(?:errors?|wrong|fault)\b"),
    ("retraction", rf"\b(?:retract|withdraw|disown|disavow)\w* (?:[\w']+ ){{0,3}}{_SAID}\b"),
    ("backtracking", r"\bback-?track\w*|\bchang\w* (?:one's|its|their|his|her|my) minds?\b"),
    ("reconsideration", r"\breconsider\w*|\bre-?think(?:ing|s)?\b|\bsecond thoughts?\b"),
    ("rephrasing", r"\brephras\w*|\breword\w*|\breformulat\w*"),
    (
        "restart",
        rf"\brestart phrases?\b|\brestart\w* (?:[\w']+ ){{0,2}}{_SAID}\b"
        r"|\bstart(?:s|ing)? (?:over|again|afresh)\b|\bbegin(?:s|ning)? (?:again|anew)\b",
    ),
    ("interruption", r"""(?:^|[:,'"(] ?)(?:wait|hold on|hmm+)(?:$|[,'")!])"""),
)
"""Name -> pattern over a folded label; a latent is found by the first that matches."""

EXCLUSIONS: tuple[tuple[str, str], ...] = (
    (
        "software",
        r"\bcod(?:e|es|ing)\b|\bbugs?\b|\bbuggy\b|\bdebug\w*|\bsoftware\b|\bprogram(?:s|ming|mers?)?\b|\bexceptions?\b"
        r"|\bstack ?traces?\b|\bsyntax\b|\bcompil(?:e|er|ing|ation)\w*|\brun-?time\b|\bapis?\b|\bhttps?\b|\bsql\b"
        r"|\bpython\b|\bjava(?:script)?\b|\bdatabases?\b|\balgorithms?\b|\bgit\b|\bservers?\b"
        r"|\berror (?:messages?|handling|codes?|logs?)\b|\berror[- ]correct\w*",
    ),
    ("spelling", r"\bspell(?:ing|ings|check\w*)?\b|\bgramma(?:r|tical)\b|\btypos?\b|\bproof-?read\w*"),
    ("mistakes as a topic", r"\b(?:avoid|prevent|common|learn)\w* (?:[\w']+ ){0,3}mistakes?\b|\bby mistake\b"),
    ("other senses", r"\bsorry (?:state|sight)\b|\bbacktrack\w* (?:search|trail)\w*"),
)
"""Reason -> pattern: a label that matches one is left out."""

_KEYWORDS = tuple((name, re.compile(pattern)) for name, pattern in KEYWORDS)
_EXCLUSIONS = tuple((name, re.compile(pattern)) for name, pattern in EXCLUSIONS)


@dataclass(frozen=True)
class Match:
    """A label with a keyword."""

    latent: int
    keyword: str
    """Name of the first keyword that matches."""
    excluded_by: str
    """Reason of the exclusion; empty when the latent counts as a backtracking latent."""


def keyword_matches(labels: Mapping[int, str]) -> tuple[Match, ...]:
    """Every latent whose label holds a keyword, by latent; ``labels`` maps latents to untrusted text."""
    found = []
    for latent in sorted(labels):
        folded = _folded(labels[latent])
        keyword = _first(_KEYWORDS, folded)
        if keyword:
            found.append(Match(latent, keyword, _first(_EXCLUSIONS, folded)))
    return tuple(found)


def backtracking_latents(labels: Mapping[int, str]) -> dict[int, str]:
    """The latents that count, by latent, each with its keyword."""
    return {match.latent: match.keyword for match in keyword_matches(labels) if not match.excluded_by}


def _first(patterns: tuple[tuple[str, re.Pattern[str]], ...], text: str) -> str:
    return next((name for name, pattern in patterns if pattern.search(text)), "")


def _folded(label: str) -> str:
    """Lower case, compatibility forms made plain, curly quotes straight, runs of white space single."""
    text = unicodedata.normalize("NFKC", label[:READ]).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(text.split())
