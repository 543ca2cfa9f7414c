"""A table as it is checked: the rows that can be used as records, where each is in its file, and those that cannot.

Nothing stops at the first bad row: what training would refuse is set aside with its place and its reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.checks.lines import rows_of_file, sift_file, write_without
from snapfit.checks.places import FileRows, Places, Unreadable
from snapfit.checks.unusable import unusable_rows
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.maps import map_file, release_pages
from snapfit.data.batches import POOL_ROWS
from snapfit.data.columns import Columns, find_columns
from snapfit.data.formats import describe, read_table, table_files
from snapfit.data.large_records import LargeRecords, large_records_of
from snapfit.data.records import Records, records_of
from snapfit.data.token_cache import default_cache_dir

SLAB_ROWS = 65_536
_NEVER_BAD = 10
"""So many rows that cannot be read are never taken for a sign that the whole file is something else."""


@dataclass(frozen=True)
class Source:
    """How a table is read: fields of the recipe's data section."""

    text: str = "auto"
    pair: str | None = "auto"
    label: str = "auto"
    task: str = "auto"
    delimiter: str | None = None
    encoding: str = "utf-8"
    format: str = "auto"


@dataclass(frozen=True)
class CheckedSplit:
    """A table that was read.

    name: train, valid or test. source: what it is called. records: the rows that can be used; without labels where the
    table has none. places: of the records' rows. unreadable: by file. unusable: places of rows that can be read and not
    used, by kind of finding. table: the rows of the records, all columns. n_read: rows that can be read.
    """

    name: str
    source: str
    records: Records
    places: Places
    unreadable: list[tuple[FileRows, Unreadable]]
    unusable: dict[str, Places]
    table: pa.Table
    n_read: int
    is_file: bool = True

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Slab:
    """Some rows of a split. start: the number of the first. labels: as in Records, of these rows, or None."""

    start: int
    texts: pa.LargeStringArray
    pairs: pa.LargeStringArray | None
    labels: Any

    def both(self) -> Iterator[pa.LargeStringArray]:
        """The first texts, and the second ones where there are such."""
        yield self.texts
        if self.pairs is not None:
            yield self.pairs


def slabs(records: Records, rows: int = SLAB_ROWS) -> Iterator[Slab]:
    """All rows of a table, some at a time; pages of mapped files are given back in between."""
    large = isinstance(records, LargeRecords)
    parts: list[Any] = [records.texts, records.pairs, records.labels]
    for start in range(0, len(records), rows):
        if large:
            yield Slab(start, *(None if part is None else part.slice(start, rows) for part in parts))
            release_pages()
        else:
            texts, pairs, labels = parts
            yield Slab(
                start,
                texts.slice(start, rows),
                None if pairs is None else pairs.slice(start, rows),
                None if labels is None else labels[start : start + rows],
            )


def read_split(name: str, source: object, asked: Source, folder: Path, columns: Columns | None = None) -> CheckedSplit:
    """Read a table for checking.

    folder: for copies of what can be read, which are needed for as long as the split is. columns: those of the training
    table, for others; a table without its label column gives records without labels.
    Raises BadInput for what stops any checking: no table at all, no columns of texts, or hardly a row that can be read.
    """
    table, files = _read(source, asked, folder / name)
    split = Places(files, np.arange(table.num_rows, dtype=np.int64))
    where = split.named(describe(source))
    found = _columns(table, asked, columns, where)
    unusable = unusable_rows(table, found, asked.delimiter)
    kept = split.rows
    if unusable:
        bad = np.concatenate(list(unusable.values()))
        if len(bad) == table.num_rows:
            records_of(table, found, delimiter=asked.delimiter, where=where)  # raises, and says why
        kept = np.setdiff1d(split.rows, bad)
        table = _only(table, kept, folder / f"{name}.arrow")
    kept_places = Places(files, kept)
    return CheckedSplit(
        name=name,
        source=where,
        records=_records(table, found, asked, kept_places.named(where)),
        places=kept_places,
        unreadable=[(one, line) for one in files for line in one.unreadable],
        unusable={kind: Places(files, rows) for kind, rows in unusable.items()},
        table=table,
        n_read=sum(map(len, files)),
        is_file=isinstance(source, str | Path),
    )


def _records(table: pa.Table, columns: Columns, asked: Source, where: str) -> Records:
    read = records_of if table.num_rows <= POOL_ROWS else large_records_of
    return read(table, columns, delimiter=asked.delimiter, where=where)


def _columns(table: pa.Table, asked: Source, known: Columns | None, where: str) -> Columns:
    if known is None:
        return find_columns(
            table,
            text=asked.text,
            pair=asked.pair,
            label=asked.label,
            task=asked.task,
            delimiter=asked.delimiter,
            where=where,
        )
    label = known.label if known.label in table.column_names else None
    return find_columns(
        table,
        text=known.text,
        pair=known.pair,
        label=label or "auto",
        task=known.task,
        delimiter=asked.delimiter,
        labels_required=label is not None,
        where=where,
    )


def _read(source: object, asked: Source, folder: Path) -> tuple[pa.Table, list[FileRows]]:
    """The table of what can be read, and where its rows are."""
    options: dict[str, Any] = {"format": asked.format, "encoding": asked.encoding, "cache_dir": default_cache_dir()}
    if not isinstance(source, str | Path):
        table = read_table(source, **options)
        numbers = np.arange(1, table.num_rows + 1, dtype=np.int64)
        return table, [FileRows(Path(), "table", "row", numbers, numbers)]
    kinds = table_files(Path(source), asked.format)
    try:
        table = read_table(source, **options)
        files = [rows_of_file(path, kind, asked.encoding) for path, kind in kinds.items()]
    except BadInput as error:
        files = _sifted(kinds, asked.encoding, error)
        table = _read_copies(files, asked.encoding, folder, error)
    if sum(map(len, files)) != table.num_rows:
        raise WorkFailed(f"{source}: {table.num_rows:,} rows were read, and {sum(map(len, files)):,} are in its lines")
    return table, files


def _sifted(kinds: dict[Path, str], encoding: str, error: BadInput) -> list[FileRows]:
    """The rows of files that are refused as they are. Raises that error where it is not about a few rows."""
    try:
        files = [sift_file(path, kind, encoding) for path, kind in kinds.items()]
    except (BadInput, OSError, pa.ArrowException):
        raise error from None
    n_bad, n_good = sum(len(one.unreadable) for one in files), sum(map(len, files))
    if n_bad == 0 or n_good == 0 or (n_bad > _NEVER_BAD and n_bad > n_good):
        raise error
    return files


def _read_copies(files: list[FileRows], encoding: str, folder: Path, error: BadInput) -> pa.Table:
    """The table of copies that lack what cannot be read."""
    folder.mkdir()
    suffix = {"csv": ".csv", "tsv": ".tsv", "tsv-quoted": ".tsv", "jsonl": ".jsonl", "parquet": ".parquet"}
    for number, one in enumerate(files):
        target = folder / f"{number:06d}{suffix[one.kind]}"
        if one.kind == "parquet":
            target.symlink_to(one.path.resolve())
        else:
            write_without(one, encoding, np.zeros(len(one), dtype=bool), target, as_utf8=True)
    try:
        return read_table(folder, format=files[0].kind, encoding="utf-8", cache_dir=default_cache_dir())
    except BadInput:
        raise error from None


def _only(table: pa.Table, rows: np.ndarray, path: Path) -> pa.Table:
    """Some rows of a table; of a large one in a mapped file, so that they take no memory. rows: int64, ascending."""
    if table.num_rows <= POOL_ROWS:
        return table.take(pa.array(rows))
    with pa.ipc.new_file(str(path), table.schema) as writer:
        for start in range(0, table.num_rows, SLAB_ROWS):
            first, last = np.searchsorted(rows, [start, start + SLAB_ROWS])
            slab = table.slice(start, SLAB_ROWS).take(pa.array(rows[first:last] - start))
            writer.write_table(slab.combine_chunks(), max_chunksize=SLAB_ROWS)
            release_pages()
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(map_file(path)))).read_all()
