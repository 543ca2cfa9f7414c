"""Writes a table of predictions: every column that came in, and behind them what was predicted.

    predicted        the label (single), a list of labels (multi) or the number (regression); empty where the rule
                     gives no answer
    score            its score; for multi a list, one a predicted label; not for a regression. Where there is no answer
                     it is that of the likeliest label
    refused          why there is no answer: "low score" or "out of scope"; empty where there is one. Only for a bundle
                     whose rule may give none
    score_<label>    every label's score, when asked for

CSV and TSV have no lists: a list is written there as JSON text, and a null as an empty cell. JSON has neither NaN nor
infinities: they become null. Rows are written part by part, so memory need not grow with the table; a file is written
whole or not at all.
"""

import base64
import datetime
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from snapfit.core.decisions import Answers, DecisionRule
from snapfit.core.errors import BadInput, shown
from snapfit.core.files import open_atomic
from snapfit.core.labels import LabelSet
from snapfit.core.places import rows_at
from snapfit.data.columns import is_text_type
from snapfit.data.json_cells import is_json_type, json_values

Format = Literal["csv", "tsv", "jsonl", "parquet"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FOR_TSV = ("cells on one line for TSV, which cannot quote them", "write CSV, JSONL or Parquet")
_SLICE_ROWS = 16_384
_CSV_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_date,
    pa.types.is_timestamp,
)


def write_predictions(
    table: pa.Table,
    answers: Answers,
    out: str | Path | IO[bytes],
    *,
    label_set: LabelSet,
    refuses: bool = False,
    format: str = "auto",
    all_scores: bool = False,
) -> None:
    """Write `table` with the predictions behind its columns.

    answers: from `Predictor.answers` on the table's rows. out: a file name, or an open binary stream such as
    sys.stdout.buffer. label_set: the bundle's. refuses: whether its rule may give no answer.
    format: csv, tsv, jsonl or parquet; "auto" goes by the suffix of `out`, and is csv for a stream.
    all_scores: one column a label besides. Raises BadInput as `check_output` does, for answers on other rows
    than the table's, and for a cell with a tab or line break in TSV; WorkFailed when the file cannot be
    written.
    """
    if answers.scores.shape != (table.num_rows, label_set.n_outputs):
        found = f"scores of shape {answers.scores.shape} for a table of {table.num_rows} rows"
        raise BadInput(found, f"shape {(table.num_rows, label_set.n_outputs)}", "score the rows of this table")
    with prediction_writer(
        table.column_names, out, label_set=label_set, refuses=refuses, format=format, all_scores=all_scores
    ) as write:
        for start in range(0, max(table.num_rows, 1), _SLICE_ROWS):
            write(table.slice(start, _SLICE_ROWS), answers.take(slice(start, start + _SLICE_ROWS)))


@contextmanager
def prediction_writer(
    columns: Sequence[str],
    out: str | Path | IO[bytes],
    *,
    label_set: LabelSet,
    refuses: bool = False,
    format: str = "auto",
    all_scores: bool = False,
) -> Iterator[Callable[[pa.Table, Answers], dict[str, pa.Array]]]:
    """Write a table part by part: gives a function of (rows of the table, their answers) that writes them.

    It returns the columns of predictions that it put behind the rows. The parts have one schema, with these columns.
    A file appears when all parts are written; nothing is left of it when anything is raised before.
    Arguments and errors are those of `write_predictions`.
    """
    kind = check_output(columns, out, label_set=label_set, refuses=refuses, format=format, all_scores=all_scores)
    with _opened(out) as file, _writer(kind, file) as write:

        def write_part(rows: pa.Table, answers: Answers) -> dict[str, pa.Array]:
            made = prediction_columns(answers, label_set=label_set, refuses=refuses, all_scores=all_scores)
            for name, column in made.items():
                rows = rows.append_column(name, column)
            write(rows)
            return made

        yield write_part


def check_output(
    columns: Sequence[str],
    out: str | Path | IO[bytes],
    *,
    label_set: LabelSet,
    refuses: bool = False,
    format: str = "auto",
    all_scores: bool = False,
    where: str = "the table",
) -> Format:
    """The format that predictions would be written in; call it before scoring, so that no work is lost.

    columns: names of the table's columns. where: what the table is called in errors. Raises BadInput for an unknown
    format or suffix, when a column of predictions has the name of a column that is there, and for names that TSV cannot
    hold.
    """
    kind = _format_of(out, format)
    added = _names(label_set, refuses=refuses, all_scores=all_scores)
    for name in added:
        if name in columns:
            found = f"{where} has a column {shown(name)} already"
            fix = f"rename or drop the table's column {shown(name)}"
            raise BadInput(found, "a table without the names of the columns to be added", fix)
    if kind == "tsv":
        _tsv_line([*columns, *added, *(label_set.names if label_set.task == "single" else ())], "a name")
    return kind


def check_apart(target: Path, read: Sequence[str | Path], *, option: str = "--out") -> None:
    """Raise BadInput when `target`, which is to be written, is, is inside or holds anything that is read.

    option: what named the target.
    """
    place = Path(os.path.realpath(target))
    for source in read:
        real = Path(os.path.realpath(source))
        if real == place or real in place.parents or place in real.parents:
            found = f"{option} {target} is, is inside or holds {source}, which is read"
            raise BadInput(found, "another place for what is written", f"choose another name for {option}")


def check_table(
    rows: pa.Table,
    out: str | Path | IO[bytes],
    *,
    label_set: LabelSet,
    refuses: bool = False,
    format: str = "auto",
    all_scores: bool = False,
    where: str = "the table",
) -> None:
    """Raise BadInput, before any work, for a table, or a part of one, that predictions could not be written behind.

    where: what it is called, a Place for a part of a table. The other arguments, and errors, are those of
    `check_output`; in TSV no cell may hold a tab or a line break.
    """
    asked: dict[str, Any] = {"label_set": label_set, "refuses": refuses, "format": format, "all_scores": all_scores}
    kind = check_output(rows.column_names, out, where=where, **asked)
    for name, column in zip(rows.column_names, rows.columns, strict=True) if kind == "tsv" else ():
        if is_json_type(column.type):
            column = pa.chunked_array([pa.array(map(_text, json_values(column)), pa.large_string())])
        if is_text_type(column.type):
            hits = pc.match_substring_regex(column.cast(pa.large_string()), "[\t\r\n]")
            bad = np.flatnonzero(pc.fill_null(hits, False).to_numpy())
            if len(bad):
                raise BadInput(f"{where}: a tab or a line break in {shown(name)}, in {rows_at(where, bad)}", *_FOR_TSV)


def prediction_columns(
    answers: Answers,
    *,
    label_set: LabelSet,
    refuses: bool = False,
    all_scores: bool = False,
) -> dict[str, pa.Array]:
    """The columns to add, by name: predicted, score, with `refuses` refused, and with `all_scores` score_<label> for
    each label.
    """
    decisions, scores = answers.decisions(label_set.names), answers.scores
    if label_set.task == "regression":
        return {"predicted": pa.array(decisions, pa.float64())}
    if label_set.task == "single":
        columns = {
            "predicted": pa.array(decisions, pa.string()),
            "score": pa.array(scores.max(axis=1), pa.float64()),
        }
    else:
        chosen = [row[hit].tolist() for row, hit in zip(scores, answers.chosen, strict=True)]
        columns = {
            "predicted": pa.array(decisions, pa.list_(pa.string())),
            "score": pa.array(chosen, pa.list_(pa.float64())),
        }
    if refuses:
        columns["refused"] = pa.array(answers.reasons(), pa.string())
    if all_scores:
        for i, name in enumerate(label_set.names):
            columns[f"score_{name}"] = pa.array(np.ascontiguousarray(scores[:, i]), pa.float64())
    return columns


def _names(label_set: LabelSet, *, refuses: bool, all_scores: bool) -> list[str]:
    nothing = DecisionRule(label_set.task).decide(np.zeros((0, label_set.n_outputs)))
    return list(prediction_columns(nothing, label_set=label_set, refuses=refuses, all_scores=all_scores))


def _format_of(out: str | Path | IO[bytes], format: str) -> Format:
    known = sorted(set(_SUFFIXES.values()))
    if format != "auto":
        for kind in known:
            if kind == format:
                return kind
        raise BadInput(f"the format {format!r}", f"auto, {', '.join(known)}", "correct the format")
    if not isinstance(out, str | Path):
        return "csv"
    suffix = Path(out).suffix.lower()
    if suffix not in _SUFFIXES:
        found = f"{out}, whose suffix {suffix!r} names no format"
        raise BadInput(found, f"a name that ends in {', '.join(_SUFFIXES)}", "rename it, or give the format")
    return _SUFFIXES[suffix]


@contextmanager
def _opened(out: str | Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(out, str | Path):
        with open_atomic(out) as file:
            yield file
    else:
        yield out


@contextmanager
def _writer(kind: Format, file: IO[bytes]) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes a slice; the first slice brings the header or the schema."""
    if kind == "jsonl":
        yield lambda rows: _write_jsonl(rows, file)
        return
    if kind == "tsv":
        yield _TsvWriter(file).write
        return
    open_writer: Any = None

    def write(rows: pa.Table) -> None:
        nonlocal open_writer
        rows = rows if kind == "parquet" else _flat(rows)
        if open_writer is None:
            make = pa.parquet.ParquetWriter if kind == "parquet" else pa.csv.CSVWriter
            open_writer = make(pa.PythonFile(file, mode="w"), rows.schema)
        open_writer.write_table(rows)

    try:
        yield write
    finally:
        if open_writer is not None:
            open_writer.close()


class _TsvWriter:
    """Tab-separated text without quotes, as `data.formats` reads it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._has_header = False
        self._n_rows = 0

    def write(self, rows: pa.Table) -> None:
        lines = [] if self._has_header else [_tsv_line(rows.column_names, "the header")]
        self._has_header = True
        for row in zip(*map(_cells, rows.columns), strict=True):
            self._n_rows += 1
            lines.append(_tsv_line([_text(cell) for cell in row], f"a cell of row {self._n_rows}"))
        self._file.write("".join(lines).encode("utf-8"))


def _tsv_line(cells: Sequence[str], place: str) -> str:
    line = "\t".join(cells)
    if line.count("\t") != len(cells) - 1 or "\n" in line or "\r" in line:
        raise BadInput(f"a tab or a line break in {place}", *_FOR_TSV)
    return line + "\n"


def _write_jsonl(rows: pa.Table, file: IO[bytes]) -> None:
    names = rows.column_names
    for row in zip(*map(_cells, rows.columns), strict=True):
        file.write(_json(dict(zip(names, row, strict=True))).encode("utf-8") + b"\n")


def _flat(rows: pa.Table) -> pa.Table:
    """The table with every column that CSV cannot hold turned into text."""
    for i, field in enumerate(rows.schema):
        if not any(holds(field.type) for holds in _CSV_TYPES) or _is_beyond_years(rows.column(i)):
            cells = [None if cell is None else _text(cell) for cell in _cells(rows.column(i))]
            rows = rows.set_column(i, field.name, pa.array(cells, pa.string()))
    return rows


def _is_beyond_years(column: pa.ChunkedArray) -> bool:
    """Whether a date has so many years that Arrow would write words in its place."""
    if not (pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)):
        return False
    texts = pc.match_substring(column.cast(pa.large_string()), "out of range")
    return bool(pc.any(texts).as_py())


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; of times that Python cannot hold, such as nanoseconds, their text."""
    if is_json_type(column.type):
        return json_values(column)
    if getattr(column.type, "unit", None) != "ns":  # which pandas could, where it is installed
        try:
            values: list[Any] = column.to_pylist()
            return values
        except (ValueError, OverflowError):
            """Beyond the year 9999."""
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        zone = "+00:00" if getattr(column.type, "tz", None) else ""
        times = column.to_numpy().astype(f"M8[{'D' if pa.types.is_date(column.type) else column.type.unit}]")
        return [None if np.isnat(time) else str(time) + zone for time in times]
    texts: list[Any] = column.cast(pa.large_string()).to_pylist()
    return texts


def _text(cell: Any) -> str:
    """A cell as text: text as it is, nothing for null, JSON for the rest."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    text = _json(cell)
    return str(json.loads(text)) if text.startswith('"') else text


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_plain)


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def _plain(value: Any) -> Any:
    """What JSON has for a cell of another type: ISO 8601 for times, base64 for bytes, else its text."""
    if isinstance(value, datetime.date | datetime.time | datetime.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
