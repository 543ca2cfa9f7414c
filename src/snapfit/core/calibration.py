"""Whether scores can be believed as probabilities: one temperature for all logits, and how far they are off.

A temperature divides every logit of a row alike, so the order of a row's scores, and with it the decision of a single
label, stays as it is.
"""

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.scores import logits_to_scores

COLDEST, HOTTEST = 0.05, 20.0
"""The range of temperatures: scores that are always right would call for one that is infinitely cold."""
BINS = 15
"""Of the calibration error (Guo et al. 2017)."""
_TURNS = 60
_CLOSE = 1e-10


def fit_temperature(logits: np.ndarray, targets: np.ndarray, task: Task) -> float:
    """The temperature at which the scores' mean nll on these rows is least (Guo et al. 2017).

    logits: float [n, k]. targets: as `LabelSet.encode` gives them. 1 for a regression, which has no nll, and where
    the logits say nothing. As a function of 1 / temperature the nll is convex, so that Newton's steps, kept within
    what is known to hold the minimum, find it. Raises BadInput for no rows or shapes that do not fit.
    """
    if task == "regression":
        return 1.0
    wanted = (len(logits),) if task == "single" else logits.shape
    if logits.ndim != 2 or not len(logits) or targets.shape != wanted:
        found = f"logits of shape {logits.shape} and targets of shape {targets.shape}"
        raise BadInput(found, "at least one row, and a target for each", "pass logits and targets of the same rows")
    values = logits.astype(np.float64)
    if task == "single":
        values = values - values[np.arange(len(values)), targets][:, None]
    else:
        values = np.where(targets > 0, -values, values)  # the logit of the wrong answer of each cell
    low, high, cold = 1.0 / HOTTEST, 1.0 / COLDEST, 1.0
    for _ in range(_TURNS):
        slope, bend = _slope_and_bend(values, cold, task)
        low, high = (cold, high) if slope < 0 else (low, cold)
        following = cold - slope / bend if bend > 0 else cold
        if bend <= 0 and slope == 0:
            return 1.0
        if not low < following < high:
            following = float(np.sqrt(low * high))
        if abs(following - cold) < _CLOSE * cold:
            break
        cold = following
    return float(1.0 / cold)


def _slope_and_bend(values: np.ndarray, cold: float, task: Task) -> tuple[float, float]:
    """The first two derivatives by `cold`, which is 1 / temperature, of the mean nll.

    values: of a single label the logits less that of the right one; of many labels those of each wrong answer.
    """
    if task == "single":
        chances = logits_to_scores(values * cold, "single")
        mean = (chances * values).sum(axis=1)
        return float(mean.mean()), float(((chances * values**2).sum(axis=1) - mean**2).mean())
    chances = logits_to_scores(values * cold, "multi")
    return float((chances * values).mean()), float((chances * (1.0 - chances) * values**2).mean())


def calibration_error(scores: np.ndarray, targets: np.ndarray, task: Task, *, bins: int = BINS) -> float | None:
    """The expected calibration error: by how much confidence and share of right answers differ, averaged over rows.

    Answers are put into `bins` ranges of confidence of equal width. single: the answer is the label with the highest
    score and its confidence that score. multi: each label of each row is an answer, and its confidence that it is
    true. None for a regression. Raises BadInput for no rows or shapes that do not fit.
    """
    if task == "regression":
        return None
    wanted = (len(scores),) if task == "single" else scores.shape
    if scores.ndim != 2 or not len(scores) or targets.shape != wanted:
        found = f"scores of shape {scores.shape} and targets of shape {targets.shape}"
        raise BadInput(found, "at least one row, and a target for each", "pass scores and targets of the same rows")
    if task == "single":
        answers = scores.argmax(axis=1)
        confidence, right = scores[np.arange(len(scores)), answers], answers == targets
    else:
        confidence, right = scores.reshape(-1), targets.reshape(-1) > 0
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))
