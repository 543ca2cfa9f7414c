"""`snapfit evaluate`: how good a bundle is on a labelled table, and which of two is better."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.evaluation_lines import show_evaluation
from snapfit.core.errors import BadInput

_Against = Annotated[Path | None, typer.Option(metavar="BUNDLE", help="A second bundle, compared on the same rows.")]
_Slice = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="COLUMN", help="Measure each value of a column apart; repeatable."),
]
_LengthEdges = Annotated[
    str | None,
    typer.Option(metavar="N,N,...", help="Where slices of length end, in tokens; default: four of as many rows."),
]
_Confidence = Annotated[float, typer.Option(metavar="SHARE", help="Of intervals.")]
_OutOfScope = Annotated[
    str | None, typer.Option(metavar="LABEL", help="Of rows that no label is right for: refusing them is right.")
]
_Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write all of it there, and every row with its scores.")]
_Rows = Annotated[str, typer.Option(metavar="FORMAT", help="Of the rows in DIR: csv, jsonl, parquet or none.")]
_AllScores = Annotated[bool, typer.Option("--all-scores", help="The score of every label in these rows.")]
_Text = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the texts; default: the bundle's.")]
_Pair = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the second texts.")]
_Label = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the labels.")]
_Delimiter = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Between the labels of one cell; default: the bundle's.")
]
_Encoding = Annotated[str, typer.Option(metavar="NAME", help="Of text files, such as gb18030.")]
_Format = Annotated[str, typer.Option(metavar="NAME", help="auto, csv, tsv, tsv-quoted, jsonl or parquet.")]
_Json = Annotated[
    bool, typer.Option("--json", help="One JSON object as the last line; all else goes to standard error.")
]


def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Labelled CSV, TSV, JSONL, Parquet or a folder.")],
    against: _Against = None,
    slice: _Slice = None,
    length_edges: _LengthEdges = None,
    confidence: _Confidence = 0.95,
    out_of_scope_label: _OutOfScope = None,
    out: _Out = None,
    rows: _Rows = "csv",
    all_scores: _AllScores = False,
    text: _Text = None,
    pair: _Pair = None,
    label: _Label = None,
    delimiter: _Delimiter = None,
    encoding: _Encoding = "utf-8",
    format: _Format = "auto",
    as_json: _Json = False,
) -> int:
    """Measure BUNDLE on TABLE as it decides: metrics, labels and slices with intervals, the most frequent mistakes."""
    calm_libraries()
    from snapfit.ship.measuring import evaluate

    with Console(sys.stderr if as_json else sys.stdout) as console:
        result = evaluate(
            bundle,
            table,
            against=against,
            slices=slice or (),
            length_edges=_edges(length_edges),
            confidence=confidence,
            out_of_scope_label=out_of_scope_label,
            out=out,
            rows=rows,
            all_scores=all_scores,
            text=text,
            pair=pair,
            label=label,
            delimiter=delimiter,
            encoding=encoding,
            format=format,
            progress=lambda done, total: console.progress("evaluate", done, total),
        )
        show_evaluation(console, result)
        if out is not None:
            console.result("wrote", str(out))
    if as_json:
        write_json_line(result)
    return 0


def _edges(text: str | None) -> list[int]:
    """The numbers of --length-edges."""
    try:
        return [int(edge) for edge in (text or "").split(",") if text]
    except ValueError as error:
        found = f"--length-edges {text}"
        raise BadInput(found, "whole numbers of tokens with commas between", "--length-edges 16,32,64") from error
