"""What came of rows whose truth is known: decisions as arrays, whatever rule made them, beside scores and targets.

How a decision is made is the predictor's business alone; here is only what one can be. A row may have no answer (None):
it is never right, never counts as a label, and is counted apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from snapfit.core.errors import WorkFailed
from snapfit.core.labels import LabelSet, Task

NO_LABEL = -1
"""The class of a row without an answer."""


@dataclass(frozen=True)
class Answers:
    """Decisions on n rows.

    chosen: int64 [n], a class or NO_LABEL (single); bool [n, k] (multi); float64 [n], NaN without an answer
    (regression). answered: bool [n], whether there is an answer; an answer may be that there is no label.
    """

    chosen: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, decisions: Sequence[Any], label_set: LabelSet) -> "Answers":
        """The arrays of what `Predictor.decide` gave.

        decisions: on each row a label, a list of labels or a number, by the label set's task, or None. Labels are
        found by their names, so that the order of the label set that they were decided with does not matter.
        Raises WorkFailed for a label that the label set does not have.
        """
        answered = np.fromiter((one is not None for one in decisions), dtype=bool, count=len(decisions))
        if label_set.task == "regression":
            values = [np.nan if one is None else one for one in decisions]
            return cls(np.array(values, dtype=np.float64).reshape(len(decisions)), answered)
        index: dict[Any, int] = {name: i for i, name in enumerate(label_set.names)}
        try:
            if label_set.task == "single":
                index[None] = NO_LABEL
                return cls(np.array([index[one] for one in decisions], dtype=np.int64), answered)
            chosen = np.zeros((len(decisions), label_set.n_outputs), dtype=bool)
            for row, labels in enumerate(decisions):
                for label in labels or ():
                    chosen[row, index[label]] = True
        except KeyError as error:
            raise WorkFailed(f"the decision {error.args[0]!r} is none of the {label_set.n_outputs} labels") from error
        return cls(chosen, answered)


@dataclass(frozen=True)
class Outcomes:
    """Rows that follow one another, scored, decided, and held against their truth.

    first: the number of the first row, from 0. scores: float64 [n, k]. targets: from `LabelSet.encode`. answers: of the
    same rows.
    """

    task: Task
    first: int
    scores: np.ndarray
    targets: np.ndarray
    answers: Answers

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def truth(self) -> np.ndarray:
        """bool [n, k] for multi: which labels hold."""
        return np.asarray(self.targets > 0)

    @cached_property
    def right(self) -> np.ndarray:
        """bool [n]: whether the answer is wholly right; of a regression, which knows no such thing, always False."""
        chosen = self.answers.chosen
        if self.task == "single":
            return np.asarray(chosen == self.targets)
        if self.task == "multi":
            return np.asarray((chosen == self.truth).all(axis=1) & self.answers.answered)
        return np.zeros(len(self), dtype=bool)

    @cached_property
    def errors(self) -> np.ndarray:
        """float64 [n] for a regression: answer less truth; NaN without an answer."""
        return np.asarray(self.answers.chosen - self.targets[:, 0].astype(np.float64))

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 [n] twice: what rows add to numerator and denominator of the measure of `SLICE_METRICS`."""
        if self.task == "single":
            return self.right.astype(np.float64), np.ones(len(self))
        if self.task == "multi":
            both = (self.answers.chosen & self.truth).sum(axis=1)
            return 2.0 * both, (self.answers.chosen.sum(axis=1) + self.truth.sum(axis=1)).astype(np.float64)
        answered = self.answers.answered
        return np.where(answered, np.abs(self.errors), 0.0), answered.astype(np.float64)


SLICE_METRICS: dict[Task, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}
"""The metric of each task that is a sum over rows divided by another, so that any part of a table has it."""
