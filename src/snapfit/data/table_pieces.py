"""A file as tables, piece by piece: what is held at a time is bounded, however large the file.

One mechanism for all who read files: formats.py joins the pieces in memory, stored_tables.py in a mapped file, and
runtime/parts.py scores and forgets them. What a piece is changes neither cells nor errors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import BadInput
from snapfit.data.json_tables import json_rows, json_tables
from snapfit.data.row_tables import check_names, checked_text, without_views
from snapfit.data.text_files import HEAD_BYTES, text_pieces, what_it_is
from snapfit.data.text_tables import row_lines, text_tables

PIECE_BYTES = 2**22
"""What is read of a text file at a time."""
PIECE_ROWS = 65_536
_DELIMITED = ("csv", "tsv", "tsv-quoted")


def file_pieces(
    path: Path,
    kind: str,
    encoding: str,
    *,
    rows: int = PIECE_ROWS,
    size: int | None = None,
    as_json: frozenset[str] = frozenset(),
    at_once: bool = False,
) -> Iterator[pa.Table]:
    """The tables of a file's pieces, in order; one of a CSV, TSV or Parquet file may be empty, for its columns.

    kind: csv, tsv, tsv-quoted, jsonl or parquet. rows, size: a piece ends at the first of so many rows and about so
    many bytes (default PIECE_BYTES); of Parquet only rows are counted, and whole batches of row groups are taken: fewer
    than twice as many. as_json: columns of JSON lines that are to be of type JSON. JSON lines without a row give no
    table; types are those that a piece shows. at_once: for a table that is held as a whole anyway: a JSON array is
    read, and Parquet is one piece.
    Raises BadInput naming the line of what is wrong, also where the system would not read the file; NotByPiecesError.
    """
    where = str(path)
    with _reading(path):
        if kind == "parquet":
            yield from _parquet(path, None if at_once else rows)
            return
        with open(path, "rb") as file:
            pieces = text_pieces(file, where, encoding, size or PIECE_BYTES, returns=kind not in ("tsv", "jsonl"))
            if kind in _DELIMITED:
                tables = text_tables(pieces, where, kind)
            else:
                tables = json_tables(pieces, where, as_json=as_json, at_once=at_once)
            for table in tables:
                yield from _cut(table, rows)


def file_lines(path: Path, kind: str, encoding: str) -> Iterator[list[int]]:
    """The lines on which the rows of a text file begin, piece by piece. Arguments and errors as for `file_pieces`."""
    where = str(path)
    with _reading(path), open(path, "rb") as file:
        pieces = text_pieces(file, where, encoding, PIECE_BYTES, returns=kind not in ("tsv", "jsonl"))
        if kind in _DELIMITED:
            yield from (lines.tolist() for lines in row_lines(pieces, where, kind))
            return
        for objects in json_rows(pieces, where):
            yield [line for line, _ in objects]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the system says against reading becomes BadInput."""
    try:
        yield
    except OSError as error:
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: OSError) -> BadInput:
    """The error for a file that the system would not read."""
    found = f"{path} cannot be read ({error.strerror or error})"
    return BadInput(found, "a readable file", "check the path and its permissions")


def _cut(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    if table.num_rows <= rows:
        yield table
        return
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def _parquet(path: Path, rows: int | None) -> Iterator[pa.Table]:
    """The pieces of a Parquet file, or all of it. Opened here: Arrow cannot name every file that the system can."""
    where = str(path)
    try:
        with open(path, "rb") as opened, pa.parquet.ParquetFile(opened, buffer_size=1 << 20) as file:
            check_names(file.schema_arrow.names, where)
            if rows is None:
                yield checked_text(file.read(), where)
                return
            yield without_views(file.schema_arrow.empty_table())
            batches: list[pa.RecordBatch] = []
            n_rows = 0
            for group in range(file.num_row_groups):  # all in one go, each one's buffers would stay
                for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                    batches.append(checked_text(batch, where, first=n_rows))
                    n_rows += len(batch)
                    if sum(map(len, batches)) >= rows:
                        yield pa.Table.from_batches(batches)
                        batches = []
            if batches:
                yield pa.Table.from_batches(batches)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _bad_parquet(path, error) from error


def _bad_parquet(path: Path, error: Exception) -> BadInput:
    """The error for what is no Parquet file."""
    expected = "a whole Parquet file"
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.startswith(b"PAR1") and (known := what_it_is(head)):
        return BadInput(f"{path} is {known[0]}", expected, known[1])
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    found = f"{path} is no Parquet file that can be read ({words})"
    return BadInput(found, expected, "write it again, or give its --format")
