"""What attributions explain: the log-odds of a label's score, or a regression's number.

    single       log(p / (1 - p)) with p the softmax at the temperature: the label against all others together
    multi        the same of the label's sigmoid, which is its logit over the temperature
    regression   the number itself

Log-odds have no ceiling: where a score is 0.999 the words that made it so still differ in what they add.
"""

from dataclasses import dataclass

import numpy as np

from snapfit.core.labels import Task


@dataclass(frozen=True)
class Explained:
    """Which numbers are explained.

    outputs: columns of the logits. temperature: > 0, that of the scores. slopes, shifts: of each label, for multi: what
    a divided logit is multiplied by, and what is added then, as in the decision rule.
    """

    task: Task
    outputs: tuple[int, ...]
    temperature: float = 1.0
    slopes: tuple[float, ...] | None = None
    shifts: tuple[float, ...] | None = None

    @property
    def unit(self) -> str:
        """What the numbers are."""
        return "number" if self.task == "regression" else "log-odds"

    def of(self, logits: np.ndarray) -> np.ndarray:
        """float64 [n, outputs] of logits float [n, k]."""
        odds = log_odds(logits, self.task, self.temperature)
        if self.slopes is not None and self.shifts is not None:
            odds = odds * np.array(self.slopes) + np.array(self.shifts)
        return odds[:, list(self.outputs)]


def log_odds(logits: np.ndarray, task: Task, temperature: float = 1.0) -> np.ndarray:
    """float64 [n, k] of logits float [n, k]; exact also where a score is 0 or 1 in float64. temperature: > 0.

    single needs two labels or more, as a label set has.
    """
    values = logits.astype(np.float64)
    if task == "regression":
        return values
    values /= temperature
    if task == "multi":
        return values
    rows, best = np.arange(len(values)), values.argmax(axis=1)
    shifted = values - values[rows, best][:, None]
    log_scores = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scores = np.exp(log_scores)
    scores[rows, best] = 0.0
    odds: np.ndarray = log_scores - np.log1p(-scores)
    shifted[rows, best] = -np.inf  # of the best label 1 - p is the others' sum: a difference would round it off
    top = shifted.max(axis=1)
    odds[rows, best] = -(top + np.log(np.exp(shifted - top[:, None]).sum(axis=1)))
    return odds
