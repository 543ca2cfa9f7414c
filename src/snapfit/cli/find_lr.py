"""`snapfit find-lr`: a table in, a learning rate to train it with out."""

import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.lines import aligned, clock
from snapfit.cli.train import (
    AsJsonOption,
    DelimiterOption,
    EncoderOption,
    EncodingOption,
    FormatOption,
    LabelOption,
    OverridesOption,
    PairOption,
    QuietOption,
    RecipeOption,
    SeedOption,
    TaskOption,
    TextOption,
)

if TYPE_CHECKING:
    from snapfit.ship.rate_finding import RangeTest

_PIPE_WIDTH = 80  # columns of what is no terminal
_NARROWEST = 40  # a picture in fewer columns shows nothing
_ROWS = 12
_LEFT = 11  # what the console writes before each line


def find_lr(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="What would be trained on: CSV, TSV, JSONL, Parquet, or a folder of one kind."
        ),
    ],
    lowest: Annotated[float, typer.Option(metavar="RATE", help="Rate of the first step.")] = 1e-7,
    highest: Annotated[float, typer.Option(metavar="RATE", help="Rate of the last step.")] = 1.0,
    steps: Annotated[int, typer.Option(metavar="N", help="Steps at most; it ends where the loss diverges.")] = 100,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the curve: .svg, .png or .pdf; needs matplotlib.")
    ] = None,
    encoder: EncoderOption = None,
    seed: SeedOption = None,
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
    """Find a learning rate for TABLE: a short training whose rate rises at every step, and which is thrown away.

    The rate is optim.lr, that of the encoder's top layer; all others keep their proportion to it. Settings are those
    of train. Ctrl-C ends the test with what was found so far.
    """
    calm_libraries()
    import snapfit
    from snapfit.core.interrupts import exit_code
    from snapfit.core.recipe import load_recipe

    columns = {"text": text, "pair": pair, "label": label, "task": task, "delimiter": delimiter}
    flags = {"encoder": encoder, "seed": seed, "encoding": encoding, "format": format}
    settings = load_recipe(recipe, overrides=overrides or (), environment=os.environ, **columns, **flags)
    stream = sys.stderr if as_json else sys.stdout
    with Console(stream, level=settings.log.level, quiet=quiet) as console:
        result = snapfit.find_lr(
            table, lowest=lowest, highest=highest, steps=steps, plot=plot, recipe=settings, listener=console
        )
        console.close()
        if not (as_json and quiet):
            width = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns if stream.isatty() else _PIPE_WIDTH
            _show(console, result, width - _LEFT - 1)
    if as_json:
        write_json_line(result.to_dict())
    return 0 if result.stopped_by is None else exit_code(result.stopped_by)


def _show(console: Console, result: "RangeTest", width: int) -> None:
    found, curve = result.suggestion, result.curve
    console.rows("loss", loss_picture(curve.rates, curve.smoothed(), mark=found.rate, width=width))
    ended = {
        "diverged": f"the loss diverged at a rate of {curve.rates[-1]:.1e}",
        "not finite": f"numbers were no longer finite at a rate of {curve.rates[-1]:.1e}",
        "interrupted": f"interrupted at a rate of {curve.rates[-1]:.1e}",
    }
    console.note("ended", f"after {result.steps:,} steps: {ended.get(result.ended, result.ended)}")
    rows = [] if found.steepest is None else [("steepest", f"{found.steepest:.1e}", "where the loss falls fastest")]
    if found.least is not None:
        rows.append(("a tenth", f"{found.tenth:.1e}", f"of {found.least:.1e}, where the loss is least"))
    rows.append(("recipe", f"{result.recipe_rate:.1e}", result.recipe_reason))
    console.result("rates", aligned(rows))
    if found.rate is None:
        console.result("set", f"nothing: {found.why}")
    else:
        console.result("set", [f"--set optim.lr={found.rate:g}", found.why])
    if result.plot is not None:
        console.result("plot", str(result.plot))
    console.note("time", clock(result.seconds))


# ---------------------------------------------------------------- the picture


def loss_picture(
    rates: Sequence[float], losses: Sequence[float], *, mark: float | None, width: int, rows: int = _ROWS
) -> list[str]:
    """A curve in plain characters, rates on a logarithmic axis; no line is wider than `width` columns.

    mark: a rate whose column is shown by "|".
    Returns no lines where `width` is too narrow or there is too little to draw.
    """
    if width < _NARROWEST or len(rates) < 2:
        return []
    top, bottom = max(losses), min(losses)
    height = (top - bottom) or 1.0
    names = [f"{top:.3g}", *[""] * (rows - 2), f"{bottom:.3g}"]
    left = max(map(len, names))
    columns = width - left - 2
    low, high = math.log10(rates[0]), math.log10(rates[-1])

    def column(rate: float) -> int:
        return min(max(round((math.log10(rate) - low) / (high - low) * (columns - 1)), 0), columns - 1)

    cells = [[" "] * columns for _ in range(rows)]
    if mark is not None:
        for line in cells:
            line[column(mark)] = "|"
    for rate, loss in zip(rates, losses, strict=True):
        cells[round((top - loss) / height * (rows - 1))][column(rate)] = "*"
    lines = [f"{name:>{left}} |{''.join(line)}".rstrip() for name, line in zip(names, cells, strict=True)]
    lines += [f"{'':{left}} +{'-' * columns}", f"{'':{left}}  {_axis(low, high, columns, column)}".rstrip()]
    return lines if mark is None else [*lines, f"{'':{left}}  | is {mark:.1e}"]


def _axis(low: float, high: float, columns: int, column: Callable[[float], int]) -> str:
    """The names of the whole decades under their columns, as many as have room."""
    line = ""
    for decade in range(math.ceil(low), math.floor(high) + 1):
        name = f"1e{decade:+03d}"
        place = column(10.0**decade)
        if (not line or place > len(line)) and place + len(name) <= columns:
            line = line.ljust(place) + name
    return line
