"""Records: the texts of a table with their labels, checked, in Arrow arrays."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snapfit.core.errors import BadInput, shown
from snapfit.core.places import rows_at
from snapfit.data.columns import Columns, find_columns, is_list_type, is_text_type, parse_number
from snapfit.data.formats import read_table
from snapfit.data.json_cells import is_json_type, json_text, json_values, told
from snapfit.data.table_places import place_of

Labels: TypeAlias = list[str] | list[list[str]] | np.ndarray


@dataclass(frozen=True)
class Records:
    """Rows of a table that are learnt from, evaluated on or predicted for.

    texts, pairs: large_string arrays [n] without nulls; pairs is None for single texts. labels: a str of each
    row (single), a list of different str of each row (multi), float64 [n], finite (regression), or None where
    not read. columns: where they were found. source: what the table is called. table: all columns.
    """

    texts: pa.LargeStringArray
    pairs: pa.LargeStringArray | None
    labels: Labels | None
    columns: Columns
    source: str
    table: pa.Table

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_empty_texts(self) -> int:
        """Rows whose text, and second text where there is one, has no characters."""
        return int(pc.sum(are_empty(self.texts, self.pairs)).as_py() or 0)

    def slice(self, start: int, n: int) -> "Records":
        """Up to n rows from `start` on; nothing but a list of labels is copied."""
        return replace(
            self,
            texts=self.texts.slice(start, n),
            pairs=None if self.pairs is None else self.pairs.slice(start, n),
            labels=None if self.labels is None else self.labels[start : start + n],
            table=self.table.slice(start, n),
        )

    def take(self, rows: np.ndarray) -> "Records":
        """The rows at these indices, in this order. rows: int [m], from 0 to n - 1."""
        places = pa.array(rows, pa.int64())
        labels: Any = self.labels
        if isinstance(labels, list):
            labels = [labels[row] for row in np.asarray(rows).tolist()]
        elif labels is not None:
            labels = labels[rows]
        pairs = None if self.pairs is None else self.pairs.take(places)
        table = self.table.take(places)
        return replace(self, texts=self.texts.take(places), pairs=pairs, labels=labels, table=table)

    def content_hash(self) -> str:
        """SHA-256 of the texts, and second texts, in their order: 64 hexadecimal digits."""
        digest = hashlib.sha256()
        for array in (self.texts, self.pairs):
            if array is None:
                digest.update(b"no pairs")
                continue
            offsets = np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset :][: len(array) + 1]
            digest.update(len(array).to_bytes(8, "little") + np.diff(offsets).astype("<i8").tobytes())
            if len(array):
                digest.update(memoryview(array.buffers()[2] or b"")[offsets[0] : offsets[-1]])
        return digest.hexdigest()

    def label_hash(self) -> str:
        """SHA-256 of the labels in their order, for regression of the float64 numbers; of nothing without
        labels.
        """
        if isinstance(self.labels, np.ndarray):
            return hashlib.sha256(self.labels.astype("<f8").tobytes()).hexdigest()
        return hashlib.sha256(json.dumps(self.labels or []).encode()).hexdigest()


def read_records(
    source: object,
    *,
    text: str = "auto",
    pair: str | None = "auto",
    label: str = "auto",
    task: str = "auto",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
    labels_required: bool = True,
) -> Records:
    """Read and check a table. `formats.read_table` says what a source is, `columns.find_columns` the rest.

    labels_required: without, labels are read only when `label` names their column; then also a list of str,
    or of (first, second) tuples, is a source. Labels that are numbers or booleans become text ("1", "true").
    Raises BadInput, with the lines of rows where they have lines, for missing texts, labels that are missing, empty or
    no numbers, and when every text is empty.
    """
    where = place_of(source, format=format, encoding=encoding)
    table = read_table(source if labels_required else _bare_texts(source), format=format, encoding=encoding)
    columns = find_columns(
        table,
        text=text,
        pair=pair,
        label=label,
        task=task,
        delimiter=delimiter,
        labels_required=labels_required,
        where=where,
    )
    return records_of(table, columns, delimiter=delimiter, where=where)


def records_of(table: pa.Table, columns: Columns, *, delimiter: str | None, where: str) -> Records:
    """The records of a table whose columns are known; raises as `read_records`."""
    texts = texts_of(table.column(columns.text), columns.text, "--text", where)
    pairs = None
    if columns.pair is not None:
        pairs = texts_of(table.column(columns.pair), columns.pair, "--pair", where)
    if pc.all(are_empty(texts, pairs)).as_py():
        raise all_empty(where, columns)
    labels = None
    if columns.label is not None:
        labels = labels_of(table.column(columns.label), columns, delimiter, where)
    return Records(texts, pairs, labels, columns, where, table)


def all_empty(where: str, columns: Columns) -> BadInput:
    """The error for a table without a text."""
    found = f"{where}: every text in {shown(columns.text)} is empty"
    return BadInput(found, "texts to read", "name the column of the texts with --text NAME")


def _bare_texts(source: object) -> object:
    """Texts, or pairs of them, as a table; any other source as it is."""
    if not isinstance(source, list | tuple) or not source:
        return source
    if all(isinstance(item, str) for item in source):
        return [{"text": item} for item in source]
    if all(isinstance(item, tuple) and len(item) == 2 for item in source):
        return [{"text": first, "text_pair": second} for first, second in source]
    return source


# ---------------------------------------------------------------- texts


def texts_of(column: pa.ChunkedArray, name: str, flag: str, where: str) -> pa.LargeStringArray:
    """One large_string array without nulls. flag: what names the column. where: a Place for a piece of a table."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # which may hold a null that no place of the column shows
    _refuse_missing(column, name, where, "a text, which may be empty")
    if is_json_type(column.type):
        return pa.array(_json_texts(column, name, flag, where), pa.large_string())
    if not is_text_type(column.type):
        found = f"{where}: the column {shown(name)} holds {column.type}"
        raise BadInput(found, "text", f"turn it into text, or name another column with {flag} NAME")
    return _one_array(column.cast(pa.large_string()))


def _json_texts(column: pa.ChunkedArray, name: str, flag: str, where: str) -> list[str]:
    """The texts of a column whose values are of several kinds, if all of these are texts."""
    values = json_values(column)
    bad = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if bad:
        fix = f"put quotes around it there, or name another column with {flag} NAME"
        raise _bad_rows(where, name, f"is {told(values[bad[0]])}, not a text,", bad, "text in every row", fix=fix)
    return values


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def are_empty(texts: pa.Array, pairs: pa.Array | None) -> pa.Array:
    """Whether the text, and second text where there is one, of each row has no characters."""
    sizes = pc.binary_length(texts)
    return pc.equal(sizes if pairs is None else pc.add(sizes, pc.binary_length(pairs)), 0)


# ---------------------------------------------------------------- labels


def labels_of(column: pa.ChunkedArray, columns: Columns, delimiter: str | None, where: str) -> Labels:
    """The labels of a column, checked. where: a Place for a piece of a table."""
    name = str(columns.label)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # which may hold a null that no place of the column shows
    if columns.task == "regression":
        return _numbers(column, name, where)
    expected = "a label in every row" if columns.task == "single" else "labels; where there are none, an empty list"
    _refuse_missing(column, name, where, expected)
    if columns.task == "multi":
        return _label_lists(column, name, delimiter, where)
    labels = _as_text(column, name, where)
    blank = np.flatnonzero(pc.equal(pc.utf8_trim_whitespace(labels), "").to_numpy(zero_copy_only=False))
    if len(blank):
        raise _bad_rows(where, name, "is empty", blank, expected)
    texts: list[str] = labels.to_pylist()
    return texts


def _as_text(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    """Labels as large_string; whole numbers that are kept as floating point lose their ".0"."""
    values = _one_array(column)
    kind = values.type
    if is_json_type(kind):
        return pa.array(_json_labels(json_values(values), name, where), pa.large_string())
    if pa.types.is_floating(kind):
        values = values.cast(pa.float64())
        infinite = np.flatnonzero(~np.isfinite(values.to_numpy(zero_copy_only=False)))
        if len(infinite):
            raise _bad_rows(where, name, "is no finite number", infinite, "labels that are text or finite numbers")
        whole = bool(pc.all(pc.equal(pc.floor(values), values)).as_py())
        return pa.array([str(int(v)) if whole else repr(v) for v in values.to_pylist()], pa.large_string())
    try:
        return values.cast(pa.large_string())
    except pa.ArrowException as error:
        found = f"{where}: the column {shown(name)} holds {kind}"
        raise BadInput(found, "labels that are text, numbers or lists of these", "--label NAME") from error


def _json_labels(values: list[Any], name: str, where: str) -> list[str]:
    """Labels of values of several kinds: texts as they are, numbers and truth values as JSON."""
    bad = [i for i, value in enumerate(values) if isinstance(value, dict | list)]
    if bad:
        expected = "labels that are text, numbers or truth values, or a list of these in every row"
        raise _bad_rows(where, name, f"is {told(values[bad[0]])}", bad, expected)
    return [json_text(value) for value in values]


def _label_lists(column: pa.ChunkedArray, name: str, delimiter: str | None, where: str) -> list[list[str]]:
    """The different labels of each row, in their order; a cell without any gives an empty list."""
    if is_list_type(column.type):
        rows = _listed_labels(_one_array(column), name, where)
    elif delimiter is not None:
        cells = _as_text(column, name, where).to_pylist()
        rows = [[label.strip() for label in cell.split(delimiter)] if cell.strip() else [] for cell in cells]
    elif is_json_type(column.type):
        rows = _lists_of_json(json_values(column), name, where)
    else:
        rows = _json_lists(_as_text(column, name, where).to_pylist(), name, where)
    bad = [i for i, row in enumerate(rows) if any(not label.strip() for label in row)]
    if bad:
        raise _bad_rows(where, name, "has a label that is empty", bad, "labels with a name")
    return [list(dict.fromkeys(row)) for row in rows]


def _listed_labels(lists: pa.Array, name: str, where: str) -> list[list[str]]:
    flat = lists.flatten()
    if flat.null_count or pa.types.is_floating(flat.type):
        bad = _rows_with(lists, lambda item: item is None or item != item)
        if bad:
            raise _bad_rows(where, name, "has a label that is missing", bad, "labels with a name")
        bad = _rows_with(lists, lambda item: item in (np.inf, -np.inf))
        if bad:
            raise _bad_rows(where, name, "has a label that is no finite number", bad, "text, or finite numbers")
    texts = _as_text(pa.chunked_array([flat]), name, where).to_pylist()
    ends = np.cumsum(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    starts = np.concatenate(([0], ends[:-1]))
    return [texts[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _rows_with(lists: pa.Array, is_bad: Callable[[Any], bool]) -> list[int]:
    return [i for i, row in enumerate(lists.to_pylist()) if any(map(is_bad, row))]


def _lists_of_json(values: list[Any], name: str, where: str) -> list[list[str]]:
    """Labels of lists whose values are of several kinds: texts as they are, numbers and truth values as JSON."""
    bad = [
        i
        for i, value in enumerate(values)
        if not isinstance(value, list) or any(item is None or isinstance(item, dict | list) for item in value)
    ]
    if bad:
        raise _bad_rows(where, name, "is no list of labels", bad, "a list of texts or numbers in every row")
    return [[json_text(item) for item in value] for value in values]


def _json_lists(cells: list[str], name: str, where: str) -> list[list[str]]:
    """Labels of cells that are JSON, as lists are written in CSV."""
    rows: list[list[str]] = []
    for i, cell in enumerate(cells):
        try:
            values = json.loads(cell)
        except ValueError:
            values = None
        if not isinstance(values, list) or not all(isinstance(value, str | int) for value in values):
            expected = "a JSON list of labels, or --delimiter with what separates them"
            raise _bad_rows(where, name, "is no list of labels", [i], expected)
        rows.append([value if isinstance(value, str) else json.dumps(value) for value in values])
    return rows


def _numbers(column: pa.ChunkedArray, name: str, where: str) -> np.ndarray:
    """float64 [n], all finite."""
    _refuse_missing(column, name, where, "a number in every row")
    values: np.ndarray
    try:
        if pa.types.is_boolean(column.type) or is_json_type(column.type):
            raise pa.ArrowInvalid("not all of it is numbers")
        values = column.cast(pa.float64()).to_numpy()
    except pa.ArrowException:  # spaces around a number, or what is none
        cells = json_values(column) if is_json_type(column.type) else column.to_pylist()
        numbers = [parse_number(value) for value in cells]
        values = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        fix = "correct these rows, or use --task single for labels that are words"
        raise _bad_rows(where, name, "is no finite number", bad, "a number in every row, such as 3.5", fix=fix)
    return np.ascontiguousarray(values)


# ---------------------------------------------------------------- rows that cannot be used


def _refuse_missing(column: pa.ChunkedArray, name: str, where: str, expected: str) -> None:
    missing = column.is_null(nan_is_null=True)
    if pc.any(missing).as_py():
        rows = np.flatnonzero(missing.to_numpy())
        raise _bad_rows(where, name, "is missing", rows, expected)


def _bad_rows(
    where: str,
    name: str,
    what: str,
    rows: Iterable[int],
    expected: str,
    *,
    fix: str = "fill in or remove these rows",
) -> BadInput:
    found = f"{where}: {shown(name)} {what} in {rows_at(where, rows)}"
    return BadInput(found, expected, fix)
