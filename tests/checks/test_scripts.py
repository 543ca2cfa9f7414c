"""Scripts of characters against Unicode's own names, and tables in several of them."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

import checking
from checking import of_kind
from snapfit.checks.scripts import SCRIPTS, main_scripts, script_counts, script_findings, script_shares

NAMES = {
    "Latin": "LATIN",
    "Greek": "GREEK",
    "Cyrillic": "CYRILLIC",
    "Armenian": "ARMENIAN",
    "Hebrew": "HEBREW",
    "Arabic": "ARABIC",
    "Thai": "THAI",
    "Tibetan": "TIBETAN",
    "Myanmar": "MYANMAR",
    "Georgian": "GEORGIAN",
    "Hangul": "HANGUL",
    "Han": "CJK UNIFIED",
}


@pytest.mark.parametrize("script", list(NAMES))
def test_letters_are_of_the_script_that_their_name_says(script: str) -> None:
    letters = [
        chr(code)
        for code in range(0x10000)
        if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lo")
        and unicodedata.name(chr(code), "").startswith(NAMES[script])
    ]
    counts = script_counts(pa.array(letters, pa.large_string()))
    assert (counts[:, SCRIPTS.index(script)] == 1).mean() > 0.9  # historic extensions are left out


def test_counts_add_up_to_the_characters() -> None:
    texts = ["Hello, мир 世界!", "", "123 ?"]
    counts = script_counts(pa.array(texts, pa.large_string()))
    assert counts.sum(axis=1).tolist() == [len(text) for text in texts]
    named = dict(zip(SCRIPTS, counts[0].tolist(), strict=True))
    assert (named["Latin"], named["Cyrillic"], named["Han"], named["none"]) == (5, 3, 2, 4)


def test_a_row_is_in_the_script_of_most_letters_and_japanese_is_kana() -> None:
    texts = ["hello", "привет x", "今日は天気がいい", "天気", "42", "العربية", "हिन्दी"]
    split = checking.splits_of(train=checking.rows(texts))["train"]
    assert [SCRIPTS[i] for i in main_scripts(split)] == "Latin Cyrillic Kana Han none Arabic Indic".split()


def test_rare_scripts_and_shifted_ones_are_told_of() -> None:
    train = checking.rows([f"an english text {i}" for i in range(40)] + ["русский текст"])
    test = checking.rows([f"中文文本 {i}" for i in range(5)])
    splits = checking.splits_of(train=train, test=test)
    scripts = {name: main_scripts(split) for name, split in splits.items()}
    found = list(script_findings(splits, scripts))
    assert checking.numbers(of_kind(found, "script_mix")) == [41]
    assert of_kind(found, "script_shift", "test").details["apart"] == 1.0
    assert script_shares(scripts["train"]) == {"Latin": round(40 / 41, 6), "Cyrillic": round(1 / 41, 6)}


def test_an_even_mix_is_no_finding() -> None:
    splits = checking.splits_of(train=checking.rows(["english text", "русский текст"] * 10))
    scripts = {"train": main_scripts(splits["train"])}
    assert list(script_findings(splits, scripts)) == []
    assert script_shares(np.zeros(3, dtype=np.uint8)) == {}
