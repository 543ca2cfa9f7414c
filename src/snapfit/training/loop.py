"""The training loop: a generator that yields after every optimizer step.

It knows a model, data, an optimizer and a schedule; it knows no files, metrics or loggers. Whoever iterates decides
when to evaluate, log, save and stop. Its whole state is (seed, epoch, position) and the optimizer's: the data order
and the randomness of a step are functions of them, so that a run can begin at any step.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from snapfit.core.errors import WorkFailed
from snapfit.data.batches import micro_batches, pad, step_rows
from snapfit.data.tokenizer import TokenIds

LossSum = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) -> the loss summed over rows."""


@dataclass(frozen=True)
class Examples:
    """Tokenised rows and their targets: what a model learns from.

    tokens: the rows. targets: as the label set encodes them; regression standardised. pad_id: the encoder's.
    """

    tokens: TokenIds
    targets: np.ndarray
    pad_id: int


@dataclass(frozen=True)
class DataOrder:
    """Which rows every step takes: a pure function of these fields and (epoch, position).

    lengths: tokens of each row. step_size: rows of an optimizer step. token_budget: see `batches.step_rows`.
    """

    lengths: np.ndarray
    step_size: int
    seed: int
    token_budget: int | None = None

    def steps(self, epoch: int) -> list[np.ndarray]:
        """The rows of every step of an epoch, in order."""
        return step_rows(
            self.lengths,
            seed=self.seed,
            epoch=epoch,
            step_size=self.step_size,
            token_budget=self.token_budget,
        )

    def total_steps(self, epochs: float) -> int:
        """Steps in `epochs` epochs, a part of an epoch rounded; at least 1."""
        whole = int(epochs)
        total = sum(len(self.steps(epoch)) for epoch in range(whole)) if self.token_budget else 0
        total = total or whole * len(self.steps(0))
        return max(1, total + round((epochs - whole) * len(self.steps(whole))))

    def walk(self, epoch: int = 0, position: int = 0) -> Iterator[tuple[int, int, np.ndarray]]:
        """(epoch, position, rows) of each step from a place on, without end."""
        while True:
            for index, rows in enumerate(self.steps(epoch)[position:], start=position):
                yield epoch, index, rows
            epoch, position = epoch + 1, 0


@dataclass(frozen=True)
class Step:
    """What an optimizer step did.

    number: steps done, counted from 1. epoch, position: the place of its rows in the data order.
    loss: mean over the step's rows. grad_norm: before clipping. lr_multiplier: of the schedule.
    rows, tokens: how many went through, padding not counted.
    """

    number: int
    epoch: int
    position: int
    loss: float
    grad_norm: float
    lr_multiplier: float
    rows: int
    tokens: int


@dataclass(frozen=True)
class StepSettings:
    """What one step needs besides data.

    accumulate: micro-batches that a step is cut into. max_grad_norm: clip above it; 0 does not clip.
    seed: of dropout. autocast: makes the context of the forward pass.
    """

    accumulate: int
    max_grad_norm: float
    seed: int
    autocast: Callable[[], AbstractContextManager[object]]


def optimizer_steps(
    model: nn.Module,
    examples: Examples,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    order: DataOrder,
    loss_sum: LossSum,
    settings: StepSettings,
    last_step: int,
    first_step: int = 0,
    epoch: int = 0,
    position: int = 0,
) -> Iterator[Step]:
    """Train from step `first_step` up to `last_step`, yielding a Step after every optimizer update.

    schedule: step (from 0) -> multiplier of each group's "base_lr".
    epoch, position: the place in the data order that `first_step` begins at.
    The model is put into training mode before each step, so that callers may evaluate in between.
    Raises WorkFailed at the step whose loss or gradient is not finite; its update is not applied.
    """
    walk = order.walk(epoch, position)
    for number in range(first_step, last_step):
        epoch, position, rows = next(walk)
        multiplier = schedule(number)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * multiplier
        model.train()
        torch.manual_seed(step_seed(settings.seed, number))
        # ---------------------------------------------------------------- one step
        loss = 0.0
        for part in micro_batches(rows, settings.accumulate):
            part_loss = _forward(model, examples, part, loss_sum, settings) / len(rows)
            torch.autograd.backward(part_loss)
            loss += part_loss.item()
        grad_norm = clip_gradients(optimizer, settings.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise WorkFailed(
                f"step {number + 1}: the loss is {loss:.4g} and the gradient's norm {grad_norm:.4g}; "
                "lower optim.lr, or look for damaged rows"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # ------------------------------------------------------------------------
        n_tokens = int(examples.tokens.lengths[rows].sum())
        yield Step(number + 1, epoch, position, loss, grad_norm, multiplier, len(rows), n_tokens)


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's dropout, a function of the run's seed and the step alone."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """Scale all gradients so that their joint norm is at most `max_norm` (0: leave them); returns the norm before."""
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    total = torch.nn.utils.get_total_norm(gradients)
    norm = total.item()
    if 0 < max_norm < norm:
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, total)
    return norm


def _forward(
    model: nn.Module, examples: Examples, rows: np.ndarray, loss_sum: LossSum, settings: StepSettings
) -> Tensor:
    device = next(model.parameters()).device
    batch = pad(examples.tokens, rows, pad_id=examples.pad_id)
    ids, mask, types, targets = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids, examples.targets[rows])
    )
    with settings.autocast():
        logits = model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
    return loss_sum(logits, targets)
