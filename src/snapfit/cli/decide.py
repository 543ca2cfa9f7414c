"""`snapfit decide`: another decision rule for a bundle, fitted to a labelled table."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import clock


def decide(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder; it stays as it is.")],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Labelled rows that it was not trained on.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new bundle, which must not exist.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as decision.thresholds=tuned; repeatable."),
    ] = None,
    out_of_scope_label: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Of rows that none of the labels is right for; they are only measured."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts it was trained on, to make centroids of.")
    ] = None,
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
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
) -> int:
    """Decide anew what BUNDLE makes of its scores: calibration, thresholds, and which texts get no answer.

    Nothing is trained. What is not set stays as it was when the bundle was made.
    """
    from snapfit.core.recipe_sources import read_overrides

    calm_libraries()
    import snapfit

    columns = {"text": text, "pair": pair, "label": label, "delimiter": delimiter}
    result = snapfit.decide(
        bundle,
        table,
        out=out,
        train=train,
        out_of_scope_label=out_of_scope_label,
        columns={**columns, "encoding": encoding, "format": format},
        **{given.key: given.value for given in read_overrides(overrides or ())},
    )
    console = Console(sys.stderr if as_json else sys.stdout)
    console.note("data", f"{table}: {result.rows:,} rows")
    console.result("decides", result.lines)
    console.result("bundle", f"{result.bundle}, in {clock(result.seconds)}")
    if as_json:
        write_json_line(result.to_dict())
    return 0
