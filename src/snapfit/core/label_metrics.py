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

    rows [...]: how many. right [...]: of these, with the right labels. log_likelihood [...]: summed, in nats; of
    multi over all cells. hits, given, support [..., k]: of each label the rows where it is both, given, and true.
    outside [...]: of a single label the rows out of scope, which none of the labels is right for, and refused_outside
    [...] those of them without an answer; 0 where there are none.
    """

    rows: np.ndarray
    right: np.ndarray
    log_likelihood: np.ndarray
    hits: np.ndarray
    given: np.ndarray
    support: np.ndarray
    outside: np.ndarray = np.array(0)
    refused_outside: np.ndarray = np.array(0)


Shares = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name a part of rows, and the rows that it is part of; each [...]."""


def share_metrics(task: Task, counts: LabelCounts, *, refuses: bool = False, out_of_scope: bool = False) -> Shares:
    """The metrics that are shares of rows; see `label_metrics`."""
    rows, right = np.asarray(counts.rows), np.asarray(counts.right)
    if task == "multi":
        return {"subset_accuracy": (right, rows)}
    inside = rows - counts.outside
    shares: Shares = {"accuracy": (right, inside)}
    answered = counts.given.sum(axis=-1)
    if refuses or out_of_scope:
        answered_inside = answered - (counts.outside - counts.refused_outside)
        shares |= {"coverage": (answered_inside, inside), "answered_accuracy": (right, answered_inside)}
    if out_of_scope:
        refused = np.asarray(counts.refused_outside)
        shares |= {
            "refusal_recall": (refused, np.asarray(counts.outside)),
            "refusal_precision": (refused, rows - answered),
            "overall_accuracy": (right + refused, rows),
        }
    return shares


def label_metrics(
    task: Task, counts: LabelCounts, *, refuses: bool = False, out_of_scope: bool = False
) -> dict[str, np.ndarray]:
    """The metrics of a task with labels by name, float64 [...], 0 where undefined.

    single: accuracy, macro_f1 (over labels that are true or given), weighted_f1, mcc, nll (nats). Accuracy and nll are
    of the rows in scope. A row without an answer has missed its label, and none was given to it; for mcc no answer is
    one more class, which is the right one of rows out of scope. refuses: whether rows may have no answer. Then, and
    with out_of_scope: coverage (share of the rows in scope that are answered) and answered_accuracy (share of these
    that are right). out_of_scope: whether rows may be. Then refusal_recall (share of the rows out of scope that have no
    answer), refusal_precision (share of the rows without an answer that are out of scope), and overall_accuracy (share
    of all rows that are right, those out of scope where they have no answer).
    multi: macro_f1, micro_f1, weighted_f1, subset_accuracy, nll (nats, mean over all cells).
    """
    f1, support = per_class(counts.hits, counts.given, counts.support).f1, counts.support
    weighted = np.asarray((f1 * support).sum(axis=-1))
    shares = share_metrics(task, counts, refuses=refuses, out_of_scope=out_of_scope)
    found = {name: ratio(part, whole) for name, (part, whole) in shares.items()}
    if task == "single":
        present, inside = ((counts.given + support) > 0).sum(axis=-1), np.asarray(counts.rows) - counts.outside
        return {
            "accuracy": found.pop("accuracy"),
            "macro_f1": ratio(f1.sum(axis=-1), present),
            "weighted_f1": ratio(weighted, inside),
            "mcc": _mcc(counts),
            "nll": ratio(-counts.log_likelihood, inside),
            **found,
        }
    return {
        "macro_f1": np.asarray(f1.mean(axis=-1)),
        "micro_f1": ratio(2 * counts.hits.sum(axis=-1), (counts.given + support).sum(axis=-1)),
        "weighted_f1": ratio(weighted, support.sum(axis=-1)),
        **found,
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

    Rows without an answer are a class of their own among the answers, those out of scope among the truths.
    """
    rows = np.asarray(counts.rows)[..., None]
    left = rows - counts.given.sum(axis=-1, keepdims=True)
    given = ratio(np.concatenate([counts.given, left], axis=-1), rows)
    outside = np.broadcast_to(np.asarray(counts.outside)[..., None], left.shape)
    support = ratio(np.concatenate([counts.support, outside], axis=-1), rows)
    hits = counts.hits.sum(axis=-1) + counts.refused_outside
    covariance = ratio(hits, counts.rows) - (given * support).sum(axis=-1)
    spread = (1.0 - np.square(given).sum(axis=-1)) * (1.0 - np.square(support).sum(axis=-1))
    several = ((given > 0).sum(axis=-1) > 1) & ((support > 0).sum(axis=-1) > 1)
    return np.where(several, ratio(covariance, np.sqrt(np.where(several, spread, 1.0))), 0.0)
