"""Large files as mapped tables: cell for cell what reading them at once gives, whatever the pieces."""

import json
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.data import table_pieces
from snapfit.data.formats import read_table
from snapfit.data.table_pieces import file_pieces

ROWS = [{"text": f"row {i} 热\n二" if i % 3 == 0 else f'row "{i}", a', "label": f"l{i % 4}"} for i in range(60)]


def csv_bytes() -> bytes:
    def cell(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    return ("text,label\n" + "".join(f"{cell(r['text'])},{r['label']}\n" for r in ROWS)).encode()


def tsv_bytes(end: str = "\n") -> bytes:
    lines = ["text\tlabel", *(f"{r['text'].replace(chr(10), ' ')}\t{r['label']}" for r in ROWS), ""]
    return end.join(lines).encode()


def lines_bytes(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


FILES = {
    "plain.csv": csv_bytes(),
    "bom.csv": b"\xef\xbb\xbf" + csv_bytes(),
    "plain.tsv": tsv_bytes(),
    "returns.tsv": tsv_bytes("\r\n"),
    "no-end.tsv": tsv_bytes().rstrip(b"\n"),
    "plain.jsonl": lines_bytes(ROWS),
    "later-column.jsonl": lines_bytes([*ROWS, {"text": "a", "label": "b", "more": 1}]),
    "later-fraction.jsonl": lines_bytes([{"text": "a", "score": i} for i in range(40)] + [{"text": "b", "score": 0.5}]),
    "mixed.jsonl": lines_bytes([{"text": "a", "label": i} for i in range(40)] + [{"text": "b", "label": "x"}]),
    "lists.jsonl": lines_bytes([{"text": "a", "labels": []}] * 40 + [{"text": "b", "labels": ["x"]}]),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_pieces, "PIECE_BYTES", 200)


def stored(path: Path, cache: Path, **options: Any) -> pa.Table:
    return read_table(path, cache_dir=cache, streamed_bytes=10, **options)


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "tables").iterdir()) if (cache / "tables").is_dir() else []


@pytest.mark.parametrize("name", FILES)
def test_cells_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    path, cache = tmp_path / name, tmp_path / "cache"
    path.write_bytes(FILES[name])
    whole = read_table(path)
    for _ in range(2):
        found = stored(path, cache)
        assert found.to_pylist() == whole.to_pylist()
        assert found.column_names == whole.column_names
    assert len(entries(cache)) == 1


def test_a_folder_and_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "b.csv").write_bytes(csv_bytes())
    (folder / "a.csv").write_text("label,text\nz,first\n")
    assert stored(folder, tmp_path / "cache").to_pylist() == read_table(folder).to_pylist()
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(1, "label", table.column("label").dictionary_encode())
    pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=7)
    assert stored(tmp_path / "t.parquet", tmp_path / "cache").to_pylist() == ROWS


def test_another_encoding(tmp_path: Path) -> None:
    for encoding in ("gb18030", "utf-16"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(csv_bytes().decode().encode(encoding))
        found = stored(path, tmp_path / "cache", encoding=encoding)
        assert found.to_pylist() == ROWS


def test_a_json_array_is_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(ROWS))
    assert stored(path, tmp_path / "cache").to_pylist() == ROWS
    assert entries(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("t.csv", csv_bytes() + b'"a","b","c"\n', "line 82 has 3"),
        ("t.csv", csv_bytes() + b'"never closed\n', "line 82, column 1: a cell that begins"),
        ("t.tsv", tsv_bytes() + b"one\n", "line 62 has 1"),
        ("t.tsv", tsv_bytes() + b"\xff\tx\n", "line 62, column 1: the byte 0xff"),
        ("t.tsv", tsv_bytes() + b"\0\tx\n", "line 62, column 1: a NUL byte"),
        ("t.jsonl", lines_bytes(ROWS) + b"{oh}\n", "line 61, column 2: no JSON"),
        ("t.csv", b"PK\x03\x04" + csv_bytes(), "a zip archive"),
        ("t.parquet", b"PAR1 and nothing more", "no Parquet file"),
        ("t.csv", b"\n" * 500, "is empty"),
    ],
)
def test_what_is_no_table_is_named_by_its_line(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=place):
        stored(tmp_path / name, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []  # nothing half-written
    if b"\xff" not in content:
        with pytest.raises(BadInput, match=place):
            read_table(tmp_path / name)


def test_a_later_byte_that_is_not_of_the_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_bytes().decode().encode("gb18030") + b"\xff\xff\n")
    with pytest.raises(BadInput, match="what is not gb18030"):
        stored(tmp_path / "t.csv", tmp_path / "cache", encoding="gb18030")
    with pytest.raises(BadInput, match="the encoding 'klingon'"):
        stored(tmp_path / "t.csv", tmp_path / "cache", encoding="klingon")


def test_files_of_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(csv_bytes())
    (tmp_path / "b.csv").write_text("text,class\na,b\n")
    with pytest.raises(BadInput, match="the same columns"):
        stored(tmp_path, tmp_path / "cache")


def test_a_damaged_table_is_made_again(tmp_path: Path) -> None:
    path, cache = tmp_path / "t.csv", tmp_path / "cache"
    path.write_bytes(csv_bytes())
    stored(path, cache)
    file = entries(cache)[0] / "table.arrow"
    data = file.read_bytes()
    file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    assert stored(path, cache).to_pylist() == ROWS
    assert file.read_bytes() == data


def test_changed_files_have_another_entry(tmp_path: Path) -> None:
    path, cache = tmp_path / "t.csv", tmp_path / "cache"
    path.write_bytes(csv_bytes())
    stored(path, cache)
    path.write_bytes(csv_bytes() + b"one,more\n")
    assert stored(path, cache).num_rows == len(ROWS) + 1
    assert len(entries(cache)) == 2


def test_a_cache_that_cannot_be_made_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_bytes())
    (tmp_path / "file").write_text("not a folder")
    assert stored(tmp_path / "t.csv", tmp_path / "file").to_pylist() == ROWS


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(csv_bytes())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(WorkFailed, match="SNAPFIT_CACHE"):
            stored(tmp_path / "t.csv", tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries(tmp_path / "cache") == []
    assert stored(tmp_path / "t.csv", tmp_path / "cache").to_pylist() == ROWS


def test_long_cells_make_short_chunks(tmp_path: Path) -> None:
    """What is held of a file of long documents is bounded by their characters, not only by their number."""
    path = tmp_path / "long.csv"
    path.write_text("text,label\n" + "".join(f'"{"x" * 90}\n{i}",a\n' for i in range(50)))
    tables = list(file_pieces(path, "csv", "utf-8", rows=1000, size=300))
    assert all(table.num_rows <= 4 for table in tables)
    assert pa.concat_tables(tables)["text"].to_pylist() == [f"{'x' * 90}\n{i}" for i in range(50)]


@pytest.mark.parametrize("encoding", ["hex", "klingon"])
def test_a_codec_that_is_not_of_text_is_refused(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("text\na\n")
    with pytest.raises(BadInput, match="an encoding of Python"):
        list(file_pieces(tmp_path / "t.csv", "csv", encoding, rows=10, size=10))
