"""What the metrics of evaluated rows are computed from, summed by group so that they can be resampled.

A classifier's answers give counts of each label, a regression's the sums of errors and squares. Metrics of all rows
come from the sums of all groups, those of a resample from the groups that it drew, by the same formulas.
"""

import numpy as np

from snapfit.core.calibration import Reliability, confidence_and_right
from snapfit.core.correlation import RegressionTally
from snapfit.core.decisions import REFUSALS
from snapfit.core.label_metrics import LabelCounts, Shares, label_metrics, share_metrics
from snapfit.core.labels import LabelSet
from snapfit.core.outcomes import Outcomes
from snapfit.core.resampling import GroupSums
from snapfit.core.tallies import log_likelihood, with_ece

_ROWS, _RIGHT, _LIKELIHOOD, _OUTSIDE, _REFUSED_OUTSIDE, _LABELS = range(6)
_SQUARES, _DISTANCES, _TRUTH, _TRUTH_SQUARES = range(1, 5)


class LabelSums:
    """Counts of a task with labels, for the metrics of `label_metrics`, whose refuses and out_of_scope these are.

    n_rows: how many will come. Attributes: reliability, how confident answers are and how many of them are right;
    refused, int64, how many rows have no answer by its place in REFUSALS.
    """

    def __init__(self, label_set: LabelSet, n_rows: int, *, refuses: bool = False, out_of_scope: bool = False) -> None:
        self.task, self.k, self.names = label_set.task, label_set.n_outputs, label_set.names
        self.reliability = Reliability()
        self.refused = np.zeros(len(REFUSALS), dtype=np.int64)
        self._may = {"refuses": refuses, "out_of_scope": out_of_scope}
        self._groups = GroupSums(n_rows, _LABELS + 3 * self.k)

    @property
    def table(self) -> np.ndarray:
        """float64 [groups, columns]."""
        return self._groups.table

    def add(self, outcomes: Outcomes) -> None:
        """Count rows in."""
        groups = self._groups.groups_of(outcomes.first, len(outcomes))
        inside, answers, targets = outcomes.inside, outcomes.answers, outcomes.targets
        scores, known = answers.scores[inside], targets[inside]
        self.reliability.add(*confidence_and_right(scores, known, self.task))
        self.refused += np.bincount(answers.refused, minlength=len(REFUSALS))
        right = outcomes.right & inside
        self._groups.add(groups, _ROWS, np.ones(len(groups)))
        self._groups.add(groups, _RIGHT, right.astype(np.float64))
        self._groups.add(groups[inside], _LIKELIHOOD, log_likelihood(scores, known))
        self._groups.add(groups, _OUTSIDE, (~inside).astype(np.float64))
        self._groups.add(groups, _REFUSED_OUTSIDE, (~inside & ~answers.answered).astype(np.float64))
        chosen = answers.chosen
        for part, name in enumerate(("hits", "given", "support")):
            if self.task == "multi":
                truth = outcomes.truth
                rows, labels = np.nonzero({"hits": chosen & truth, "given": chosen, "support": truth}[name])
            else:
                rows = np.flatnonzero({"hits": right, "given": answers.answered, "support": inside}[name])
                labels = (targets if name == "support" else chosen)[rows]
            self._groups.count(groups[rows], _LABELS + part * self.k + labels)

    def counts(self, table: np.ndarray) -> LabelCounts:
        """What columns of sums [m, columns] say."""
        thirds = (table[:, _LABELS + part * self.k : _LABELS + (part + 1) * self.k] for part in range(3))
        hits, given, support = thirds
        first = (table[:, _ROWS], table[:, _RIGHT], table[:, _LIKELIHOOD])
        return LabelCounts(*first, hits, given, support, table[:, _OUTSIDE], table[:, _REFUSED_OUTSIDE])

    def metrics(self, table: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics by name, float64 [m], of sums [m, columns]; but for ece, which is of all rows."""
        return label_metrics(self.task, self.counts(table), **self._may)

    def all_metrics(self) -> dict[str, float]:
        """Those of all rows."""
        found = {name: float(value[0]) for name, value in self.metrics(self._total).items()}
        return with_ece(found, self.reliability)

    def all_counts(self) -> LabelCounts:
        """The counts of all rows: numbers, and int64 [k] of the labels."""
        rows, right, likelihood, *labels = (part[0] for part in self.counts(self._total))
        hits, given, support = (np.rint(one).astype(np.int64) for one in labels[:3])
        return LabelCounts(rows, right, likelihood, hits, given, support, *labels[3:])

    def all_shares(self) -> Shares:
        """The metrics that are shares of rows: the part, and what it is of."""
        return share_metrics(self.task, self.all_counts(), **self._may)

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return int(self._total[0, _ROWS])

    @property
    def out_of_scope_rows(self) -> int:
        """How many of them are out of scope."""
        return int(self._total[0, _OUTSIDE])

    @property
    def _total(self) -> np.ndarray:
        return np.asarray(self.table.sum(axis=0, keepdims=True))


class NumberSums:
    """Errors of a regression. n_rows: how many will come.

    Attribute: tally, the metrics of all rows, correlations among them, which are no functions of sums over groups.
    """

    def __init__(self, label_set: LabelSet, n_rows: int) -> None:
        self.tally = RegressionTally()
        self._pivot = label_set.target_mean
        self._groups = GroupSums(n_rows, 1 + _TRUTH_SQUARES)

    @property
    def table(self) -> np.ndarray:
        """float64 [groups, columns]."""
        return self._groups.table

    @property
    def rows(self) -> int:
        """How many rows there were."""
        return self.tally.rows

    def add(self, outcomes: Outcomes) -> None:
        """Count rows in."""
        groups = self._groups.groups_of(outcomes.first, len(outcomes))
        errors, truth = outcomes.errors, outcomes.targets[:, 0].astype(np.float64) - self._pivot
        columns = {_ROWS: np.ones(len(groups)), _SQUARES: errors**2, _DISTANCES: np.abs(errors)}
        for column, values in {**columns, _TRUTH: truth, _TRUTH_SQUARES: truth**2}.items():
            self._groups.add(groups, column, values)
        self.tally.add_answers(outcomes.answers, outcomes.targets)

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


def sums_of(
    label_set: LabelSet, n_rows: int, *, refuses: bool = False, out_of_scope: bool = False
) -> LabelSums | NumberSums:
    """The sums of a label set's task; the arguments are those of `LabelSums`."""
    if label_set.task == "regression":
        return NumberSums(label_set, n_rows)
    return LabelSums(label_set, n_rows, refuses=refuses, out_of_scope=out_of_scope)
