"""Faults of single texts: each kind is found where it was planted, and ordinary texts have none."""

import numpy as np
import pytest

import checking
from checking import of_kind
from conftest import SENTENCES
from snapfit.checks.texts import survey_texts, text_findings

PLAIN = [
    *SENTENCES,
    "Voilà… “c'est ça” – l'été, naïve café (50 €)",
    "if a < b and b > c then x<y>z",
    "R&D at AT&T; 3 < 5",
    "São Paulo, Ângela, À bientôt",
    "👨‍👩‍👧 family 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "می‌خواهم",
    "line one\nline two\tand a tab",
    "你好，世界！",
    "1",
]

BROKEN = {
    "empty_text": ["", " ", "\t\n", "\u200b", "\u3000"],
    "control_characters": ["bell\x07", "c1 \x85 next", "null\x1f"],
    "invisible_characters": ["zero\u200bwidth", "\ufeffmark", "soft\u00adhyphen", "left\u202eright"],
    "mojibake": [
        "cafÃ©",
        "itâ€™s",
        "broken \ufffd sign",
        "锟斤拷",
        "smile ðŸ˜€",
        "ä½ å¥½ä¸–ç•Œ",
        "50 Â°C",
        "ï»¿start",
    ],
    "html": ["a<br />b", "<p>x</p>", "fish &amp; chips", "&#39;quoted&#39;", '<a href="x">link</a>', "&#x27;"],
    "no_words": ["?!", "...", "😀😀", "—"],
}


def found_in(texts: list[str]) -> dict[str, list[int]]:
    rows = [("a word", "a"), *((text, "b") for text in texts)]
    split = checking.splits_of(train=rows)["train"]
    return {one.kind: checking.numbers(one) for one in text_findings(split, survey_texts(split))}


def test_ordinary_texts_have_no_fault() -> None:
    assert found_in(PLAIN) == {}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_each_fault_is_found_in_its_rows(kind: str) -> None:
    texts = BROKEN[kind]
    found = found_in([text for broken in texts for text in (broken, "an ordinary text")])
    assert found[kind] == [2 + 2 * i for i in range(len(texts))]
    assert set(found) <= {kind, "invisible_characters"}


def test_real_mojibake_is_what_the_wrong_decoding_gives() -> None:
    texts = ["naïve façade", "“quoted”", "東京タワー", "Привет, мир"]
    broken = [text.encode("utf-8").decode("cp1252", errors="replace") for text in texts]
    assert found_in(broken)["mojibake"] == [2, 3, 4, 5]


def test_one_text_of_a_pair_may_be_empty() -> None:
    split = checking.splits_of(train=[("a", "b", "x"), ("", "b", "y"), ("", " ", "x")])["train"]
    found = {one.kind: checking.numbers(one) for one in text_findings(split, survey_texts(split))}
    assert found == {"half_pair": [2], "empty_text": [3]}


def test_a_text_far_longer_than_all_others() -> None:
    texts = [f"a text of some words {i}" for i in range(400)]
    assert "extreme_length" not in found_in([*texts, "x" * 1500])
    found = found_in([*texts, "x" * 2500])
    assert found["extreme_length"] == [402]


def test_the_fault_is_shown_with_what_is_beside_it() -> None:
    split = checking.splits_of(train=[("a" * 200 + " it\u200bis here", "x"), ("b", "y")])["train"]
    one = of_kind(text_findings(split, survey_texts(split)), "invisible_characters")
    assert one.examples[0].texts[0].startswith("…")
    assert "it\\u200bis here" in one.examples[0].texts[0]


def test_lengths_are_those_of_numpy() -> None:
    texts = ["a" * n for n in (1, 2, 3, 50, 7, 9)]
    split = checking.splits_of(train=checking.rows(texts))["train"]
    lengths = survey_texts(split).lengths()
    assert (lengths["least"], lengths["most"], lengths["mean"]) == (1, 50, 12.0)
    assert lengths["median"] == np.median([1, 2, 3, 50, 7, 9])
    assert sum(lengths["histogram"]) == 6
