"""A file as tables, piece by piece: what is held at a time is bounded, however large the file.

One mechanism for whoever need not hold a table: stored_tables.py puts the pieces into a mapped file, runtime/parts.py
scores and forgets them. Small files are read by the same parsers, in one piece (formats.py).
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import BadInput
from snapfit.data.row_tables import json_lines_table
from snapfit.data.text_tables import text_pieces, text_tables


class NotByPiecesError(Exception):
    """The file means something as a whole only: a JSON array, or no format that is known."""


def file_pieces(
    path: Path, kind: str, encoding: str, *, rows: int, size: int, as_text: frozenset[str] = frozenset()
) -> Iterator[pa.Table]:
    """The tables of a file's pieces, in order; one of a CSV, TSV or Parquet file may be empty, for its columns.

    kind: csv, tsv, tsv-quoted, jsonl or parquet. rows, size: a piece ends at the first of so many rows and about so
    many bytes; of Parquet only rows are counted, and whole batches of row groups are taken: fewer than twice as many.
    as_text: columns of JSON lines that become text. JSON lines without a row give no table; types are those that a
    piece shows.
    Raises BadInput naming the line of what is wrong, NotByPiecesError, and OSError.
    """
    if kind == "parquet":
        yield from _parquet(path, rows)
        return
    if kind not in ("csv", "tsv", "tsv-quoted", "jsonl"):
        raise NotByPiecesError
    where = str(path)
    with open(path, "rb") as file:
        pieces = text_pieces(file, where, encoding, size)
        if kind != "jsonl":
            for table in text_tables(pieces, where, kind, rows=rows, size=size):
                yield from _cut(table, rows)
            return
        for line, data in pieces:
            if line == 1 and data.lstrip().startswith(b"["):
                raise NotByPiecesError
            table = json_lines_table(data, where, first_line=line, as_text=as_text)
            if table.num_rows:
                yield from _cut(table, rows)


def bad_parquet(path: Path, error: Exception) -> BadInput:
    """The error for what is no Parquet file."""
    found = f"{path} is no Parquet file that can be read ({str(error).splitlines()[0]})"
    return BadInput(found, "a whole Parquet file", "write it again, or give its --format")


def _cut(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    for start in range(0, max(table.num_rows, 1), rows):
        yield table.slice(start, rows)


def _parquet(path: Path, rows: int) -> Iterator[pa.Table]:
    try:
        with pa.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
            yield file.schema_arrow.empty_table()
            batches: list[pa.RecordBatch] = []
            for group in range(file.num_row_groups):  # all in one go, each one's buffers would stay
                for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                    batches.append(batch)
                    if sum(map(len, batches)) >= rows:
                        yield pa.Table.from_batches(batches)
                        batches = []
            if batches:
                yield pa.Table.from_batches(batches)
    except pa.ArrowException as error:
        raise bad_parquet(path, error) from error
