"""`snapfit demo`: the whole way on texts that every machine has, ending in a proof that the bundle stands
alone.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.evaluation_lines import show_mistakes
from snapfit.cli.lines import clock, metrics_lines
from snapfit.cli.train import quoted


def demo(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder; default: runs/demo, or the next free name."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="1,200 rows and one epoch.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line; all else goes to standard error."),
    ] = False,
) -> int:
    """Train on docstrings of Python's own standard library, labelled by chapter, and prove the bundle.

    The proof: a copy of the bundle gives the same scores in a process without network, encoder package and
    home.
    """
    calm_libraries()
    from snapfit.core.recipe import load_recipe
    from snapfit.ship.demonstration import run_demo

    recipe = load_recipe(environment=os.environ)
    with Console(sys.stderr if as_json else sys.stdout, level=recipe.log.level) as console:
        result = run_demo(
            out, quick=quick, recipe=recipe, listener=console, say=lambda text: console.note("demo", text)
        )
        console.result("metrics", metrics_lines(result.training.metrics))
        show_mistakes(console, result.evaluation)
        difference = f"{result.largest_difference:.1e}"
        console.result("proof", f"the copy's scores of {result.proof_texts} texts differ by at most {difference}")
        console.result("bundle", str(result.training.bundle))
        console.note("time", f"{clock(result.seconds)}, {clock(result.training.train_seconds)} of it training")
        bundle = quoted(result.training.bundle)
        console.note("next", f"snapfit predict {bundle} --text 'Return the time in seconds.'")
    if as_json:
        write_json_line(result.to_dict())
    return 0
