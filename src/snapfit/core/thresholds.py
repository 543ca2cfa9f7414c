"""Thresholds: of many labels for a metric, with restraint where labels are rare; of one label for who is answered.

Those of many labels are found on logits: a score reaches its threshold exactly when its logit does, and halfway between
two logits is a better place for a cut than halfway between two scores that are both near 0.

    macro_f1, weighted_f1   each label by itself: of all cuts the one with the highest F1
    micro_f1                all labels together, to the best there is (Dinkelbach 1967; F/2 is the rule of Lipton 2014)
    subset_accuracy         one cut for all labels, then label by label while that helps

What is best on the rows at hand is not best on others, so `tune` does not take it: see there. A label with fewer than
RARE positives is drawn towards the one cut that is best for all labels: of its own cut it keeps the share positives /
RARE, so that a label without any has nothing of its own.
"""

from typing import NamedTuple

import numpy as np

from snapfit.core.calibration import fit_lines
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores

TUNABLE = ("macro_f1", "micro_f1", "weighted_f1", "subset_accuracy")
"""Metrics that thresholds can be tuned for."""
RARE = 20
"""Positives below which a label's cut is not its own alone."""
DRAWS = 20
"""Bootstrap samples that a label's cut is the mean over."""
LEAST_ANSWERED = 20
"""Rows whose answers a precision is measured on, at least."""
_TURNS = 50
"""Of a search that ends long before."""


class Cuts(NamedTuple):
    """Where labels begin to be given, as logits.

    values: float64 [k], what to use. common: the one that is best for all labels together.
    positives: int64 [k], rows of each label that they were found on.
    """

    values: np.ndarray
    common: float
    positives: np.ndarray

    @property
    def rare(self) -> np.ndarray:
        """bool [k]: labels that were drawn towards the common cut."""
        few: np.ndarray = self.positives < RARE
        return few


def tune(logits: np.ndarray, truth: np.ndarray, metric: str, *, seed: int = 0) -> Cuts:
    """Where labels should begin to be given for a metric on new rows.

    Half way between two estimates of each label's cut: the mean of the best ones over bootstrap samples of the rows,
    for rare labels drawn towards the common one; and the best one by what calibrated scores promise (`chance_cuts`).
    For subset_accuracy it is the first alone, without samples.

    logits: float [n, k]. truth: 0 or 1 [n, k]. metric: one of TUNABLE. seed: of the samples.
    Raises BadInput for no rows, shapes that do not fit, or another metric.
    """
    ladder = _ladder(logits, truth, metric)
    common = _common(ladder, logits, truth > 0, metric)
    positives = ladder.positives.astype(np.int64)
    if metric == "subset_accuracy":
        own = _by_turns(ladder, logits, truth > 0, np.full(logits.shape[1], common))
    else:
        own = _mean_of_draws(ladder, metric, DRAWS, seed)
    share = np.minimum(positives / RARE, 1.0)
    values = np.where(positives > 0, share * own, 0.0) + (1.0 - share) * common
    if metric != "subset_accuracy":
        values = (values + chance_cuts(logits, truth, metric)) / 2.0
    return Cuts(values, common, positives)


def best_cuts(logits: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """The cuts with the highest metric on these rows of all there are, float64 [k]; arguments and errors as of `tune`.

    For subset_accuracy they are the best of each label by itself, the others given.
    """
    ladder = _ladder(logits, truth, metric)
    if metric != "subset_accuracy":
        return _own(ladder, metric)
    common = _common(ladder, logits, truth > 0, metric)
    return _by_turns(ladder, logits, truth > 0, np.full(logits.shape[1], common))


def chance_cuts(logits: np.ndarray, truth: np.ndarray, metric: str) -> np.ndarray:
    """The cuts with the highest metric if every row had its labels as likely as calibrated scores say, float64 [k].

    The plug-in rule (Dembczynski et al. 2013; Koyejo et al. 2014): scores have a line each (`fit_lines`), two numbers a
    label, which few positives can tell better than the place of a cut. Of F1 only. Arguments and errors as of `tune`.
    """
    ladder = _ladder(logits, truth, metric)
    lines = fit_lines(logits, truth, 1.0)
    ladder.suppose(logits_to_scores(logits.astype(np.float64) * lines.slopes + lines.shifts, "multi"))
    return _own(ladder, metric)


def _ladder(logits: np.ndarray, truth: np.ndarray, metric: str) -> "_Ladder":
    if metric not in TUNABLE:
        raise BadInput(f"thresholds for {metric!r}", f"one of {', '.join(TUNABLE)}", "name one of these")
    if logits.ndim != 2 or not len(logits) or truth.shape != logits.shape:
        found = f"logits of shape {logits.shape} and targets of shape {truth.shape}"
        raise BadInput(found, "a row at least, and a target for each cell", "pass logits and targets of the same rows")
    return _Ladder(logits, truth)


class _Ladder:
    """Every cut that tells rows apart, label by label.

    Step i of a label gives it to the i rows with the highest logits, i from 0 to n. given, hits: the weight of these
    rows, and of those among them that have the label, float64 [n + 1, k]. possible: bool [n + 1, k], whether such a cut
    exists: not between equal logits. following: int64 [n, k], the first row from there on that has a weight.
    weights: of each row; by default 1.
    """

    def __init__(self, logits: np.ndarray, truth: np.ndarray) -> None:
        n, k = logits.shape
        self.order = np.argsort(-logits, axis=0, kind="stable")
        self.sorted = np.take_along_axis(logits, self.order, axis=0).astype(np.float64)
        self.possible = np.ones((n + 1, k), dtype=bool)
        self.possible[1:-1] = self.sorted[1:] < self.sorted[:-1]
        self._true = np.take_along_axis(truth > 0, self.order, axis=0).astype(np.float64)
        self.weigh(np.ones(n))

    def suppose(self, chances: np.ndarray) -> None:
        """Take every row to have each label as much as its chance says, 0..1 [n, k]."""
        self._true = np.take_along_axis(chances, self.order, axis=0)
        self.weigh(np.ones(len(chances)))

    def weigh(self, weights: np.ndarray) -> None:
        """Give the rows other weights: whole numbers, as if each were there so often."""
        n, k = self.sorted.shape
        each = weights[self.order]
        self.given, self.hits = np.zeros((n + 1, k)), np.zeros((n + 1, k))
        np.cumsum(each, axis=0, out=self.given[1:])
        np.cumsum(each * self._true, axis=0, out=self.hits[1:])
        self.positives: np.ndarray = self.hits[-1].copy()
        there = np.where(each > 0, np.arange(n)[:, None], n)
        self.following = np.minimum.accumulate(there[::-1], axis=0)[::-1]

    def best(self, gains: np.ndarray) -> np.ndarray:
        """int64 [k]: the step with the largest gain [n + 1, k] of each label, the one that gives least among equals."""
        steps: np.ndarray = np.where(self.possible, gains, -np.inf).argmax(axis=0)
        return steps

    def cut(self, steps: np.ndarray) -> np.ndarray:
        """float64 [k]: logits between the last row that is given the label and the first that is not."""
        n, columns = len(self.sorted), np.arange(len(steps))
        outside = np.where(steps == n, n, self.following[np.minimum(steps, n - 1), columns])
        above = self.sorted[np.maximum(steps - 1, 0), columns]
        below = self.sorted[np.minimum(outside, n - 1), columns]
        cuts: np.ndarray = np.where(outside == n, above - 1.0, (above + below) / 2.0)
        cuts[steps == 0] = below[steps == 0] + 1.0
        return cuts


def _f1(ladder: _Ladder) -> np.ndarray:
    """Of each label at each step, [n + 1, k]; 0 where undefined."""
    whole = ladder.given + ladder.positives
    return np.asarray(np.divide(2.0 * ladder.hits, whole, out=np.zeros(ladder.hits.shape), where=whole > 0))


def _own(ladder: _Ladder, metric: str) -> np.ndarray:
    """The cut of each label, float64 [k]."""
    if metric != "micro_f1":
        return ladder.cut(ladder.best(_f1(ladder)))
    f1, columns, total = 0.0, np.arange(len(ladder.positives)), float(ladder.positives.sum())
    steps = np.zeros(len(columns), dtype=np.int64)
    for _ in range(_TURNS):  # Dinkelbach: the best ratio is where the best difference is 0
        steps = ladder.best(2.0 * ladder.hits - f1 * ladder.given)
        hits, given = float(ladder.hits[steps, columns].sum()), float(ladder.given[steps, columns].sum())
        following = 2.0 * hits / (given + total) if given + total else 0.0
        if following <= f1:
            break
        f1 = following
    return ladder.cut(steps)


def _mean_of_draws(ladder: _Ladder, metric: str, draws: int, seed: int) -> np.ndarray:
    """The mean cut of each label over bootstrap samples of the rows, of those in which it has any.

    The best cut of one sample jumps from row to row where a few of them decide; the mean does not (Breiman 1996). The
    ladder is left with the weights of all rows.
    """
    n, k = ladder.sorted.shape
    rng = np.random.default_rng(seed)
    total, counts = np.zeros(k), np.zeros(k)
    for _ in range(draws):
        ladder.weigh(np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64))
        there = ladder.positives > 0
        total += np.where(there, _own(ladder, metric), 0.0)
        counts += there
    ladder.weigh(np.ones(n))
    return np.where(counts > 0, total / np.maximum(counts, 1.0), _own(ladder, metric))


def _common(ladder: _Ladder, logits: np.ndarray, truth: np.ndarray, metric: str) -> float:
    """The one cut for all labels at which the metric is best."""
    n, k = logits.shape
    cells = np.argsort(-ladder.sorted, axis=None, kind="stable")
    values = ladder.sorted.reshape(-1)[cells]
    hit = np.diff(ladder.hits, axis=0).reshape(-1)[cells]
    if metric == "micro_f1":
        gains = 2.0 * np.cumsum(hit) / (np.arange(1, n * k + 1) + ladder.positives.sum())
    elif metric == "subset_accuracy":
        gains = _all_right(logits, truth, values)
    else:
        # A label's F1 changes only where one more of its own cells is reached; the sum over labels is a running one.
        steps = np.diff(_f1(ladder), axis=0)
        if metric == "weighted_f1":
            steps = steps * ladder.positives
        gains = np.cumsum(steps.reshape(-1)[cells])
    gains = np.where(np.append(values[1:] < values[:-1], True), gains, -np.inf)
    best = int(gains.argmax())
    return float(values[best] - 1.0 if best == n * k - 1 else (values[best] + values[best + 1]) / 2.0)


def _all_right(logits: np.ndarray, truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rows whose labels are all right when cells with a logit of at least each of these values are given."""
    least = np.where(truth, logits, np.inf).min(axis=1)  # the cut must not be above it
    most = np.where(truth, -np.inf, logits).max(axis=1)  # and must be above this
    possible = most < least
    upper, lower = np.sort(least[possible]), np.sort(most[possible])
    # A row is right at the cut v when most < v <= least.
    right: np.ndarray = np.searchsorted(lower, values, side="left") - np.searchsorted(upper, values, side="left")
    return right


def _by_turns(ladder: _Ladder, logits: np.ndarray, truth: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Cuts for subset accuracy: each label's in turn, among the rows whose other labels are right, while it helps."""
    wrong = (logits >= cuts) != truth
    n_wrong = wrong.sum(axis=1)
    best = int((n_wrong == 0).sum())
    for _ in range(_TURNS):
        before = best
        for label in range(len(cuts)):
            others_right = (n_wrong - wrong[:, label]) == 0
            in_order = others_right[ladder.order[:, label]]
            true = truth[ladder.order[:, label], label]
            signs = np.where(in_order, np.where(true, 1, -1), 0)
            gains = np.concatenate([[0], np.cumsum(signs)]) + int((others_right & ~truth[:, label]).sum())
            gains = np.where(ladder.possible[:, label], gains, -1)
            step = int(gains.argmax())
            if gains[step] > best:
                best = int(gains[step])
                cuts = cuts.copy()
                column = _Ladder(logits[:, label : label + 1], truth[:, label : label + 1])
                cuts[label] = column.cut(np.array([step]))[0]
                n_wrong -= wrong[:, label]
                wrong[:, label] = (logits[:, label] >= cuts[label]) != truth[:, label]
                n_wrong += wrong[:, label]
        if best == before:
            break
    return cuts


# ---------------------------------------------------------------- who is answered


def cut_keeping(values: np.ndarray, share: float) -> float:
    """A value that this share of `values` reaches, or as much more of them as are equal; halfway to the next lower one.

    Where all are kept it lies as far below the lowest as the next one is above it.
    """
    ordered = np.sort(values.astype(np.float64))
    n_out = int((1.0 - share) * len(ordered) + 1e-9)
    inside = ordered[min(n_out, len(ordered) - 1)]
    below = ordered[ordered < inside]
    if len(below):
        return float((below[-1] + inside) / 2.0)
    above = ordered[ordered > inside]
    return float(inside - (above[0] - inside if len(above) else 1.0))


def cut_for_precision(scores: np.ndarray, right: np.ndarray, precision: float) -> float | None:
    """The lowest score at which so many of the rows that reach it are right; 0 where all rows may be answered.

    scores: float [n]. right: bool [n]. None where LEAST_ANSWERED rows never reach the precision.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, n = scores[order], len(scores)
    precisions = np.cumsum(right[order]) / np.arange(1, n + 1)
    possible = np.append(ordered[1:] < ordered[:-1], True) & (np.arange(1, n + 1) >= LEAST_ANSWERED)
    reached = np.flatnonzero(possible & (precisions >= precision))
    if not len(reached):
        return None
    last = int(reached[-1])
    return 0.0 if last == n - 1 else float((ordered[last] + ordered[last + 1]) / 2.0)
