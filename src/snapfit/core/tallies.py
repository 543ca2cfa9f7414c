"""Counts and sums of classifications, added up batch by batch: what their metrics are computed from.

A tally's memory depends on the number of labels and not on that of rows. Rows may come in any batches and in any
order: counts are the same, and sums differ in their last bits at most (they are compensated, so by about 1e-16 of
their size).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from snapfit.core.calibration import Reliability, confidence_and_right
from snapfit.core.decisions import Answers, DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task

_EPSILON = float(np.finfo(np.float64).eps)  # scikit-learn's log_loss keeps scores this far from 0 and 1


class PerClass(NamedTuple):
    """Figures of each class, arrays [k]: precision, recall and f1 float64, support (rows of the class) int64."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


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

    with_mistakes: keep a matrix of n_outputs * n_outputs counts besides, for `mistakes`.
    Attribute: reliability, how confident answers are and how many of them are right.
    """

    def __init__(self, n_outputs: int, *, rule: DecisionRule | None = None, with_mistakes: bool = False) -> None:
        super().__init__(n_outputs, rule=rule)
        self._hits, self._given, self._support = (np.zeros(n_outputs, dtype=np.int64) for _ in range(3))
        self._mistakes = np.zeros((n_outputs, n_outputs), dtype=np.int64) if with_mistakes else None
        self._log_likelihood = RunningSum()
        self.reliability = Reliability()

    def per_label(self) -> PerClass:
        """Precision, recall, f1 and support of each label; 0 where undefined."""
        return _figures(self._hits, self._given, self._support)

    def mistakes(self) -> np.ndarray:
        """int64 [k, k]: in how many rows the label of the row was missed and that of the column given instead.

        Where the label is one of many, that is every pair of a missed and a wrongly given one; and 0 on the diagonal.
        Where it is the only one this is the confusion matrix, hits on its diagonal.
        Raises BadInput when they were not kept.
        """
        if self._mistakes is None:
            raise BadInput("mistakes that were not counted", "a tally made with_mistakes", "make it with_mistakes")
        return self._mistakes.copy()

    def _count(self, hits: np.ndarray, given: np.ndarray, support: np.ndarray, likelihood: np.ndarray) -> None:
        self._hits += hits
        self._given += given
        self._support += support
        self._log_likelihood.add(float(np.log(np.clip(likelihood, _EPSILON, 1.0 - _EPSILON)).sum()))


class SingleTally(LabelTally):
    """One label a row. targets: int [n]; with `out_of_scope`, -1 for a row that none of the labels is right for.

    Metrics: accuracy, macro_f1 (over labels in targets or answers), weighted_f1, mcc, nll (nats), ece. Accuracy,
    nll and ece are of the rows in scope. A row without an answer has missed its label, and none was given to it; for
    mcc no answer counts as one more class, which is the right one of rows out of scope.
    Where the rule refuses, or rows may be out of scope: coverage (share of the rows in scope that are answered) and
    answered_accuracy (share of these that are right). With `out_of_scope`: refusal_recall (share of the rows out of
    scope that are refused), refusal_precision (share of the refused rows that are out of scope), and overall_accuracy
    (share of all rows that are right, those out of scope where they are refused).
    """

    task = "single"

    def __init__(
        self,
        n_outputs: int,
        *,
        rule: DecisionRule | None = None,
        with_mistakes: bool = False,
        out_of_scope: bool = False,
    ) -> None:
        super().__init__(n_outputs, rule=rule, with_mistakes=with_mistakes)
        self._out_of_scope = out_of_scope
        self._outside = self._refused = self._refused_outside = 0

    def answer_range(self) -> tuple[float, float] | None:
        given = np.flatnonzero(self._given)
        return (float(given[0]), float(given[-1])) if len(given) else None

    def _add(self, answers: Answers, targets: np.ndarray) -> None:
        scores, chosen, k = answers.scores, answers.chosen, self.n_outputs
        assert chosen is not None
        inside = targets >= 0 if self._out_of_scope else np.ones(len(targets), dtype=bool)
        _check_classes("targets", targets[inside], k)
        answered = chosen >= 0
        if self._mistakes is not None:
            self._mistakes += confusion(targets[inside & answered], chosen[inside & answered], k)
        hits, given, support = (
            np.bincount(classes, minlength=k)
            for classes in (targets[inside & (chosen == targets)], chosen[answered], targets[inside])
        )
        scores, targets = scores[inside], targets[inside]
        self._count(hits, given, support, scores[np.arange(len(scores)), targets].astype(np.float64))
        self.reliability.add(*confidence_and_right(scores, targets, "single"))
        self._outside += int((~inside).sum())
        self._refused += int((~answered).sum())
        self._refused_outside += int((~answered & ~inside).sum())

    def _metrics(self) -> dict[str, float]:
        f1, present = self.per_label().f1, (self._given + self._support) > 0
        hits, inside = int(self._hits.sum()), self.rows - self._outside
        metrics = {
            "accuracy": float(_ratio(hits, inside)),
            "macro_f1": f1[present].mean() if present.any() else 0.0,
            "weighted_f1": float(_ratio((f1 * self._support).sum(), inside)),
            "mcc": self._mcc(),
            "nll": -self._log_likelihood.value / max(inside, 1),
            "ece": self.reliability.error,
        }
        if self.rule.refuses or self._out_of_scope:
            answered = inside - (self._refused - self._refused_outside)
            metrics["coverage"] = float(_ratio(answered, inside))
            metrics["answered_accuracy"] = float(_ratio(hits, answered))
        if self._out_of_scope:
            metrics["refusal_recall"] = float(_ratio(self._refused_outside, self._outside))
            metrics["refusal_precision"] = float(_ratio(self._refused_outside, self._refused))
            metrics["overall_accuracy"] = (hits + self._refused_outside) / self.rows
        return metrics

    def _mcc(self) -> float:
        """Gorodkin's correlation of k classes (2004), no answer being one more where there are rows without;
        0 when all rows share one class or one answer.
        """
        given = np.append(self._given, self._refused) / self.rows
        support = np.append(self._support, self._outside) / self.rows
        hits = int(self._hits.sum()) + self._refused_outside
        covariance = hits / self.rows - float(given @ support)
        spread = (1.0 - float(given @ given)) * (1.0 - float(support @ support))
        one_class = np.count_nonzero(given) < 2 or np.count_nonzero(support) < 2
        return 0.0 if one_class else covariance / float(np.sqrt(spread))


class MultiTally(LabelTally):
    """Any number of labels a row. targets: 0 or 1 [n, k].

    Metrics: macro_f1, micro_f1, weighted_f1, subset_accuracy, nll (nats, mean over all cells), ece (over all cells).
    """

    task = "multi"

    def __init__(self, n_outputs: int, *, rule: DecisionRule | None = None, with_mistakes: bool = False) -> None:
        super().__init__(n_outputs, rule=rule, with_mistakes=with_mistakes)
        self._exact = 0

    def _add(self, answers: Answers, targets: np.ndarray) -> None:
        scores, truth, chosen = answers.scores, targets > 0, answers.chosen
        assert chosen is not None
        if self._mistakes is not None:
            missed, wrong = (truth & ~chosen).astype(np.float64), (chosen & ~truth).astype(np.float64)
            self._mistakes += (missed.T @ wrong).astype(np.int64)
        likelihood = np.where(truth, scores, 1.0 - scores).astype(np.float64)
        self._count((truth & chosen).sum(axis=0), chosen.sum(axis=0), truth.sum(axis=0), likelihood)
        self.reliability.add(scores, truth)
        self._exact += int((truth == chosen).all(axis=1).sum())

    def _metrics(self) -> dict[str, float]:
        f1, support = self.per_label().f1, self._support
        return {
            "macro_f1": f1.mean(),
            "micro_f1": float(_ratio(2 * self._hits.sum(), self._given.sum() + support.sum())),
            "weighted_f1": float(_ratio((f1 * support).sum(), support.sum())),
            "subset_accuracy": self._exact / self.rows,
            "nll": -self._log_likelihood.value / (self.rows * self.n_outputs),
            "ece": self.reliability.error,
        }


# ---------------------------------------------------------------- confusion


def confusion(targets: np.ndarray, predicted: np.ndarray, k: int) -> np.ndarray:
    """int64 [k, k]: how many rows of each true class (row) were given each class (column).

    targets, predicted: int [n] in 0..k-1. Matrices of parts of a table add up to the whole's.
    Raises BadInput for other numbers or lengths.
    """
    if targets.shape != predicted.shape or targets.ndim != 1:
        found = f"targets of shape {targets.shape} and predictions of shape {predicted.shape}"
        raise BadInput(found, "two flat arrays of the same length", "pass one class a row in both")
    for name, values in (("targets", targets), ("predictions", predicted)):
        _check_classes(name, values, k)
    cells = targets.astype(np.int64) * k + predicted.astype(np.int64)
    return np.bincount(cells, minlength=k * k).astype(np.int64).reshape(k, k)


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall, f1 and support of each class of a confusion matrix [k, k]; 0 where undefined."""
    return _figures(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def confusion_summary(conf: np.ndarray, names: Sequence[str], top: int = 10) -> list[tuple[str, str, int]]:
    """The `top` most frequent mistakes, as (true label, predicted label, rows), most frequent first.

    conf: from `confusion`. Equal counts come in the order of the labels; what never happened is left out.
    """
    mistakes = conf.copy()
    np.fill_diagonal(mistakes, 0)
    true, predicted = np.nonzero(mistakes)
    order = np.argsort(-mistakes[true, predicted], kind="stable")[:top]
    return [(names[true[i]], names[predicted[i]], int(mistakes[true[i], predicted[i]])) for i in order]


def _figures(hits: np.ndarray, given: np.ndarray, support: np.ndarray) -> PerClass:
    f1 = _ratio(2 * hits, given + support)
    return PerClass(_ratio(hits, given), _ratio(hits, support), f1, support.astype(np.int64))


def _check_classes(name: str, values: np.ndarray, k: int) -> None:
    if len(values) and not (values.min() >= 0 and values.max() < k):
        found = f"{name} from {values.min()} to {values.max()}"
        raise BadInput(found, f"class numbers from 0 to {k - 1}", "encode them with the same label set")


def _ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))
