"""Soups: one model from the weights of several (Izmailov et al. 2018; Wortsman et al. 2022), where these share a basin.

The mean of two weights is only as good as they are when no barrier lies between them. So each member is first tried
half way to the best one; where the model there is clearly worse than both, the member is left out of every soup.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from snapfit.core.calibration import fit_temperature
from snapfit.core.combining import Quality, best_of, is_worse, measure
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.metrics import standard_error
from snapfit.core.scores import logits_to_scores

Weights = Mapping[str, Tensor]
LogitsOf = Callable[[Weights], np.ndarray]
"""Weights -> logits float [rows, n_outputs] of the held-out rows."""
MOST_ERROR = 1.25
"""Times the error of the worse end from which a barrier lies between two members, where the metric is no share."""


@dataclass(frozen=True)
class Soup:
    """An average of weights. ingredients: numbers of the members in it. logits: of the held-out rows."""

    name: str
    ingredients: tuple[int, ...]
    weights: dict[str, Tensor]
    logits: np.ndarray


@dataclass(frozen=True)
class Barrier:
    """A member that no soup may hold. quality: half way to the best one. why: in words."""

    member: int
    quality: Quality
    why: str


def average(weights: Sequence[Weights], shares: Sequence[float] | None = None) -> dict[str, Tensor]:
    """The mean of weights, on the CPU; sums are float64, so that order hardly matters.

    shares: of each, default the same; they need not add up to 1. What is no floating-point number (counters, position
    ids) is the first one's. Of weights that are read when they are asked for (`members.open_member`), one tensor at a
    time is held. Raises BadInput when names or shapes differ, or there is nothing to average.
    """
    if not weights:
        raise BadInput("no weights to average", "at least one member", "keep members: --set ensemble.members=6")
    shares = [1.0] * len(weights) if shares is None else shares
    whole = math.fsum(shares)
    first = weights[0]
    strangers = BadInput("weights of different models", "members of one run", "average those of one run")
    if any(other.keys() != first.keys() for other in weights[1:]):
        raise strangers
    mean: dict[str, Tensor] = {}
    for name in first:
        tensor = first[name]
        total = torch.zeros(tensor.shape, dtype=torch.float64)
        for one, share in zip(weights, shares, strict=True):
            part = one[name]
            if part.shape != tensor.shape:
                raise strangers
            if tensor.is_floating_point():
                total.add_(part.detach().cpu().double(), alpha=share / whole)
        mean[name] = total.to(tensor.dtype) if tensor.is_floating_point() else tensor.detach().cpu().clone()
    return mean


def make_soups(
    members: Sequence[Weights],
    logits: Sequence[np.ndarray],
    logits_of: LogitsOf,
    targets: np.ndarray,
    task: Task,
    metric: str,
) -> tuple[list[Soup], list[Barrier]]:
    """The uniform and the greedy soup of members, and the members that a barrier keeps out of both.

    members, logits: weights of each, and its logits on the held-out rows. logits_of: those of other weights.
    The greedy soup takes members from the best on, by their errors, and keeps each whose presence makes the soup no
    worse by the error, nor worse than the best member by the metric. Errors are of scores at the temperature that fits
    them, as in the choice. A soup of fewer than two, or of the same members as another one, is left out.
    """
    if len(members) < 2:
        return [], []
    found = [_measured(one, targets, task, metric) for one in logits]
    best = best_of(found, metric, len(targets))
    barriers = _barriers(members, found, best, logits_of, targets, task, metric)
    apart = {barrier.member for barrier in barriers}
    usable = [i for i in range(len(members)) if i not in apart]
    soups = []
    if len(usable) > 1:
        mixed = average([members[i] for i in usable])
        soups.append(Soup("uniform soup", tuple(usable), mixed, logits_of(mixed)))
    greedy = _greedy(members, found, best, usable, logits_of, targets, task, metric)
    if greedy is not None and greedy.ingredients != tuple(usable):
        soups.append(greedy)
    return soups, barriers


def _greedy(
    members: Sequence[Weights],
    found: Sequence[Quality],
    best: int,
    usable: Sequence[int],
    logits_of: LogitsOf,
    targets: np.ndarray,
    task: Task,
    metric: str,
) -> Soup | None:
    left = set(usable) - {best}
    taken, quality, soup = [best], found[best], None
    while left:
        following = min(sorted(left), key=lambda i: found[i].error)
        left.remove(following)
        tried = sorted([*taken, following])
        mixed = average([members[i] for i in tried])
        logits = logits_of(mixed)
        now = _measured(logits, targets, task, metric)
        if now.error <= quality.error and not is_worse(now, found[best], metric):
            taken, quality = tried, now
            soup = Soup("greedy soup", tuple(tried), mixed, logits)
    return soup


def _barriers(
    members: Sequence[Weights],
    found: Sequence[Quality],
    best: int,
    logits_of: LogitsOf,
    targets: np.ndarray,
    task: Task,
    metric: str,
) -> list[Barrier]:
    barriers = []
    for i in range(len(members)):
        if i == best:
            continue
        half_way = _measured(logits_of(average([members[i], members[best]])), targets, task, metric)
        why = _clearly_worse(half_way, (found[i], found[best]), metric, len(targets))
        if why is not None:
            barriers.append(Barrier(i, half_way, why))
    return barriers


def _clearly_worse(half_way: Quality, ends: tuple[Quality, Quality], metric: str, rows: int) -> str | None:
    """In words, by what it is worse than both ends by more than a standard error; None if it is not.

    Where the metric has no standard error, the nll or squared error decides: more than MOST_ERROR times both.
    """
    worse = min(ends, key=lambda one: one.metric)
    spread = standard_error(metric, worse.metric, rows)
    if spread is not None:
        if half_way.metric < worse.metric - spread:
            return f"half way to the best member {metric} is {half_way.metric:.4f}, at the worse end {worse.metric:.4f}"
        return None
    most = max(one.error for one in ends)
    if half_way.error > MOST_ERROR * most:
        return f"half way to the best member the error is {half_way.error:.4f}, at the worse end {most:.4f}"
    return None


def _measured(logits: np.ndarray, targets: np.ndarray, task: Task, metric: str) -> Quality:
    return measure(logits_to_scores(logits, task, fit_temperature(logits, targets, task)), targets, task, metric)
