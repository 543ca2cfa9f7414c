"""Learning-rate schedules as pure functions of the step: no hidden state to save or resume.

A schedule maps the optimizer step (0, 1, ... total_steps - 1) to a multiplier in [0, 1] of every group's peak
rate: a linear warm-up of `warmup_steps`, then one of the shapes of `build_schedule` over the n steps left.

The warm-up is (step + 1) / warmup_steps, so that the first step already learns (transformers gives it a rate
of zero and runs one step behind). After it, step i of n is i / n of the way down, as in transformers and
torch: the floor is what the step after the last would have, and no step is spent on a rate of zero.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Literal, get_args

from snapfit.core.errors import BadInput, nearest

Schedule = Callable[[int], float]
Shape = Literal["linear", "cosine", "cosine_restarts", "one_cycle", "wsd", "constant"]

SLANTED_LOW = 1 / 32
"""Low point of `one_cycle` when no floor is given: 1 / ratio with ULMFiT's ratio (Howard and Ruder 2018)."""


def build_schedule(
    shape: str,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    cycles: int = 1,
    cycle_mult: float = 1.0,
    cycle_decay: float = 1.0,
    floor: float = 0.0,
    decay_fraction: float = 0.2,
) -> Schedule:
    """The schedule of a run of `total_steps` optimizer steps.

    shape: what follows the warm-up.
        linear           straight down from 1 to the floor
        cosine           half a cosine from 1 to the floor
        cosine_restarts  `cycles` half cosines (SGDR, Loshchilov and Hutter 2017), each `cycle_mult` times as
                         long as the one before and starting at `cycle_decay` times its peak, the floor at
                         least one_cycle        slanted triangle (ULMFiT): up from the low point to 1 over
                         `warmup_steps`, in place of the warm-up, then straight down; the low point is the
                         floor, or 1/32 if that is 0 wsd              1 until the last `decay_fraction` of all
                         steps, then 1 - sqrt(way) down to the floor (Hägele et al. 2024)
        constant         1
    total_steps, warmup_steps: in optimizer steps.
    floor: lowest multiplier of the decay, in [0, 1); the warm-up starts below it where it has to.

    Steps from `total_steps` on get the multiplier of the last step, steps below 0 raise ValueError.
    Raises BadInput when the settings do not fit together, such as more cycles than the steps can hold.
    """
    _check(shape, total_steps, warmup_steps, cycles, floor, decay_fraction)
    after = total_steps - warmup_steps
    if shape == "one_cycle":
        return _one_cycle(total_steps, warmup_steps, floor or SLANTED_LOW)
    if shape == "linear":
        body = _falling(lambda way: 1.0 - way, after, floor)
    elif shape == "cosine":
        body = _falling(_half_cosine, after, floor)
    elif shape == "cosine_restarts":
        body = _restarts(_cycle_bounds(after, cycles, cycle_mult), cycle_decay, floor)
    elif shape == "wsd":
        decay_steps = min(after, max(1, round(decay_fraction * total_steps)))
        body = _held(after - decay_steps, _falling(lambda way: 1.0 - math.sqrt(way), decay_steps, floor))
    else:
        body = _constant
    return _with_warmup(body, warmup_steps, total_steps)


def cycle_ends(
    shape: str, total_steps: int, *, warmup_steps: int = 0, cycles: int = 1, cycle_mult: float = 1.0
) -> list[int]:
    """The numbers of finished steps at which a cycle is over and a snapshot of the weights is due.

    Strictly increasing; the last one is `total_steps`. A shape without restarts has one cycle.
    Raises BadInput as `build_schedule` does.
    """
    _check(shape, total_steps, warmup_steps, cycles)
    if shape != "cosine_restarts":
        return [total_steps]
    return [warmup_steps + end for end in _cycle_bounds(total_steps - warmup_steps, cycles, cycle_mult)[1:]]


def with_rounds(anchor: Schedule, bounds: Sequence[int], *, rate: float, rewarm_fraction: float) -> Schedule:
    """A schedule, and after it short cycles: each warms up to `rate`, then half a cosine takes it down to 0.

    anchor: of the first bounds[0] steps. bounds: where the anchor and each round end, as from `round_ends`.
    rate: in (0, 1]. rewarm_fraction: of each round's steps, in [0, 1).
    As everywhere here, the first step of a round already learns, and steps from the last bound on are as the last one.
    """
    first, last = bounds[0], bounds[-1]

    def multiplier(step: int) -> float:
        if step < first:
            return anchor(step)
        step = min(step, last - 1)
        number = bisect_right(bounds, step)
        start, end = bounds[number - 1], bounds[number]
        warm = min(round(rewarm_fraction * (end - start)), end - start - 1)
        done = step - start
        if done < warm:
            return rate * (done + 1) / warm
        return rate * _half_cosine((done - warm) / (end - start - warm))

    return multiplier


def round_ends(total_steps: int, rounds: int, anchor_share: float) -> list[int]:
    """The numbers of finished steps at which the anchor and each of the `rounds` after it are over.

    The anchor takes its share of all steps, the rounds share the rest alike; the last end is `total_steps`.
    Raises BadInput where a round would have fewer than two steps, or the anchor none.
    """
    anchor = round(anchor_share * total_steps)
    rest = total_steps - anchor
    ends = [anchor + math.floor(rest * k / rounds + 0.5) for k in range(rounds + 1)]
    if anchor < 1 or any(end - start < 2 for start, end in pairwise(ends)):
        raise BadInput(
            f"{rounds} rounds after {anchor} of {total_steps} steps",
            "at least one step before the rounds and two in each of them",
            "use fewer ensemble.rounds, another ensemble.anchor_share, or train for more epochs",
        )
    return ends


def _check(
    shape: str,
    total_steps: int,
    warmup_steps: int,
    cycles: int,
    floor: float = 0.0,
    decay_fraction: float = 1.0,
) -> None:
    shapes: tuple[str, ...] = get_args(Shape)
    if shape not in shapes:
        meant = nearest(shape, shapes) or "linear"
        raise BadInput(f"schedule.shape is {shape!r}", f"one of {', '.join(shapes)}", f"--set schedule.shape={meant}")
    if total_steps < 1:
        raise BadInput(
            f"a run of {total_steps} steps",
            "at least one optimizer step",
            "train for more epochs or with a smaller batch",
        )
    if not 0 <= warmup_steps < total_steps:
        raise BadInput(
            f"a warm-up of {warmup_steps} steps in a run of {total_steps}",
            f"between 0 and {total_steps - 1} warm-up steps",
            "lower schedule.warmup_fraction",
        )
    if cycles != 1 and shape != "cosine_restarts":
        raise BadInput(
            f"schedule.cycles is {cycles} with the shape {shape!r}, which has no cycles",
            "cycles only with the shape cosine_restarts",
            "--set schedule.shape=cosine_restarts, or leave schedule.cycles at 1",
        )
    if not 0.0 <= floor < 1.0:
        raise BadInput(f"schedule.floor is {floor}", "a number from 0 to below 1", "--set schedule.floor=0")
    if not 0.0 < decay_fraction <= 1.0:
        raise BadInput(
            f"schedule.decay_fraction is {decay_fraction}",
            "a number above 0, at most 1",
            "--set schedule.decay_fraction=0.2",
        )


def _cycle_bounds(steps: int, cycles: int, cycle_mult: float) -> list[int]:
    """Where cycles begin and end in `steps` steps: cycles + 1 whole numbers from 0 to `steps`.

    Several cycles need two steps each: a cycle of one step has a peak and nothing annealed.
    """
    if cycles < 1 or not (math.isfinite(cycle_mult) and cycle_mult > 0):
        raise BadInput(
            f"schedule.cycles is {cycles} and schedule.cycle_mult is {cycle_mult}",
            "at least one cycle and a cycle_mult above 0",
            "--set schedule.cycles=1 --set schedule.cycle_mult=1",
        )
    if 2 * cycles <= steps or cycles == 1:
        # Relative to the longest cycle: a large multiplier underflows, harmlessly, and never overflows.
        longest = cycles - 1 if cycle_mult > 1 else 0
        *parts, whole = accumulate(cycle_mult ** (k - longest) for k in range(cycles))
        bounds = [0, *(math.floor(steps * part / whole + 0.5) for part in parts), steps]
        if cycles == 1 or all(end - start >= 2 for start, end in pairwise(bounds)):
            return bounds
    growth = "" if cycle_mult == 1 else f", each {cycle_mult:g} times as long as the one before it,"
    raise BadInput(
        f"{cycles} cycles{growth} in {steps} steps after the warm-up",
        "at least two steps in every cycle",
        "use fewer schedule.cycles, a schedule.cycle_mult nearer to 1, or train for more epochs",
    )


def _half_cosine(way: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * way))


def _constant(step: int) -> float:
    return 1.0


def _falling(curve: Callable[[float], float], steps: int, floor: float) -> Schedule:
    """A curve from 1 (way 0) to 0 (way 1), stretched over `steps` steps and lifted to the floor."""
    return lambda step: floor + (1.0 - floor) * curve(step / steps)


def _held(steps: int, then: Schedule) -> Schedule:
    return lambda step: 1.0 if step < steps else then(step - steps)


def _restarts(bounds: Sequence[int], cycle_decay: float, floor: float) -> Schedule:
    if not 0.0 < cycle_decay <= 1.0:
        raise BadInput(
            f"schedule.cycle_decay is {cycle_decay}",
            "a number above 0, at most 1",
            "--set schedule.cycle_decay=1",
        )

    def multiplier(step: int) -> float:
        cycle = bisect_right(bounds, step) - 1
        start, end = bounds[cycle], bounds[cycle + 1]
        peak = max(floor, cycle_decay**cycle)
        return floor + (peak - floor) * _half_cosine((step - start) / (end - start))

    return multiplier


def _one_cycle(total_steps: int, cut: int, low: float) -> Schedule:
    def multiplier(step: int) -> float:
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        step = min(step, total_steps - 1)
        way_up = step / cut if step < cut else 1.0 - (step - cut) / (total_steps - cut)
        return low + (1.0 - low) * way_up

    return multiplier


def _with_warmup(body: Schedule, warmup_steps: int, total_steps: int) -> Schedule:
    def multiplier(step: int) -> float:
        if step < 0:
            raise ValueError(f"steps count from 0, got {step}")
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return body(min(step, total_steps - 1) - warmup_steps)

    return multiplier
