"""Two bundles on the same rows: which is better, whether beyond chance, and on which rows and labels they part.

Intervals of differences are those of a bootstrap that draws the same rows for both (`core.resampling`); those of
correlations are Zou's. McNemar's exact test says whether rows that only one has right are shared out evenly; of a
regression, which is never right, the sign test says so of rows where one is nearer to the truth.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snapfit.core.correlation import Moments, RankPairs
from snapfit.core.errors import BadInput
from snapfit.core.intervals import Interval, correlation_difference
from snapfit.core.label_metrics import per_class
from snapfit.core.labels import LabelSet
from snapfit.core.outcome_sums import LabelSums, NumberSums
from snapfit.core.outcomes import Outcomes
from snapfit.core.resampling import resampled_intervals
from snapfit.core.significance import mcnemar
from snapfit.data.records import Records
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.examples import Foremost, texts_of_row

EXAMPLES = 5
MOST_RESAMPLED_LABELS = 128
"""Of more labels, those whose F1 differs most have an interval."""
_F1 = "f1 of labels"


def check_comparable(first: Bundle, second: Bundle) -> None:
    """Raise BadInput unless both bundles answer the same question: one task, the same labels, texts or pairs."""
    folders, fix = (first.folder, second.folder), "compare bundles trained on the same labels"
    if first.info.task != second.info.task:
        found = f"{folders[0]} of the task {first.info.task} and {folders[1]} of the task {second.info.task}"
        raise BadInput(found, "two bundles of one task", fix)
    if first.info.pair != second.info.pair:
        kinds = ["pairs of texts" if one.info.pair else "single texts" for one in (first, second)]
        found = f"{folders[0]}, trained on {kinds[0]}, and {folders[1]}, trained on {kinds[1]}"
        raise BadInput(found, "two bundles that read the same texts", fix)
    names = [set(one.label_set.names) for one in (first, second)]
    if first.info.task != "regression" and names[0] != names[1]:
        alone = [sorted(names[0] - names[1]), sorted(names[1] - names[0])]
        found = "; ".join(
            f"labels of {folder} alone: {', '.join(map(repr, only[:5]))}{', ...' if len(only) > 5 else ''}"
            for folder, only in zip(folders, alone, strict=True)
            if only
        )
        raise BadInput(found, "the same labels in both bundles, in any order", fix)


class Comparison:
    """Holds the answers of `this` against those of `other`, row by row. Sums of both are kept by the caller.

    out_of_scope: how rows out of scope are labelled.
    """

    def __init__(self, label_set: LabelSet, *, out_of_scope: str | None = None) -> None:
        self._labels, self._outside = label_set, out_of_scope
        self._same = 0
        self._first_only = self._second_only = self._both = 0
        k = label_set.n_outputs
        self._gained, self._lost = np.zeros(k, dtype=np.int64), np.zeros(k, dtype=np.int64)
        self._examples = Foremost(EXAMPLES), Foremost(EXAMPLES)
        self._between, self._ranks_between = Moments(), RankPairs()

    def add(self, this: Outcomes, other: Outcomes, records: Records) -> None:
        """Count rows in; both are of the same rows, with labels in one order."""
        if self._labels.task == "regression":
            self._add_numbers(this, other, records)
            return
        only = this.right & ~other.right, other.right & ~this.right
        self._first_only += int(only[0].sum())
        self._second_only += int(only[1].sum())
        self._both += int((this.right & other.right).sum())
        ours, theirs = (_given(one) for one in (this, other))
        same = (ours == theirs).all(axis=1) & (this.answers.answered == other.answers.answered)
        self._same += int(same.sum())
        self._gained += (ours & ~theirs).sum(axis=0)
        self._lost += (theirs & ~ours).sum(axis=0)
        for i, wrong in enumerate((other, this)):
            self._offer(i, only[i], _certainty(wrong), this, other, records)

    def to_dict(
        self, this: LabelSums | NumberSums, other: LabelSums | NumberSums, *, confidence: float
    ) -> dict[str, Any]:
        """The comparison as plain values. this, other: the sums of the same rows.

        metrics: of the other. difference: {metric: {value, interval or None}}, this less the other.
        answers: same (rows with the same answer), both, this_only, other_only and neither (rows right; of a regression
        this_only and other_only are the rows where one is nearer), and p.
        this_only, other_only: examples with row, text, pair, true, this and other.
        labels: [{label, f1, other_f1, difference, interval, gained, lost}], the largest difference first; gained and
        lost are the rows where only this one, or only the other one, gives the label.
        """
        mine, theirs = this.all_metrics(), other.all_metrics()
        labels: list[dict[str, Any]] = []
        if isinstance(this, LabelSums) and isinstance(other, LabelSums):
            intervals, labels = self._of_labels(this, other, confidence)
        else:
            intervals = _first_of(_resampled(this, other, confidence))
            intervals |= self._of_correlations(mine, theirs, confidence)
        difference = {
            name: {"value": mine[name] - theirs[name], "interval": as_list(intervals.get(name))} for name in mine
        }
        rows = this.rows
        discordant = self._first_only + self._second_only
        answers = {
            "same": self._same,
            "both": self._both,
            "this_only": self._first_only,
            "other_only": self._second_only,
            "neither": rows - self._both - discordant,
            "p": mcnemar(self._first_only, self._second_only),
        }
        return {
            "metrics": theirs,
            "difference": difference,
            "answers": answers,
            "this_only": self._examples[0].to_list(),
            "other_only": self._examples[1].to_list(),
            "labels": labels,
        }

    def _add_numbers(self, this: Outcomes, other: Outcomes, records: Records) -> None:
        gap = np.abs(other.errors) - np.abs(this.errors)
        self._first_only += int((gap > 0).sum())
        self._second_only += int((gap < 0).sum())
        pairs = this.answers.chosen, other.answers.chosen
        self._same += int((pairs[0] == pairs[1]).sum())
        self._between.add(*pairs)
        self._ranks_between.add(*pairs)
        for i, nearer in enumerate((gap, -gap)):
            self._offer(i, nearer > 0, nearer, this, other, records)

    def _offer(
        self, i: int, marked: np.ndarray, keys: np.ndarray, this: Outcomes, other: Outcomes, records: Records
    ) -> None:
        rows = np.flatnonzero(marked)
        for place in rows[np.lexsort((rows, -keys[rows]))][:EXAMPLES].tolist():
            if self._examples[i].would_take(float(keys[place]), this.first + place):
                example = {
                    **texts_of_row(records, place),
                    "true": _shown(self._labels, this.targets[place], self._outside),
                    "this": _answer(self._labels, this, place),
                    "other": _answer(self._labels, other, place),
                }
                self._examples[i].take(float(keys[place]), this.first + place, example)

    def _of_labels(
        self, this: LabelSums, other: LabelSums, confidence: float
    ) -> tuple[dict[str, Interval | None], list[dict[str, Any]]]:
        """Intervals of the metrics' differences, and the labels, whose F1 differs most first."""
        mine, theirs = (per_class(*one.all_counts()[3:6]).f1 for one in (this, other))
        order = np.argsort(-np.abs(mine - theirs), kind="stable")
        chosen = order[:MOST_RESAMPLED_LABELS]
        found = _resampled(this, other, confidence, chosen)
        intervals = dict(zip(chosen.tolist(), found.pop(_F1), strict=True))
        labels = [
            {
                "label": self._labels.names[i],
                "f1": float(mine[i]),
                "other_f1": float(theirs[i]),
                "difference": float(mine[i] - theirs[i]),
                "interval": as_list(intervals.get(i)),
                "gained": int(self._gained[i]),
                "lost": int(self._lost[i]),
            }
            for i in order.tolist()
        ]
        return _first_of(found), labels

    def _of_correlations(
        self, mine: Mapping[str, float], theirs: Mapping[str, float], confidence: float
    ) -> dict[str, Interval | None]:
        n = self._between.n
        between = {"pearson": self._between.correlation(), "spearman": self._ranks_between.correlation()} if n else {}
        return {
            name: correlation_difference(mine[name], theirs[name], together, n, confidence, of_ranks=name == "spearman")
            for name, together in between.items()
        }


def as_list(interval: Interval | None) -> list[float] | None:
    """An interval for JSON."""
    return None if interval is None else [interval.low, interval.high]


def _resampled(
    this: LabelSums | NumberSums, other: LabelSums | NumberSums, confidence: float, labels: np.ndarray | None = None
) -> dict[str, list[Interval | None]]:
    """Intervals of the differences of the metrics and, of these labels, of the F1."""

    def statistics(tables: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        mine, theirs = this.metrics(tables[0]), other.metrics(tables[1])
        found = {name: mine[name] - theirs[name] for name in mine}
        if labels is not None and isinstance(this, LabelSums) and isinstance(other, LabelSums):
            first, second = (
                per_class(*(one[:, labels] for one in sums.counts(table)[3:6])).f1
                for sums, table in zip((this, other), tables, strict=True)
            )
            found[_F1] = first - second
        return found

    return resampled_intervals([this.table, other.table], statistics, confidence=confidence)


def _first_of(found: Mapping[str, list[Interval | None]]) -> dict[str, Interval | None]:
    return {name: intervals[0] for name, intervals in found.items()}


def _given(outcomes: Outcomes) -> np.ndarray:
    """bool [n, k]: which labels the answers give."""
    if outcomes.task == "multi":
        return outcomes.answers.chosen
    return np.asarray(outcomes.answers.chosen[:, None] == np.arange(outcomes.scores.shape[1]))


def _certainty(outcomes: Outcomes) -> np.ndarray:
    """float64 [n]: how far the scores lean to what is wrong; the larger, the surer a wrong answer was."""
    if outcomes.task == "single":
        chosen = outcomes.answers.chosen
        scores = outcomes.scores[np.arange(len(chosen)), np.maximum(chosen, 0)]
        return np.where(chosen >= 0, scores, 0.0)
    wrong = outcomes.answers.chosen != outcomes.truth
    distance = np.abs(outcomes.scores - outcomes.truth)
    return np.asarray(np.where(wrong, distance, 0.0).max(axis=1))


def _shown(label_set: LabelSet, target: np.ndarray, out_of_scope: str | None) -> Any:
    """A target as it is in a table."""
    if label_set.task == "single":
        return label_set.names[int(target)] if target >= 0 else out_of_scope
    if label_set.task == "multi":
        return [label_set.names[i] for i in np.flatnonzero(target > 0)]
    return float(target[0])


def _answer(label_set: LabelSet, outcomes: Outcomes, place: int) -> Any:
    """The answer on a row, None where there is none."""
    return outcomes.answers.take(slice(place, place + 1)).decisions(label_set.names)[0]
