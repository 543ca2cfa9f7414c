"""Columns of values as JSON has them: typed where one type of Arrow holds each value as it is, and else JSON itself.

A column that Arrow would change (1 and "1", true among numbers, objects with other keys, integers beyond 64 bits) is
kept as the JSON text of each value, in Arrow's type for that, so nothing is lost, and what is made of it is decided
where it is used: a text must be text, a label may be a number.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

JSON: pa.DataType = pa.json_(pa.large_string())
"""Cells that are JSON texts."""
_SCALARS = {str, bool, int, float}
_INT64 = range(-(2**63), 2**63)


def is_json_kinds(values: Iterable[Any]) -> bool:
    """Whether all values are of the types that JSON has, at their outermost."""
    return set(map(type, values)) <= {*_SCALARS, list, dict, type(None)}


def json_array(values: list[Any], *, as_json: bool = False) -> pa.Array:
    """A column of values as `json.loads` gives them: typed where that changes none of them, else of type JSON.

    NaN among other values than numbers is a missing one. as_json: do not look for another type.
    Raises UnicodeEncodeError for half of a surrogate pair, TypeError and ValueError for values that are no JSON.
    """
    if not set(map(type, values)) <= {int, float, type(None)}:
        values = [None if isinstance(value, float) and value != value else value for value in values]
    kind = None if as_json else _kind(values)
    if kind is not None:
        return pa.array(values, kind)
    texts = [None if value is None else _dumped(value) for value in values]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.large_string()))


def is_json_type(kind: pa.DataType) -> bool:
    """Whether cells of this Arrow type are JSON texts."""
    return isinstance(kind, pa.JsonType)


def json_values(column: Any) -> list[Any]:
    """The values of a column, or a piece of one, of type JSON; a cell that is no JSON is its text."""
    return [None if cell is None else _loaded(cell) for cell in column.cast(pa.large_string()).to_pylist()]


def json_text(value: Any) -> str:
    """A value as a text: a text as it is, the rest as JSON."""
    return value if isinstance(value, str) else _dumped(value)


def told(value: Any) -> str:
    """What kind of value it is, in words."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    names = ((str, "a text"), (int | float, "a number"), (dict, "an object"), (list | tuple, "a list"))
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")


def _kind(values: list[Any]) -> pa.DataType | None:
    """The type of Arrow whose values are exactly these; None where there is none."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= _SCALARS:
        return _scalar_kind(values, kinds)
    if kinds != {list}:
        return None
    flat = [item for value in values if value is not None for item in value]
    kinds = set(map(type, flat)) - {type(None)}
    kind = _scalar_kind(flat, kinds) if kinds <= _SCALARS else None
    return None if kind is None else pa.list_(kind)


def _scalar_kind(values: list[Any], kinds: set[type]) -> pa.DataType | None:
    if not kinds:
        return pa.null()
    if kinds == {str}:
        return pa.large_string()
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        numbers = [value for value in values if value is not None]
        return pa.int64() if min(numbers) in _INT64 and max(numbers) in _INT64 else None
    if kinds == {float}:
        return pa.float64()
    if kinds == {int, float} and all(map(_is_exact, values)):
        return pa.float64()
    return None


def _is_exact(value: Any) -> bool:
    """Whether a number, or a missing one, is the same as a 64-bit floating-point number."""
    return not isinstance(value, int) or abs(value) <= 2**53


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _loaded(cell: str) -> Any:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return cell if isinstance(value, float) and not math.isfinite(value) else value
