"""Tables that are read part by part, so that memory does not grow with their rows.

A file of up to WHOLE_BYTES is read at once. A larger one is read twice: once to check that nothing in it is odd, before
any work begins, and once to be used. Where a part cannot be read as all of it would be (rows that are damaged, JSON
whose columns change their type on the way), the whole table is read at once after all: `data.formats` decides what it
means, and names what is wrong with it.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet

from snapfit.core.errors import BadInput
from snapfit.data.columns import is_list_type
from snapfit.data.formats import SUFFIXES
from snapfit.data.records import Records
from snapfit.data.row_tables import json_table

WHOLE_BYTES = 32 << 20
PART_ROWS = 16_384
PART_CHARACTERS = 16 << 20
"""A part ends at the first of both. Of Parquet only rows are counted, and whole pieces of row groups are taken: fewer
than twice as many."""
_SPACES = " \t\n\r\v\f"
_T = TypeVar("_T")

Check = Callable[[Records], object]
"""Raises BadInput for records that cannot be used."""


@dataclass(frozen=True)
class RecordParts:
    """Records, part by part; they can be gone through more than once, and are read anew each time.

    source: what the table is called. column_names: of the table. n_rows: of all parts together.
    """

    source: str
    column_names: list[str]
    n_rows: int
    _parts: Callable[[], Iterator[Records]]

    def __iter__(self) -> Iterator[Records]:
        return self._parts()

    def __len__(self) -> int:
        return self.n_rows

    @classmethod
    def of(cls, records: Records, check: Check = lambda records: None) -> "RecordParts":
        """The parts of records that are in memory. Raises what `check` raises on all of them."""

        def parts() -> Iterator[Records]:
            for start in range(0, len(records), PART_ROWS):
                yield _slice(records, start, PART_ROWS)

        try:
            for part in parts():
                check(part)
        except BadInput:
            check(records)  # it tells of all rows, not only of those of one part
        return cls(records.source, records.table.column_names, len(records), parts)


def record_parts(
    source: str | Path,
    read: Callable[[object], Records],
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    check: Check = lambda records: None,
) -> RecordParts:
    """The records of a file, or of a folder of files, in parts.

    read: reads and checks `source`, or an Arrow table of some of its rows. format, encoding: of the files, as
    `read_table` takes them. check: does more checks.
    Raises BadInput, before any part is given, for whatever `read` or `check` refuses.
    """
    try:
        files = _files(Path(source), format)
        if sum(path.stat().st_size for path in files) <= WHOLE_BYTES:
            raise _Odd
        n_rows, schema = 0, None
        for table in _tables(files, encoding):
            if schema is not None and table.schema != schema:
                raise _Odd
            schema = table.schema
            records = read(table)
            if _needs_all_labels(records):
                raise _Odd
            check(records)
            n_rows += table.num_rows
        if schema is None:
            raise _Odd
    except (_Odd, BadInput, OSError, UnicodeError, LookupError, csv.Error, pa.ArrowException):
        return RecordParts.of(read(source), check)
    return RecordParts(str(source), schema.names, n_rows, lambda: map(read, _tables(files, encoding)))


class _Odd(Exception):
    """This is better read at once."""


def _slice(records: Records, start: int, n: int) -> Records:
    return replace(
        records,
        texts=records.texts.slice(start, n),
        pairs=None if records.pairs is None else records.pairs.slice(start, n),
        labels=None if records.labels is None else records.labels[start : start + n],
        table=records.table.slice(start, n),
    )


def _needs_all_labels(records: Records) -> bool:
    """Whether a label's name depends on the other rows: "1" for 1.0 where all numbers are whole, else "1.0"."""
    label = records.columns.label
    if label is None or records.columns.task == "regression":
        return False
    kind = records.table.schema.field(label).type
    return bool(pa.types.is_floating(kind.value_type if is_list_type(kind) else kind))


# ---------------------------------------------------------------- tables, a part at a time


def _files(source: Path, format: str) -> dict[Path, str]:
    """The files of a table, in order, and the format of each."""
    if not source.is_dir():
        kind = SUFFIXES.get(source.suffix.lower(), "") if format == "auto" else format
        return {source: kind}
    inside = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    kinds = {path: SUFFIXES[path.suffix.lower()] for path in inside if path.suffix.lower() in SUFFIXES}
    if format != "auto":
        wanted = format.removesuffix("-quoted")
        kinds = {path: format for path, kind in kinds.items() if kind == wanted}
    if len(set(kinds.values())) != 1:
        raise _Odd
    return kinds


def _tables(files: dict[Path, str], encoding: str) -> Iterator[pa.Table]:
    """Tables of some PART_ROWS rows; of a folder, all with the first one's order of columns."""
    names: list[str] | None = None
    for path, kind in files.items():
        for table in _file_tables(path, kind, encoding):
            names = names or table.column_names
            if set(table.column_names) != set(names):
                raise _Odd
            yield table.select(names)


def _file_tables(path: Path, kind: str, encoding: str) -> Iterator[pa.Table]:
    if kind == "parquet":
        yield from _parquet_tables(path)
        return
    readers = {
        "csv": lambda lines: _separated(_quoted_rows(lines, ",")),
        "tsv": lambda lines: _separated(_unquoted_rows(lines)),
        "tsv-quoted": lambda lines: _separated(_quoted_rows(lines, "\t")),
        "jsonl": _json_tables,
    }
    if kind not in readers:
        raise _Odd
    quoted = kind in ("csv", "tsv-quoted")  # there a line may end in CR too, and inside a cell in anything
    with open(path, "rb") as binary, io.TextIOWrapper(binary, _codec(encoding), newline="" if quoted else "\n") as text:
        yield from readers[kind](_clean_lines(text))


def _parquet_tables(path: Path) -> Iterator[pa.Table]:
    batches: list[pa.RecordBatch] = []
    with pa.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
        for group in range(file.num_row_groups):  # all in one go, each one's buffers would stay
            for batch in file.iter_batches(batch_size=PART_ROWS, row_groups=[group]):
                batches.append(batch)
                if sum(map(len, batches)) >= PART_ROWS:
                    yield pa.Table.from_batches(batches)
                    batches = []
    if batches:
        yield pa.Table.from_batches(batches)


def _codec(encoding: str) -> str:
    name = codecs.lookup(encoding).name
    return "utf-8" if name in ("ascii", "utf-8-sig") else name


def _clean_lines(text: Iterable[str]) -> Iterator[str]:
    """The lines without a byte order mark; a NUL is odd."""
    for number, line in enumerate(text):
        if "\0" in line:
            raise _Odd
        yield line if number else line.removeprefix("\ufeff")


def _quoted_rows(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    return filter(None, csv.reader(lines, delimiter=delimiter, strict=True))


def _unquoted_rows(lines: Iterator[str]) -> Iterator[list[str]]:
    header = next(lines, None)
    if header is None:
        return
    end = "\r" if header.endswith("\r\n") else ""
    yield (names := header.removesuffix("\n").removesuffix(end).split("\t"))
    for line in lines:
        cells = line.removesuffix("\n").removesuffix(end)
        if cells or len(names) == 1:
            yield cells.split("\t")


def _separated(rows: Iterator[list[str]]) -> Iterator[pa.Table]:
    """Tables of rows of text whose first one has the names."""
    names = next(rows, None)
    if names is None:
        raise _Odd
    schema = pa.schema([(name, pa.large_string()) for name in names])
    for part in _grouped(rows, size=lambda row: sum(map(len, row))):
        if any(len(row) != len(names) for row in part):
            raise _Odd
        yield pa.table([pa.array(column, pa.large_string()) for column in zip(*part, strict=True)], schema=schema)


def _json_tables(lines: Iterator[str]) -> Iterator[pa.Table]:
    for part in _grouped((line for line in lines if line.strip(_SPACES)), size=len):
        if part[0].lstrip(_SPACES).startswith("["):
            raise _Odd
        yield json_table("".join(part).encode("utf-8"), "")


def _grouped(items: Iterator[_T], *, size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """The items in lists of at most PART_ROWS, cut earlier where they hold PART_CHARACTERS."""
    for first in items:
        part, characters = [first], size(first)
        while len(part) < PART_ROWS and characters < PART_CHARACTERS:
            item = next(items, None)
            if item is None:
                break
            part.append(item)
            characters += size(item)
        yield part
