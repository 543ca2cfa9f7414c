"""The label set: its order, its targets, and what it refuses."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import LabelEncoder, MultiLabelBinarizer

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import LabelSet, Task

words = st.text(min_size=1, max_size=5)


def test_single_labels_sort_by_code_point_or_by_value() -> None:
    assert LabelSet.fit("single", ["b", "a", "b", "中"]).names == ("a", "b", "中")
    assert LabelSet.fit("single", ["10", "9", "-1", "010"]).names == ("-1", "9", "010", "10")
    assert LabelSet.fit("single", ["10", "9", "x"]).names == ("10", "9", "x")
    assert LabelSet.fit("single", ["9" * 5000, "1"]).names == ("1", "9" * 5000)


@given(st.lists(words, min_size=2).filter(lambda rows: len(set(rows)) > 1))
def test_single_targets_equal_scikit_learns(rows: list[str]) -> None:
    labels = LabelSet("single", tuple(sorted(set(rows))))
    targets = labels.encode(rows)
    assert targets.dtype == labels.target_dtype == np.int64
    assert targets.shape == labels.target_shape(len(rows))
    np.testing.assert_array_equal(targets, LabelEncoder().fit(list(labels.names)).transform(rows))
    np.testing.assert_array_equal(labels.counts(targets), [rows.count(name) for name in labels.names])


@given(st.lists(st.lists(words, max_size=4), min_size=1).filter(any))
def test_multi_targets_equal_scikit_learns(rows: list[list[str]]) -> None:
    labels = LabelSet.fit("multi", rows)
    targets = labels.encode(rows)
    assert targets.dtype == labels.target_dtype == np.float32
    assert targets.shape == labels.target_shape(len(rows))
    reference = MultiLabelBinarizer(classes=list(labels.names)).fit_transform(rows)
    np.testing.assert_array_equal(targets, reference)
    np.testing.assert_array_equal(labels.counts(targets), reference.sum(axis=0))


@given(st.permutations(["10", "2", "33", "4"]))
def test_the_order_of_rows_does_not_matter(rows: list[str]) -> None:
    assert LabelSet.fit("single", rows) == LabelSet.fit("single", sorted(rows))


def test_regression_keeps_units_and_learns_mean_and_scale() -> None:
    labels = LabelSet.fit("regression", [1.0, 2.0, 6.0], name="stars")
    assert (labels.names, labels.n_outputs) == (("stars",), 1)
    assert labels.target_mean == pytest.approx(3.0)
    assert labels.target_scale == pytest.approx(np.std([1.0, 2.0, 6.0]))
    targets = labels.encode([0.5, -7.0])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[0.5], [-7.0]])
    np.testing.assert_array_equal(labels.counts(targets), [2])


@pytest.mark.parametrize("values", [[0.1] * 7, [3.0], [1e-300, 2e-300]])
def test_a_constant_column_has_scale_one(values: list[float]) -> None:
    assert LabelSet.fit("regression", values).target_scale == 1.0


def test_arrays_of_every_kind_are_taken() -> None:
    rows = ["a", "b", "a"]
    for given_rows in (
        np.array(rows),
        np.array(rows, dtype=object),
        pa.array(rows),
        pa.chunked_array([rows]),
    ):
        labels = LabelSet.fit("single", given_rows)
        assert labels.names == ("a", "b")
        assert all(type(name) is str for name in labels.names)
        np.testing.assert_array_equal(labels.encode(given_rows), [0, 1, 0])
    nested = pa.array([["x"], [], ["y", "x"]])
    np.testing.assert_array_equal(LabelSet.fit("multi", nested).encode(nested), [[1, 0], [0, 0], [1, 1]])
    numbers = pa.array([1.5, 2.5])
    np.testing.assert_array_equal(LabelSet.fit("regression", numbers).encode(numbers), [[1.5], [2.5]])


def test_no_rows_encode_to_no_targets() -> None:
    for labels in (LabelSet("single", ("a", "b")), LabelSet("multi", ("a",)), LabelSet("regression", ("s",))):
        targets = labels.encode([])
        assert targets.shape == labels.target_shape(0)
        assert targets.dtype == labels.target_dtype
        assert labels.counts(targets).shape == (labels.n_outputs,)


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("single", [], "no labels"),
        ("single", ["a", "a"], "one label only, 'a'"),
        ("single", ["a", ""], "a label that is empty"),
        ("single", ["a", 1], r"row 2 has the label 1 \(int\)"),
        ("single", ["a", None], r"row 2 has the label None"),
        ("single", ["a", ["b"]], r"row 2 has the label \['b'\]"),
        ("single", "ab", "the single text 'ab'"),
        ("multi", [[], []], "no labels in any row"),
        ("multi", ["a"], "row 1 has the label 'a'"),
        ("multi", [["a"], None], "row 2 has the label None"),
        ("multi", [["a"], ["b", 2]], r"row 2 has the label 2 \(int\)"),
        ("regression", [], "no rows"),
        ("regression", [1.0, float("nan")], "1 labels that are not finite numbers: nan in row 2"),
        ("regression", [1e39], "not finite"),
        ("regression", ["good"], "labels that are not numbers"),
        ("regression", [[1.0], [2.0]], r"labels of shape \(2, 1\)"),
    ],
)
def test_labels_that_cannot_be_learnt(task: Task, rows: list[object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LabelSet.fit(task, rows)


def test_unknown_labels_are_counted_and_named() -> None:
    labels = LabelSet("single", ("negative", "positive"))
    rows = ["positive", *["positiv"] * 3, "x1", "x2", "x3", "x4", "x5"]
    with pytest.raises(BadInput) as caught:
        labels.encode(rows, where="valid.csv")
    assert caught.value.found.startswith("valid.csv: labels that are not among the 2 known ones: 'positiv' (3 times)")
    assert caught.value.found.endswith("and 1 more, in 8 rows: row 2, row 3, row 4, row 5, row 6, ...")
    assert "did you mean 'positive'" in caught.value.fix
    with pytest.raises(BadInput, match=r"'c' \(2 times\)"):
        LabelSet("multi", ("a", "b")).encode([["a", "c"], ["c"]])
    with pytest.raises(BadInput, match=r"v: row 2 has the label None"):
        labels.encode(["positive", None], where="v")
    with pytest.raises(BadInput, match=r"row 1 has the label \['a'\]"):
        labels.encode([["a"]])


@pytest.mark.parametrize(
    ("task", "names", "mean", "scale"),
    [
        ("pairs", ("a", "b"), 0.0, 1.0),
        ("single", ("a", "a"), 0.0, 1.0),
        ("single", ("a",), 0.0, 1.0),
        ("multi", (), 0.0, 1.0),
        ("regression", ("a", "b"), 0.0, 1.0),
        ("regression", ("a",), float("nan"), 1.0),
        ("regression", ("a",), 0.0, 0.0),
        ("regression", ("a",), 0.0, float("inf")),
    ],
)
def test_label_sets_that_cannot_be(task: Task, names: tuple[str, ...], mean: float, scale: float) -> None:
    with pytest.raises(BadInput):
        LabelSet(task, names, mean, scale)


def test_targets_of_another_kind_stop_at_the_door() -> None:
    single, multi = LabelSet("single", ("a", "b", "c")), LabelSet("multi", ("a", "b", "c"))
    single.check_targets(np.zeros(4, np.int64), (4, 3))
    multi.check_targets(np.zeros((4, 3), np.float32), (4, 3))
    multi.check_targets(torch.zeros(4, 3), torch.zeros(4, 3).shape)
    LabelSet("regression", ("s",)).check_targets(torch.zeros(4, 1), (4, 1))
    cases: list[tuple[LabelSet, Any, tuple[int, ...]]] = [
        (single, np.zeros(4, np.float32), (4, 3)),
        (single, np.zeros(4, np.int32), (4, 3)),
        (single, np.zeros((4, 1), np.int64), (4, 3)),
        (single, np.zeros(4, np.int64), (4, 2)),
        (single, np.zeros(4, np.int64), (4,)),
        (multi, np.zeros((4, 3), np.int64), (4, 3)),
        (multi, np.zeros((3, 3), np.float32), (4, 3)),
        (LabelSet("regression", ("s",)), torch.zeros(4), (4, 1)),
    ]
    for labels, targets, shape in cases:
        with pytest.raises(WorkFailed, match="shape"):
            labels.check_targets(targets, shape)


@pytest.mark.parametrize(
    "labels",
    [
        LabelSet("single", ("é", "中")),
        LabelSet("multi", ("a",)),
        LabelSet("regression", ("score",), 1 / 3, 0.1),
    ],
)
def test_a_label_set_survives_json(labels: LabelSet) -> None:
    assert LabelSet.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@pytest.mark.parametrize(
    "change",
    [
        {"names": "ab"},
        {"names": ["a", 1]},
        {"target_mean": "0"},
        {"target_scale": True},
        {"task": ["single"]},
        {"more": 1},
    ],
)
def test_a_damaged_label_set_is_refused(change: dict[str, object]) -> None:
    values = LabelSet("single", ("a", "b")).to_dict() | change
    with pytest.raises(BadInput):
        LabelSet.from_dict(values)


def test_a_label_set_that_is_not_one() -> None:
    with pytest.raises(BadInput):
        LabelSet.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the keys"):
        LabelSet.from_dict({"task": "single"})
