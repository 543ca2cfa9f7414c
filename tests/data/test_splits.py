"""The validation split: duplicates together, strata in proportion, every label in training, the same each time."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.records import Records, read_records
from snapfit.data.splits import train_valid_split

WORDS = st.sampled_from(["a", "A ", "b", "c", "straße", "STRASSE", "caf\u00e9", "cafe\u0301", "d", "e", "f"])


def records_of(rows: list[tuple[Any, ...]], task: str = "auto") -> Records:
    return read_records([tuple(row) for row in rows], task=task)


def key(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().casefold()


def split(records: Records, fraction: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    task = records.columns.task
    return train_valid_split(records, task, fraction=fraction, seed=seed)


def try_split(records: Records, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        return split(records, fraction, seed)
    except BadInput:
        assume(False)
        raise


@given(st.lists(st.tuples(WORDS, st.sampled_from("xyz")), min_size=2, max_size=60), st.integers(0, 9))
def test_no_text_is_on_both_sides_and_no_label_leaves_training(rows: list[tuple[str, str]], seed: int) -> None:
    records = records_of(rows)
    train, valid = try_split(records, 0.3, seed)
    assert sorted([*train, *valid]) == list(range(len(rows)))
    assert train.dtype == valid.dtype == np.int64
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    assert not {key(rows[i][0]) for i in train} & {key(rows[i][0]) for i in valid}
    assert {rows[i][1] for i in train} == {label for _, label in rows}
    again = split(records, 0.3, seed)
    assert (again[0] == train).all()
    assert (again[1] == valid).all()


@given(
    st.lists(st.lists(st.sampled_from("vwxyz"), max_size=3, unique=True), min_size=3, max_size=50),
    st.integers(0, 9),
)
def test_every_label_of_many_stays_in_training(labels: list[list[str]], seed: int) -> None:
    assume(any(labels))
    records = records_of([(f"text {i}", row) for i, row in enumerate(labels)], "multi")
    train, _ = try_split(records, 0.5, seed)
    assert {x for i in train for x in labels[i]} == {x for row in labels for x in row}


@given(
    st.lists(st.integers(2, 40), min_size=2, max_size=6),
    st.sampled_from([0.1, 0.2, 1 / 3, 0.5]),
    st.integers(0, 99),
)
def test_labels_have_their_share_to_within_a_group(sizes: list[int], fraction: float, seed: int) -> None:
    labels = [f"label {i}" for i, size in enumerate(sizes) for _ in range(size)]
    records = records_of([(f"text {i}", label) for i, label in enumerate(labels)])
    _, valid = split(records, fraction, seed)
    counts = Counter(labels[i] for i in valid)
    for i, size in enumerate(sizes):
        assert abs(counts[f"label {i}"] - fraction * size) <= 1
    assert len(valid) == max(1, round(fraction * len(labels)))


def test_groups_of_duplicates_count_by_their_rows() -> None:
    rows = [(f"text {i // 4}", "x" if i < 200 else "y") for i in range(400)]
    _, valid = split(records_of(rows), 0.25)
    counts = Counter(rows[i][1] for i in valid)
    assert all(abs(counts[label] - 50) <= 4 for label in "xy")


def test_a_regression_has_its_range_on_both_sides() -> None:
    numbers = np.random.default_rng(0).normal(size=400)
    records = records_of([(f"text {i}", float(x)) for i, x in enumerate(numbers)])
    assert records.columns.task == "regression"
    train, valid = split(records, 0.2)
    assert len(valid) == 80
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert abs(np.quantile(numbers[valid], q) - np.quantile(numbers[train], q)) < 0.25


def test_pairs_are_the_same_only_when_both_texts_are() -> None:
    rows = [("a", f"b{i}", label) for i in range(20) for label in "xy"]  # each pair twice, under two labels
    train, valid = split(records_of(rows), 0.5)
    assert len(valid) > 0
    assert not {rows[i][:2] for i in train} & {rows[i][:2] for i in valid}


def test_a_label_of_one_text_stays_in_training() -> None:
    rows = [("only", "rare"), ("Only ", "rare")] + [(f"text {i}", "common") for i in range(20)]
    for seed in range(10):
        _, valid = split(records_of(rows), 0.5, seed)
        assert min(valid) >= 2


def test_seeds_differ() -> None:
    records = records_of([(f"text {i}", "xy"[i % 2]) for i in range(60)])
    assert len({tuple(split(records, seed=seed)[1]) for seed in range(8)}) == 8


@pytest.mark.parametrize("rows", [[("a", "x"), ("b", "y")], [("a", "x"), ("A", "x"), ("b", "y"), ("b ", "y")]])
def test_too_small_tables(rows: list[tuple[str, str]]) -> None:
    with pytest.raises(BadInput, match="none can be held out"):
        split(records_of(rows), 0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(BadInput, match="fraction"):
        split(records_of([("a", "x"), ("b", "x"), ("c", "y")]), fraction)


def test_records_without_labels() -> None:
    with pytest.raises(BadInput, match="no labels"):
        split(read_records(["a", "b"], labels_required=False))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["tnews/train.tsv", "goemotions/train.jsonl", "stsb/train.tsv"])
def test_real_tables(real_data: Path, name: str) -> None:
    records = read_records(real_data / name)
    train, valid = split(records, 0.1)
    assert abs(len(valid) - 0.1 * len(records)) <= 0.002 * len(records)
    pairs = records.pairs if records.pairs is not None else records.texts
    keys = [(key(a), key(b)) for a, b in zip(records.texts.to_pylist(), pairs.to_pylist(), strict=True)]
    assert not {keys[i] for i in train} & {keys[i] for i in valid}
