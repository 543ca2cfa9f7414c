"""Rows that training refuses: all of them are found, and the rest is accepted by the code that training reads with."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapfit.checks.unusable import unusable_rows
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.data.columns import Columns
from snapfit.data.records import records_of

CELLS: dict[str, st.SearchStrategy[Any]] = {
    "single": st.sampled_from(["a", "b", " ", "", None, " c "]),
    "regression": st.sampled_from(["1", "2.5", "x", "nan", "inf", "", None, " 3 ", "1_0"]),
    "lists": st.sampled_from([["a"], [], ["a", "b"], [""], [None], None, [" "]]),
    "parts": st.sampled_from(["a|b", "a", "", "a||b", "|", None, " "]),
    "json": st.sampled_from(['["a"]', "[]", '["a", 1]', "x", '{"a": 1}', '[""]', "[[1]]", None, "[1.5]"]),
}
TASKS = {"single": "single", "regression": "regression", "lists": "multi", "parts": "multi", "json": "multi"}
TEXT = st.sampled_from(["a text", "", None])


@pytest.mark.parametrize("kind", list(CELLS))
@settings(deadline=None)
@given(data=st.data())
def test_what_is_left_is_accepted_and_each_row_that_is_found_is_refused(kind: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(TEXT, CELLS[kind]), min_size=1, max_size=12))
    texts, labels = (pa.array(column) for column in zip(*rows, strict=True))
    table = pa.table({"text": texts.cast(pa.large_string()), "label": labels})
    if pa.types.is_null(table.schema.field("label").type):
        table = table.set_column(1, "label", table.column("label").cast(pa.large_string()))
    columns = Columns("text", None, "label", TASKS[kind], "")  # type: ignore[arg-type]
    delimiter = "|" if kind == "parts" else None
    bad = np.concatenate([np.zeros(0, dtype=np.int64), *unusable_rows(table, columns, delimiter).values()])
    assert len(set(bad.tolist())) == len(bad)
    for row in range(len(rows)):
        one = table.slice(row, 1)
        if row in bad:
            with pytest.raises(BadInput):
                records_of(one, columns, delimiter=delimiter, where="t")
    good = np.setdiff1d(np.arange(len(rows)), bad)
    if any(rows[row][0] for row in good.tolist()):
        kept = table.take(pa.array(good))
        assert len(records_of(kept, columns, delimiter=delimiter, where="t")) == len(good)


def test_numbers_beyond_float32_are_found_as_the_label_set_refuses_them() -> None:
    table = pa.table({"text": ["a", "b"], "score": ["1e300", "1"]})
    columns = Columns("text", None, "score", "regression", "")
    assert unusable_rows(table, columns, None)["bad_label"].tolist() == [0]
    records = records_of(table, columns, delimiter=None, where="t")
    with pytest.raises(BadInput, match="finite"):
        LabelSet.fit("regression", np.asarray(records.labels))


def test_each_row_is_told_of_once_by_its_first_fault() -> None:
    table = pa.table({"a": ["x", None, "x"], "b": ["y", None, None], "label": ["", None, "1"]})
    found = unusable_rows(table, Columns("a", "b", "label", "single", ""), None)
    assert {kind: rows.tolist() for kind, rows in found.items()} == {"missing_text": [1, 2], "missing_label": [0]}


def test_without_labels_only_texts_count() -> None:
    table = pa.table({"text": ["x", None]})
    assert list(unusable_rows(table, Columns("text", None, None, "single", ""), None)) == ["missing_text"]
