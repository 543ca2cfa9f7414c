"""`snapfit train`: a table in, a run folder with a bundle out."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snapfit.cli.console import Console, calm_libraries, clock, metrics_lines, write_json_line

if TYPE_CHECKING:
    from snapfit.core.recipe import Recipe
    from snapfit.ship.pipeline import TrainResult


def train(
    table: Annotated[Path, typer.Argument(metavar="TRAIN", help="CSV, TSV, JSONL, Parquet, or a folder of one kind.")],
    valid: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Validation table; default: a part of TRAIN is held out."),
    ] = None,
    test: Annotated[Path | None, typer.Option(metavar="FILE", help="Measured once, at the end.")] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="starter, a folder, or a name on the model hub.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder, which must not exist; default: below runs/."),
    ] = None,
    epochs: Annotated[str | None, typer.Option(metavar="N", help="Passes over TRAIN, such as 3 or 0.5.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Of head, data order and dropout.")] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in YAML.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as optim.lr=3e-5; repeatable."),
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the texts.")] = None,
    pair: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the second texts; none: there is none.")
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the labels.")] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="single, multi or regression.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Between the labels of one cell; makes the task multi.")
    ] = None,
    encoding: Annotated[str | None, typer.Option(metavar="NAME", help="Of text files, such as gb18030.")] = None,
    format: Annotated[str | None, typer.Option(metavar="NAME", help="csv, tsv, tsv-quoted, jsonl or parquet.")] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only errors and the result.")] = False,
) -> int:
    """Fine-tune a classifier on TRAIN.

    Settings: a flag wins over the environment (SNAPFIT_TRAIN_EPOCHS=3), that over --recipe, that over the
    default. Ctrl-C ends the run after the current step; its bundle is still written.
    """
    from snapfit.core.recipe import load_recipe

    columns = {"text": text, "pair": pair, "label": label, "task": task, "delimiter": delimiter}
    flags = {"encoder": encoder, "epochs": epochs, "seed": seed, "encoding": encoding, "format": format}
    settings = load_recipe(recipe, overrides=overrides or (), environment=os.environ, **columns, **flags)
    result = run_training(table, settings, valid=valid, test=test, out=out, as_json=as_json, quiet=quiet)
    if as_json:
        write_json_line(result.to_dict())
    return 0 if result.stopped_by is None else 128 + result.stopped_by


def run_training(
    table: Path,
    recipe: "Recipe",
    *,
    valid: Path | None,
    test: Path | None,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> "TrainResult":
    """Train with a console as the listener, and show the result unless it is to be JSON."""
    calm_libraries()
    import snapfit

    stream = sys.stderr if as_json else sys.stdout
    with Console(stream, level=recipe.log.level, quiet=quiet) as console:
        result = snapfit.train(table, valid=valid, test=test, out=out, recipe=recipe, listener=console)
        if not (as_json and quiet):
            show_result(console, result)
    return result


def show_result(console: Console, result: "TrainResult") -> None:
    """Metrics, where the bundle is, what it took, and the command that comes next."""
    if result.metrics:
        console.result("metrics", metrics_lines(result.metrics))
    else:
        console.result("metrics", "none: no split was held out")
    console.result("bundle", str(result.bundle))
    console.note(
        "time",
        f"{clock(result.seconds)}, {clock(result.train_seconds)} of it in {result.steps:,} training steps; "
        f"the weights are those of step {result.best_step:,}",
    )
    if result.stopped_by is not None:
        console.result("stopped", f"by signal {result.stopped_by}, after step {result.steps:,}; the bundle is whole")
    console.note("next", f"snapfit predict {quoted(result.bundle)} --text {sample(result.bundle)}")


def sample(bundle: Path) -> str:
    """A text to try, as an argument: two of them, with a tab between, for pairs."""
    from snapfit.runtime.bundle import Bundle

    return "$'a text\\tanother text'" if Bundle.open(bundle, verify=False).info.pair else "'a text'"


def quoted(value: Any) -> str:
    """A value as one argument of a POSIX shell."""
    import shlex

    return shlex.quote(str(value))
