"""Out-of-fold scores: what each fold's model says of the rows that it has not seen, put together in the table's order.

    RUN/folds/2/held_out.parquet    row, logits of that fold's model on the rows that the fold holds out
    RUN/out_of_fold.parquet         row, fold, target, and the columns that `snapfit predict --all-scores` writes

Rows are counted from 1 after the header, as everywhere. Scores and decisions are those of the folds' bundles, in which
nothing is fitted to decide by; of rows that no
fold holds out there are none. Files appear whole or not at all, and memory does not grow with the rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from snapfit.core.decisions import Answers, DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.files import open_atomic
from snapfit.core.labels import LabelSet, Task
from snapfit.core.metrics import tally
from snapfit.core.rule_fitting import sample_of
from snapfit.core.tallies import Tally
from snapfit.data.large_records import SLAB_ROWS
from snapfit.data.records import Records
from snapfit.loading import load
from snapfit.runtime.evaluating import examples_of
from snapfit.runtime.tables import prediction_writer

OUT_OF_FOLD_FILE = "out_of_fold.parquet"


@dataclass(frozen=True)
class Piece:
    """Rows that folds hold out, in the table's order.

    rows: int64 [n], from 0. folds: int8 [n], from 1. logits: float32 [n, n_outputs], at the temperature of the fold's
    bundle; a regression's in the table's units. targets: as `LabelSet.encode` gives them, a regression's in its units.
    """

    rows: np.ndarray
    folds: np.ndarray
    logits: np.ndarray
    targets: np.ndarray


def score_held_out(bundle: Path, records: Records, rows: np.ndarray, path: Path) -> None:
    """Write what a bundle says of some rows: logits over its temperature, of which its scores are made.

    records: the whole table. rows: of it, int64, ascending, from 0.
    Raises BadInput for a damaged bundle, WorkFailed when the file cannot be written.
    """
    predictor = load(bundle)
    n_outputs, temperature = len(predictor.names), predictor.bundle.info.temperature
    schema = pa.schema([("row", pa.int64()), ("logits", pa.list_(pa.float32(), n_outputs))])
    with open_atomic(path) as file, pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema) as writer:
        for start in range(0, len(rows), SLAB_ROWS):
            part = rows[start : start + SLAB_ROWS]
            logits = predictor.logits(examples_of(records.take(part))) / np.float32(temperature)
            flat = pa.array(np.ascontiguousarray(logits).reshape(-1), pa.float32())
            lists = pa.FixedSizeListArray.from_arrays(flat, n_outputs)
            writer.write_table(pa.table([pa.array(part + 1), lists], schema=schema))


class OutOfFold:
    """The out-of-fold logits of a run whose folds have all scored their rows; iterated piece by piece, any number of
    times.

    files: of the folds, by number. records: the whole training table. rule: how the folds' bundles make answers of
    logits at their own temperature.
    """

    def __init__(self, files: Mapping[int, Path], records: Records, label_set: LabelSet, *, rule: DecisionRule) -> None:
        self.label_set, self.rule = label_set, rule
        self._files, self._records = dict(files), records

    def __iter__(self) -> Iterator[Piece]:
        at_once = max(1, SLAB_ROWS // len(self._files))
        readers = {fold: _HeldOutReader(path, at_once) for fold, path in self._files.items()}
        labels: Any = self._records.labels
        for start in range(0, len(self._records), SLAB_ROWS):
            end = min(start + SLAB_ROWS, len(self._records))
            found = [(fold, *reader.until(end)) for fold, reader in readers.items()]
            rows = np.concatenate([part for _, part, _ in found])
            order = np.argsort(rows)
            part = labels[start:end] if isinstance(labels, list | np.ndarray) else labels.slice(start, end - start)
            targets = self.label_set.encode(part, where=f"train table {self._records.source}")
            yield Piece(
                rows=rows[order],
                folds=np.repeat([fold for fold, *_ in found], [len(part) for _, part, _ in found]).astype(np.int8)[
                    order
                ],
                logits=np.concatenate([logits for *_, logits in found])[order],
                targets=targets[rows[order] - start],
            )

    def scores(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(rows, scores float64 [n, n_outputs], targets), piece by piece."""
        for piece in self:
            yield piece.rows, self._answers(piece).scores, piece.targets

    def _answers(self, piece: Piece) -> Answers:
        return self.rule.answers(piece.logits, rows=piece.rows)

    def metrics(self) -> tuple[dict[int, dict[str, float]], dict[int, int], dict[str, float]]:
        """Metrics of each fold on the rows that it holds out, how many these are, and metrics of all of them."""
        task, k = self.label_set.task, self.label_set.n_outputs
        tallies: dict[int, Tally] = {fold: tally(task, k, rule=self.rule) for fold in self._files}
        pooled = tally(task, k, rule=self.rule)
        for piece in self:
            answers = self._answers(piece)
            pooled.add_answers(answers, piece.targets)
            for fold, counted in tallies.items():
                own = piece.folds == fold
                counted.add_answers(answers.take(own), piece.targets[own])
        by_fold = {fold: counted.metrics() for fold, counted in tallies.items()}
        return by_fold, {fold: counted.rows for fold, counted in tallies.items()}, pooled.metrics()

    def at_most(self, most: int, *, seed: int) -> Piece:
        """All rows in one piece, or of more of them a random sample of `most`; fewer where labels are many."""
        n = sum(pq.read_metadata(path).num_rows for path in self._files.values())
        chosen = sample_of(n, self.label_set.n_outputs, most_rows=most, seed=seed)
        chosen = np.arange(n) if chosen is None else chosen
        parts, start = [], 0
        for piece in self:
            places = chosen[(chosen >= start) & (chosen < start + len(piece.rows))] - start
            parts.append([getattr(piece, name)[places] for name in _FIELDS])
            start += len(piece.rows)
        return Piece(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def write(self, path: Path) -> None:
        """Write RUN/out_of_fold.parquet. Raises WorkFailed when it cannot be written."""
        label_set, labels, columns = self.label_set, self._records.labels, ("row", "fold", "target")
        with prediction_writer(columns, path, label_set=label_set, format="parquet", all_scores=True) as write:
            for piece in self:
                values = (pa.array(piece.rows + 1), pa.array(piece.folds), _targets(piece, labels, label_set.task))
                write(pa.table(dict(zip(columns, values, strict=True))), self._answers(piece))


_FIELDS = ("rows", "folds", "logits", "targets")
_TARGETS: dict[Task, pa.DataType] = {
    "single": pa.string(),
    "multi": pa.list_(pa.string()),
    "regression": pa.float64(),
}


def _targets(piece: Piece, labels: Any, task: Task) -> pa.Array:
    """The labels of a piece's rows, as the table has them."""
    if isinstance(labels, list):
        found = [labels[row] for row in piece.rows.tolist()]
    else:
        found = labels[piece.rows] if isinstance(labels, np.ndarray) else labels.take(piece.rows)
    return pa.array(found, _TARGETS[task])


class _HeldOutReader:
    """Reads a fold's file in order, as far as it is asked, `at_once` rows at a time."""

    def __init__(self, path: Path, at_once: int) -> None:
        try:
            self._batches = pq.ParquetFile(path).iter_batches(batch_size=at_once)
        except (OSError, pa.ArrowException) as error:
            fix = "remove it: the next `snapfit train --resume` scores these rows again"
            raise BadInput(f"{path} cannot be read ({error})", "what a fold wrote", fix) from error
        self._rows = np.zeros(0, dtype=np.int64)
        self._logits = np.zeros((0, 0), dtype=np.float32)

    def until(self, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows, from 0, that come next and are before `end`, with their logits."""
        while (not len(self._rows) or self._rows[-1] < end) and (batch := next(self._batches, None)) is not None:
            rows = batch.column("row").to_numpy() - 1
            logits = batch.column("logits").flatten().to_numpy().reshape(len(rows), -1)
            self._logits = np.concatenate([self._logits, logits]) if len(self._rows) else logits
            self._rows = np.concatenate([self._rows, rows])
        n = int(np.searchsorted(self._rows, end))
        found = self._rows[:n], self._logits[:n]
        self._rows, self._logits = self._rows[n:], self._logits[n:]
        return found
