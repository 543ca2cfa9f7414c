"""Records: texts and labels of every kind of source, hashes, and rows that cannot be used."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.data.json_cells import json_array
from snapfit.data.records import Records, read_records

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=8).filter(any)


def labels_of(cells: Any, **flags: Any) -> Any:
    return read_records(pa.table({"text": ["t"] * len(cells), "label": cells}), **flags).labels


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("sentence1,id,sentence2,label\na,1,b,x\n,2,c,y\n", "utf-8")
    records = read_records(path)
    assert records.texts.to_pylist() == ["a", ""]
    assert records.pairs is not None
    assert records.pairs.to_pylist() == ["b", "c"]
    assert records.texts.type == records.pairs.type == pa.large_string()
    assert records.labels == ["x", "y"]
    assert (len(records), records.source, records.n_empty_texts) == (2, str(path), 0)
    assert records.table.column_names == ["sentence1", "id", "sentence2", "label"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.large_string()]
)
def test_text_of_any_arrow_type(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(["a", ""]).cast(kind), pa.array(["b"]).cast(kind)])
    records = read_records(pa.table({"text": column, "label": column}), labels_required=False)
    assert records.texts.to_pylist() == ["a", "", "b"]
    assert records.n_empty_texts == 1
    assert records.take(np.array([2, 0])).texts.to_pylist() == ["b", "a"]


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["007", " x ", "NA"], ["007", " x ", "NA"]),
        ([3, 1], ["3", "1"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1.0, 2.5], ["1.0", "2.5"]),
        ([True, False], ["true", "false"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        ([["x", "y", "x"], []], [["x", "y"], []]),
        ([[1, 2], [3]], [["1", "2"], ["3"]]),
        (pa.array([1.0, 2.0], pa.float16()), ["1", "2"]),
        (json_array([1, "x", True, 2.5]), ["1", "x", "true", "2.5"]),
        (json_array([[1, "x"], [], ["x", "x"]]), [["1", "x"], [], ["x"]]),
        (json_array(["x", '["x"]', 1]), ["x", '["x"]', "1"]),
    ],
)
def test_labels_become_text(cells: Any, labels: Any) -> None:
    assert labels_of(cells) == labels


def test_scores_of_several_kinds_are_numbers() -> None:
    rows = pa.table({"text": ["a"] * 3, "score": json_array([1, "2.5", 10])})
    assert list(read_records(rows).labels) == [1.0, 2.5, 10.0]


def test_many_labels_in_a_cell() -> None:
    assert labels_of(["x, y", "", "z", "x,x"], delimiter=",") == [["x", "y"], [], ["z"], ["x"]]
    assert labels_of(['["x", 1]', "[]"], task="multi") == [["x", "1"], []]


@pytest.mark.parametrize("cells", [["1", " 2.5 ", "1e1"], [1, 2.5, 10], ["1", "2.5", "10"]])
def test_numbers(cells: list[Any]) -> None:
    labels = labels_of(cells, task="regression")
    assert labels.dtype == np.float64
    assert labels.tolist() == [1.0, 2.5, 10.0]


def test_slices_of_lists() -> None:
    table = pa.table({"text": ["a", "b", "c"], "labels": [["x"], ["y", "z"], []]}).slice(1)
    records = read_records(table)
    assert (records.texts.to_pylist(), records.labels) == (["b", "c"], [["y", "z"], []])


def test_bare_texts_and_tuples() -> None:
    records = read_records(["a", "b"], labels_required=False)
    assert (records.texts.to_pylist(), records.pairs, records.labels) == (["a", "b"], None, None)
    records = read_records([("a", "b")], labels_required=False)
    assert records.pairs is not None
    assert (records.texts.to_pylist(), records.pairs.to_pylist()) == (["a"], ["b"])
    records = read_records([("a", "x"), ("b", "y")])
    assert (records.texts.to_pylist(), records.pairs, records.labels) == (["a", "b"], None, ["x", "y"])
    records = read_records([("a", "b", "x")])
    assert records.pairs is not None
    assert (records.pairs.to_pylist(), records.labels) == (["b"], ["x"])


def test_labels_that_are_not_needed_are_not_looked_at() -> None:
    table = pa.table({"text": ["a", "b"], "label": [None, "x"]})
    assert read_records(table, labels_required=False).labels is None
    with pytest.raises(BadInput, match="is missing in row 1"):
        read_records(table, label="label", labels_required=False)


HOLED = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
"""Its second value is null, though no place of it is."""
ERRORS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"text": ["a", None, None], "label": ["x"] * 3}, {}, "'text' is missing in 2 rows: row 2, row 3"),
    ({"text": ["a"] * 3, "label": ["x", None, ""]}, {}, "'label' is missing in row 2"),
    ({"text": ["a"] * 9, "label": [" "] * 8 + ["x"]}, {}, "is empty in 8 rows: row 1, row 2, row 3, row 4, row 5, ..."),
    ({"text": ["a"] * 2, "label": [0.0, float("nan")]}, {}, "'label' is missing in row 2"),
    ({"text": ["a"] * 2, "score": [0.5, float("nan")]}, {}, "'score' is missing in row 2"),
    ({"text": ["a"] * 2, "score": [0.5, float("inf")]}, {}, "no finite number in row 2"),
    ({"text": ["a"] * 2, "score": ["1", "x"]}, {"task": "regression"}, "no finite number in row 2"),
    ({"text": ["a"] * 2, "label": [True, False]}, {"task": "regression"}, "no finite number in 2 rows"),
    ({"text": ["", ""], "label": ["x", "y"]}, {}, "every text in 'text' is empty"),
    ({"text": [1, 2], "label": ["x", "y"]}, {}, "'text' holds int64"),
    ({"text": ["a"] * 2, "labels": [["x"], [None]]}, {}, "a label that is missing in row 2"),
    ({"text": ["a"] * 2, "labels": [["x"], None]}, {}, "'labels' is missing in row 2"),
    ({"text": ["a"] * 2, "labels": [["x"], [" "]]}, {}, "a label that is empty in row 2"),
    ({"text": ["a"] * 2, "label": ["x;y", "x;"]}, {"delimiter": ";"}, "a label that is empty in row 2"),
    ({"text": ["a"] * 2, "labels": ['["x"]', "[1.5]"]}, {}, "no list of labels in row 2"),
    ({"text": ["a"] * 2, "label": [{"k": 1}, {"k": 2}]}, {}, "'label' holds struct"),
]


ERRORS += [
    ({"text": json_array(["a", 5, ["b"]]), "label": ["x"] * 3}, {}, "'text' is a number, not a text, in 2 rows: row 2"),
    ({"text": json_array(["a", None, 1]), "label": ["x"] * 3}, {}, "'text' is missing in row 2"),
    ({"text": ["a"] * 2, "label": json_array(["x", {"a": 1}])}, {}, "'label' is an object in row 2"),
    ({"text": ["a"] * 2, "label": json_array(["x", ["y"]])}, {}, "'label' is a list in row 2"),
    ({"text": ["a"] * 2, "labels": json_array([["x"], [1, None]])}, {}, "no list of labels in row 2"),
    ({"text": ["a"] * 2, "labels": json_array([["x"], [[1]]])}, {}, "no list of labels in row 2"),
    ({"text": ["a"] * 2, "score": json_array([1, "x"])}, {"task": "regression"}, "no finite number in row 2"),
    ({"text": ["a"] * 2, "label": [1.0, float("inf")]}, {"task": "single"}, "'label' is no finite number in row 2"),
    ({"text": ["a"] * 2, "labels": [[1.0], [float("-inf")]]}, {}, "a label that is no finite number in row 2"),
    ({"text": ["a"] * 2, "labels": [[1.0], [float("nan")]]}, {}, "a label that is missing in row 2"),
    ({"text": HOLED, "label": ["x"] * 2}, {}, "'text' is missing in row 2"),
    ({"text": ["a"] * 2, "label": HOLED}, {}, "'label' is missing in row 2"),
]


@pytest.mark.parametrize(("columns", "flags", "message"), ERRORS)
def test_rows_that_cannot_be_used(columns: dict[str, list[Any]], flags: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_records(pa.table(columns), **flags)


def test_a_text_may_be_empty_and_is_counted() -> None:
    records = read_records([("", "b", "x"), ("", "", "y"), ("a", "", "x")])
    assert records.n_empty_texts == 1


def test_missing_texts_in_pandas() -> None:
    frame = pd.DataFrame({"text": ["a", None], "label": [1, 2]})
    with pytest.raises(BadInput, match="the DataFrame given: 'text' is missing in row 2"):
        read_records(frame)


def test_bytes_that_are_not_utf8() -> None:
    bad = pa.array([b"a", b"\xff"]).view(pa.string())
    with pytest.raises(BadInput, match="'text' in row 2 is not UTF-8"):
        read_records(pa.table({"text": bad, "label": ["x", "y"]}))


# ---------------------------------------------------------------- taking and hashing


@pytest.mark.parametrize("labels", [["x", "y", "z"], [["x"], [], ["y", "z"]], [0.5, 1.0, 2.0]])
def test_taking_rows(labels: list[Any]) -> None:
    task = "regression" if isinstance(labels[0], float) else "auto"
    records = read_records(list(zip("abc", "def", labels, strict=True)), task=task)
    taken = records.take(np.array([2, 0, 2]))
    assert taken.texts.to_pylist() == ["c", "a", "c"]
    assert taken.pairs is not None
    assert taken.pairs.to_pylist() == ["f", "d", "f"]
    assert taken.labels is not None
    assert list(taken.labels) == [labels[2], labels[0], labels[2]]
    assert taken.table["text"].to_pylist() == ["c", "a", "c"]
    assert len(records.take(np.array([], dtype=np.int64))) == 0


def hashed(texts: list[str]) -> str:
    return read_records(texts, labels_required=False).content_hash()


@given(TEXTS, TEXTS)
def test_texts_have_the_same_hash_only_when_they_are_the_same(a: list[str], b: list[str]) -> None:
    assert (hashed(a) == hashed(b)) == (a == b)


@given(TEXTS)
def test_the_hash_does_not_depend_on_how_arrow_keeps_the_texts(texts: list[str]) -> None:
    long = pa.chunked_array([["before", *texts], [*texts, "after"]], pa.large_string())
    sliced = pa.table({"text": long.slice(1, len(texts))})
    assert read_records(sliced, labels_required=False).content_hash() == hashed(texts)
    both = read_records([*texts, *texts], labels_required=False)
    assert both.take(np.arange(len(texts))).content_hash() == hashed(texts)


def test_hashes_of_pairs_and_labels() -> None:
    records = read_records([("a", "b", "x"), ("c", "d", "y")])
    swapped = read_records([("b", "a", "x"), ("d", "c", "y")])
    single = read_records([("a", "x"), ("c", "y")])
    assert len({r.content_hash() for r in (records, swapped, single)}) == 3
    assert records.label_hash() == swapped.label_hash() == single.label_hash()
    other = read_records([("a", "y"), ("c", "x")])
    assert other.label_hash() != single.label_hash()
    numbers = read_records([("a", 0.5), ("b", 1.5)], task="regression")
    assert numbers.label_hash() == hashlib.sha256(np.array([0.5, 1.5]).tobytes()).hexdigest()


def describe_real(records: Records) -> tuple[int, str, bool, int]:
    label_set = LabelSet.fit(records.columns.task, records.labels or [])
    return len(records), records.columns.task, records.pairs is not None, label_set.n_outputs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sst2/train.tsv", (67_349, "single", False, 2)),
        ("banking77/train.csv", (10_003, "single", False, 77)),
        ("afqmc/train.tsv", (34_334, "single", True, 2)),
        ("goemotions/train.jsonl", (43_410, "multi", False, 28)),
        ("baidu_event_multilabel/train.jsonl", (11_958, "multi", False, 65)),
        ("tnews/train.tsv", (53_360, "single", False, 15)),
    ],
)
def test_real_tables_need_no_flags(real_data: Path, name: str, expected: tuple[int, str, bool, int]) -> None:
    assert describe_real(read_records(real_data / name)) == expected


def test_a_real_regression(real_data: Path) -> None:
    records = read_records(real_data / "stsb" / "train.tsv")
    assert (len(records), records.columns.task) == (5_749, "regression")
    assert isinstance(records.labels, np.ndarray)
    assert (records.labels.min(), records.labels.max()) == (0.0, 5.0)
