"""Tables from Python: lists, pandas, polars and Arrow."""

from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from snapfit.core.errors import BadInput
from snapfit.data.formats import read_table
from snapfit.data.json_cells import JSON

ROWS = [{"text": "a", "n": 1, "labels": ["x"]}, {"text": "b", "n": 2, "labels": []}]


@pytest.mark.parametrize(
    "source",
    [ROWS, pd.DataFrame(ROWS, index=[5, 9]), pl.DataFrame(ROWS), pa.Table.from_pylist(ROWS)],
    ids=["list", "pandas", "polars", "arrow"],
)
def test_every_source_gives_the_same_table(source: Any) -> None:
    table = read_table(source)
    assert table.to_pylist() == ROWS
    assert table.column_names == ["text", "n", "labels"]


def test_an_arrow_table_is_not_copied() -> None:
    table = pa.table({"text": ["a"]})
    assert read_table(table) is table


def test_whatever_gives_an_arrow_stream() -> None:
    class Source:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.table({"text": ["a"]}).__arrow_c_stream__(requested_schema)

    assert read_table(Source()).to_pylist() == [{"text": "a"}]


def test_tuples_have_their_columns_by_number() -> None:
    assert read_table([("a", 1), ("b", 2)]).to_pylist() == [
        {"text": "a", "label": 1},
        {"text": "b", "label": 2},
    ]
    assert read_table([("a", "b", 0.5)]).column_names == ["text", "pair", "label"]


def test_missing_keys_are_null_and_mixed_columns_are_json() -> None:
    rows = [{"a": 1, "b": ["x", 2]}, {"a": "y"}, {"a": True, "b": []}, {"a": None, "b": None}]
    table = read_table(rows)
    assert table.schema.types == [JSON, JSON]
    assert table.to_pydict() == {"a": ["1", '"y"', "true", None], "b": ['["x", 2]', None, "[]", None]}
    assert read_table([{"n": 2**70}]).to_pydict() == {"n": [str(2**70)]}
    assert read_table([{"a": "x"}, {"a": float("nan")}]).to_pydict() == {"a": ["x", None]}


def test_pandas_names_that_are_no_text() -> None:
    assert read_table(pd.DataFrame([["a", "b"]])).column_names == ["0", "1"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "no columns and no rows"),
        (pd.DataFrame({"text": []}), "a header and no rows"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), "2 columns named 'x'"),
        (pd.DataFrame({"text": ["a", 1]}, dtype=object), "Arrow cannot hold"),
        (["a", "b"], "begins with 'a'"),
        ([("a",)], r"begins with \('a',\)"),
        ([("a", 1), ("b",)], "item 1 is"),
        ([{"a": 1}, 5], "item 1: 5"),
        ([{1: "a"}], "a column named 1"),
        ([{"a": "x"}, {"a": "\ud800"}], "item 1: half of a surrogate pair in 'a'"),
        ([{"a": [1]}, {"a": ["\ud800"]}], "item 1: half of a surrogate pair in 'a'"),
        ([{"a": {1, 2}}, {"a": "x"}], "no data"),
    ],
)
def test_errors(source: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_table(source)
