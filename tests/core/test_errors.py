"""Messages: what a terminal would act on is escaped, and long values are cut."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput, listed, nearest, shown, visible

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(st.text(st.characters()))
def test_nothing_visible_is_a_control_character(text: str) -> None:
    made = visible(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in BIDI for c in made)
    made.encode("utf-8")
    if all(unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and c not in BIDI for c in text):
        assert made == text


def test_how_they_are_escaped() -> None:
    assert visible("a\x1b[31m\n\x9b\u202e\ud800é\u200d") == "a\\x1b[31m\\n\\x9b\\u202e\\ud800é\u200d"


def test_the_message_has_three_lines_whatever_is_in_it() -> None:
    error = BadInput("a\nb", "c\x1b", "d\r")
    assert str(error) == "a\\nb\n  expected: c\\x1b\n  fix: d\\r"
    assert (error.found, error.expected, error.fix) == ("a\nb", "c\x1b", "d\r")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("short", "'short'"),
        ("x" * 61, "'" + "x" * 60 + "'... (61 characters)"),
        (b"y" * 1000, "b'" + "y" * 60 + "'... (1,000 bytes)"),
        ([1, 2], "[1, 2]"),
        (list(range(100)), str(list(range(100)))[:60] + "..."),
    ],
)
def test_long_values_are_cut(value: object, words: str) -> None:
    assert shown(value) == words


def test_many_names_are_counted() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(map(str, range(1000)), 3) == "'0', '1', '2' and 997 more"


def test_what_is_too_long_to_be_a_slip_is_not_compared() -> None:
    assert nearest("txet", ["text", "x" * 10**7]) == "text"
    assert nearest("x" * 10**7, ["text"]) is None
