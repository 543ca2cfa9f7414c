"""Metrics of scores against targets, in numpy alone; equal to scikit-learn's, and 0 where theirs are undefined.

Their formulas are in `label_metrics` and `correlation`; tallies take rows batch by batch. Here are their names, and the
tally of each task.
"""

from typing import NamedTuple

import numpy as np

from snapfit.core.correlation import RANK_ROWS, RegressionTally
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput, nearest
from snapfit.core.labels import Task
from snapfit.core.tallies import LabelTally, MultiTally, SingleTally, Tally


class Metric(NamedTuple):
    """What a metric's name stands for: the tasks that it measures, and which way is better."""

    tasks: frozenset[Task]
    higher_is_better: bool


_SINGLE: frozenset[Task] = frozenset({"single"})
_MULTI: frozenset[Task] = frozenset({"multi"})
_REGRESSION: frozenset[Task] = frozenset({"regression"})

METRICS: dict[str, Metric] = {
    "accuracy": Metric(_SINGLE, True),
    "macro_f1": Metric(_SINGLE | _MULTI, True),
    "micro_f1": Metric(_MULTI, True),  # of a single-label task it is the accuracy
    "weighted_f1": Metric(_SINGLE | _MULTI, True),
    "mcc": Metric(_SINGLE, True),
    "subset_accuracy": Metric(_MULTI, True),
    "nll": Metric(_SINGLE | _MULTI, False),
    "ece": Metric(_SINGLE | _MULTI, False),
    "pearson": Metric(_REGRESSION, True),
    "spearman": Metric(_REGRESSION, True),
    "rmse": Metric(_REGRESSION, False),
    "mae": Metric(_REGRESSION, False),
    "r2": Metric(_REGRESSION, True),
}

_DEFAULTS: dict[Task, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "pearson"}
_BLOCK_CELLS = 1 << 20


def default_metric(task: Task) -> str:
    """The metric that decides which weights are best when none is named."""
    return _DEFAULTS[task]


def metrics_of(task: Task) -> tuple[str, ...]:
    """The metrics that `compute_metrics` gives for a task, in its order."""
    return tuple(name for name, metric in METRICS.items() if task in metric.tasks)


def is_better(name: str, new: float, old: float | None) -> bool:
    """Whether `new` beats `old` by the metric `name`; NaN beats nothing, and any number beats None or NaN.

    Raises BadInput for an unknown metric.
    """
    metric = METRICS.get(name)
    if metric is None:
        likely = nearest(name, METRICS)
        hint = f"use {likely!r}" if likely else "use one of these"
        raise BadInput(f"the metric {name!r}", f"one of {', '.join(METRICS)}", hint)
    if np.isnan(new):
        return False
    if old is None or np.isnan(old):
        return True
    return new > old if metric.higher_is_better else new < old


def standard_error(name: str, value: float, rows: int) -> float | None:
    """That of a metric's value over so many rows, taken for a share of them, as accuracy is and F1 nearly is.

    None for a metric that is no share: one whose value is outside 0..1, or of which less is better.
    """
    if not METRICS[name].higher_is_better or not 0.0 <= value <= 1.0:
        return None
    return float(np.sqrt(value * (1.0 - value) / rows))


def label_tally(
    task: Task, n_outputs: int, *, rule: DecisionRule | None = None, out_of_scope: bool = False
) -> LabelTally:
    """A new tally of a task with labels; see `tally`.

    Raises BadInput for a regression, and for rows out of scope beside many labels a row.
    """
    if task == "single":
        return SingleTally(n_outputs, rule=rule, out_of_scope=out_of_scope)
    if task != "multi" or out_of_scope:
        found = "a regression" if task != "multi" else "rows out of scope of a task with many labels a row"
        raise BadInput(found, "a task with labels, one a row where some are out of scope", "leave that out")
    return MultiTally(n_outputs, rule=rule)


def tally(
    task: Task,
    n_outputs: int,
    *,
    rule: DecisionRule | None = None,
    rank_rows: int = RANK_ROWS,
    out_of_scope: bool = False,
) -> Tally:
    """A new tally: batches of scores and targets go in, and all metrics of the task come out.

    n_outputs: columns of the scores. rule: how scores become decisions, by default that of its task alone. rank_rows:
    up to how many rows Spearman's correlation of a regression is exact, at 8 bytes a row. out_of_scope: whether targets
    may be -1, see `LabelTally`. Its memory does not grow with the rows beyond.
    """
    if task == "regression":
        return RegressionTally(rank_rows=rank_rows)
    return label_tally(task, n_outputs, rule=rule, out_of_scope=out_of_scope)


def compute_metrics(
    task: Task, scores: np.ndarray, targets: np.ndarray, *, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Every metric of the task, by name: a tally of all rows, whose ranks are exact however many there are.

    scores: float [n, k] from `logits_to_scores`. targets: from `LabelSet.encode`: int [n] for single, 0 or 1
    [n, k] for multi, numbers [n, 1] for regression. thresholds: float [k] for multi, default 0.5 each.

    single: accuracy, macro_f1 (over labels present in targets or predictions), weighted_f1, mcc, nll, ece.
    multi: macro_f1, micro_f1, weighted_f1, subset_accuracy, nll and ece (over all cells).
    regression: pearson, spearman, rmse, mae, r2. The nll is in nats, rmse and mae in the units of the targets; ece is
    the expected calibration error.
    Raises BadInput when there are no rows, the shapes do not fit, or a number is not finite.
    """
    n, k = scores.shape if scores.ndim == 2 else (0, 1)
    if thresholds is not None and (task != "multi" or np.shape(thresholds) != (k,)):
        found = f"thresholds of shape {np.shape(thresholds)} for {k} labels of the task {task!r}"
        raise BadInput(found, "one threshold a label, for multi", "fit the thresholds on these labels again")
    rule = DecisionRule(task, thresholds=None if thresholds is None else tuple(map(float, thresholds)))
    counted = tally(task, k, rule=rule, rank_rows=n)
    counted.check_shapes(scores, targets)
    block = max(1, _BLOCK_CELLS // k)  # so that memory beyond the scores themselves does not grow
    for start in range(0, n, block):
        counted.add(scores[start : start + block], targets[start : start + block])
    return counted.metrics()
