"""Scoring a split with the code that also serves: the predictor's batching, the core's scores and metrics.

Each batch is counted and forgotten, so that an evaluation's memory does not grow with the rows of the split.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from snapfit.core.decisions import DecisionRule
from snapfit.core.labels import LabelSet
from snapfit.core.maps import release_pages
from snapfit.core.metrics import tally
from snapfit.data.batches import Batch
from snapfit.data.large_records import SLAB_ROWS
from snapfit.data.tokenizer import TokenIds, TokenRows
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier
from snapfit.runtime.predictor import Backend, VectorBackend, outputs_by_batch
from snapfit.training.loop import Examples


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a split.

    metrics: by name. rows: how many. answer_range: the lowest and the highest answer, see `Tally.answer_range`.
    scores: float64 [rows, n_outputs] in the split's order where they were asked for, else None. plain: metrics by the
    rule that only has a task, where the rule was another one; else None.
    """

    metrics: dict[str, float]
    rows: int
    answer_range: tuple[float, float] | None
    scores: np.ndarray | None = None
    plain: dict[str, float] | None = None


def evaluate(
    model: Classifier,
    examples: Examples,
    label_set: LabelSet,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    stop: Callable[[], bool] = lambda: False,
    keep_scores: bool = False,
    backend: Backend | None = None,
    rule: DecisionRule | None = None,
) -> Evaluation | None:
    """Metrics of a model on a split; the model is left in evaluation mode.

    label_set: a regression's standardised logits and targets are brought back to its units before anything is
    measured. autocast: makes the context of the forward pass. stop: asked before each batch; None is returned as soon
    as it says yes. keep_scores: give the scores too, which takes 8 bytes for each of rows * n_outputs.
    backend: what computes the logits, by default the model alone. rule: how they become answers, by default that of the
    task alone.
    Raises WorkFailed naming a row whose logits are not finite, BadInput for a split without rows.
    """
    backend = _Stoppable(backend or TorchBackend(model, device=next(model.parameters()).device.type), stop)
    rule = rule or DecisionRule(label_set.task)
    counted = tally(label_set.task, label_set.n_outputs, rule=rule)
    plain = tally(label_set.task, label_set.n_outputs) if rule != DecisionRule(label_set.task) else None
    scores = np.empty((len(examples.tokens), label_set.n_outputs)) if keep_scores else None
    try:
        with autocast():
            for rows, logits, vectors in _outputs(backend, examples, label_set.n_outputs, vectors=rule.needs_vectors):
                logits, targets = _in_units(logits, label_set), _in_units(examples.targets[rows], label_set)
                answers = rule.answers(logits, vectors=vectors, rows=rows)
                counted.add_answers(answers, targets)
                if plain is not None:
                    plain.add(plain.rule.scores(logits, rows=rows), targets)
                if scores is not None:
                    scores[rows] = answers.scores
    except _Stopped:
        return None
    without = None if plain is None else plain.metrics()
    return Evaluation(counted.metrics(), counted.rows, counted.answer_range(), scores, without)


def split_logits(
    model: Classifier,
    examples: Examples,
    label_set: LabelSet,
    *,
    autocast: Callable[[], AbstractContextManager[object]],
    stop: Callable[[], bool] = lambda: False,
    in_units: bool = True,
) -> np.ndarray | None:
    """Logits float32 [rows, n_outputs] of a split in its order; else as `evaluate`.

    in_units: a regression's are brought to the units of the table.
    """
    backend = _Stoppable(TorchBackend(model, device=next(model.parameters()).device.type), stop)
    logits = np.empty((len(examples.tokens), label_set.n_outputs), dtype=np.float32)
    try:
        with autocast():
            for rows, part, _ in _outputs(backend, examples, label_set.n_outputs):
                logits[rows] = part
    except _Stopped:
        return None
    return _in_units(logits, label_set) if in_units else logits


def split_outputs(
    backend: Backend, examples: Examples, label_set: LabelSet, *, vectors: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits float32 [rows, n_outputs] of a split in its order, not brought to units.

    vectors: of a VectorBackend, give what logits are made of too, float32 [rows, width].
    """
    logits = np.empty((len(examples.tokens), label_set.n_outputs), dtype=np.float32)
    found: np.ndarray | None = None
    for rows, part, their in _outputs(backend, examples, label_set.n_outputs, vectors=vectors):
        logits[rows] = part
        if their is not None:
            found = np.empty((len(logits), their.shape[1]), dtype=np.float32) if found is None else found
            found[rows] = their
    return logits, found


def targets_in_units(examples: Examples, label_set: LabelSet) -> np.ndarray:
    """All targets of a split, a regression's in its units."""
    return _in_units(examples.targets[np.arange(len(examples.targets))], label_set)


def _in_units(values: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Logits or targets in the units of the table."""
    if label_set.task != "regression":
        return values
    scaled: np.ndarray = values * label_set.target_scale + label_set.target_mean
    return scaled


def _outputs(
    backend: Backend, examples: Examples, n_outputs: int, *, vectors: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """(rows, logits, vectors) batch by batch; of a large split the tokens of one piece at a time are held."""
    pad_id = examples.pad_id
    for start, tokens in _pieces(examples.tokens):
        for rows, logits, their in outputs_by_batch(
            backend, tokens, pad_id=pad_id, n_outputs=n_outputs, vectors=vectors
        ):
            yield start + rows, logits, their


def _pieces(tokens: TokenRows) -> Iterator[tuple[int, TokenIds]]:
    """(number of the first row, rows in their order); a large split comes in pieces."""
    if isinstance(tokens, TokenIds):
        yield 0, tokens
        return
    for start in range(0, len(tokens), SLAB_ROWS):
        yield start, tokens.take(np.arange(start, min(start + SLAB_ROWS, len(tokens))))
        release_pages()


class _Stopped(Exception):
    """The evaluation was asked to stop."""


class _Stoppable:
    """A backend that asks before each batch whether to go on."""

    def __init__(self, backend: Backend, stop: Callable[[], bool]) -> None:
        self._backend, self._stop = backend, stop

    def logits(self, batch: Batch) -> np.ndarray:
        if self._stop():
            raise _Stopped
        return self._backend.logits(batch)

    def logits_and_vectors(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        if self._stop():
            raise _Stopped
        return cast(VectorBackend, self._backend).logits_and_vectors(batch)


class BestWeights:
    """The weights of the best evaluation so far, held on the CPU.

    is_better: (new, old) -> bool. Of evaluations with equal values the one with the lower negative log-likelihood is
    better, where the task has one: it is the more certain of what it gets right. Of equal ones the earliest stays.
    Attributes: value and step of the best one (None and 0 before any), how many evaluations came since, and weights,
    whose tensors never change.
    """

    def __init__(self, is_better: Callable[[float, float], bool]) -> None:
        self._is_better = is_better
        self._nll = math.inf
        self.weights: dict[str, torch.Tensor] = {}
        self.value: float | None = None
        self.step = 0
        self.evaluations_since = 0

    def offer(self, model: Classifier, value: float, step: int, *, nll: float = math.inf) -> bool:
        """Take the model's weights if they are better than those held; returns whether they were."""
        tie_lost = value != self.value or nll >= self._nll
        if self.value is not None and not self._is_better(value, self.value) and tie_lost:
            self.evaluations_since += 1
            return False
        self._nll = nll
        self.weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        self.value, self.step, self.evaluations_since = value, step, 0
        return True

    def put_into(self, model: Classifier) -> None:
        """Put the held weights into the model; nothing happens when none are held."""
        if self.weights:
            model.load_state_dict(self.weights)

    def to_dict(self) -> dict[str, Any]:
        """All but the weights, as plain values."""
        nll = self._nll if math.isfinite(self._nll) else None
        return {"value": self.value, "step": self.step, "evaluations_since": self.evaluations_since, "nll": nll}

    def restore(self, values: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
        """Take over what `to_dict` gave, and the weights that belong to it."""
        self.weights = dict(weights)
        self.value, self.step = values["value"], int(values["step"])
        self.evaluations_since = int(values["evaluations_since"])
        self._nll = math.inf if values["nll"] is None else float(values["nll"])
