"""`snapfit predict`: answers on a table, on lines of standard input, or on texts of the command line."""

import io
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snapfit.cli.console import Console, calm_libraries, write_json_line
from snapfit.core.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

    from snapfit.runtime.bundle import Bundle

_STREAM = "-"


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE|-", help="CSV, TSV, JSONL, Parquet or a folder; - reads a text a line."),
    ] = None,
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
    text_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the texts; default: the bundle's.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the second texts.")] = None,
    encoding: Annotated[str, typer.Option(metavar="NAME", help="Of the input, such as gb18030.")] = "utf-8",
    table_format: Annotated[
        str, typer.Option(metavar="NAME", help="Of TABLE: auto, csv, tsv, tsv-quoted, jsonl or parquet.")
    ] = "auto",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line: a summary, and without --out the answers."),
    ] = False,
) -> int:
    """Answer with BUNDLE: the columns that came in, and behind them `predicted` and its `score`.

    Without --out the answers go to standard output, as CSV or JSONL.
    """
    calm_libraries()
    from snapfit.runtime.bundle import Bundle

    if backend != "torch":
        raise BadInput(f"the backend {backend!r}", "torch, the one that this bundle has", "--backend torch")
    target = None if out in (None, _STREAM) else Path(str(out))
    _check_target(target, table, bundle, format=format, as_json=as_json)
    opened = Bundle.open(bundle)
    rows, examples = _read(opened, table, text, (text_column, pair_column), encoding, table_format)
    return _answer(opened, rows, examples, target, format=format, all_scores=all_scores, as_json=as_json)


def _answer(
    bundle: "Bundle",
    rows: "pa.Table",
    examples: list[Any],
    target: Path | None,
    *,
    format: str,
    all_scores: bool,
    as_json: bool,
) -> int:
    """Score the examples and write the rows with the answers behind them."""
    from snapfit.loading import load
    from snapfit.runtime.tables import check_output, prediction_columns, write_predictions

    # Into a buffer that is never read where --json carries the answers itself.
    destination = target or (io.BytesIO() if as_json else sys.stdout.buffer)
    labels: dict[str, Any] = {"label_set": bundle.label_set, "all_scores": all_scores}
    check_output(rows.column_names, destination, format=format, **labels)
    start = time.monotonic()
    scores = load(bundle.folder, verify=False).scores(examples)
    sys.stdout.flush()
    labels["thresholds"] = bundle.thresholds
    write_predictions(rows, scores, destination, format=format, **labels)
    seconds = time.monotonic() - start
    if target is not None:
        console = Console(sys.stderr if as_json else sys.stdout)
        console.result("wrote", f"{len(scores):,} answers to {target}, in {seconds:.1f} s")
    if as_json:
        write_json_line(_summary(bundle, rows, prediction_columns(scores, **labels), target, seconds))
    return 0


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
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        found = f"--out {target}: there is no folder {target.parent}"
        raise BadInput(found, "a file in a folder that exists", f"mkdir -p {target.parent}")
    read = [
        Path(os.path.realpath(bundle)),
        *([] if table in (None, _STREAM) else [Path(os.path.realpath(str(table)))]),
    ]
    for source in read:
        if Path(os.path.realpath(target)) == source or folder == source or source in folder.parents:
            found = f"--out {target} is, or is inside, {source}, which is read"
            raise BadInput(found, "another place for the answers", "choose another name for --out")


def _read(
    bundle: "Bundle",
    table: str | None,
    texts: list[str] | None,
    columns: tuple[str | None, str | None],
    encoding: str,
    format: str,
) -> "tuple[pa.Table, list[Any]]":
    """The rows to answer and write, and their texts as the predictor takes them."""
    from snapfit.runtime.evaluating import examples_of
    from snapfit.runtime.inputs import read_lines, read_texts, texts_table

    if (table is None) == (not texts):
        found = "neither a table nor --text" if table is None else "both a table and --text"
        raise BadInput(found, "one of the two", "snapfit predict BUNDLE TABLE, or snapfit predict BUNDLE --text TEXT")
    if table is not None and table != _STREAM:
        records = read_texts(bundle.info, table, text=columns[0], pair=columns[1], encoding=encoding, format=format)
        return records.table, examples_of(records)
    if texts:
        rows = texts_table(bundle.info, texts, place="--text")
    else:
        rows = texts_table(bundle.info, read_lines(sys.stdin.buffer, encoding=encoding), place="line")
    cells = [column.to_pylist() for column in rows.columns]
    return rows, list(zip(*cells, strict=True)) if bundle.info.pair else cells[0]


def _summary(
    bundle: "Bundle", rows: "pa.Table", answers: "dict[str, pa.Array]", target: Path | None, seconds: float
) -> dict[str, Any]:
    """What --json prints: the number of answers, how often each label was given, and without a file the
    answers.
    """
    result: dict[str, Any] = {"rows": rows.num_rows, "out": None if target is None else str(target)}
    decisions = answers["predicted"].to_pylist()
    if bundle.info.task != "regression":
        flat = decisions if bundle.info.task == "single" else [name for row in decisions for name in row]
        result["given"] = dict(Counter(flat).most_common())
    result["seconds"] = round(seconds, 2)
    if target is None:
        names = [name for name in rows.column_names if name in bundle.info.text_columns]
        columns = {name: rows.column(name).to_pylist() for name in names}
        columns |= {name: column.to_pylist() for name, column in answers.items()}
        result["answers"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return result
