"""`snapfit check`: tables in, what is wrong with them out, before any training."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import aligned, clock
from snapfit.cli.train import (
    AsJsonOption,
    DelimiterOption,
    EncodingOption,
    FormatOption,
    LabelOption,
    OverridesOption,
    PairOption,
    QuietOption,
    RecipeOption,
    TaskOption,
    TestOption,
    TextOption,
    ValidOption,
    quoted,
)
from snapfit.core.errors import BadInput

if TYPE_CHECKING:
    from snapfit.checks.findings import Finding
    from snapfit.ship.check_report import CheckReport

TableArgument = Annotated[
    Path, typer.Argument(metavar="TRAIN", help="The training table: CSV, TSV, JSONL, Parquet, or a folder of one kind.")
]
CheckedEncoderOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Held against the texts: starter, a folder, a name on the hub, or none."),
]
FixOption = Annotated[
    Path | None, typer.Option("--fix", metavar="DIR", help="Write cleaned copies and a log of every change there.")
]
DropOption = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="KIND", help="With --fix, leave out too: conflicting_labels, near_leak."),
]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page.")]
WithModelOption = Annotated[
    Path | None,
    typer.Option(
        "--with-model",
        metavar="RUN",
        help="Rank labels that look wrong, by the run of train --folds; it is trained there where it is missing.",
    ),
]
NearOption = Annotated[
    str, typer.Option(metavar="SHARE", help="What near-duplicates have in common, 0.8 to 1, or off.")
]
NoPlanOption = Annotated[bool, typer.Option("--no-plan", help="Do not measure what a training will take.")]

_ROWS_SHOWN = 6
_EXAMPLES_SHOWN = 2
_STYLES = {"error": "bold red", "warning": "yellow", "note": "bold cyan"}


def check(
    table: TableArgument,
    valid: ValidOption = None,
    test: TestOption = None,
    encoder: CheckedEncoderOption = None,
    fix: FixOption = None,
    drop: DropOption = None,
    html: HtmlOption = None,
    near: NearOption = "0.9",
    no_plan: NoPlanOption = False,
    with_model: WithModelOption = None,
    recipe: RecipeOption = None,
    overrides: OverridesOption = None,
    text: TextOption = None,
    pair: PairOption = None,
    label: LabelOption = None,
    task: TaskOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    format: FormatOption = None,
    as_json: AsJsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Look for what is wrong with tables before a training: bad rows, leaks, duplicates, labels, texts, the encoder.

    The tables are only read. Findings come in order of harm, with the rows and what to do. Exit code 1 when there is an
    error: training would fail, or its figures would be wrong.
    """
    calm_libraries()
    import snapfit
    from snapfit.core.recipe import load_recipe

    columns = {"text": text, "pair": pair, "label": label, "task": task, "delimiter": delimiter}
    named = None if encoder == "none" else encoder
    flags = {"encoder": named, "encoding": encoding, "format": format}
    settings = load_recipe(recipe, overrides=overrides or (), environment=os.environ, **columns, **flags)
    stream = sys.stderr if as_json else sys.stdout
    with Console(stream, level=settings.log.level, quiet=quiet) as console:
        report = snapfit.check(
            table,
            valid=valid,
            test=test,
            encoder=encoder or "auto",
            plan=not no_plan,
            near_similarity=_similarity(near),
            fix=fix,
            drop=drop or (),
            html=html,
            with_model=with_model,
            recipe=settings,
            listener=console,
        )
        if not (as_json and quiet):
            _show(console, report)
    if as_json:
        write_json_line(report.to_dict())
    return 1 if report.levels["error"] else 0


def _similarity(near: str) -> float | None:
    if near == "off":
        return None
    try:
        return float(near)
    except ValueError as error:
        raise BadInput(f"--near {near}", "a share from 0.8 to 1, or off", "--near 0.9") from error


def _show(console: Console, report: "CheckReport") -> None:
    """The report for a person: tables, findings, what was not looked at, the plan, what was written."""
    from snapfit.ship.check_words import length_rows, plan_rows

    console.note("data", report.columns)
    console.rows("tables", _tables(report))
    for finding in report.findings:
        console.result(finding.level, _lines(finding), style=_STYLES[finding.level])
    counts = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in report.levels.items())
    for name, why in (report.skipped or {}).items():
        console.note("skipped", f"{name}: {why}")
    if rows := length_rows(report.tokens or {}):
        console.rows("lengths", [*aligned(rows, right=range(2, 6)), "* the policy of the recipe"])
    if report.plan is not None:
        console.rows("plan", aligned(plan_rows(report.plan)))
    console.result("found", counts)
    if report.cleaned is not None:
        console.result("fixed", _fixed(report))
    if report.html is not None:
        console.result("page", str(report.html))
    console.note("time", clock(report.seconds))
    if report.cleaned is not None:
        tables = report.cleaned.tables
        others = "".join(f" --{name} {quoted(tables[name])}" for name in tables if name != "train")
        console.note("next", f"snapfit train {quoted(tables['train'])}{others}")


def _tables(report: "CheckReport") -> list[str]:
    rows = [("", "rows", "usable", "characters: median", "longest", "labels")]
    for name, one in report.tables.items():
        lengths, labels = report.characters[name], report.labels[name]
        rows.append(
            (
                name,
                f"{one['rows']:,}",
                f"{one['usable']:,}",
                f"{lengths['median']:,.0f}",
                f"{lengths['most']:,.0f}",
                f"{len(labels):,}" if labels else "",
            )
        )
    return aligned(rows, right=range(1, 6))


def _lines(finding: "Finding") -> Sequence[str]:
    """A finding in lines: what, where, like what, why, and what to do; of a note the first and the last alone."""
    from snapfit.ship.check_words import rows_told

    lines = [f"{finding.text}  [{finding.kind}]"]
    if finding.level == "note":
        return lines
    lines += [f"  rows  {told}" for told in rows_told(finding, most=_ROWS_SHOWN)]
    for example in finding.examples[:_EXAMPLES_SHOWN]:
        shown = " | ".join(example.texts)
        beside = "; ".join(filter(None, [", ".join(example.places), " / ".join(example.labels), example.note]))
        lines.append(f"  like  {shown}  ({beside})" if shown else f"  like  {beside}")
    return [*lines, f"  so    {finding.of_kind.effect}", f"  fix   {finding.what_to_do}"]


def _fixed(report: "CheckReport") -> list[str]:
    assert report.cleaned is not None
    lines = [f"cleaned copies are in {report.cleaned.folder}, every row that they lack in {report.cleaned.log.name}"]
    for split, kinds in report.cleaned.left_out.items():
        lines.append(f"{split}: left out " + ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()))
    if report.cleaned.kept:
        lines.append(f"train: {report.cleaned.kept:,} rows stay, since their label would be lost")
    return lines
