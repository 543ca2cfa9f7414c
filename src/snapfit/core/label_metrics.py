"""The metrics of labels as functions of counts, for one set of counts or for many at once.

One source of every formula: tallies give it the counts of all rows, a bootstrap those of thousands of resamples.
Leading axes, written [...], are kept.
"""

from typing import NamedTuple

import numpy as np

from snapfit.core.labels import Task


class PerClass(NamedTuple):
    """Figures of each class, arrays [..., k]: precision, recall and f1 float64, support (rows of the class)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


class LabelCounts(NamedTuple):
    """What the metrics of labels are computed from.

    rows [...]: how many. right [...]: of these, with a wholly right answer. log_likelihood [...]: summed, in nats; of
    multi over all cells. hits, given, support [..., k]: of each label the rows where it is both, given, and true.
    """

    rows: np.ndarray
    right: np.ndarray
    log_likelihood: np.ndarray
    hits: np.ndarray
    given: np.ndarray
    support: np.ndarray


def label_metrics(task: Task, counts: LabelCounts) -> dict[str, np.ndarray]:
    """The metrics of a task with labels by name, float64 [...], 0 where undefined.

    single: accuracy, macro_f1 (over labels that are true or given), weighted_f1, mcc, nll (nats).
    multi: macro_f1, micro_f1, weighted_f1, subset_accuracy, nll (nats, mean over all cells).
    """
    f1, support = per_class(counts.hits, counts.given, counts.support).f1, counts.support
    weighted = np.asarray((f1 * support).sum(axis=-1))
    if task == "single":
        present = ((counts.given + support) > 0).sum(axis=-1)
        return {
            "accuracy": ratio(counts.right, counts.rows),
            "macro_f1": ratio(f1.sum(axis=-1), present),
            "weighted_f1": ratio(weighted, counts.rows),
            "mcc": _mcc(counts),
            "nll": ratio(-counts.log_likelihood, counts.rows),
        }
    return {
        "macro_f1": np.asarray(f1.mean(axis=-1)),
        "micro_f1": ratio(2 * counts.hits.sum(axis=-1), (counts.given + support).sum(axis=-1)),
        "weighted_f1": ratio(weighted, support.sum(axis=-1)),
        "subset_accuracy": ratio(counts.right, counts.rows),
        "nll": ratio(-counts.log_likelihood, counts.rows * f1.shape[-1]),
    }


def per_class(hits: np.ndarray, given: np.ndarray, support: np.ndarray) -> PerClass:
    """Precision, recall and f1 of each label, 0 where undefined, and its support. hits, given, support: [..., k]."""
    return PerClass(ratio(hits, given), ratio(hits, support), ratio(2 * hits, given + support), support)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole as float64, 0 where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0))


def _mcc(counts: LabelCounts) -> np.ndarray:
    """Gorodkin's correlation of k classes (2004); 0 when all rows share one class or one answer.

    Rows without an answer are a class of their own among the answers.
    """
    rows = np.asarray(counts.rows)[..., None]
    left = rows - counts.given.sum(axis=-1, keepdims=True)
    given = ratio(np.concatenate([counts.given, left], axis=-1), rows)
    support = ratio(counts.support, rows)
    covariance = ratio(counts.hits.sum(axis=-1), counts.rows) - (given[..., :-1] * support).sum(axis=-1)
    spread = (1.0 - np.square(given).sum(axis=-1)) * (1.0 - np.square(support).sum(axis=-1))
    several = ((given > 0).sum(axis=-1) > 1) & ((support > 0).sum(axis=-1) > 1)
    return np.where(several, ratio(covariance, np.sqrt(np.where(several, spread, 1.0))), 0.0)
