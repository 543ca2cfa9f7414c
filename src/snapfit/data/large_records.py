"""Records of a table that is too large to be held as Python values: columns are read piece by piece, on demand.

A column stays what Arrow made of it, in mapped files where formats.py put them there. Everything that `Records` has
whole (texts, labels, hashes) is worked out for the rows at hand; hashes are the same as those of `Records`.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snapfit.core.maps import release_pages, touched
from snapfit.core.places import Place
from snapfit.data.batches import POOL_ROWS
from snapfit.data.columns import Columns, find_columns
from snapfit.data.formats import read_table
from snapfit.data.records import Records, all_empty, are_empty, labels_of, records_of, texts_of
from snapfit.data.table_places import place_of

SLAB_ROWS = 65_536
"""Rows that are looked at together when a whole column is read."""
Convert = Callable[[pa.ChunkedArray, str], Any]
"""(a piece of the column, its Place) -> its values, checked: an Arrow array, a list or a numpy array."""


class LargeColumn:
    """A column of a large table, read on demand.

    column: Arrow's. convert: makes values of a piece of it. where: the table's name in messages.
    kept: rows of the table that this column has, int64, ascending; or left_out: those that it has not; or all.
    """

    def __init__(
        self,
        column: pa.ChunkedArray,
        convert: Convert,
        where: str,
        *,
        kept: np.ndarray | None = None,
        left_out: np.ndarray | None = None,
    ) -> None:
        self._column, self._convert, self._where, self._kept = column, convert, where, kept
        self._before = None if left_out is None else left_out - np.arange(len(left_out))
        self._chunk_starts = np.cumsum([0, *map(len, column.chunks)])[:-1]
        self._n = len(kept) if kept is not None else len(column) - (0 if left_out is None else len(left_out))

    def __len__(self) -> int:
        return self._n

    def only(self, rows: np.ndarray) -> "LargeColumn":
        """The column of some of the table's rows. rows: int64, ascending."""
        return LargeColumn(self._column, self._convert, self._where, kept=rows)

    def without(self, rows: np.ndarray) -> "LargeColumn":
        """The column of all but some of the table's rows. rows: int64, ascending."""
        return LargeColumn(self._column, self._convert, self._where, left_out=rows)

    def slice(self, start: int, n: int) -> Any:
        """Values of rows from `start` on, `n` or as many as there are."""
        end = min(start + n, self._n)
        if end <= start:
            return self._convert(self._column.slice(0, 0), self._where)
        if self._kept is not None:
            return self.take(np.arange(start, end))
        first, last = self._table_rows(np.array([start, end - 1])).tolist()
        piece = self._column.slice(first, last - first + 1)
        if last - first + 1 > end - start:  # some rows in between are left out
            piece = piece.take(pa.array(self._table_rows(np.arange(start, end)) - first))
        return self._convert(piece, Place.of(self._where, first=first))

    def take(self, rows: np.ndarray) -> Any:
        """Values of the rows at these indices, in this order. rows: int [m], from 0 to n - 1."""
        rows = self._table_rows(np.asarray(rows, dtype=np.int64))
        chunks = np.searchsorted(self._chunk_starts, rows, side="right") - 1
        order = np.argsort(chunks, kind="stable")
        parts = []
        for chosen in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1) if len(rows) else ():
            number = int(chunks[chosen[0]])
            part = self._column.chunk(number).take(pa.array(rows[chosen] - self._chunk_starts[number]))
            touched(len(chosen))
            parts.append(part.dictionary_decode() if pa.types.is_dictionary(part.type) else part)
        if not parts:
            return self._convert(self._column.slice(0, 0), self._where)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return self._convert(pa.chunked_array([pa.concat_arrays(parts).take(pa.array(back))]), self._where)

    def converting(self, convert: Convert) -> "LargeColumn":
        """The same rows with other values."""
        return LargeColumn(self._column, convert, self._where)

    def slabs(self) -> Iterator[Any]:
        """All values, SLAB_ROWS rows at a time; pages of mapped files are given back in between."""
        for start in range(0, self._n, SLAB_ROWS):
            yield self.slice(start, SLAB_ROWS)
            release_pages()

    def _table_rows(self, rows: np.ndarray) -> np.ndarray:
        if self._kept is not None:
            found: np.ndarray = self._kept[rows]
        elif self._before is not None:
            found = rows + np.searchsorted(self._before, rows, side="right")
        else:
            found = rows
        return found


@dataclass(frozen=True)
class LargeRecords(Records):
    """As Records; texts, pairs and labels are LargeColumns, `delimiter` is what separates labels in a cell.

    few_rows: as many may be held as plain Records.
    """

    delimiter: str | None = None
    few_rows: int = POOL_ROWS

    @property
    def n_empty_texts(self) -> int:
        """Rows whose text, and second text where there is one, has no characters."""
        return sum(int(pc.sum(are_empty(*slab)).as_py() or 0) for slab in self.text_slabs())

    def text_slabs(self) -> Iterator[tuple[pa.LargeStringArray, pa.LargeStringArray | None]]:
        """Texts and second texts, piece by piece."""
        if self.pairs is None:
            yield from ((slab, None) for slab in self.texts.slabs())
        else:
            yield from zip(self.texts.slabs(), self.pairs.slabs(), strict=True)

    def take(self, rows: np.ndarray) -> Records:
        """Of few rows plain Records; of many, which are ascending and of the whole table, LargeRecords."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) > self.few_rows:
            return self._over(lambda column: column.only(rows))
        pairs = None if self.pairs is None else self.pairs.take(rows)
        labels: Any = None if self.labels is None else self.labels.take(rows)  # type: ignore[union-attr]
        texts = self.texts.take(rows)
        return Records(texts, pairs, labels, self.columns, self.source, pa.table({self.columns.text: texts}))

    def without(self, rows: np.ndarray) -> "LargeRecords":
        """All rows of the whole table but these. rows: int64, ascending."""
        return self._over(lambda column: column.without(rows))

    def content_hash(self) -> str:
        """As that of Records."""
        digest = hashlib.sha256()
        for column in (self.texts, self.pairs):
            if column is None:
                digest.update(b"no pairs")
                continue
            digest.update(len(column).to_bytes(8, "little"))
            for slab in column.slabs():
                digest.update(np.diff(_offsets(slab)).astype("<i8").tobytes())
            for slab in column.slabs():
                offsets = _offsets(slab)
                digest.update(memoryview(slab.buffers()[2] or b"")[offsets[0] : offsets[-1]])
        return digest.hexdigest()

    def label_hash(self) -> str:
        """As that of Records."""
        labels: Any = self.labels
        digest = hashlib.sha256()
        if labels is None:
            digest.update(b"[]")
        elif self.columns.task == "regression":
            for slab in labels.slabs():
                digest.update(slab.astype("<f8").tobytes())
        else:
            for number, slab in enumerate(labels.slabs()):
                digest.update((("[" if number == 0 else ", ") + json.dumps(slab)[1:-1]).encode())
            digest.update(b"]")
        return digest.hexdigest()

    def _over(self, choose: Callable[[Any], Any]) -> "LargeRecords":
        pairs, labels = (None if column is None else choose(column) for column in (self.pairs, self.labels))
        return replace(self, texts=choose(self.texts), pairs=pairs, labels=labels)


def read_for_training(
    source: object,
    *,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
    cache_dir: Path | None = None,
    large_rows: int = POOL_ROWS,
    **columns: Any,
) -> Records:
    """As `records.read_records`; a table of more than `large_rows` rows gives LargeRecords.

    cache_dir: where large files are kept as mapped tables (see `formats.read_table`). columns: text, pair, label, task.
    """
    where = place_of(source, format=format, encoding=encoding)
    table = read_table(source, format=format, encoding=encoding, cache_dir=cache_dir)
    found = find_columns(table, delimiter=delimiter, where=where, **columns)
    if table.num_rows <= large_rows:
        return records_of(table, found, delimiter=delimiter, where=where)
    return large_records_of(table, found, delimiter=delimiter, where=where, few_rows=large_rows)


def large_records_of(
    table: pa.Table, columns: Columns, *, delimiter: str | None, where: str, few_rows: int = POOL_ROWS
) -> LargeRecords:
    """The records of a large table, all rows checked. Raises as `read_records`."""
    texts = _text_column(table, columns.text, "--text", where)
    pairs = None if columns.pair is None else _text_column(table, columns.pair, "--pair", where)
    labels: Any = None
    if columns.label is not None:
        labels = LargeColumn(
            table.column(columns.label), lambda part, place: labels_of(part, columns, delimiter, place), where
        )
        if pa.types.is_floating(table.column(columns.label).type) and columns.task == "single":
            labels = _named_numbers(labels, columns)
        for _ in labels.slabs():
            """Whatever is wrong with a label is raised here."""
    records = LargeRecords(texts, pairs, labels, columns, where, table, delimiter, few_rows)
    if not sum(len(slab[0]) - int(pc.sum(are_empty(*slab)).as_py() or 0) for slab in records.text_slabs()):
        raise all_empty(where, columns)
    return records


def _text_column(table: pa.Table, name: str, flag: str, where: str) -> Any:
    return LargeColumn(table.column(name), lambda part, place: texts_of(part, name, flag, place), where)


def _named_numbers(labels: LargeColumn, columns: Columns) -> LargeColumn:
    """Labels that are floating-point numbers, as text: how they are written depends on whether all are whole."""
    whole = all(pc.all(pc.equal(pc.floor(part), part)).as_py() for part in labels.converting(_as_it_is).slabs())

    def convert(part: pa.ChunkedArray, place: str) -> Any:
        values = (None if v is None or v != v else str(int(v)) if whole else repr(v) for v in part.to_pylist())
        return labels_of(pa.chunked_array([pa.array(values, pa.large_string())]), columns, None, place)

    return labels.converting(convert)


def _as_it_is(part: pa.ChunkedArray, place: str) -> pa.ChunkedArray:
    return part


def _offsets(array: pa.LargeStringArray) -> np.ndarray:
    return np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset :][: len(array) + 1]
