"""Counts and sums of classifications, added up batch by batch: what their metrics are computed from.

A tally's memory depends on the number of labels and not on that of rows. Rows may come in any batches and in any
order: counts are the same, and sums differ in their last bits at most (they are compensated, so by about 1e-16 of
their size).
"""

from abc import ABC, abstractmethod

import numpy as np

from snapfit.core.calibration import Reliability, confidence_and_right
from snapfit.core.decisions import Answers, DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.label_metrics import LabelCounts, label_metrics
from snapfit.core.labels import Task

_EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn's log_loss keeps scores this far from 0 and 1


def log_likelihood(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 [n]: the logarithm of the score of each row's truth; for multi its sum over the labels.

    scores: float [n, k]. targets: int [n] (single), or 0 or 1 [n, k] (multi).
    """
    if targets.ndim == 1:
        likelihood = scores[np.arange(len(scores)), targets]
    else:
        likelihood = np.where(targets > 0, scores, 1.0 - scores)
    logs: np.ndarray = np.log(np.clip(likelihood.astype(np.float64), _EPSILON, 1.0 - _EPSILON))
    return logs if targets.ndim == 1 else np.asarray(logs.sum(axis=1))


class RunningSum:
    """A float64 sum of many parts that keeps what rounding loses (Neumaier 1974), so that order hardly matters."""

    def __init__(self) -> None:
        self._total = self._lost = 0.0

    def add(self, part: float) -> None:
        """Add one part."""
        total = self._total + part
        large, small = (self._total, part) if abs(self._total) >= abs(part) else (part, self._total)
        self._lost += (large - total) + small
        self._total = total

    @property
    def value(self) -> float:
        """The sum so far."""
        return self._total + self._lost


class Tally(ABC):
    """What is known of the rows that were added.

    n_outputs: columns of the scores, at least 1. rule: how scores become decisions; by default that of its task alone.
    Attribute: rows, how many were added.
    """

    task: Task

    def __init__(self, n_outputs: int, *, rule: DecisionRule | None = None) -> None:
        if n_outputs < 1:
            raise BadInput(f"scores with {n_outputs} columns", "at least one", "pass the scores of a classifier")
        self.n_outputs = n_outputs
        self.rule = rule or DecisionRule(self.task)
        self.rows = 0

    def add(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """Count rows in; none is fine.

        scores: float [n, n_outputs] from `logits_to_scores`. targets: of the same rows, from `LabelSet.encode`.
        Raises BadInput, and counts nothing, for shapes that do not fit, for scores or targets that are not finite,
        and for classes that do not exist.
        """
        self.check_shapes(scores, targets)
        self.add_answers(self.rule.decide(scores), targets)

    def add_answers(self, answers: Answers, targets: np.ndarray) -> None:
        """Count rows in by what was answered on them. answers: by the tally's rule; else as `add`."""
        self.check_shapes(answers.scores, targets)
        for name, values in (("scores", answers.scores), ("targets", targets)):
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
                raise BadInput(f"{name} that are not finite in row {row}", "finite numbers", "correct that row")
        if len(answers):
            self._add(answers, targets)
            self.rows += len(answers)

    def check_shapes(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """Raise BadInput unless these are scores and targets of the same rows."""
        flat = self.task == "single"
        wanted = scores.shape[:1] if flat else scores.shape
        if scores.ndim != 2 or scores.shape[1] != self.n_outputs or targets.shape != wanted:
            found = f"scores of shape {scores.shape} and targets of shape {targets.shape}"
            shape = f"[rows, {self.n_outputs}]"
            expected = f"shapes that fit the task: {shape} and {'[rows]' if flat else shape}"
            raise BadInput(found, expected, "pass scores and targets of the same rows and labels")

    def metrics(self) -> dict[str, float]:
        """The metrics of all rows so far, by name. Raises BadInput when there are none."""
        if self.rows == 0:
            raise BadInput("no rows to measure", "at least one row", "give labelled rows")
        return {name: float(value) for name, value in self._metrics().items()}

    def answer_range(self) -> tuple[float, float] | None:
        """The lowest and the highest answer: classes (single) or numbers (regression); None without rows, or where
        an answer is a set of labels.
        """
        return None

    @abstractmethod
    def _add(self, answers: Answers, targets: np.ndarray) -> None: ...

    @abstractmethod
    def _metrics(self) -> dict[str, float]: ...


class LabelTally(Tally):
    """A tally of labels: of each, the rows it is true for, those it was given to, and those where both hold.

    out_of_scope: whether targets of a single label may be -1, for rows that none of the labels is right for.
    Metrics: those of `label_metrics`, and ece (of the rows in scope, or of all cells).
    Attribute: reliability, how confident answers are and how many of them are right.
    """

    def __init__(self, n_outputs: int, *, rule: DecisionRule | None = None, out_of_scope: bool = False) -> None:
        super().__init__(n_outputs, rule=rule)
        self._out_of_scope = out_of_scope
        self._hits, self._given, self._support = (np.zeros(n_outputs, dtype=np.int64) for _ in range(3))
        self._right = self._outside = self._refused_outside = 0
        self._log_likelihood = RunningSum()
        self.reliability = Reliability()

    def _count(self, hits: np.ndarray, given: np.ndarray, support: np.ndarray, right: int) -> None:
        self._hits += hits
        self._given += given
        self._support += support
        self._right += right

    def _metrics(self) -> dict[str, float]:
        counts = LabelCounts(
            np.array(self.rows),
            np.array(self._right),
            np.array(self._log_likelihood.value),
            self._hits,
            self._given,
            self._support,
            np.array(self._outside),
            np.array(self._refused_outside),
        )
        found = label_metrics(self.task, counts, refuses=self.rule.refuses, out_of_scope=self._out_of_scope)
        return with_ece({name: float(value) for name, value in found.items()}, self.reliability)


class SingleTally(LabelTally):
    """One label a row. targets: int [n]."""

    task = "single"

    def answer_range(self) -> tuple[float, float] | None:
        given = np.flatnonzero(self._given)
        return (float(given[0]), float(given[-1])) if len(given) else None

    def _add(self, answers: Answers, targets: np.ndarray) -> None:
        scores, chosen, k = answers.scores, answers.chosen, self.n_outputs
        least = -1 if self._out_of_scope else 0
        if not (targets.min() >= least and targets.max() < k):
            found = f"targets from {targets.min()} to {targets.max()}"
            raise BadInput(found, f"class numbers from 0 to {k - 1}", "encode them with the same label set")
        inside = targets >= 0
        hits, given, support = (
            np.bincount(classes, minlength=k)
            for classes in (targets[inside & (chosen == targets)], chosen[answers.answered], targets[inside])
        )
        self._count(hits, given, support, int(hits.sum()))
        self._outside += int((~inside).sum())
        self._refused_outside += int((~inside & ~answers.answered).sum())
        self._log_likelihood.add(float(log_likelihood(scores[inside], targets[inside]).sum()))
        self.reliability.add(*confidence_and_right(scores[inside], targets[inside], "single"))


class MultiTally(LabelTally):
    """Any number of labels a row. targets: 0 or 1 [n, k]."""

    task = "multi"

    def _add(self, answers: Answers, targets: np.ndarray) -> None:
        scores, truth, chosen = answers.scores, targets > 0, answers.chosen
        right = int((truth == chosen).all(axis=1).sum())
        self._count((truth & chosen).sum(axis=0), chosen.sum(axis=0), truth.sum(axis=0), right)
        self._log_likelihood.add(float(log_likelihood(scores, targets).sum()))
        self.reliability.add(*confidence_and_right(scores, targets, "multi"))


def with_ece(metrics: dict[str, float], reliability: Reliability) -> dict[str, float]:
    """Metrics of a task with labels, the expected calibration error behind the nll."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        found[name] = value
        if name == "nll":
            found["ece"] = reliability.error
    return found
