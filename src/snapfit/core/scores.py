"""From logits to scores to decisions: the same lines run in evaluation and in prediction.

task         score of a label                     decision
single       softmax over the labels              the label with the highest score, the first of equals
multi        sigmoid of each label by itself      every label whose score reaches its threshold
regression   the logit itself                     the number
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task

Decision = str | list[str] | float
"""What is said about one text: a label (single), labels (multi) or a number (regression)."""

DEFAULT_THRESHOLD = 0.5


def logits_to_scores(
    logits: np.ndarray, task: Task, temperature: float = 1.0, *, rows: np.ndarray | None = None
) -> np.ndarray:
    """Scores float64 [n, k] of logits float [n, k]; no logit is too large.

    temperature: > 0; the logits of single and multi are divided by it, which leaves the order of scores as it
    is. rows: int [n], what these rows are called in errors; by default they count from 0.
    Raises WorkFailed naming the first row whose logits are not finite, BadInput for a wrong shape or temperature.
    """
    if logits.ndim != 2:
        raise BadInput(f"logits of shape {logits.shape}", "[rows, outputs]", "pass one row of logits a text")
    if not 0.0 < temperature < np.inf:
        raise BadInput(f"temperature {temperature}", "a finite number above 0", "correct the temperature")
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        row = row if rows is None else int(rows[row])
        raise WorkFailed(
            f"the model gave logits that are not finite for row {row}: "
            "its weights are damaged, or its training diverged"
        )
    if task == "regression":
        return values
    if task == "multi":
        return _sigmoid(values / temperature)
    return _softmax(values / temperature)


def decide(scores: np.ndarray, task: Task, names: Sequence[str], *, thresholds: np.ndarray | None = None) -> list[Any]:
    """The decision (see `Decision`) on each row of scores float [n, k].

    names: the labels, in the order of the columns; a multi-label decision lists labels in this order.
    thresholds: float [k] for multi, default 0.5 each; a score equal to its threshold is enough.
    Raises BadInput when the shapes do not fit.
    """
    if scores.ndim != 2 or scores.shape[1] != len(names):
        found = f"scores of shape {scores.shape} for {len(names)} labels"
        raise BadInput(found, f"[rows, {len(names)}]", "pass the label set that the scores were made with")
    if task == "regression":
        values: list[float] = scores[:, 0].astype(np.float64).tolist()
        return values
    if task == "single":
        return [names[i] for i in scores.argmax(axis=1)]
    rows, columns = np.nonzero(above_thresholds(scores, thresholds))
    chosen: list[list[str]] = [[] for _ in range(len(scores))]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        chosen[row].append(names[column])
    return chosen


def above_thresholds(scores: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """bool [n, k]: which scores reach their label's threshold.

    thresholds: float [k], default 0.5 each. Raises BadInput when their number is not that of the labels.
    """
    if thresholds is None:
        reached: np.ndarray = scores >= DEFAULT_THRESHOLD
        return reached
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.shape != scores.shape[1:]:
        found = f"thresholds of shape {limits.shape} for {scores.shape[1]} labels"
        raise BadInput(found, "one threshold a label", "fit the thresholds on these labels again")
    reached = scores >= limits
    return reached


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x) with the exponent never positive, so that nothing overflows."""
    small: np.ndarray = np.exp(-np.abs(logits))
    scores: np.ndarray = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return scores
