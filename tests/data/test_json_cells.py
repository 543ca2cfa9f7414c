"""Columns of JSON values: the type of Arrow that changes none of them, or their JSON."""

from typing import Any

import pyarrow as pa
import pytest

from snapfit.data.json_cells import JSON, is_json_type, json_array, json_text, json_values, told

TYPED = [
    ([None, None], pa.null()),
    (["a", None], pa.large_string()),
    ([True, None], pa.bool_()),
    ([1, -(2**63), 2**63 - 1], pa.int64()),
    ([1, 2.5, None], pa.float64()),
    ([2**53, 0.5], pa.float64()),
    ([["a"], [], None, [None]], pa.list_(pa.large_string())),
    ([[1], [2.5]], pa.list_(pa.float64())),
    ([[], []], pa.list_(pa.null())),
]
AS_JSON: list[list[Any]] = [
    [1, "1"],
    [1, True],
    [1.5, True],
    [2**63],
    [2**53 + 1, 0.5],
    [{"a": 1}],
    [{}],
    [[1], 1],
    [[1, "a"]],
    [[[1]]],
    [[{"a": None}], None],
]


@pytest.mark.parametrize(("values", "kind"), TYPED)
def test_values_that_a_type_holds(values: list[Any], kind: pa.DataType) -> None:
    assert json_array(values).type == kind
    assert json_array(values).to_pylist() == values
    column = pa.chunked_array([json_array(values, as_json=True)])
    assert is_json_type(column.type)
    assert json_values(column) == values


@pytest.mark.parametrize("values", AS_JSON)
def test_values_that_no_type_holds(values: list[Any]) -> None:
    assert json_array(values).type == JSON
    assert repr(json_values(json_array(values))) == repr(values)


def test_a_number_that_is_none_is_missing_beside_others() -> None:
    assert json_array(["a", float("nan")]).to_pylist() == ["a", None]
    assert json_array([True, float("nan"), 1]).to_pylist() == ["true", None, "1"]
    found = json_array([1.5, float("nan")])
    assert found.null_count == 0
    with pytest.raises(ValueError, match="JSON"):
        json_array([float("inf"), "a"])


def test_cells_of_others_that_are_no_json_stay_text() -> None:
    cells = ["{", "NaN", "1e400", "[" * 100_000, '"a"', None]
    column = pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(cells))
    assert json_values(column) == ["{", "NaN", "1e400", "[" * 100_000, "a", None]


def test_words() -> None:
    assert [json_text(value) for value in ("a", 1, True, [1])] == ["a", "1", "true", "[1]"]
    assert [told(value) for value in ("a", 1.5, True, None, [], {})] == [
        *("a text", "a number", "true", "null", "a list", "an object"),
    ]
