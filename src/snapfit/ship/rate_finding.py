"""The learning-rate finder: a table goes in, a rate to train with comes out; nothing is kept of the model."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.interrupts import Stop, StopRequest, exit_code
from snapfit.core.recipe import Recipe, chosen_recipe, settled
from snapfit.ship.rate_plot import check_plot, write_plot
from snapfit.ship.telling import Listener, announce, teller
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import Notify, read_tables
from snapfit.training.rate_curve import RateCurve, Suggestion, exponential_rates, suggest
from snapfit.training.rate_finder import run_range_test

LOWEST, HIGHEST, STEPS = 1e-7, 1.0, 100
"""The default test: seven decades, some fourteen steps in each."""


@dataclass(frozen=True)
class RangeTest:
    """What `find_lr` found.

    suggestion: the rates that the curve suggests, all of `optim.lr`. curve: the test, step by step.
    recipe_rate: `optim.lr` as the recipe has it, and recipe_reason: where it comes from. recipe: resolved.
    ended: "at the highest rate", "diverged", "not finite" or "interrupted". steps: done. seconds: of this call.
    plot: the file that was written, or None. stopped_by: the signal that ended it early, or None.
    """

    suggestion: Suggestion
    curve: RateCurve
    recipe_rate: float
    recipe_reason: str
    recipe: Recipe
    ended: str
    steps: int
    seconds: float
    plot: Path | None = None
    stopped_by: int | None = None

    @property
    def rate(self) -> float | None:
        """The rate to take, or None where the test shows none."""
        return self.suggestion.rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        suggestion = self.suggestion
        return {
            "rate": suggestion.rate,
            "set": None if suggestion.rate is None else f"optim.lr={suggestion.rate:g}",
            "why": suggestion.why,
            "steepest": suggestion.steepest,
            "least": suggestion.least,
            "tenth_of_least": suggestion.tenth,
            "recipe_rate": self.recipe_rate,
            "recipe_reason": self.recipe_reason,
            "ended": self.ended,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "plot": None if self.plot is None else str(self.plot),
            "stopped_by": self.stopped_by,
            "curve": {
                "rates": self.curve.rates,
                "losses": self.curve.losses,
                "smoothed": self.curve.smoothed(),
            },
            "recipe": self.recipe.to_dict(),
        }


def find_lr(
    table: Any,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    plot: str | Path | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> RangeTest:
    """Find a learning rate for a table: the range test (Smith 2017) on what `train` would train.

    table, recipe, listener, settings: as for `train`; the listener hears of every step.
    lowest, highest: `optim.lr` of the first step and of the last, all other rates in proportion.
    steps: how many there are at most; the test ends where the loss runs away.
    plot: a .svg, .png or .pdf file to draw the curve in, which needs the extra "plot".

    A Ctrl-C ends the test with what was found so far. Nothing is written but the plot; the model is thrown away.
    Raises BadInput before any work for anything that cannot be used, WorkFailed when the first step goes wrong or the
    plot cannot be written, Interrupted when a signal ended it before the first step, or in a hurry.
    """
    start = time.monotonic()
    exponential_rates(lowest, highest, steps)
    target = None if plot is None else check_plot(plot)
    if table is None:
        raise BadInput("no table to try rates on", "a table", "snapfit find-lr TABLE")
    chosen = chosen_recipe(recipe, settings)

    def notify(kind: str, **fields: Any) -> None:
        if listener is not None:
            listener({"kind": kind, "time": round(time.monotonic() - start, 3), **fields})

    with StopRequest() as stop:
        try:
            tables = read_tables(table, None, None, chosen.data, told=teller(listener))
            announce(notify, tables)
            plan = make_plan(tables, chosen, notify=notify, told=teller(listener))
            curve = _tried(plan, lowest, highest, steps, notify, stop)
            suggestion, rate = suggest(curve), settled(plan.recipe.optim.lr)
            if target is not None:
                write_plot(target, curve, suggestion, rate)
        except (KeyboardInterrupt, Interrupted) as error:
            raise Interrupted(str(error) or "interrupted; no rate was found", exit_code(stop.signal_number)) from error
    stopped = not curve.over and len(curve) < steps
    return RangeTest(
        suggestion=suggestion,
        curve=curve,
        recipe_rate=rate,
        recipe_reason=plan.reasons.get("optim.lr", "given"),
        recipe=plan.recipe,
        ended=curve.over or ("interrupted" if stopped else "at the highest rate"),
        steps=len(curve),
        seconds=time.monotonic() - start,
        plot=target,
        stopped_by=stop.signal_number if stopped else None,
    )


def _tried(plan: Plan, lowest: float, highest: float, steps: int, notify: Notify, stop: Stop) -> RateCurve:
    """The range test of a plan, with torch as the recipe wants it."""
    with closing(plan), torch_as_wanted(plan.recipe):
        return run_range_test(plan, lowest=lowest, highest=highest, steps=steps, notify=notify, stop=stop)
