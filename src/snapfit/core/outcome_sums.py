"""What the metrics of evaluated rows are computed from, summed by group so that they can be resampled.

A classifier's answers give counts of each label, a regression's the sums of errors and squares. Metrics of all rows
come from the sums of all groups, those of a resample from the groups that it drew, by the same formulas.
"""

import numpy as np

from snapfit.core.correlation import RegressionTally
from snapfit.core.label_metrics import LabelCounts, label_metrics
from snapfit.core.labels import LabelSet
from snapfit.core.outcomes import Outcomes
from snapfit.core.resampling import GroupSums
from snapfit.core.tallies import log_likelihood

_ROWS, _RIGHT, _LIKELIHOOD, _ANSWERED, _LABELS = range(5)
_SQUARES, _DISTANCES, _TRUTH, _TRUTH_SQUARES = range(1, 5)


class LabelSums:
    """Counts of a task with labels. n_rows: how many will come.

    Precision and the like are of the answers that there are; a row without one is missed by its labels, and not right.
    """

    def __init__(self, label_set: LabelSet, n_rows: int) -> None:
        self.task, self.k, self.names = label_set.task, label_set.n_outputs, label_set.names
        self._groups = GroupSums(n_rows, _LABELS + 3 * self.k)

    @property
    def table(self) -> np.ndarray:
        """float64 [groups, columns]."""
        return self._groups.table

    def add(self, outcomes: Outcomes) -> None:
        """Count rows in."""
        groups = self._groups.groups_of(outcomes.first, len(outcomes))
        self._groups.add(groups, _ROWS, np.ones(len(groups)))
        self._groups.add(groups, _RIGHT, outcomes.right.astype(np.float64))
        self._groups.add(groups, _LIKELIHOOD, log_likelihood(outcomes.scores, outcomes.targets))
        self._groups.add(groups, _ANSWERED, outcomes.answers.answered.astype(np.float64))
        chosen, targets = outcomes.answers.chosen, outcomes.targets
        for part, name in enumerate(("hits", "given", "support")):
            if self.task == "multi":
                truth = outcomes.truth
                rows, labels = np.nonzero({"hits": chosen & truth, "given": chosen, "support": truth}[name])
            else:
                marked = {"hits": outcomes.right, "given": chosen >= 0, "support": np.ones(len(groups), dtype=bool)}
                rows = np.flatnonzero(marked[name])
                labels = (targets if name == "support" else chosen)[rows]
            self._groups.count(groups[rows], _LABELS + part * self.k + labels)

    def counts(self, table: np.ndarray) -> LabelCounts:
        """What columns of sums [m, columns] say."""
        thirds = (table[:, _LABELS + part * self.k : _LABELS + (part + 1) * self.k] for part in range(3))
        return LabelCounts(table[:, _ROWS], table[:, _RIGHT], table[:, _LIKELIHOOD], *thirds)

    def metrics(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics by name, float64 [m], of sums [m, columns]."""
        return label_metrics(self.task, self.counts(table))

    def all_metrics(self) -> dict[str, float]:
        """Those of all rows."""
        return {name: float(value[0]) for name, value in self.metrics(self._total).items()}

    def all_counts(self) -> LabelCounts:
        """The counts of all rows: numbers, and int64 [k] of the labels."""
        rows, right, likelihood, *labels = (part[0] for part in self.counts(self._total))
        return LabelCounts(rows, right, likelihood, *(np.rint(one).astype(np.int64) for one in labels))

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return int(self._total[0, _ROWS])

    @property
    def answered(self) -> int:
        """How many of them have an answer."""
        return int(self._total[0, _ANSWERED])

    @property
    def _total(self) -> np.ndarray:
        return np.asarray(self.table.sum(axis=0, keepdims=True))


class NumberSums:
    """Errors of a regression, over the rows that have an answer. n_rows: how many will come.

    Attribute: tally, the metrics of all rows, correlations among them, which are no functions of sums over groups.
    """

    def __init__(self, label_set: LabelSet, n_rows: int) -> None:
        self.tally = RegressionTally()
        self.rows = 0
        self._pivot = label_set.target_mean
        self._groups = GroupSums(n_rows, 1 + _TRUTH_SQUARES)

    @property
    def table(self) -> np.ndarray:
        """float64 [groups, columns]."""
        return self._groups.table

    def add(self, outcomes: Outcomes) -> None:
        """Count rows in."""
        self.rows += len(outcomes)
        kept = outcomes.answers.answered
        groups = self._groups.groups_of(outcomes.first, len(outcomes))[kept]
        errors, truth = outcomes.errors[kept], outcomes.targets[kept, 0].astype(np.float64) - self._pivot
        columns = {_ROWS: np.ones(len(groups)), _SQUARES: errors**2, _DISTANCES: np.abs(errors)}
        for column, values in {**columns, _TRUTH: truth, _TRUTH_SQUARES: truth**2}.items():
            self._groups.add(groups, column, values)
        self.tally.add(outcomes.answers.chosen[kept, None], outcomes.targets[kept])

    def metrics(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """rmse, mae and r2, float64 [m], of sums [m, columns]."""
        rows = np.maximum(table[:, _ROWS], 1.0)
        spread = table[:, _TRUTH_SQUARES] - table[:, _TRUTH] ** 2 / rows
        known = spread > 1e-12 * table[:, _TRUTH_SQUARES]
        left = table[:, _SQUARES] / np.where(known, spread, 1.0)
        return {
            "rmse": np.sqrt(table[:, _SQUARES] / rows),
            "mae": table[:, _DISTANCES] / rows,
            "r2": np.where(known, 1.0 - left, (table[:, _SQUARES] == 0).astype(np.float64)),
        }

    def all_metrics(self) -> dict[str, float]:
        """Those of all rows, correlations included."""
        return self.tally.metrics()

    @property
    def answered(self) -> int:
        """How many rows have an answer."""
        return self.tally.rows


def sums_of(label_set: LabelSet, n_rows: int) -> LabelSums | NumberSums:
    """The sums of a label set's task. n_rows: how many rows will come."""
    return NumberSums(label_set, n_rows) if label_set.task == "regression" else LabelSums(label_set, n_rows)
