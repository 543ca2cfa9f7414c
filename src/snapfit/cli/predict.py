"""`snapfit predict`: answers on a table, on lines of standard input, or on texts of the command line."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from snapfit.cli.answers import answers_stream, write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.core.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

    from snapfit.core.decisions import Answers
    from snapfit.data.records import Records
    from snapfit.runtime.bundle import Bundle

_STREAM = "-"

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
TableArgument = Annotated[
    str | None,
    typer.Argument(metavar="TABLE|-", help="CSV, TSV, JSONL, Parquet or a folder; - reads a text a line."),
]
TextColumnOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the texts; default: the bundle's.")
]
PairColumnOption = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the second texts.")]
InputEncodingOption = Annotated[str, typer.Option(metavar="NAME", help="Of the input, such as gb18030.")]
TableFormatOption = Annotated[
    str, typer.Option(metavar="NAME", help="Of TABLE: auto, csv, tsv, tsv-quoted, jsonl or parquet.")
]


def predict(
    bundle: BundleArgument,
    table: TableArgument = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="A text to answer; repeatable. Pairs: a tab between the two."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where to write; .csv, .tsv, .jsonl or .parquet.")
    ] = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help="What computes: torch.")] = "torch",
    format: Annotated[str, typer.Option(metavar="NAME", help="Of the output: csv, tsv, jsonl or parquet.")] = "auto",
    all_scores: Annotated[bool, typer.Option("--all-scores", help="The score of every label as a column.")] = False,
    text_column: TextColumnOption = None,
    pair_column: PairColumnOption = None,
    encoding: InputEncodingOption = "utf-8",
    table_format: TableFormatOption = "auto",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line: a summary, and without --out the answers."),
    ] = False,
) -> int:
    """Answer with BUNDLE: the columns that came in, and behind them `predicted` and its `score`; where the bundle may
    refuse to answer, `refused` says why.

    Without --out the answers go to standard output, as CSV or JSONL.
    """
    calm_libraries()
    from snapfit.runtime.bundle import Bundle

    if backend != "torch":
        raise BadInput(f"the backend {backend!r}", "torch, the one that this bundle has", "--backend torch")
    target = None if out in (None, _STREAM) else Path(str(out))
    _check_target(target, table, bundle, format=format, as_json=as_json)
    opened = Bundle.open(bundle)
    from snapfit.runtime.tables import check_table

    labels: dict[str, Any] = {"label_set": opened.label_set, "refuses": opened.rule().refuses, "all_scores": all_scores}
    check = partial(check_table, out=target or sys.stdout.buffer, format=format, **labels)
    columns, parts = read_rows(opened, table, text, (text_column, pair_column), encoding, table_format, check=check)
    return _answer(opened, columns, parts, target, format=format, all_scores=all_scores, as_json=as_json)


def _answer(
    bundle: "Bundle",
    columns: list[str],
    parts: "Iterator[tuple[pa.Table, list[Any]]]",
    target: Path | None,
    *,
    format: str,
    all_scores: bool,
    as_json: bool,
) -> int:
    """Score the examples of each part and write its rows with the answers behind them, one part after another."""
    from snapfit.loading import load

    refuses = bundle.rule().refuses
    labels: dict[str, Any] = {"label_set": bundle.label_set, "refuses": refuses, "all_scores": all_scores}
    destination = target or answers_stream()
    start = time.monotonic()
    predictor = load(bundle.folder, verify=False)
    summary = _Summary(bundle, keep_answers=as_json and target is None)
    sys.stdout.flush()
    with _writer(columns, destination, carried=as_json and target is None, format=format, **labels) as write:
        for rows, examples in parts:
            summary.add(rows, write(rows, predictor.answers(examples)))
    seconds = time.monotonic() - start
    if target is not None:
        console = Console(sys.stderr if as_json else sys.stdout)
        console.result("wrote", f"{summary.n_rows:,} answers to {target}, in {seconds:.1f} s")
    if as_json:
        write_json_line(summary.to_dict(target, seconds))
    return 0


def _writer(
    columns: list[str], out: "Path | IO[bytes]", *, carried: bool, format: str, **labels: Any
) -> "AbstractContextManager[Callable[[pa.Table, Answers], dict[str, pa.Array]]]":
    """Writes a part and gives its columns of predictions; where --json carries the answers it only gives them."""
    from snapfit.runtime.tables import prediction_columns, prediction_writer

    if carried:
        return nullcontext(lambda rows, answers: prediction_columns(answers, **labels))
    return prediction_writer(columns, out, format=format, **labels)


def _check_target(target: Path | None, table: str | None, bundle: Path, *, format: str, as_json: bool) -> None:
    """Refuse, before any work, an output that cannot be written or that would spoil what is read."""
    if target is None:
        if format == "parquet":
            raise BadInput("Parquet on standard output", "a file for Parquet", "--out FILE.parquet")
        if as_json and format != "auto":
            found = f"--format {format} with --json and without --out"
            raise BadInput(found, "--format for a table; --json carries the answers itself", "take one out")
        if sys.__stdout__ is None:
            raise BadInput("standard output is closed", "a place for the answers", "--out FILE")
        return
    check_place("--out", target, table, bundle)


def check_place(option: str, target: Path, table: str | None, bundle: Path) -> None:
    """Refuse a file to write that is in no folder, or in what is read. option: what named it."""
    from snapfit.runtime.tables import check_apart

    if not Path(os.path.realpath(target)).parent.is_dir():
        found = f"{option} {target}: there is no folder {target.parent}"
        raise BadInput(found, "a file in a folder that exists", f"mkdir -p {target.parent}")
    check_apart(target, [bundle, *([] if table in (None, _STREAM) else [str(table)])], option=option)


def read_rows(
    bundle: "Bundle",
    table: str | None,
    texts: list[str] | None,
    columns: tuple[str | None, str | None],
    encoding: str,
    format: str,
    *,
    command: str = "predict",
    check: Callable[..., None] = lambda table, **where: None,
) -> "tuple[list[str], Iterator[tuple[pa.Table, list[Any]]]]":
    """The names of the columns, and part by part the rows to answer and their texts as the predictor takes them.

    check: raises BadInput for a table that answers cannot be written behind.
    """
    from snapfit.runtime.evaluating import examples_of
    from snapfit.runtime.inputs import read_lines, text_parts, texts_table

    if (table is None) == (not texts):
        found = "neither a table nor --text" if table is None else "both a table and --text"
        fix = f"snapfit {command} BUNDLE TABLE, or snapfit {command} BUNDLE --text TEXT"
        raise BadInput(found, "one of the two", fix)
    if table is not None and table != _STREAM:

        def check_part(part: "Records") -> None:
            check(part.table, where=part.source)

        named = {"text": columns[0], "pair": columns[1]}
        parts = text_parts(bundle.info, table, encoding=encoding, format=format, check=check_part, **named)
        return parts.column_names, ((part.table, examples_of(part)) for part in parts)
    if texts:
        rows = texts_table(bundle.info, texts, place="--text")
    else:
        rows = texts_table(bundle.info, read_lines(sys.stdin.buffer, encoding=encoding), place="line")
    check(rows)
    return rows.column_names, _slices(rows, pair=bundle.info.pair)


def _slices(rows: "pa.Table", *, pair: bool) -> "Iterator[tuple[pa.Table, list[Any]]]":
    from snapfit.runtime.parts import PART_ROWS

    for start in range(0, rows.num_rows, PART_ROWS):
        part = rows.slice(start, PART_ROWS)
        cells = [column.to_pylist() for column in part.columns]
        yield part, list(zip(*cells, strict=True)) if pair else cells[0]


def _cells(columns: "dict[str, pa.Array]", name: str) -> list[Any]:
    return columns[name].to_pylist() if name in columns else []


class _Summary:
    """What --json prints: the number of answers, how often each label was given or none, and why, and without a file
    the answers.
    """

    def __init__(self, bundle: "Bundle", *, keep_answers: bool) -> None:
        self._info = bundle.info
        self._given: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._answers: list[dict[str, Any]] | None = [] if keep_answers else None
        self.n_rows = 0

    def add(self, rows: "pa.Table", answers: "dict[str, pa.Array]") -> None:
        """Count in a part of the table and its columns of predictions."""
        self.n_rows += rows.num_rows
        decisions = answers["predicted"].to_pylist()
        if self._info.task == "single":
            self._given.update(name for name in decisions if name is not None)
            self._refused.update(why for why in _cells(answers, "refused") if why is not None)
        elif self._info.task == "multi":
            self._given.update(name for row in decisions for name in row)
        if self._answers is not None:
            names = [name for name in rows.column_names if name in self._info.text_columns]
            columns = {name: rows.column(name).to_pylist() for name in names}
            columns |= {name: column.to_pylist() for name, column in answers.items()}
            self._answers += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def to_dict(self, target: Path | None, seconds: float) -> dict[str, Any]:
        """Plain values."""
        result: dict[str, Any] = {"rows": self.n_rows, "out": None if target is None else str(target)}
        if self._info.task != "regression":
            result["given"] = dict(self._given.most_common())
        if self._refused:
            result["refused"] = dict(self._refused.most_common())
        result["seconds"] = round(seconds, 2)
        if self._answers is not None:
            result["answers"] = self._answers
        return result
