"""The validation split and folds: duplicates together, strata in proportion, every label in training, repeatable."""

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data.large_records import LargeRecords, read_for_training
from snapfit.data.records import Records, read_records
from snapfit.data.splits import fold_numbers, fold_numbers_of_large, held_out_of_large, train_valid_split

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


# ---------------------------------------------------------------- folds


def folds_of(records: Records, folds: int = 3, seed: int = 0) -> np.ndarray:
    return fold_numbers(records, records.columns.task, folds=folds, seed=seed)


def try_folds(records: Records, folds: int, seed: int) -> np.ndarray:
    try:
        return folds_of(records, folds, seed)
    except BadInput:
        assume(False)
        raise


def check_folds(number: np.ndarray, keys: list[Any], labels: list[set[str]], folds: int) -> None:
    """No text is in two folds, no fold is empty, and every label is in training whichever is held out."""
    assert number.dtype == np.int8
    assert set(number[number > 0]) == set(range(1, folds + 1))
    assert len({(key, fold) for key, fold in zip(keys, number.tolist(), strict=True)}) == len(set(keys))
    every = set().union(*labels)
    for fold in range(1, folds + 1):
        assert set().union(*(row for row, own in zip(labels, number, strict=True) if own != fold)) == every


@given(
    st.lists(st.tuples(WORDS, st.sampled_from("xyz")), min_size=4, max_size=60), st.integers(2, 5), st.integers(0, 9)
)
def test_folds_keep_texts_together_and_labels_in_training(rows: list[tuple[str, str]], folds: int, seed: int) -> None:
    records = records_of(rows)
    number = try_folds(records, folds, seed)
    check_folds(number, [key(text) for text, _ in rows], [{label} for _, label in rows], folds)
    assert (folds_of(records, folds, seed) == number).all()


@given(
    st.lists(st.lists(st.sampled_from("uvwxyz"), max_size=4, unique=True), min_size=4, max_size=40),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_folds_of_many_labels_keep_each_in_training(labels: list[list[str]], folds: int, seed: int) -> None:
    assume(any(labels))
    records = records_of([(f"text {i}", row) for i, row in enumerate(labels)], "multi")
    check_folds(try_folds(records, folds, seed), list(range(len(labels))), [set(row) for row in labels], folds)


@given(st.lists(st.integers(5, 40), min_size=2, max_size=8), st.integers(2, 5), st.integers(0, 99))
def test_folds_have_their_share_of_every_label_and_of_all(sizes: list[int], folds: int, seed: int) -> None:
    labels = [f"label {i}" for i, size in enumerate(sizes) for _ in range(size)]
    number = folds_of(records_of([(f"text {i}", label) for i, label in enumerate(labels)]), folds, seed)
    assert (number > 0).all()
    assert np.ptp(np.bincount(number)[1:]) <= 1
    for name in set(labels):
        of_label = np.bincount(number[[label == name for label in labels]], minlength=folds + 1)[1:]
        assert np.ptp(of_label) <= 1


def test_folds_count_rows_and_not_texts() -> None:
    rows = [(f"text {i if i % 3 else i // 12}", "xy"[i % 2]) for i in range(400)]
    sizes = Counter(text for text, _ in rows)
    of_label = {label: np.bincount(folds_of(records_of(rows), 4)[[row[1] == label for row in rows]]) for label in "xy"}
    for counts in of_label.values():
        assert np.ptp(counts[1:]) <= 2 * max(sizes.values())


def test_a_label_of_one_text_is_held_out_by_no_fold() -> None:
    rows = [("only", "rare"), ("Only ", "rare")] + [(f"text {i}", "common") for i in range(20)]
    for seed in range(5):
        number = folds_of(records_of(rows), 4, seed)
        assert (number[:2] == 0).all()
        assert (number[2:] > 0).all()


def test_folds_of_a_regression_all_have_its_range() -> None:
    numbers = np.random.default_rng(0).normal(size=500)
    number = folds_of(records_of([(f"text {i}", float(x)) for i, x in enumerate(numbers)]), 5)
    assert np.bincount(number).tolist() == [0, 100, 100, 100, 100, 100]
    for q in (0.1, 0.25, 0.5, 0.75, 0.9):
        parts = [np.quantile(numbers[number == fold], q) for fold in range(1, 6)]
        assert np.ptp(parts) < 0.35


def test_folds_of_other_seeds_differ() -> None:
    records = records_of([(f"text {i}", "xy"[i % 2]) for i in range(60)])
    assert len({tuple(folds_of(records, seed=seed)) for seed in range(8)}) == 8


def test_tables_too_small_for_their_folds() -> None:
    with pytest.raises(BadInput, match="3 rows, of which fold 1 of 3 would hold out none"):
        folds_of(records_of([("a", "x"), ("b", "x"), ("c", "y")]), 3)
    with pytest.raises(BadInput, match="fold 1 of 2 would hold out none"):  # each label has one text, which is kept
        folds_of(records_of([("a", "x"), ("b", "y"), ("c", "z")]), 2)
    with pytest.raises(BadInput, match="no labels"):
        fold_numbers(read_records(["a", "b"], labels_required=False), "single", folds=2, seed=0)


# ---------------------------------------------------------------- folds of large tables


def large(rows: list[tuple[Any, ...]], task: str = "auto") -> LargeRecords:
    found = read_for_training([tuple(row) for row in rows], large_rows=2, task=task)
    assert isinstance(found, LargeRecords)
    return found


@given(
    st.lists(st.tuples(WORDS, st.sampled_from("xyz")), min_size=4, max_size=60), st.integers(2, 4), st.integers(0, 9)
)
def test_folds_of_a_large_table_promise_the_same(rows: list[tuple[str, str]], folds: int, seed: int) -> None:
    assume(len({label for _, label in rows}) > 1)
    try:
        number = fold_numbers_of_large(large(rows), "single", folds=folds, seed=seed)
    except BadInput:
        assume(False)
    check_folds(number, [key(text) for text, _ in rows], [{label} for _, label in rows], folds)


def test_shares_of_a_large_tables_folds_hold_but_for_chance() -> None:
    rows = [(f"text {i}", "xy"[i % 5 == 0]) for i in range(4_000)]
    number = fold_numbers_of_large(large(rows), "single", folds=4, seed=3)
    assert (np.abs(np.bincount(number)[1:] - 1_000) < 100).all()
    of_rare = np.bincount(number[::5])[1:]
    assert (np.abs(of_rare - 200) < 50).all()
    again = fold_numbers_of_large(large(rows), "single", folds=4, seed=4)
    assert 0.6 < (number != again).mean() < 0.9


def test_a_validation_split_of_any_fold_can_be_drawn() -> None:
    """The hash that says which fold holds a row out says nothing of which are drawn for validation."""
    records = large([(f"text {i}", "xy"[i % 2]) for i in range(2_000)])
    number = fold_numbers_of_large(records, "single", folds=5, seed=0)
    drawn = held_out_of_large(records, "single", fraction=0.2, seed=0)
    shares = np.bincount(number[drawn], minlength=6)[1:] / np.bincount(number)[1:]
    assert (np.abs(shares - 0.2) < 0.08).all()
