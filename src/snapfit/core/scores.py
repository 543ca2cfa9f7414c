"""From logits to scores: softmax over the labels (single), a sigmoid of each (multi), or the logit itself (regression).

What is decided by scores is in decisions.py.
"""

import numpy as np

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task

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
