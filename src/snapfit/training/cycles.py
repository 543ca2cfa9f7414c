"""When a run's cycles end, how the rates move in them, and where each of them begins.

A cycle ends with a snapshot of the weights. A run has one cycle; with the shape cosine_restarts as many as it is given
(snapshot ensembles, Huang et al. 2017, whose cycles are equal and begin at the full rate); and with `ensemble.rounds`
the run proper, which is the anchor, and short cycles after it. Those begin from the anchor's weights, each anew (a
star: Sadrtdinov et al. 2023), or from where the last one ended. Their rate is a fraction of the run's, and the head's a
smaller one, for a restart that is too hot leaves the basin that pretraining led to, and a fresh head's rate forgets.
"""

from dataclasses import dataclass
from functools import partial

from snapfit.core.recipe import Recipe
from snapfit.training.schedules import Schedule, build_schedule, cycle_ends, round_ends, with_rounds


@dataclass(frozen=True)
class Cycles:
    """The cycles of a run of some number of steps.

    ends: the numbers of finished steps at which a cycle is over; the last is the number of all steps.
    encoder, head: the multiplier of each one's peak rate, by step. rounds: how many of the cycles come after an anchor.
    star: whether each of those begins with the anchor's weights.
    """

    ends: tuple[int, ...]
    encoder: Schedule
    head: Schedule
    rounds: int = 0
    star: bool = False

    @property
    def run_proper(self) -> int:
        """How many steps come before the first round: all of them, where there are no rounds."""
        return self.ends[0] if self.rounds else self.ends[-1]

    def restarts_after(self, step: int) -> bool:
        """Whether a round begins when so many steps are done."""
        return self.rounds > 0 and step in self.ends[:-1]

    def in_rounds(self, step: int) -> bool:
        """Whether the step (from 0) belongs to a round."""
        return self.rounds > 0 and step >= self.ends[0]


def plan_cycles(recipe: Recipe, total_steps: int) -> Cycles:
    """The cycles that a recipe asks for. Raises BadInput for settings that the number of steps does not allow."""
    ensemble = recipe.ensemble
    if not ensemble.rounds:
        return _run_proper(recipe, total_steps)
    ends = round_ends(total_steps, ensemble.rounds, ensemble.anchor_share)
    anchor = _run_proper(recipe, ends[0])
    then = partial(with_rounds, anchor.encoder, ends, rewarm_fraction=ensemble.rewarm_fraction)
    return Cycles(
        tuple(ends),
        encoder=then(rate=ensemble.restart_rate),
        head=then(rate=ensemble.restart_head_rate),
        rounds=ensemble.rounds,
        star=ensemble.restart == "anchor",
    )


def _run_proper(recipe: Recipe, steps: int) -> Cycles:
    """The schedule section alone, over so many steps."""
    section = recipe.schedule
    warmup = min(round(section.warmup_fraction * steps), steps - 1)
    schedule = build_schedule(
        section.shape,
        steps,
        warmup_steps=warmup,
        cycles=section.cycles,
        cycle_mult=section.cycle_mult,
        cycle_decay=section.cycle_decay,
        floor=section.floor,
        decay_fraction=section.decay_fraction,
    )
    ends = cycle_ends(section.shape, steps, warmup_steps=warmup, cycles=section.cycles, cycle_mult=section.cycle_mult)
    return Cycles(tuple(ends), schedule, schedule)
