"""Integrated gradients (Sundararajan, Taly and Yan 2017): what each token's embedding added to a number of the model.

With x the word embeddings of a row, b those of its baseline and F the number, token i gets

    a_i = (x_i - b_i) . integral over t in 0..1 of dF/dx_i at b + t (x - b)

so that the sum of all a_i is F(x) - F(b). Word embeddings are what the table of words gives, before positions, types
and the normalisation behind it: those stay the row's own. The integral is taken by a rule that doubles its points
until the sum holds (`core/quadrature.py`): along the line a trained encoder changes its mind suddenly, and where
differs from text to text. Points are rows of a batch like any other; their embeddings are put in where the table gives
them, so that every family, packed or padded, alone or among several models, runs as it does to predict.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snapfit.core.errors import WorkFailed
from snapfit.core.labels import Task
from snapfit.core.log_odds import Explained
from snapfit.core.quadrature import clenshaw_curtis, new_points
from snapfit.data.batches import Batch, pad
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.runtime.explaining import PathIntegral

FIRST_ORDER = 16
CHUNK_TOKENS = 1024
"""Tokens that go through the model and back at once, or those of one row: what bounds the memory. A base encoder keeps
some 0.7 GiB for them."""
CANCELLED = 20.0
"""Where values cancel one another to less than this part of their sum without signs, the error is a share of that."""
SETTLED = 10.0
"""So many tolerances may the values change by from one rule to the next, all together: a sum can be right by chance."""

Run = Callable[[Batch], Tensor]
"""Logits float [rows, k] of a batch, with gradients where they are enabled."""


def word_embeddings(models: Sequence[Classifier]) -> list[nn.Module] | None:
    """The table of words of each model's encoder; None where one of them does not say which it is."""
    found = []
    for model in models:
        find: Any = model.encoder.get_input_embeddings
        try:
            table = find()
        except (AttributeError, NotImplementedError):
            return None
        if not isinstance(table, nn.Module):
            return None
        found.append(table)
    return found


def integrated_gradients(
    run: Run,
    tables: Sequence[nn.Module] | None,
    row: TokenIds,
    baseline: TokenIds,
    explained: Explained,
    *,
    lock: AbstractContextManager[Any],
    tolerance: float,
    most_steps: int,
) -> PathIntegral:
    """The values of a row's tokens; the models' weights are left as they are.

    run: the models. tables: their tables of words. row: one row. baseline: the same with other ids. lock: held while
    other embeddings than their own are in the models. tolerance: of the error, see PathIntegral. most_steps: points of
    the line, less one, at most.
    Raises WorkFailed where there are no tables, or they are asked in another way than row by row.
    """
    if tables is None:
        raise WorkFailed("the encoder does not say which its table of words is; --method occlusion needs none")
    line = _Line(run, tables, row, baseline, explained, lock)
    order, before = FIRST_ORDER, None
    points, weights = clenshaw_curtis(order)
    slopes = np.zeros((order + 1, len(explained.outputs), len(row.ids)))
    while True:
        fresh = new_points(order, before)
        slopes[fresh] = line.slopes(points[fresh])
        values = np.tensordot(weights, slopes, axes=1)
        coarser = np.tensordot(clenshaw_curtis(order // 2)[1], slopes[::2], axes=1)
        error, size = _error(values, line.start, line.end)
        moved = np.abs(values - coarser).sum(axis=1)
        if (error <= tolerance).all() and (moved <= SETTLED * tolerance * size).all():
            break
        if 2 * order > most_steps:
            break
        order, before = 2 * order, order
        points, weights = clenshaw_curtis(order)
        slopes = np.repeat(slopes, 2, axis=0)[:-1]  # the old points are the even ones
    return PathIntegral(values, line.start, line.end, error, order + 1)


def log_odds(logits: Tensor, explained: Explained) -> Tensor:
    """float [rows, outputs]: `Explained.of`, with gradients."""
    if explained.task == "regression":
        return logits[:, list(explained.outputs)]
    logits = logits / explained.temperature
    if explained.task == "multi":
        if explained.slopes is not None and explained.shifts is not None:
            logits = logits * logits.new_tensor(explained.slopes) + logits.new_tensor(explained.shifts)
        return logits[:, list(explained.outputs)]
    odds = []
    for output in explained.outputs:
        others = torch.cat((logits[:, :output], logits[:, output + 1 :]), 1)
        odds.append(logits[:, output] - others.logsumexp(1))
    return torch.stack(odds, 1)


def mean_logits(parts: Sequence[Tensor], shares: Sequence[float], temperatures: Sequence[float], task: Task) -> Tensor:
    """Logits float [rows, k] of the mean of several models' scores, with gradients: `combining.combine`, `as_logits`.

    Sums of logarithms, so that nothing is rounded off where the models are sure.
    """
    whole = sum(shares)
    if task == "regression":
        return torch.stack([part * (share / whole) for part, share in zip(parts, shares, strict=True)]).sum(0)

    def mean(logarithms: Sequence[Tensor]) -> Tensor:
        weighed = [one + float(np.log(share / whole)) for one, share in zip(logarithms, shares, strict=True)]
        return torch.stack(weighed).logsumexp(0)

    warm = [part / temperature for part, temperature in zip(parts, temperatures, strict=True)]
    if task == "single":
        return mean([one.log_softmax(1) for one in warm])
    return mean([nn.functional.logsigmoid(one) for one in warm]) - mean(
        [nn.functional.logsigmoid(-one) for one in warm]
    )


class _Line:
    """The straight line from a row's baseline to the row, in the word embeddings of each model.

    Attributes: start, end, float64 [outputs], what is explained at either end once `slopes` was asked about 0 and 1.
    """

    def __init__(
        self,
        run: Run,
        tables: Sequence[nn.Module],
        row: TokenIds,
        baseline: TokenIds,
        explained: Explained,
        lock: AbstractContextManager[Any],
    ) -> None:
        self._run, self._tables, self._explained = run, tables, explained
        self._row, self._lock = row, lock
        ids = [torch.from_numpy(one.ids.astype(np.int64)) for one in (baseline, row)]
        with lock, torch.no_grad():
            self._ends = [tuple(table(one.to(_device(table))) for one in ids) for table in tables]
        self.start = self.end = np.zeros(len(explained.outputs))

    def slopes(self, points: np.ndarray) -> np.ndarray:
        """(x_i - b_i) . dF/dx_i at points of the line, float64 [points, outputs, tokens]. points: float64, in 0..1."""
        rows = max(CHUNK_TOKENS // len(self._row.ids), 1)
        return np.concatenate([self._chunk(points[at : at + rows]) for at in range(0, len(points), rows)])

    def _chunk(self, points: np.ndarray) -> np.ndarray:
        rows = self._row.take(np.zeros(len(points), dtype=np.int64))
        batch = pad(rows, np.arange(len(points)), pad_id=0)  # rows that are all as long are not padded
        with torch.enable_grad():
            inputs = []
            for start, end in self._ends:
                share = torch.from_numpy(points).to(end)[:, None, None]
                inputs.append((start + share * (end - start)).requires_grad_())
            with self._lock, _put_in(self._tables, inputs):
                found = log_odds(self._run(batch).float(), self._explained)
            slopes = np.stack([self._towards(found[:, i], inputs) for i in range(found.shape[1])], axis=1)
        values = found.detach().double().cpu().numpy()
        for point, value in zip(points, values, strict=True):
            if point == 0.0:
                self.start = value
            elif point == 1.0:
                self.end = value
        return slopes

    def _towards(self, found: Tensor, inputs: Sequence[Tensor]) -> np.ndarray:
        """The gradient of each row's number along the line, float64 [rows, tokens]."""
        gradients = torch.autograd.grad(found.sum(), inputs, retain_graph=True, allow_unused=True)
        total = np.zeros((len(found), len(self._row.ids)))
        for gradient, (start, end) in zip(gradients, self._ends, strict=True):
            if gradient is not None:  # else the model takes the states of another one, which has the same embeddings
                total += (gradient.double() * (end - start).double()).sum(-1).cpu().numpy()
        return total


@contextmanager
def _put_in(tables: Sequence[nn.Module], inputs: Sequence[Tensor]) -> Iterator[None]:
    """Within it, each table gives these embeddings [rows, tokens of a row, width] in place of its own."""
    with ExitStack() as hooks:
        for table, embeddings in zip(tables, inputs, strict=True):

            def give(module: nn.Module, arguments: Any, own: Tensor, embeddings: Tensor = embeddings) -> Tensor:
                if own.numel() != embeddings.numel():
                    raise WorkFailed(
                        f"the encoder looks words up {tuple(own.shape[:-1])} at a time, where "
                        f"{tuple(embeddings.shape[:-1])} were due: its gradients cannot be told apart; "
                        "--method occlusion needs none"
                    )
                return embeddings.reshape(own.shape).to(own.dtype)  # rows are as long, so packed they are in order

            hooks.callback(table.register_forward_hook(give).remove)
        yield


def _device(table: nn.Module) -> torch.device:
    return next(table.parameters()).device


def _error(values: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error of each output, and the sum of its values without signs, both float64 [outputs]."""
    due, size = end - start, np.abs(values).sum(axis=1)
    least = np.maximum(np.maximum(np.abs(due), size / CANCELLED), np.finfo(np.float64).tiny)
    return np.abs(values.sum(axis=1) - due) / least, size
