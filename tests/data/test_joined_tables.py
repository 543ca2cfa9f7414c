"""Pieces to tables: columns in the order in which they turn up, and types that change no value."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from snapfit.core.errors import BadInput
from snapfit.data import table_pieces
from snapfit.data.formats import read_table
from snapfit.data.joined_tables import joined_table
from snapfit.data.json_cells import JSON


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "types"),
    [
        ([{"a": 1}, {"b": "x"}, {"a": 2.5}], {"a": pa.float64(), "b": pa.large_string()}),
        ([{"a": 2**53 + 1}, {"a": 0.5}], {"a": JSON}),
        ([{"a": None}, {"a": []}, {"a": [1]}], {"a": pa.list_(pa.int64())}),
        ([{"a": 1, "b": 1}, {"a": "x"}, {"b": 2}], {"a": JSON, "b": pa.int64()}),
        ([{}, {"a": 1}, {}, {}], {"a": pa.int64()}),
        ([{"a": True}, {"a": 1}, {"a": "x"}], {"a": JSON}),
    ],
)
@pytest.mark.parametrize("piece", [4, 10**6])
def test_types_of_lines(
    tmp_path: Path, rows: list[Any], types: dict[str, pa.DataType], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_pieces, "PIECE_BYTES", piece)
    path = lines(tmp_path / "t.jsonl", rows)
    for table in (read_table(path), read_table(path, cache_dir=tmp_path / "cache", streamed_bytes=0)):
        assert dict(zip(table.column_names, table.schema.types, strict=True)) == types
        assert table.num_rows == len(rows)


def test_files_of_a_folder(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"text": "x", "n": 1}])
    lines(tmp_path / "b.jsonl", [{"m": [1], "text": "y"}])
    assert read_table(tmp_path).to_pydict() == {"text": ["x", "y"], "n": [1, None], "m": [None, [1]]}
    lines(tmp_path / "c.jsonl", [])
    with pytest.raises(BadInput, match=r"c\.jsonl is empty"):
        read_table(tmp_path)


def test_types_of_parquet_have_a_common_one_or_are_told(tmp_path: Path) -> None:
    def write(name: str, values: Any) -> Path:
        pa.parquet.write_table(pa.table({"n": values}), tmp_path / name)
        return tmp_path / name

    small, large = write("a.parquet", pa.array([1], pa.int8())), write("b.parquet", pa.array([2**40]))
    files = {small: "parquet", large: "parquet"}
    assert joined_table(files, "utf-8").schema.types == [pa.int64()]
    write("a.parquet", [0.5])
    assert joined_table(files, "utf-8").to_pydict() == {"n": [0.5, 2.0**40]}
    write("b.parquet", [2**53 + 1])
    with pytest.raises(BadInput, match="the column 'n' holds int64 and double"):
        joined_table(files, "utf-8")
    write("b.parquet", pa.array(["x"]).dictionary_encode())
    write("a.parquet", ["y"])
    assert joined_table(files, "utf-8")["n"].to_pylist() == ["y", "x"]
