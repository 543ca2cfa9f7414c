"""JSON lines and arrays to columns: values as Python's json has them, strictly; faults with their place."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from malformed.case import same
from snapfit.core.errors import BadInput
from snapfit.data import table_pieces
from snapfit.data.formats import read_table
from snapfit.data.json_cells import is_json_type, json_values

FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.sampled_from(["1", "true", "null", "[]", '"x"', "NaN"])
)
VALUE = st.recursive(
    SCALAR, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=2), one, max_size=2)
)
NAME = st.text(st.sampled_from("ab\0é. "), max_size=2)


def surrogates(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def values(table: pa.Table) -> dict[str, list[Any]]:
    """The values of all columns."""
    return {
        name: json_values(column) if is_json_type(column.type) else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


@FUZZ
@given(
    rows=st.lists(st.dictionaries(NAME, VALUE, max_size=3), min_size=1, max_size=12),
    ascii_only=st.booleans(),
    piece=st.sampled_from([8, 60, 10**6]),
)
@example(rows=[{"a": 1}, {"a": "1"}, {"a": True}, {"a": 1.5}], ascii_only=False, piece=8)
@example(rows=[{"a": 2**53 + 1}, {"a": 0.5}], ascii_only=False, piece=8)
@example(rows=[{"a": {"x": 1}}, {"a": {"y": 1}}, {"a": []}, {"b": None}], ascii_only=False, piece=8)
@example(rows=[{"a": [1]}, {"a": [0.5]}, {"a": [True]}, {"a": [[]]}], ascii_only=False, piece=8)
def test_values_come_back_as_they_are(
    tmp_path: Path, rows: list[dict[str, Any]], ascii_only: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(map(surrogates, rows)) or not any(rows):
        return
    names = dict.fromkeys(name for row in rows for name in row)
    expected = {name: [row.get(name) for row in rows] for name in names}
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows), "utf-8")
    (tmp_path / "t.json").write_text(json.dumps(rows, ensure_ascii=ascii_only, indent=1), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_pieces, "PIECE_BYTES", piece)
        tables = [read_table(tmp_path / name) for name in ("t.jsonl", "t.json")]
        tables.append(read_table(tmp_path / "t.jsonl", cache_dir=tmp_path / "cache", streamed_bytes=0))
    for table in tables:
        found = values(table)
        assert list(found) == list(names)
        assert all(same(cell, back) for name in names for cell, back in zip(expected[name], found[name], strict=True))
        assert table.schema.types == tables[0].schema.types


def strict(line: str) -> Any:
    """A line's value; ValueError for what is not JSON, or would come back as something else."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    def no_constant(name: str) -> None:
        raise ValueError(name)

    def finite(text: str) -> float:
        if math.isinf(float(text)):
            raise ValueError(text)
        return float(text)

    value = json.loads(line, object_pairs_hook=unique, parse_constant=no_constant, parse_float=finite)
    if not isinstance(value, dict) or surrogates(value):
        raise ValueError
    return value


PARTS = ["{", "}", '"a"', '"b"', ":", ": ", ",", "1", "2.5", "1e999", '"x"', '"\\ud800"', '"\\ud83d\\ude00"', "[", "]"]
LINE = st.lists(st.sampled_from([*PARTS, "null", "NaN", "true", " ", "\r", "\t", "é"]), max_size=10).map("".join)
GOOD = st.sampled_from(['{"a": 1}', '{"a": "x", "b": [1]}', '{"b": null}', "", " "])


@FUZZ
@given(lines=st.lists(GOOD | LINE, min_size=1, max_size=6), piece=st.sampled_from([8, 10**6]))
@example(lines=['{"a": 1}', '{"a": NaN}', '{"a"'], piece=8)
@example(lines=['{"a": "\\ud800"}', "{"], piece=10**6)
def test_the_first_line_that_is_no_object_is_told(tmp_path: Path, lines: list[str], piece: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines), "utf-8", newline="")
    expected: Any = []
    for number, line in enumerate(lines, 1):
        if line.strip(" \t\r"):
            try:
                expected.append(strict(line.strip(" \t\r")))
            except (ValueError, RecursionError):
                expected = f"{path}, line {number}, column "
                break
    if "\n".join(lines).lstrip().startswith("["):
        return  # an array
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_pieces, "PIECE_BYTES", piece)
        if isinstance(expected, str) or not any(expected):
            with pytest.raises(BadInput) as caught:
                read_table(path)
            assert not isinstance(expected, str) or caught.value.found.startswith(expected)
        else:
            assert read_table(path).num_rows == len(expected)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1}\n{"a" 2}\n', "line 2, column 6: no JSON"),
        ('{"a": "é"} x\n', "line 1, column 12: no JSON"),
        ('{"é": 1, "é": 2}\n', "line 1, column 10: the name 'é' twice"),
        ('{"a": [NaN]}\n', "line 1, column 8: NaN"),
        ('{"a": -1e400}\n', "line 1, column 7: the number -1e400, which is too large"),
        ('{"a": 1}\r{"a": 2}\r', "line 1, column 9: a carriage return alone"),
        ("5\n", "line 1, column 1: a number, 5"),
        ("\n\nnull\n", "line 3, column 1: null"),
        ('[\n {"a": 1},\n {"a": }\n]', "line 3, column 8: no JSON"),
        ('[\n {"a": 1},\n]', "line 3, column 1: no JSON"),
        ('[\n {"a": 1}\n {"a": 2}]', "line 3, column 2: no JSON"),
        ('[\n {"a": 1}\n', "line 3, column 1: no JSON"),
        ('[{"a": 1}]\n]', "line 2, column 1: more behind the array"),
        ('[{"a": 1},\n "x"]', "line 2, column 2: a text, 'x'"),
    ],
)
def test_where_a_fault_is(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text, "utf-8", newline="")
    with pytest.raises(BadInput) as caught:
        read_table(path)
    assert caught.value.found.startswith(f"{path}, {place}")
