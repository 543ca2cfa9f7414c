"""`snapfit train`: a table in, a run folder with a bundle out."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import clock, fold_lines, metrics_lines, suspect_lines

if TYPE_CHECKING:
    from snapfit.core.recipe import Recipe
    from snapfit.ship.result import TrainResult


_SHOWN_SUSPECTS = 5

TrainArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="TRAIN",
        show_default=False,
        help="CSV, TSV, JSONL, Parquet, or a folder of one kind; with --resume the run's own.",
    ),
]
ValidOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Validation table; default: a part of TRAIN is held out."),
]
TestOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Measured once, at the end.")]
EncoderOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="starter, a folder, or a name on the model hub.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Run folder, which must not exist; default: below runs/."),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Go on with the run in DIR, from its newest valid checkpoint."),
]
AcceptChangesOption = Annotated[
    bool,
    typer.Option("--accept-changes", help="Go on although settings or the machine changed, where it makes sense."),
]
ContinueFromOption = Annotated[
    Path | None,
    typer.Option(metavar="BUNDLE", help="Train an own bundle further, head included, as a new run."),
]
EpochsOption = Annotated[str | None, typer.Option(metavar="N", help="Passes over TRAIN, such as 3 or 0.5.")]
SeedOption = Annotated[str | None, typer.Option(metavar="N", help="Of head, data order and dropout.")]
FoldsOption = Annotated[
    str | None,
    typer.Option(metavar="K", help="Cross-validate in K folds: each row is scored by a model that has not seen it."),
]
FoldBundleOption = Annotated[
    str | None,
    typer.Option(metavar="WORD", help="What ships of --folds: refit (on all rows, the default), ensemble or none."),
]
RecipeOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in YAML.")]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as optim.lr=3e-5; repeatable."),
]
TextOption = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the texts.")]
PairOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of the second texts; none: there is none.")
]
LabelOption = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the labels.")]
TaskOption = Annotated[str | None, typer.Option(metavar="TASK", help="single, multi or regression.")]
DelimiterOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Between the labels of one cell; makes the task multi.")
]
EncodingOption = Annotated[str | None, typer.Option(metavar="NAME", help="Of text files, such as gb18030.")]
FormatOption = Annotated[str | None, typer.Option(metavar="NAME", help="csv, tsv, tsv-quoted, jsonl or parquet.")]
AsJsonOption = Annotated[
    bool,
    typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")]


def train(
    table: TrainArgument = None,
    valid: ValidOption = None,
    test: TestOption = None,
    encoder: EncoderOption = None,
    out: OutOption = None,
    resume: ResumeOption = None,
    accept_changes: AcceptChangesOption = False,
    continue_from: ContinueFromOption = None,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    folds: FoldsOption = None,
    fold_bundle: FoldBundleOption = None,
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
    """Fine-tune a classifier on TRAIN, or go on with a run that was stopped.

    Settings: a flag wins over the environment (SNAPFIT_TRAIN_EPOCHS=3), that over --recipe, that over the
    default. A run saves its state as it goes. Ctrl-C ends it after the current step, with a bundle of the best so far;
    SIGTERM and SIGUSR1 end it as soon as its state is saved. --resume goes on with it to the same weights.
    """
    if table is None and resume is None:
        raise typer.BadParameter("Missing argument 'TRAIN', the table to train on, or --resume DIR")
    from snapfit.core.interrupts import exit_code
    from snapfit.core.recipe import load_recipe

    columns = {"text": text, "pair": pair, "label": label, "task": task, "delimiter": delimiter}
    flags = {"encoder": encoder, "epochs": epochs, "seed": seed, "encoding": encoding, "format": format}
    flags |= {"folds": folds, "fold_bundle": fold_bundle}
    settings = load_recipe(recipe, overrides=overrides or (), environment=os.environ, **columns, **flags)
    result = run_training(
        settings,
        as_json=as_json,
        quiet=quiet,
        table=table,
        valid=valid,
        test=test,
        out=out,
        resume=resume,
        accept_changes=accept_changes,
        continue_from=continue_from,
    )
    if as_json:
        write_json_line(result.to_dict())
    return 0 if result.stopped_by is None else exit_code(result.stopped_by)


def run_training(recipe: "Recipe", *, as_json: bool, quiet: bool, **arguments: Any) -> "TrainResult":
    """`snapfit.train` with a console as the listener; the result is shown unless it is to be JSON."""
    calm_libraries()
    import snapfit

    stream = sys.stderr if as_json else sys.stdout
    with Console(stream, level=recipe.log.level, quiet=quiet) as console:
        result = snapfit.train(recipe=recipe, listener=console, **arguments)
        if not (as_json and quiet):
            show_result(console, result)
    return result


def show_result(console: Console, result: "TrainResult") -> None:
    """Metrics, where the bundle is, what it took, and the command that comes next."""
    if result.folds is not None:
        show_folds(console, result.folds, result.run)
    if result.metrics:
        console.result("metrics", metrics_lines(result.metrics))
    else:
        console.result("metrics", "none: no split was held out")
    console.result("bundle", str(result.bundle) if result.has_bundle else "none, as asked for")
    if result.already_complete:
        return
    console.note(
        "time",
        f"{clock(result.seconds)}, {clock(result.train_seconds)} of it in {result.steps:,} training steps; "
        f"{_what_ships(result)}",
    )
    if not result.has_bundle:
        return
    if result.stopped_by is not None:
        console.result("stopped", f"by signal {result.stopped_by}, after step {result.steps:,}; the bundle is whole")
        console.note("next", f"snapfit train --resume {quoted(result.run)}")
    console.note("next", f"snapfit predict {quoted(result.bundle)} --text {sample(result.bundle)}")


def show_folds(console: Console, report: Mapping[str, Any], run: Path) -> None:
    """What the folds of a run came to, and the labels that look wrong."""
    from snapfit.ship.label_errors import SUSPECTS_FILE, read_suspects

    console.result("folds", fold_lines(report))
    if report["label_errors"] is not None:
        suspects = read_suspects(run, _SHOWN_SUSPECTS)
        console.result("suspects", suspect_lines(report["label_errors"], suspects, str(run / SUSPECTS_FILE)))


def _what_ships(result: "TrainResult") -> str:
    if result.folds is not None and result.folds["bundle"] != "refit":
        return "what ships is the mean of the folds' models" if result.has_bundle else "nothing ships"
    if result.verdict is None:
        return f"the weights are those of step {result.best_step:,}"
    return f"what ships is: {result.verdict['rows'][result.verdict['chosen']]['name']}"


def sample(bundle: Path) -> str:
    """A text to try, as an argument: two of them, with a tab between, for pairs."""
    from snapfit.runtime.bundle import Bundle

    return "$'a text\\tanother text'" if Bundle.open(bundle, verify=False).info.pair else "'a text'"


def quoted(value: Any) -> str:
    """A value as one argument of a POSIX shell."""
    import shlex

    return shlex.quote(str(value))
