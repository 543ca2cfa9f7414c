"""Metrics of scores against targets, in numpy alone; equal to scikit-learn's, and 0 where theirs are
undefined.

Counts are summed over blocks of rows, so memory beyond the scores themselves does not grow with the table.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from snapfit.core.errors import BadInput, nearest
from snapfit.core.labels import Task
from snapfit.core.scores import above_thresholds


class Metric(NamedTuple):
    """What a metric's name stands for: the tasks that it measures, and which way is better."""

    tasks: frozenset[Task]
    higher_is_better: bool


class PerClass(NamedTuple):
    """Figures of each class, arrays [k]: precision, recall and f1 float64, support (rows of the class)
    int64.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


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
    "pearson": Metric(_REGRESSION, True),
    "spearman": Metric(_REGRESSION, True),
    "rmse": Metric(_REGRESSION, False),
    "mae": Metric(_REGRESSION, False),
    "r2": Metric(_REGRESSION, True),
}

_DEFAULTS: dict[Task, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "pearson"}
_BLOCK_CELLS = 1 << 20
_EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn's log_loss keeps scores this far from 0 and 1


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


def compute_metrics(
    task: Task, scores: np.ndarray, targets: np.ndarray, *, thresholds: np.ndarray | None = None
) -> dict[str, float]:
    """Every metric of the task, by name.

    scores: float [n, k] from `logits_to_scores`. targets: from `LabelSet.encode`: int [n] for single, 0 or 1
    [n, k] for multi, numbers [n, 1] for regression. thresholds: float [k] for multi, default 0.5 each.

    single: accuracy, macro_f1 (over labels present in targets or predictions), weighted_f1, mcc, nll.
    multi: macro_f1, micro_f1, weighted_f1, subset_accuracy, nll (mean over all cells).
    regression: pearson, spearman, rmse, mae, r2. The nll is in nats, rmse and mae in the units of the
    targets. Raises BadInput when there are no rows or the shapes do not fit.
    """
    shape = targets.shape if task != "single" else (*targets.shape, *scores.shape[1:])
    if scores.ndim != 2 or scores.shape != shape or 0 in scores.shape:
        found = f"scores of shape {scores.shape} and targets of shape {targets.shape}"
        raise BadInput(found, f"at least one row, and shapes that fit the task {task!r}", "give labelled rows")
    if task == "single":
        values = _single(scores, targets)
    elif task == "multi":
        values = _multi(scores, targets, thresholds)
    else:
        values = _regression(scores[:, 0].astype(np.float64), targets[:, 0].astype(np.float64))
    return {name: float(values[name]) for name in metrics_of(task)}


def confusion(targets: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
    """int64 [k, k]: how many rows of each true class (row) were given each class (column).

    targets, predicted: int [n] in 0..k-1. Matrices of parts of a table add up to the whole's.
    Raises BadInput for other numbers or lengths.
    """
    if targets.shape != predicted.shape or targets.ndim != 1:
        found = f"targets of shape {targets.shape} and predictions of shape {predicted.shape}"
        raise BadInput(found, "two flat arrays of the same length", "pass one class a row in both")
    for name, values in (("targets", targets), ("predictions", predicted)):
        if len(values) and not (values.min() >= 0 and values.max() < k):
            found = f"{name} from {values.min()} to {values.max()}"
            raise BadInput(found, f"class numbers from 0 to {k - 1}", "encode them with the same label set")
    cells = targets.astype(np.int64) * k + predicted.astype(np.int64)
    return np.bincount(cells, minlength=k * k).astype(np.int64).reshape(k, k)


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall, f1 and support of each class of a confusion matrix [k, k]; 0 where undefined."""
    hits, given, support = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = _ratio(hits, given), _ratio(hits, support)
    return PerClass(precision, recall, _ratio(2 * hits, given + support), support.astype(np.int64))


def confusion_summary(conf: np.ndarray, names: Sequence[str], top: int = 10) -> list[tuple[str, str, int]]:
    """The `top` most frequent mistakes, as (true label, predicted label, rows), most frequent first.

    conf: from `confusion`. Equal counts come in the order of the labels; what never happened is left out.
    """
    mistakes = conf.copy()
    np.fill_diagonal(mistakes, 0)
    true, predicted = np.nonzero(mistakes)
    order = np.argsort(-mistakes[true, predicted], kind="stable")[:top]
    return [(names[true[i]], names[predicted[i]], int(mistakes[true[i], predicted[i]])) for i in order]


def _blocks(n: int, k: int) -> Iterator[slice]:
    rows = max(1, _BLOCK_CELLS // k)
    return (slice(start, start + rows) for start in range(0, n, rows))


def _single(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    n, k = scores.shape
    conf = confusion(targets, scores.argmax(axis=1), k)
    given, support = conf.sum(axis=0), conf.sum(axis=1)
    f1, present = per_class(conf).f1, (given + support) > 0
    chosen = scores[np.arange(n), targets].astype(np.float64)
    return {
        "accuracy": np.trace(conf) / n,
        "macro_f1": f1[present].mean(),
        "weighted_f1": (f1 * support).sum() / n,
        "mcc": _mcc(conf),
        "nll": -np.log(np.clip(chosen, _EPSILON, 1.0 - _EPSILON)).mean(),
    }


def _mcc(conf: np.ndarray) -> float:
    """Gorodkin's correlation of k classes (2004); 0 when all rows share one class or one prediction."""
    n = float(conf.sum())
    given, support = conf.sum(axis=0) / n, conf.sum(axis=1) / n
    covariance = np.trace(conf) / n - float(given @ support)
    spread = (1.0 - float(given @ given)) * (1.0 - float(support @ support))
    one_class = np.count_nonzero(given) < 2 or np.count_nonzero(support) < 2
    return 0.0 if one_class else covariance / float(np.sqrt(spread))


def _multi(scores: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | None) -> dict[str, float]:
    n, k = scores.shape
    hits, given, support = (np.zeros(k, dtype=np.int64) for _ in range(3))
    exact, log_sum = 0, 0.0
    for rows in _blocks(n, k):
        truth, chosen = targets[rows] > 0, above_thresholds(scores[rows], thresholds)
        hits += (truth & chosen).sum(axis=0)
        given += chosen.sum(axis=0)
        support += truth.sum(axis=0)
        exact += int((truth == chosen).all(axis=1).sum())
        likelihood = np.where(truth, scores[rows], 1.0 - scores[rows])
        log_sum += float(np.log(np.clip(likelihood, _EPSILON, 1.0 - _EPSILON)).sum())
    f1 = _ratio(2 * hits, given + support)
    return {
        "macro_f1": f1.mean(),
        "micro_f1": float(_ratio(2 * hits.sum(), given.sum() + support.sum())),
        "weighted_f1": float(_ratio((f1 * support).sum(), support.sum())),
        "subset_accuracy": exact / n,
        "nll": -log_sum / (n * k),
    }


def _regression(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    residual = predicted - truth
    spread, rest = float(np.square(truth - truth.mean()).sum()), float(np.square(residual).sum())
    constant = truth.min() == truth.max()
    r2 = float(rest == 0.0 and len(truth) > 1) if constant else 1.0 - rest / spread
    return {
        "pearson": _correlation(predicted, truth),
        "spearman": _correlation(_ranks(predicted), _ranks(truth)),
        "rmse": float(np.sqrt(np.square(residual).mean())),
        "mae": float(np.abs(residual).mean()),
        "r2": r2,
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation; 0 when either side is constant."""
    if a.min() == a.max() or b.min() == b.max():
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that squares neither overflow nor vanish
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equals sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return ranks


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))
