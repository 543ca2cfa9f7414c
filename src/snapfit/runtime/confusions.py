"""Which label is taken for which: how often, and a few rows of each mistake, the most confident ones first.

A mistake is a pair of a label that is true and was missed, and one that was wrongly given in the same row. Where a row
has only one kind, the other is None: missed with nothing in its place (no answer at all, or fewer labels than are
true), or given on top of all that is true. So every label that is missed, and every one wrongly given, is in some
mistake, as in the confusion matrix of Heydarian, Doyle and Samavi (2022) with its extra row and column.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from snapfit.core.labels import LabelSet
from snapfit.core.outcomes import Outcomes
from snapfit.data.records import Records
from snapfit.runtime.examples import Foremost, texts_of_row

EXAMPLES = 3
_MOST_KINDS = 20_000
"""Examples are held for so many kinds of mistakes; then for the more frequent half of them."""
_BLOCK_PAIRS = 1 << 20


class Confusions:
    """Counts every kind of mistake, and holds EXAMPLES rows of the more frequent ones.

    Beyond _MOST_KINDS different mistakes, examples of those that were the rarer half until then are given up; their
    counts are not. most_kinds: in place of _MOST_KINDS. out_of_scope: how rows out of scope are labelled: a label that
    is given to one of them stands beside it.
    """

    def __init__(self, label_set: LabelSet, *, out_of_scope: str | None = None, most_kinds: int = _MOST_KINDS) -> None:
        self._names: tuple[str | None, ...] = (*label_set.names, None)
        self._true_names = (*label_set.names, out_of_scope)
        self._k = label_set.n_outputs
        self._counts = np.zeros((self._k + 1) ** 2, dtype=np.int64)
        self._examples: dict[int, Foremost] = {}
        self._most_kinds = most_kinds

    def add(self, outcomes: Outcomes, records: Records) -> None:
        """Count rows in; those of a regression have no mistakes. records: of the same rows."""
        if outcomes.task == "regression":
            return
        pairs = _single_pairs(outcomes) if outcomes.task == "single" else _multi_pairs(outcomes)
        for places, true, given in pairs:
            cells = true * (self._k + 1) + given
            np.add.at(self._counts, cells, 1)
            self._offer(outcomes, records, places, cells)
            if len(self._examples) > self._most_kinds:
                self._give_up()

    def to_list(self, most: int | None = None) -> list[dict[str, Any]]:
        """The most frequent mistakes first, of equal counts in the order of labels, as plain values.

        Each has true and predicted (a label or None), rows, and examples: row, text, pair where there is one, and the
        scores of the predicted and of the true label.
        """
        cells = np.flatnonzero(self._counts)
        order = cells[np.argsort(-self._counts[cells], kind="stable")][:most]
        found = []
        for cell in order.tolist():
            kept = self._examples.get(cell)
            found.append(
                {
                    "true": self._true_names[cell // (self._k + 1)],
                    "predicted": self._names[cell % (self._k + 1)],
                    "rows": int(self._counts[cell]),
                    "examples": [] if kept is None else kept.to_list(),
                }
            )
        return found

    def _offer(self, outcomes: Outcomes, records: Records, places: np.ndarray, cells: np.ndarray) -> None:
        """Offer the foremost rows of each kind among these mistakes."""
        true, given = cells // (self._k + 1), cells % (self._k + 1)
        of_true, of_given = (_scores_at(outcomes.scores, places, labels) for labels in (true, given))
        keys = np.where(given < self._k, of_given, 1.0 - of_true)
        order = np.lexsort((places, -keys, cells))
        ranks = np.arange(len(order)) - np.searchsorted(cells[order], cells[order])
        for i in order[ranks < EXAMPLES].tolist():
            kept = self._examples.setdefault(int(cells[i]), Foremost(EXAMPLES))
            place, key = int(places[i]), float(keys[i])
            if kept.would_take(key, outcomes.first + place):
                scores = {
                    "predicted_score": float(of_given[i]) if given[i] < self._k else None,
                    "true_score": float(of_true[i]) if true[i] < self._k else None,
                }
                kept.take(key, outcomes.first + place, {**texts_of_row(records, place), **scores})

    def _give_up(self) -> None:
        cells = np.array(sorted(self._examples))
        kept = cells[np.argsort(-self._counts[cells], kind="stable")][: self._most_kinds // 2]
        self._examples = {cell: self._examples[cell] for cell in kept.tolist()}


Pairs = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(places of the rows, true labels, given labels), int64 [m] each; k stands for none."""


def _single_pairs(outcomes: Outcomes) -> Pairs:
    places, k = np.flatnonzero(~outcomes.right), outcomes.scores.shape[1]
    true, given = outcomes.targets[places], outcomes.answers.chosen[places]
    yield places, np.where(true < 0, k, true), np.where(given < 0, k, given)


def _multi_pairs(outcomes: Outcomes) -> Pairs:
    """Every missed label of a row with every wrongly given one, some rows at a time."""
    k = outcomes.scores.shape[1]
    missed, wrong = outcomes.truth & ~outcomes.answers.chosen, outcomes.answers.chosen & ~outcomes.truth
    missed = np.column_stack([missed, ~missed.any(axis=1) & wrong.any(axis=1)])
    wrong = np.column_stack([wrong, ~wrong.any(axis=1) & missed[:, :k].any(axis=1)])
    n_wrong = wrong.sum(axis=1)
    ends = np.cumsum(missed.sum(axis=1) * n_wrong)
    start = 0
    while start < len(outcomes):
        done = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, done + _BLOCK_PAIRS, side="right")))
        rows, true = np.nonzero(missed[start:end])
        wrong_rows, wrong_labels = np.nonzero(wrong[start:end])
        firsts = np.searchsorted(wrong_rows, rows)  # where the wrong labels of each missed one's row begin
        repeats = n_wrong[start + rows]
        before = np.cumsum(repeats) - repeats
        places = np.arange(int(repeats.sum())) - np.repeat(before, repeats) + np.repeat(firsts, repeats)
        yield np.repeat(start + rows, repeats), np.repeat(true, repeats), wrong_labels[places]
        start = end


def _scores_at(scores: np.ndarray, places: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [m]: the scores of these labels in these rows; 0 where the label is k, for none."""
    k = scores.shape[1]
    found: np.ndarray = np.where(labels < k, scores[places, np.minimum(labels, k - 1)], 0.0)
    return found
