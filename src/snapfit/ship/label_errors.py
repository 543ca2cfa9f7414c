"""Labels that look wrong, the likeliest first: confident learning on out-of-fold scores.

A label is suspected where a model that has not seen the row is confident of another one: at least as confident as it
is, on average, where that one is given (Northcutt, Jiang and Chuang 2021). Thresholds, the estimate of how many labels
are wrong, and the measure of how far each can be believed are those of cleanlab, which the extra `labels` installs.
Of many labels each is looked at by itself. A number is suspected where it is far from the prediction.

    RUN/label_errors.csv    row (from 1 after the header), what is given and what is suggested, their scores, the text
"""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from snapfit.core.errors import BadInput, MissingExtra
from snapfit.core.files import open_atomic
from snapfit.core.labels import LabelSet, Task
from snapfit.data.records import Records

SUSPECTS_FILE = "label_errors.csv"
BELIEF = "self_confidence"
"""How far a label can be believed: its own score, cleanlab's default. `benchmarks/label_errors.py` measures its two
others beside it."""
FAR = 3.5
"""Of a regression: robust standard deviations beyond which a residual is an outlier (Iglewicz and Hoaglin 1993)."""
LONGEST_TEXT = 200
"""Characters of a text in the file."""
SLAB_ROWS = 4096
"""Suspects that are written together."""
_MAD_OF_NORMAL, _MEAN_OF_NORMAL = 0.6745, 0.7979  # of a normal spread: the median and the mean of what is off

Scored = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows int64 [n], scores float [n, n_outputs] of models that had not seen them, and targets as of `LabelSet.encode`."""


@dataclass(frozen=True)
class LabelErrors:
    """Labels that the scores disagree with, the least credible first.

    rows: int64 [m]. outputs: int64 [m], which label of the row is in question, for many labels; else 0.
    given, suggested: [m], of one label their numbers, of many 0 or 1, of a regression the values.
    given_scores, suggested_scores: float64 [m]; of a regression NaN, and how far off the given one is, in robust
    standard deviations. n_suspected: as many of the first ones look wrong. n_labels: how many were looked at.
    """

    label_set: LabelSet
    rows: np.ndarray
    outputs: np.ndarray
    given: np.ndarray
    suggested: np.ndarray
    given_scores: np.ndarray
    suggested_scores: np.ndarray
    n_suspected: int
    n_labels: int

    def table(self, start: int, end: int) -> pa.Table:
        """The ones from `start` to before `end` as a table for people; rows are counted from 1."""
        part = slice(start, end)
        names, task = np.array(self.label_set.names, dtype=object), self.label_set.task
        columns: dict[str, Any] = {"row": self.rows[part] + 1}
        if task == "multi":
            words = np.array(["absent", "present"], dtype=object)
            columns |= {"label": names[self.outputs[part]]}
            columns |= {"given": words[self.given[part]], "suggested": words[self.suggested[part]]}
        elif task == "single":
            columns |= {"given": names[self.given[part]], "suggested": names[self.suggested[part]]}
        else:
            columns |= {"given": self.given[part], "suggested": self.suggested[part]}
        if task == "regression":
            columns |= {"deviations": self.suggested_scores[part]}
        else:
            columns |= {"given_score": self.given_scores[part], "suggested_score": self.suggested_scores[part]}
        return pa.table({name: pa.array(values) for name, values in columns.items()})


def can_rank() -> bool:
    """Whether the extra `labels` is installed."""
    return find_spec("cleanlab") is not None


def require_cleanlab(task: Task) -> None:
    """Raise MissingExtra where suspected labels of a task cannot be ranked: without cleanlab, but for a regression."""
    if task != "regression" and not can_rank():
        raise MissingExtra("labels", "cleanlab")


def find_label_errors(scored: Callable[[], Iterable[Scored]], label_set: LabelSet) -> LabelErrors:
    """Rank the labels that scores disagree with.

    scored: gives all rows, piece by piece, each time that it is called, which is twice: first thresholds are learnt,
    then labels are held against them. Memory does not grow with the rows that nothing is wrong with (a regression:
    8 bytes a row). Raises MissingExtra without cleanlab, BadInput for no rows.
    """
    require_cleanlab(label_set.task)
    if label_set.task == "regression":
        return _far_numbers(scored(), label_set)
    inspectors = _Inspectors(label_set)
    for _, scores, targets in scored():
        inspectors.learn(scores, targets)
    if not inspectors.n_rows:
        raise BadInput("no rows to look for label errors in", "at least one row with scores", "pass scores of rows")
    found = [inspectors.disagreeing(*piece) for piece in scored()]
    rows, outputs, given, suggested, given_scores, suggested_scores, belief = (
        np.concatenate(columns) for columns in zip(*found, strict=True)
    )
    order = np.lexsort((outputs, rows, belief))
    return LabelErrors(
        label_set,
        rows=rows[order],
        outputs=outputs[order],
        given=given[order],
        suggested=suggested[order],
        given_scores=given_scores[order],
        suggested_scores=suggested_scores[order],
        n_suspected=min(inspectors.n_wrong(), len(order)),
        n_labels=inspectors.n_rows * (label_set.n_outputs if label_set.task == "multi" else 1),
    )


class _Inspectors:
    """cleanlab's inspector of the labels; of many labels one for each of them, between present and absent."""

    def __init__(self, label_set: LabelSet) -> None:
        from cleanlab.experimental.label_issues_batched import LabelInspector

        self._multi, self.n_rows = label_set.task == "multi", 0
        n_classes, n_inspectors = (2, label_set.n_outputs) if self._multi else (label_set.n_outputs, 1)
        self._all = [
            LabelInspector(
                num_class=n_classes,
                store_results=False,
                verbose=False,
                quality_score_kwargs={"method": BELIEF},
                n_jobs=1,
            )
            for _ in range(n_inspectors)
        ]

    def learn(self, scores: np.ndarray, targets: np.ndarray) -> None:
        """Take rows into account in the thresholds."""
        if len(scores):
            self.n_rows += len(scores)
            for inspector, probabilities, labels in self._each(scores, targets):
                inspector.update_confident_thresholds(labels, probabilities)

    def disagreeing(self, rows: np.ndarray, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, ...]:
        """Rows, outputs, given, suggested, their scores, and belief in the given one, where another one is likelier."""
        parts = []
        for output, (inspector, probabilities, labels) in enumerate(self._each(scores, targets)):
            if not len(rows):
                continue
            belief = inspector.score_label_quality(labels, probabilities)
            likeliest = probabilities.argmax(axis=1)
            off = np.flatnonzero(likeliest != labels)
            given, other = labels[off], likeliest[off]
            likely = probabilities[off, given], probabilities[off, other]
            parts.append((rows[off], np.full(len(off), output), given, other, *likely, belief[off]))
        if not parts:
            none = np.zeros(0, dtype=np.int64)
            return (none, none, none, none, *(np.zeros(0) for _ in range(3)))
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))

    def n_wrong(self) -> int:
        """How many labels are wrong by their estimate: those that are confidently another one."""
        return sum(int(inspector.get_num_issues(silent=True)) for inspector in self._all)

    def _each(self, scores: np.ndarray, targets: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """(inspector, probabilities [n, classes], labels int64 [n])."""
        if not self._multi:
            yield self._all[0], scores, targets
            return
        for output, inspector in enumerate(self._all):
            present = scores[:, output]
            yield inspector, np.stack([1.0 - present, present], axis=1), (targets[:, output] > 0).astype(np.int64)


def _far_numbers(scored: Iterable[Scored], label_set: LabelSet) -> LabelErrors:
    """The numbers whose residual is an outlier among all residuals."""
    pieces = [(rows, scores[:, 0], targets[:, 0]) for rows, scores, targets in scored]
    rows, predicted, given = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    if not len(rows):
        raise BadInput("no rows to look for label errors in", "at least one row with scores", "pass scores of rows")
    residual = given.astype(np.float64) - predicted
    off = np.abs(residual - np.median(residual))
    spread = np.median(off) / _MAD_OF_NORMAL or off.mean() / _MEAN_OF_NORMAL
    far = off / spread if spread > 0 else np.zeros(len(off))
    order = np.lexsort((rows, -far))
    order = order[: int((far > FAR).sum())]
    return LabelErrors(
        label_set,
        rows=rows[order],
        outputs=np.zeros(len(order), dtype=np.int64),
        given=given[order].astype(np.float64),
        suggested=predicted[order].astype(np.float64),
        given_scores=np.full(len(order), np.nan),
        suggested_scores=far[order],
        n_suspected=len(order),
        n_labels=len(rows),
    )


# ---------------------------------------------------------------- the file


def write_suspects(run: Path, found: LabelErrors, records: Records) -> None:
    """Write RUN/label_errors.csv: what looks wrong, the likeliest first, with the texts, shortened.

    records: of the rows that `found` names. Raises WorkFailed when the file cannot be written.
    """

    def part(start: int) -> pa.Table:
        end = min(start + SLAB_ROWS, found.n_suspected)
        table, some = found.table(start, end), records.take(found.rows[start:end])
        table = table.append_column("text", _shortened(some.texts))
        return table if some.pairs is None else table.append_column("text_pair", _shortened(some.pairs))

    with open_atomic(run / SUSPECTS_FILE) as file, pa.csv.CSVWriter(pa.PythonFile(file, "w"), part(0).schema) as writer:
        for start in range(0, found.n_suspected, SLAB_ROWS):
            writer.write_table(part(start))


def read_suspects(run: Path, most: int) -> list[dict[str, str]]:
    """The first lines of RUN/label_errors.csv by column; none where there is no such file."""
    try:
        with open(run / SUSPECTS_FILE, encoding="utf-8", newline="") as file:
            return [row for row, _ in zip(csv.DictReader(file), range(most), strict=False)]
    except FileNotFoundError:
        return []


def _shortened(texts: pa.Array) -> pa.Array:
    cut = (text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…" for text in texts.to_pylist())
    return pa.array(list(cut), pa.string())
