"""CSV and TSV to cells: what Python's csv makes of a file, whatever its pieces; the first fault is told."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.data import formats, table_pieces
from snapfit.data.formats import read_table
from snapfit.data.table_pieces import file_lines
from snapfit.data.text_files import Piece, text_pieces
from snapfit.data.text_tables import row_lines, text_tables

FUZZ = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
PARTS = [b"a", b"bc", b'"', b'""', b",", b"\t", b"\n", b"\r", b"\r\n", b" ", b"\xc3\xa9", b"\xe7\x94\xb5", b"x,y\n"]
FAULTS = [b"\0", b"\xff", b"\xe7\x94", b"\xed\xa0\x80"]
SIZES = (1, 3, 7, 16, 50, 10**6)


def fuzzed(*more: bytes) -> st.SearchStrategy[bytes]:
    """Bytes made of what matters to a reader."""
    return st.lists(st.sampled_from([*PARTS, *more]), max_size=30).map(b"".join)


def pieces(data: bytes, size: int, format: str = "csv") -> Iterator[Piece]:
    return text_pieces(io.BytesIO(data), "t", "utf-8", size, returns=format != "tsv")


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except BadInput as error:
        return str(error)


def read(data: bytes, format: str, size: int) -> list[list[str]]:
    """The header and the rows."""
    tables = list(text_tables(pieces(data, size, format), "t", format))
    table = pa.concat_tables(tables)
    return [table.column_names, *([cell.as_py() for cell in row] for row in zip(*table.columns, strict=True))]


def by_csv(data: bytes, delimiter: str) -> tuple[list[list[str]], list[int]] | None:
    """Rows and their lines as Python's csv has them; None for what it does not take, or what is no table."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if row:
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error:
        return None
    is_table = text.encode().strip() != b"" and "\0" not in text and len({len(row) for row in rows}) == 1
    return (rows, lines) if is_table and len(set(rows[0])) == len(rows[0]) else None


def by_hand(data: bytes) -> tuple[list[list[str]], list[int]] | None:
    """As `by_csv`, for TSV: tab and line feed separate, and in a file that begins with CR LF that ends lines."""
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    lines = text.removesuffix("\n").split("\n") if text else []
    first = next((line for line in lines if line.strip("\r")), "")
    if "\0" in text or not text.strip(" \t\n\r\x0b\x0c") or "\r" in first.removesuffix("\r"):
        return None
    if first.endswith("\r"):
        lines = [line.removesuffix("\r") for line in lines]
    rows = [(i + 1, line.split("\t")) for i, line in enumerate(lines)]
    while rows and rows[0][1] in ([""], ["\r"]):
        rows = rows[1:]
    if len(rows[0][1]) > 1:
        rows = [row for row in rows if row[1] not in ([""], ["\r"])]
    is_table = len({len(row) for _, row in rows}) == 1 and len(set(rows[0][1])) == len(rows[0][1])
    return ([row for _, row in rows], [line for line, _ in rows]) if is_table else None


@FUZZ
@given(data=fuzzed() | fuzzed(*FAULTS, b"\xef\xbb\xbf"), format=st.sampled_from(["csv", "tsv-quoted"]))
@example(data=b'a,b\n"x""y",z\n"",""\n', format="csv")
@example(data=b'a\n""\n\n"\n"\r\n', format="csv")
@example(data=b'a"b,c\n1,2"\n', format="csv")
@example(data=b"a\r\r\nb", format="csv")
@example(data=b'"a\nb"\n"c"', format="csv")
def test_quoted_cells_are_those_of_pythons_csv(data: bytes, format: str) -> None:
    expected = by_csv(data, "," if format == "csv" else "\t")
    results = [outcome(lambda size=size: read(data, format, size)) for size in SIZES]
    assert results == results[:1] * len(SIZES)  # errors too
    assert isinstance(results[0], str) if expected is None else results[0] == expected[0]
    if expected is not None:
        for size in SIZES:
            lines = np.concatenate(list(row_lines(pieces(data, size), "t", format)))
            assert lines.tolist() == expected[1][1:]


@FUZZ
@given(data=fuzzed() | fuzzed(*FAULTS, b"\xef\xbb\xbf"))
@example(data=b"a\tb\r\n1\t2\r\n\r\n3\t4\r")
def test_unquoted_cells_are_those_between_tabs(data: bytes) -> None:
    expected = by_hand(data)
    results = [outcome(lambda size=size: read(data, "tsv", size)) for size in SIZES]
    assert results == results[:1] * len(SIZES)
    assert isinstance(results[0], str) if expected is None else results[0] == expected[0]
    if expected is not None:
        lines = np.concatenate(list(row_lines(pieces(data, 7, "tsv"), "t", "tsv")))
        assert lines.tolist() == expected[1][1:]


@FUZZ
@given(
    rows=st.lists(st.lists(st.text(st.sampled_from('ab",\n\r\t é'), max_size=4), min_size=2, max_size=2), min_size=1),
    fault=st.sampled_from([("ragged", "alone\n"), ("quote", '"a"b,c\n'), ("NUL", "a\0,b\n"), ("open", '"a,b\n')]),
    after=st.sampled_from(["", "x,y\n", "x\n", '"\n']),
    size=st.sampled_from(SIZES),
)
def test_the_first_fault_is_told_with_its_line(
    rows: list[list[str]], fault: tuple[str, str], after: str, size: int
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["one", "two"], *rows])
    line = 1 + len(text.getvalue().replace("\r\n", "\n").replace("\r", "\n").split("\n")) - 1
    if fault[0] == "open":
        after = after.replace('"', "")
    with pytest.raises(BadInput) as caught:
        read((text.getvalue() + fault[1] + after).encode(), "csv", size)
    column = {"ragged": " has 1", "quote": ", column 4:", "NUL": ", column 2:", "open": ", column 1:"}[fault[0]]
    assert f"line {line}{column}" in caught.value.found


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@FUZZ
@given(data=fuzzed(*FAULTS[:2], b'{"a": 1}\n', b'{"a": "x"}\n', b'{"b": [1]}\n', b'{"a": {}}\n'))
def test_both_ways_to_read_a_file_agree(tmp_path: Path, format: str, data: bytes) -> None:
    path = tmp_path / f"t.{format}"
    path.write_bytes(data)
    whole = outcome(lambda: read_table(path).to_pydict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_pieces, "PIECE_BYTES", 9)
        patch.setattr(formats, "STREAMED_BYTES", 0)
        stored = outcome(lambda: read_table(path, cache_dir=tmp_path / "cache").to_pydict())
    assert stored == whole
    if not isinstance(whole, str):
        lines = [line for part in file_lines(path, format, "utf-8") for line in part]
        assert len(lines) == len(next(iter(whole.values())))


def test_a_cell_over_many_pieces_is_not_read_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from snapfit.data import text_tables as module

    sizes, split = [], module._split

    def counted(data: bytes, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(data))
        return split(data, *arguments, **options)

    monkeypatch.setattr(module, "_split", counted)
    data = b'text,label\n"' + b"many words\n" * 10_000 + b'",x\n'
    assert read(data, "csv", 100)[1][1] == "x"
    assert sum(sizes) < 5 * len(data)


def test_ragged_rows_are_counted_to_the_end_of_the_file() -> None:
    data = b"a,b\n" + b"1,2\n" * 50 + b"alone\n" * 40 + b"1,2\n" * 50
    for size in SIZES:
        with pytest.raises(BadInput, match=r"line 52 has 1, line 53 has 1, line 54 has 1 cells \(and so on, 40 rows\)"):
            read(data, "csv", size)
    with pytest.raises(BadInput, match=r"40 rows") as caught:
        read(data + b"1\0,\n" + b"alone\n", "csv", 10)
    assert "NUL" not in str(caught.value)


def test_a_return_in_the_header_of_tsv() -> None:
    with pytest.raises(BadInput, match="line 1, column 4: a carriage return within the header"):
        read(b"a\tb\r1\t2\r3\t4\r", "tsv", 100)
