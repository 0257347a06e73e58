import time
import unicodedata

import pytest

from esr.reporting.untrusted import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü 漢字 עברית 🙂 a\u00a0b\u3000c", "plain, äöü 漢字 עברית 🙂 a\u00a0b\u3000c"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\x00b\x7fc\x9bd", "a\\x00b\\x7fc\\x9bd"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\u202eabc\u2069", "\\u202eabc\\u2069"),
        ("zero\u200bwidth\ufeff\u00ad", "zero\\u200bwidth\\ufeff\\xad"),
        ("\ud800x\udfff", "\\ud800x\\udfff"),
        ("\u2028\ue000\U000e0041", "\\u2028\\ue000\\U000e0041"),
        ("", ""),
    ],
)
def test_what_is_not_plainly_visible_is_escaped(text, shown):
    assert printable(text) == shown


def test_lines_keeps_line_feeds_and_tabs_only():
    assert printable("a\n\tb\r\x0b", lines=True) == "a\n\tb\\r\\x0b"


def test_every_character_comes_out_visible_and_encodable():
    everything = "".join(chr(code) for code in range(0x110000))
    shown = printable(everything)
    shown.encode("utf-8")
    left = {unicodedata.category(c) for c in set(shown)}
    assert not left & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_twice_is_once():
    text = "a\x1b\u202e\ud800\n\\x1b"
    assert printable(printable(text, lines=True), lines=True) == printable(text, lines=True)


def test_a_limit_says_what_it_left_out():
    assert printable("abcdef", 3) == "abc… [+3 characters]"
    assert printable("abc", 3) == "abc"
    assert printable("x" * 1_000_000, 10) == "x" * 10 + "… [+999,990 characters]"


def test_a_long_line_is_quick():
    start = time.process_time()
    printable("\x1bx" * 500_000, 4000)
    assert time.process_time() - start < 0.5


def test_other_values_are_their_text():
    assert printable(12.5) == "12.5"
