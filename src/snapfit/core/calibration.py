"""Whether scores can be believed as probabilities: temperatures, lines for single labels, and how far scores are off.

A temperature divides every logit of a row alike, so the order of a row's scores, and with it the decision of a single
label, stays as it is. Of many labels each may have a line of its own (Platt 1999): its logit times a slope above 0, and
a shift, which leaves the order of that label's rows as it is.
"""

from typing import Any, NamedTuple

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
_HALVINGS = 30


def fit_temperature(logits: np.ndarray, targets: np.ndarray, task: Task, *, doubt: float = 0.0) -> float:
    """The temperature at which the scores' mean nll on these rows is least (Guo et al. 2017).

    logits: float [n, k]. targets: as `LabelSet.encode` gives them. doubt: the share that is taken from each target, and
    spread over all labels (single) or given to the other side (multi), see `doubt_of`. 1 for a regression, which has no
    nll, and where the logits say nothing. As a function of 1 / temperature the nll is convex, so that Newton's steps,
    kept within what is known to hold the minimum, find it. Raises BadInput for no rows or shapes that do not fit.
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
    low, high, cold, middle = 1.0 / HOTTEST, 1.0 / COLDEST, 1.0, float(values.mean())
    for _ in range(_TURNS):
        slope, bend = _slope_and_bend(values, cold, task)
        slope -= doubt * middle
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


def doubt_of(targets: np.ndarray) -> float:
    """The doubt that so many answers leave by the rule of succession: were all right, the next one might not be.

    Without it, scores that are always right on these rows would be made certain (Platt 1999 has the same remedy).
    """
    return 1.0 / (targets.size + 2)


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


class Lines(NamedTuple):
    """What a logit, divided by the temperature, becomes for each label: slopes * logit + shifts, float64 [k] each."""

    slopes: np.ndarray
    shifts: np.ndarray


PRIOR = 4.0
"""How firmly a line is held to the one that changes nothing: the precision of slopes around 1 and shifts around 0."""
_LEAST_SLOPE = 0.05


def fit_lines(logits: np.ndarray, truth: np.ndarray, temperature: float) -> Lines:
    """The line of each label at which its nll on these rows is least, beside a prior that changes nothing.

    logits: float [n, k]. truth: 0 or 1 [n, k]. temperature: of all logits, see `fit_temperature`.
    The nll summed over rows is convex in slope and shift; with the prior (PRIOR) it has one minimum, which damped
    Newton steps find for all labels at once. A label with few rows of its own stays near the common temperature.
    Raises BadInput for no rows or shapes that do not fit.
    """
    if logits.ndim != 2 or not len(logits) or truth.shape != logits.shape:
        found = f"logits of shape {logits.shape} and targets of shape {truth.shape}"
        raise BadInput(found, "a row at least, and a target for each cell", "pass logits and targets of the same rows")
    x, y = logits.astype(np.float64) / temperature, (truth > 0).astype(np.float64)
    slopes, shifts = np.ones(x.shape[1]), np.zeros(x.shape[1])
    loss = _line_loss(x, y, slopes, shifts)
    for _ in range(_TURNS):
        chances = logits_to_scores(x * slopes + shifts, "multi")
        off, weight = chances - y, chances * (1.0 - chances)
        by_slope, by_shift = (off * x).sum(axis=0) + PRIOR * (slopes - 1.0), off.sum(axis=0) + PRIOR * shifts
        a, b, c = (weight * x * x).sum(axis=0) + PRIOR, (weight * x).sum(axis=0), weight.sum(axis=0) + PRIOR
        scale = a * c - b * b  # above 0: the prior makes it so
        steps = (c * by_slope - b * by_shift) / scale, (a * by_shift - b * by_slope) / scale
        length = np.ones_like(slopes)
        for _ in range(_HALVINGS):
            tried = np.maximum(slopes - length * steps[0], _LEAST_SLOPE), shifts - length * steps[1]
            its_loss = _line_loss(x, y, *tried)
            worse = its_loss > loss
            if not worse.any():
                break
            length = np.where(worse, length / 2.0, length)
        better = its_loss < loss
        slopes, shifts = np.where(better, tried[0], slopes), np.where(better, tried[1], shifts)
        gain, loss = float((loss - its_loss)[better].sum()), np.where(better, its_loss, loss)
        if gain < _CLOSE * len(x):
            break
    return Lines(slopes, shifts)


def _line_loss(x: np.ndarray, y: np.ndarray, slopes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Of each label, float64 [k]: the nll summed over rows, and the prior's part."""
    values = x * slopes + shifts
    nll = np.logaddexp(0.0, np.where(y > 0, -values, values)).sum(axis=0)
    loss: np.ndarray = nll + PRIOR / 2.0 * ((slopes - 1.0) ** 2 + shifts**2)
    return loss


class Reliability:
    """How confident answers are and how many of them are right, in ranges of confidence; filled batch by batch.

    Answers are put into `bins` ranges of equal width. single: the answer is the label with the highest score and its
    confidence that score. multi: each label of each row is an answer, and its confidence that it is true.
    """

    def __init__(self, bins: int = BINS) -> None:
        self._rows, self._right = np.zeros(bins, dtype=np.int64), np.zeros(bins, dtype=np.int64)
        self._confidence = np.zeros(bins)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Count answers in. confidence: float in 0..1. right: bool of the same shape."""
        bins = len(self._rows)
        place = np.clip((confidence.reshape(-1) * bins).astype(np.int64), 0, bins - 1)
        self._rows += np.bincount(place, minlength=bins)
        self._right += np.bincount(place[right.reshape(-1)], minlength=bins)
        self._confidence += np.bincount(place, weights=confidence.reshape(-1), minlength=bins)

    @property
    def error(self) -> float:
        """The expected calibration error: by how much confidence and share of right answers differ, over all answers.

        0 without answers.
        """
        return float(np.abs(self._confidence - self._right).sum() / max(int(self._rows.sum()), 1))

    def table(self) -> list[dict[str, Any]]:
        """The ranges in which there are answers, from the lowest: from, to, answers, confidence (their mean), right
        (share of them); fit for a plot.
        """
        bins = len(self._rows)
        return [
            {
                "from": i / bins,
                "to": (i + 1) / bins,
                "answers": int(self._rows[i]),
                "confidence": float(self._confidence[i] / self._rows[i]),
                "right": float(self._right[i] / self._rows[i]),
            }
            for i in np.flatnonzero(self._rows).tolist()
        ]


def calibration_error(scores: np.ndarray, targets: np.ndarray, task: Task, *, bins: int = BINS) -> float | None:
    """The expected calibration error of scores float [n, k], see `Reliability`.

    None for a regression. Raises BadInput for no rows or shapes that do not fit.
    """
    if task == "regression":
        return None
    wanted = (len(scores),) if task == "single" else scores.shape
    if scores.ndim != 2 or not len(scores) or targets.shape != wanted:
        found = f"scores of shape {scores.shape} and targets of shape {targets.shape}"
        raise BadInput(found, "at least one row, and a target for each", "pass scores and targets of the same rows")
    counted = Reliability(bins)
    counted.add(*confidence_and_right(scores, targets, task))
    return counted.error


def confidence_and_right(scores: np.ndarray, targets: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """What `Reliability` counts of rows: single [n] each, multi [n, k] each."""
    if task == "multi":
        return scores, targets > 0
    answers = scores.argmax(axis=1)
    return scores[np.arange(len(scores)), answers], answers == targets
