"""Texts cut up to be shown: nothing is lost, nothing acts, and the strongest words come first."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.runtime.explanations import (
    Attribution,
    Explanation,
    LabelExplanation,
    Unread,
    segments,
    strengths,
    strongest,
    visible,
)

TEXT = "Good film,\n a dull\x1b[31m end and so on"


def word(text: str, start: int, value: float = 0.0, part: int = 0) -> Attribution:
    return Attribution(text, start, start + len(text), part, value, (text.lower(),))


WORDS = (word("Good", 0, 2.0), word("film", 5, -0.1), word("dull", 14, -1.0))
LABEL = LabelExplanation("fine", 0.9, 2.0, 1.0, WORDS)


def explanation(text: object = TEXT, label: LabelExplanation = LABEL, *unread: Unread) -> Explanation:
    return Explanation(text, "fine", "occlusion", "log-odds", "[MASK]", (label,), unread, 5)  # type: ignore[arg-type]


def test_a_text_is_cut_at_its_words_and_nothing_is_lost() -> None:
    cut = Unread(24, len(TEXT), 0)
    (part,) = segments(explanation(TEXT, LABEL, cut), LABEL, keep="\n")
    assert "".join(one.text for one in part) == visible(TEXT, keep="\n")
    assert [(one.text, one.word) for one in part if one.word] == [(one.text, one) for one in WORDS]
    assert [one.text for one in part if one.unread] == [TEXT[24:]]
    assert [one.text for one in part if one.word is None] == [" ", ",\n a ", "\\x1b[31m ", TEXT[24:]]


def test_tokens_take_the_place_of_words_where_there_are_any() -> None:
    tokens = (word("Go", 0, 1.0), word("od", 2, 1.0), Attribution("", 4, 4, 0, 0.5, ("\u2581",)))
    (part,) = segments(explanation(), LabelExplanation("fine", 0.9, 2.0, 1.0, WORDS, tokens))
    assert [one.text for one in part if one.word] == ["Go", "od", "\u2581"]


def test_tokens_that_are_bytes_of_one_character_show_it_once() -> None:
    tokens = tuple(Attribution("é", 0, 1, 0, 0.1, (piece,)) for piece in ("Ã", "©"))
    (part,) = segments(explanation("éa"), LabelExplanation("fine", 0.9, 2.0, 1.0, (), tokens))
    assert [one.text for one in part] == ["é", "©", "a"]


def test_both_texts_of_a_pair() -> None:
    words = (word("good", 0, 1.0), word("end", 2, 2.0, part=1))
    label = LabelExplanation("fine", 0.9, 2.0, 1.0, words)
    first, second = segments(explanation(("good one", "a end"), label, Unread(5, 8, 0)), label)
    assert [one.text for one in first] == ["good", " ", "one"]
    assert [one.text for one in second] == ["a ", "end"]
    assert (first[2].unread, second[1].word) == (True, words[1])


def test_the_strongest_come_first_and_what_did_nothing_is_left_out() -> None:
    words = [word("a", 0, 0.5), word("b", 2, -2.0), word("c", 4, 0.0), word("d", 6, 1.0)]
    assert [one.text for one in strongest(words, 5)] == ["b", "d", "a"]
    assert [one.text for one in strongest(words, 1)] == ["b"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([0.0, 0.0], [0, 0]),
        ([1.0, -1.0], [3, -3]),
        ([10.0, 7.5, 7.4, 4.0, 3.9, 1.5, 1.4, -1.4, -4.0, 0.0], [3, 3, 2, 2, 1, 1, 0, 0, -2, 0]),
    ],
)
def test_strengths_are_shares_of_the_strongest(values: list[float], expected: list[int]) -> None:
    assert strengths([word("a", 0, value) for value in values]) == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve, 今天, 👍🏽 and 👨‍👩‍👧", "plain, naïve, 今天, 👍🏽 and 👨‍👩‍👧"),
        ("\x1b[2J\x07\x00\x7f\x9b", r"\x1b[2J\x07\x00\x7f\x9b"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202eright\u2066 \u200f\ufeff\u2028", r"\u202eright\u2066 \u200f\ufeff\u2028"),
        ("[bold]a[/bold] <b>", "[bold]a[/bold] <b>"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_would_do_something_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_that_acts_comes_through(text: str) -> None:
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.category(one) in hidden and one not in "\u200c\u200d" for one in visible(text))
    assert visible(visible(text)) == visible(text)
    kept = visible("a\nb\x1b" + text, keep="\n")
    assert kept.startswith("a\nb\\x1b")
