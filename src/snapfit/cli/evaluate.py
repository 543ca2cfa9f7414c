"""`snapfit evaluate`: how good a bundle is on a labelled table."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from snapfit.cli.console import Console, calm_libraries, write_json_line
from snapfit.cli.lines import aligned, metrics_lines

_MOST_LABELS = 20
_MOST_MISTAKES = 10


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Labelled CSV, TSV, JSONL, Parquet or a folder.")],
    text: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the texts; default: the bundle's.")
    ] = None,
    pair: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the labels.")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Between the labels of one cell; default: the bundle's."),
    ] = None,
    encoding: Annotated[str, typer.Option(metavar="NAME", help="Of text files, such as gb18030.")] = "utf-8",
    format: Annotated[str, typer.Option(metavar="NAME", help="auto, csv, tsv, tsv-quoted, jsonl or parquet.")] = "auto",
    out_of_scope_label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Of rows that none of the labels is right for: refusing them is right."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
) -> int:
    """Measure BUNDLE on TABLE, as it decides: metrics, the figures of each label, and the most frequent mistakes."""
    calm_libraries()
    from snapfit.loading import load
    from snapfit.runtime.bundle import Bundle
    from snapfit.runtime.evaluating import evaluate_bundle
    from snapfit.runtime.inputs import parts_for_bundle

    records = parts_for_bundle(
        Bundle.open(bundle).info,
        table,
        text=text,
        pair=pair,
        label=label,
        delimiter=delimiter,
        encoding=encoding,
        format=format,
        out_of_scope=out_of_scope_label,
    )
    start = time.monotonic()
    result = evaluate_bundle(load(bundle, verify=False), records, out_of_scope=out_of_scope_label)
    seconds = time.monotonic() - start
    show_evaluation(Console(sys.stderr if as_json else sys.stdout), result)
    if as_json:
        write_json_line({"bundle": str(bundle), **result, "seconds": round(seconds, 2)})
    return 0


def show_evaluation(console: Console, result: Mapping[str, Any]) -> None:
    """The tables of an evaluation; of many labels those with most rows."""
    console.note("data", f"{result['source']}: {result['rows']:,} rows")
    console.rows("decides", result["decides"])
    console.result("metrics", metrics_lines({"": result["metrics"]}))
    labels = sorted(result["per_label"], key=lambda one: -one["support"])
    if labels:
        rows = [("label", "precision", "recall", "f1", "rows")]
        rows += [
            (
                one["label"],
                *(f"{one[name]:.4f}" for name in ("precision", "recall", "f1")),
                f"{one['support']:,}",
            )
            for one in labels[:_MOST_LABELS]
        ]
        lines = aligned(rows, right=range(1, 5))
        if len(labels) > _MOST_LABELS:
            lines.append(f"and {len(labels) - _MOST_LABELS} labels with fewer rows; --json has them all")
        console.rows("labels", lines)
    show_mistakes(console, result)


def show_mistakes(console: Console, result: Mapping[str, Any]) -> None:
    """The most frequent mistakes, one a line."""
    mistakes = result["mistakes"][:_MOST_MISTAKES]
    if mistakes:
        rows = [("rows", "true label", "predicted")]
        rows += [(f"{one['rows']:,}", one["true"], one["predicted"]) for one in mistakes]
        console.rows("mistakes", aligned(rows, right=[0]))
    elif result["per_label"]:
        console.note("mistakes", "none")
