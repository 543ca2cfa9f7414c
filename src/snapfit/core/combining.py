"""From the logits of several models to one answer, and which answer to ship: candidates, a stated rule, its price.

Everything here is numpy on logits of held-out rows. A candidate is one model, or the mean of several models' scores;
whether a model is a member of a run, an average of weights or a student of them makes no difference here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from snapfit.core.calibration import calibration_error, fit_temperature
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.metrics import METRICS, compute_metrics, standard_error
from snapfit.core.scope import energy
from snapfit.core.scores import logits_to_scores

LEAST_SCORE = 1e-12
"""Below it a mean of scores is taken as this when it becomes a logit again."""
SLIGHT = 0.01
"""Share of the least error that a cheaper candidate may lie above it, however sure that it does."""
PICKS_A_MEMBER = 2
"""How many picks a greedy selection has for each member, at most."""


@dataclass(frozen=True)
class Model:
    """A model that can be part of a candidate.

    name: for people. logits: float [rows, n_outputs] of the held-out rows; a regression's in the table's units.
    bytes: of its weights. single: whether it is one the training itself came to, rather than made from such.
    snapshot: whether it is that of a cycle's end.
    """

    name: str
    logits: np.ndarray
    bytes: int
    single: bool = True
    snapshot: bool = False


@dataclass(frozen=True)
class Candidate:
    """Something that could ship.

    name: for people. picks: numbers of models, as often as each counts; one pick is a model by itself.
    temperatures: of each pick's logits. temperature: of the mean's, see `combine`.
    cost: forward passes of a prediction, less what several models share. bytes: of the weights it needs.
    """

    name: str
    picks: tuple[int, ...]
    temperatures: tuple[float, ...]
    temperature: float
    cost: float
    bytes: int

    @property
    def is_mean(self) -> bool:
        """Whether several models answer."""
        return len(set(self.picks)) > 1


@dataclass(frozen=True)
class Quality:
    """How good a candidate is on some rows.

    metric: the value of the metric that decides. error: the nll, or a regression's mean squared error.
    calibration: the expected calibration error; None for a regression. metrics: all of the task.
    """

    metric: float
    error: float
    calibration: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """What the rule came to. chosen, best_single: numbers of candidates. rule: which part of it decided, in words."""

    chosen: int
    best_single: int
    rule: str


def combine(
    parts: Sequence[np.ndarray],
    temperatures: Sequence[float],
    task: Task,
    temperature: float,
    *,
    shares: Sequence[float] | None = None,
) -> np.ndarray:
    """Scores [n, k] of several models' logits [n, k]: each one's scores at its temperature, their mean, and that as
    logits again at a temperature of its own. A regression's is the mean of the logits.

    shares: of each model in the mean, above 0; only their ratios count. By default all are equal. A model that is
    given twice counts as one with twice the share, see `merge_picks`.
    """
    scores = [logits_to_scores(one, task, t) for one, t in zip(parts, temperatures, strict=True)]
    if shares is None:
        mean: np.ndarray = np.mean(scores, axis=0)
    else:
        mean = np.sum([one * (share / sum(shares)) for one, share in zip(scores, shares, strict=True)], axis=0)
    if task == "regression" or temperature == 1.0:
        return mean
    return logits_to_scores(as_logits(mean, task), task, temperature)


def merge_picks(picks: Sequence[int]) -> tuple[list[int], list[float]]:
    """Each model once, in the order of the first picks, and its share of a mean in which it counts as often as it was
    picked.
    """
    models = list(dict.fromkeys(picks))
    return models, [picks.count(model) / len(picks) for model in models]


def as_logits(scores: np.ndarray, task: Task) -> np.ndarray:
    """Logits [n, k] whose scores these are."""
    if task == "regression":
        return scores
    low: np.ndarray = np.log(np.maximum(scores, LEAST_SCORE))
    if task == "multi":
        low -= np.log(np.maximum(1.0 - scores, LEAST_SCORE))
    return low


def mean_energy(parts: Sequence[np.ndarray], temperatures: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """float64 [n, 1]: the mean of the models' energies (`scope.energy`), each at its temperature.

    A mean of scores has no energy of its own; logits plus this have the same scores, and this energy.
    """
    found = [energy(one, t) * (share / sum(shares)) for one, t, share in zip(parts, temperatures, shares, strict=True)]
    return np.asarray(np.sum(found, axis=0)[:, None])


def row_errors(scores: np.ndarray, targets: np.ndarray, task: Task) -> np.ndarray:
    """float64 [n]: each row's nll (multi: mean over its labels), or a regression's squared error."""
    if task == "regression":
        return np.asarray(((scores - targets) ** 2).mean(axis=1))
    if task == "single":
        likely = scores[np.arange(len(scores)), targets][:, None]
    else:
        likely = np.where(targets > 0, scores, 1.0 - scores)
    return np.asarray(-np.log(np.maximum(likely, LEAST_SCORE)).mean(axis=1))


def error_name(task: Task) -> str:
    """What `Quality.error` is of a task."""
    return "squared error" if task == "regression" else "nll"


def measure(scores: np.ndarray, targets: np.ndarray, task: Task, metric: str) -> Quality:
    """The quality of scores float [n, k]. metric: one of the task's. Raises BadInput as `compute_metrics` does."""
    metrics = compute_metrics(task, scores, targets)
    error = float(row_errors(scores, targets, task).mean())
    return Quality(metrics[metric], error, calibration_error(scores, targets, task), metrics)


def greedy_picks(scores: Sequence[np.ndarray], targets: np.ndarray, task: Task, metric: str) -> list[int]:
    """Which models a mean should hold, and how often (Caruana et al. 2004): one after another, with replacement.

    scores: of each model, float [n, k]. It begins with the best one, and each further pick is the one after which the
    error is least, of those after which the metric is not below the best one's. It ends when the error falls no more.
    """
    found = [measure(one, targets, task, metric) for one in scores]
    first = best_of(found, metric, len(targets))
    picks, total, so_far = [first], scores[first].copy(), found[first]
    while len(picks) < PICKS_A_MEMBER * len(scores):
        tried = [measure((total + one) / (len(picks) + 1), targets, task, metric) for one in scores]
        fit = [i for i, one in enumerate(tried) if not is_worse(one, found[first], metric)]
        following = min(fit, key=lambda i: tried[i].error, default=None)
        if following is None or tried[following].error >= so_far.error:
            break
        picks.append(following)
        total, so_far = total + scores[following], tried[following]
    return picks


def best_of(found: Sequence[Quality], metric: str, rows: int) -> int:
    """The number of the best: of those whose metric is within a standard error of the highest the one with the least
    error; the first of equals.

    Of several values of a metric that differ by chance the highest is one of luck, and what is held against it has to
    be as lucky; the error is more certain, row for row. rows: that all were measured on. Where the metric has no
    standard error, only its best value is taken.
    """
    known = [i for i, one in enumerate(found) if not np.isnan(one.metric)] or list(range(len(found)))
    sign = 1.0 if METRICS[metric].higher_is_better else -1.0
    top = max(known, key=lambda i: sign * found[i].metric)
    within = standard_error(metric, found[top].metric, rows) or 0.0
    near = [i for i in known if sign * found[i].metric >= sign * found[top].metric - within]
    return min(near or [top], key=lambda i: found[i].error)


def is_worse(one: Quality, other: Quality, metric: str) -> bool:
    """Whether the metric or the error of one is worse than the other's."""
    better = METRICS[metric].higher_is_better
    by_metric = one.metric < other.metric if better else one.metric > other.metric
    return by_metric or one.error > other.error or np.isnan(one.metric)


def make_candidates(
    models: Sequence[Model], targets: np.ndarray, task: Task, metric: str, *, trunk: float = 0.0, shared_bytes: int = 0
) -> list[Candidate]:
    """Every model by itself, the mean of all single ones, that of the snapshots where they are some of these (as
    snapshot ensembles were published, Huang et al. 2017), and the greedy selection among the single ones.

    Few on purpose: the more there are to choose from, the more the choice is one of luck.
    trunk: the share of a forward pass that several models make only once. shared_bytes: of the weights all have alike.
    Raises BadInput without models.
    """
    if not models:
        raise BadInput("no models to choose from", "at least one", "keep members: --set ensemble.members=6")
    heat = [fit_temperature(one.logits, targets, task) for one in models]
    made = [Candidate(one.name, (i,), (heat[i],), 1.0, 1.0, one.bytes) for i, one in enumerate(models)]
    singles = [i for i, one in enumerate(models) if one.single]
    if len(singles) > 1:
        scores = [logits_to_scores(models[i].logits, task, heat[i]) for i in singles]
        picks = [singles[i] for i in greedy_picks(scores, targets, task, metric)]
        snapshots = [i for i in singles if models[i].snapshot]
        means = {"mean of all": singles, "mean of snapshots": snapshots, "greedy selection": sorted(picks)}
        for name, members in means.items():
            if len(set(members)) > 1 and (name == "mean of all" or members != singles):
                made.append(_mean(name, members, models, heat, targets, task, trunk=trunk, shared_bytes=shared_bytes))
    return made


def scores_of(candidate: Candidate, models: Sequence[Model], task: Task, rows: np.ndarray | None = None) -> np.ndarray:
    """A candidate's scores float64 [n, k]. rows: int [n], default all of them."""
    parts = [models[i].logits if rows is None else models[i].logits[rows] for i in candidate.picks]
    return combine(parts, candidate.temperatures, task, candidate.temperature)


def choose(
    candidates: Sequence[Candidate], models: Sequence[Model], targets: np.ndarray, task: Task, metric: str
) -> Choice:
    """The rule. Candidates that are not worse than the best single model (see `best_of`), neither by the metric nor by
    the error, are in question; of those whose error is near the least one, within SLIGHT or one standard error of the
    difference row by row, the cheapest is taken: by forward passes, then bytes, then error. Where none is in question
    the best single one ships.
    """
    scores = [scores_of(one, models, task) for one in candidates]
    found = [measure(one, targets, task, metric) for one in scores]
    alone = [i for i, one in enumerate(candidates) if not one.is_mean and models[one.picks[0]].single]
    best = alone[best_of([found[i] for i in alone], metric, len(targets))]
    in_question = [i for i, one in enumerate(found) if not is_worse(one, found[best], metric)]
    others = [i for i in in_question if i != best]
    error = error_name(task)
    if not others:
        return Choice(best, best, f"no other candidate is as good as the best single one in both {metric} and {error}")
    least = min(in_question, key=lambda i: found[i].error)
    errors = row_errors(scores[least], targets, task)
    near = []
    for i in in_question:
        more = row_errors(scores[i], targets, task) - errors
        noise = more.std(ddof=1 if len(more) > 1 else 0) / len(more) ** 0.5
        if more.mean() <= max(noise, SLIGHT * found[least].error):
            near.append(i)
    chosen = min(near, key=lambda i: (candidates[i].cost, candidates[i].bytes, found[i].error))
    if chosen == least:
        rule = f"the least {error} of those that are not worse than the best single one in {metric} or {error}"
    else:
        rule = f"the cheapest of those near the least {error}, which is that of {candidates[least].name}"
    return Choice(chosen, best, rule)


def cross_fitted(
    models: Sequence[Model], targets: np.ndarray, task: Task, metric: str, *, seed: int = 0
) -> tuple[Quality, Quality]:
    """What to expect on new rows of the candidate chosen, and of the best single one: chosen on one half of the rows
    with everything that is fitted, measured on the other, and the other way round; all rows are measured once.

    Weights that were averaged because of these rows were chosen on both halves; for them it stays a little too good.
    Raises BadInput for fewer than four rows.
    """
    if len(targets) < 4:
        raise BadInput(f"{len(targets)} held-out rows", "at least four", "hold more out: --set data.valid_fraction=0.1")
    order = np.random.default_rng(seed).permutation(len(targets))
    halves = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
    shape = (len(targets), models[0].logits.shape[1])
    chosen, single = np.empty(shape), np.empty(shape)
    for fit, held in (halves, halves[::-1]):
        half = [replace(one, logits=one.logits[fit]) for one in models]
        made = make_candidates(half, targets[fit], task, metric)
        choice = choose(made, half, targets[fit], task, metric)
        chosen[held] = scores_of(made[choice.chosen], models, task, held)
        single[held] = scores_of(made[choice.best_single], models, task, held)
    return measure(chosen, targets, task, metric), measure(single, targets, task, metric)


def _mean(
    name: str,
    members: Sequence[int],
    models: Sequence[Model],
    heat: Sequence[float],
    targets: np.ndarray,
    task: Task,
    *,
    trunk: float,
    shared_bytes: int,
) -> Candidate:
    temperatures = tuple(heat[i] for i in members)
    mean = combine([models[i].logits for i in members], temperatures, task, 1.0)
    whole = fit_temperature(as_logits(mean, task), targets, task)
    different = sorted(set(members))
    cost = trunk + (1.0 - trunk) * len(different)
    size = shared_bytes + sum(models[i].bytes - shared_bytes for i in different)
    return Candidate(name, tuple(members), temperatures, whole, cost, size)
