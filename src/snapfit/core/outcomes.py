"""What came of rows whose truth is known: answers beside their targets, as arrays.

Answers are what a decision rule gave (`decisions.py`). A row may have none: it has missed its label, none was given to
it, and it is counted apart. A row may be out of scope, with a target that is no label: no answer is right for it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from snapfit.core.decisions import Answers
from snapfit.core.labels import Task


@dataclass(frozen=True)
class Outcomes:
    """Rows that follow one another, answered, and held against their truth.

    first: the number of the first row, from 0. targets: from `LabelSet.encode`; of a single label -1 for a row that is
    out of scope. answers: of the same rows, labels in the same order.
    """

    first: int
    targets: np.ndarray
    answers: Answers

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def task(self) -> Task:
        """single, multi or regression."""
        return self.answers.task

    @property
    def scores(self) -> np.ndarray:
        """float64 [n, k]."""
        return self.answers.scores

    @cached_property
    def truth(self) -> np.ndarray:
        """bool [n, k] for multi: which labels hold."""
        return np.asarray(self.targets > 0)

    @cached_property
    def inside(self) -> np.ndarray:
        """bool [n]: whether the row is in scope, as all but some of a single label are."""
        return np.asarray(self.targets >= 0) if self.task == "single" else np.ones(len(self), dtype=bool)

    @cached_property
    def right(self) -> np.ndarray:
        """bool [n]: whether the answer is wholly right, or there rightly is none; of a regression, which knows no such
        thing, always False.
        """
        if self.task == "single":
            return np.asarray(self.answers.chosen == self.targets)
        if self.task == "multi":
            return np.asarray((self.answers.chosen == self.truth).all(axis=1))
        return np.zeros(len(self), dtype=bool)

    @cached_property
    def errors(self) -> np.ndarray:
        """float64 [n] for a regression: answer less truth."""
        return np.asarray(self.answers.chosen - self.targets[:, 0].astype(np.float64))

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 [n] twice: what rows add to numerator and denominator of the measure of `SLICE_METRICS`."""
        if self.task == "single":
            return (self.right & self.inside).astype(np.float64), self.inside.astype(np.float64)
        if self.task == "multi":
            both = (self.answers.chosen & self.truth).sum(axis=1)
            return 2.0 * both, (self.answers.chosen.sum(axis=1) + self.truth.sum(axis=1)).astype(np.float64)
        return np.abs(self.errors), np.ones(len(self))


SLICE_METRICS: dict[Task, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}
"""The metric of each task that is a sum over rows divided by another, so that any part of a table has it."""
