"""The answer in the text: planted words, names, numbers and beginnings are found, ordinary tables have none."""

import random
from typing import Any

import numpy as np
import pytest

import checking
import toys
from checking import of_kind
from snapfit.checks.findings import Finding
from snapfit.checks.hints import features, hint_findings, sample_rows

FILLER = toys.FILLER


def found_in(rows: Any) -> list[Finding]:
    splits, index = checking.indexed(train=rows)
    return list(hint_findings(splits["train"], index))


def table(n: int = 90, *, before: Any = None, seed: int = 0) -> list[tuple[str, str]]:
    """Rows whose words say nothing of their label; before(i, label): what each text begins with."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = "xyz"[rng.randrange(3)]
        words = " ".join(rng.choices(FILLER, k=8))
        rows.append((f"{before(i, label)} {words}" if before else words, label))
    return rows


def test_an_ordinary_table_gives_nothing_away() -> None:
    assert found_in(table()) == []
    assert found_in([{"text": row[0], "score": i / 7} for i, row in enumerate(table())]) == []


def test_a_word_that_comes_with_a_label_is_found_with_its_figures() -> None:
    rows = table(before=lambda i, label: {"x": "alpha", "y": "beta", "z": "gamma"}[label])
    one = of_kind(found_in(rows), "telling_word")
    assert (one.level, one.count) == ("warning", 90)
    assert set(one.details["labels"]) == {"x", "y", "z"}
    assert all(v["precision"] == 1.0 and v["coverage"] == 1.0 for v in one.details["labels"].values())
    assert checking.numbers(one) == list(range(1, 91))


def test_a_word_for_one_label_of_many_is_a_note() -> None:
    rng = random.Random(0)
    rows = [(" ".join(rng.choices(FILLER, k=8)), str(i % 10)) for i in range(400)]
    rows = [(f"token {text}" if label == "3" else text, label) for text, label in rows]
    one = of_kind(found_in(rows), "telling_word")
    assert (one.level, list(one.details["labels"])) == ("note", ["3"])


def test_a_beginning_that_is_no_word_counts_too() -> None:
    rows = table(before=lambda i, label: {"x": "=>", "y": "##", "z": "**"}[label])
    assert "begins with" in of_kind(found_in(rows), "telling_word").details["labels"]["x"]["word"]


def test_a_labels_own_name_in_its_texts() -> None:
    names = {"x": "refund_request", "y": "sign up", "z": "3"}
    rows = [(f"{text} {names[label].replace('_', ' ')}", names[label]) for text, label in table()]
    one = of_kind(found_in(rows), "label_in_text")
    assert {label: value["word"] for label, value in one.details["labels"].items()} == {
        "refund_request": "refund request",
        "sign up": "sign up",
    }


def test_a_name_that_is_part_of_longer_ones_is_told_from_them() -> None:
    names = {"x": "rate", "y": "exchange_rate", "z": "wrong exchange rate"}
    rows = [(f"{text} ({names[label].replace('_', ' ')})", names[label]) for text, label in table()]
    one = of_kind(found_in(rows), "label_in_text")
    assert set(one.details["labels"]) == {"rate", "exchange_rate", "wrong exchange rate"}
    assert one.count == 90


def test_chinese_labels_are_found_within_their_texts() -> None:
    rows = [(f"{'体育' if i % 2 else '财经'}新闻{i}号标题内容", "体育" if i % 2 else "财经") for i in range(80)]
    found = found_in(rows)
    assert of_kind(found, "label_in_text").level == "warning"
    assert of_kind(found, "telling_word").count == 80


def test_a_number_of_its_own_in_each_text_and_whether_it_tells_the_label() -> None:
    mixed = of_kind(found_in(table(before=lambda i, label: f"#{1000 + i}")), "id_in_text")
    assert (mixed.count, "tells the label" in mixed.text) == (90, False)
    rows = sorted(table(), key=lambda row: row[1])
    told = of_kind(found_in([(f"{text} id-{i}", label) for i, (text, label) in enumerate(rows)]), "id_in_text")
    assert "the last word" in told.text
    assert "it tells the label" in told.text


def test_another_columns_own_value_in_the_text() -> None:
    rows = [
        {"text": f"{t} ref abc{i:04d}xyz end", "label": label, "key": f"abc{i:04d}"}
        for i, (t, label) in enumerate(table())
    ]
    assert "column 'key'" in of_kind(found_in(rows), "id_in_text").text


def test_texts_that_begin_alike() -> None:
    one = of_kind(found_in(table(before=lambda i, label: "Sent from my telephone:")), "same_beginning")
    assert one.count == 90


def test_features_are_words_pairs_of_han_and_edges() -> None:
    assert features("a") == {"a"}
    assert features("Good morning 世界杯") >= {
        "good",
        "morning",
        "世界",
        "界杯",
        "begins with 'Good'",
        "ends with ' 世界杯'",
    }


@pytest.mark.parametrize(("n", "most"), [(10, 20), (5000, 1024), (100_000, 50_000)])
def test_samples_are_ascending_rows_of_whole_blocks(n: int, most: int) -> None:
    rows = sample_rows(n, most)
    assert len(rows) <= most or n <= most
    assert len(rows) >= min(n, most) - 1024
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < n
    assert np.array_equal(rows, sample_rows(n, most))
