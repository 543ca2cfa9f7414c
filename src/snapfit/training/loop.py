"""The training loop: a generator that yields after every optimizer step.

It knows a model, data, an optimizer and a schedule; it knows no files, metrics or loggers. Whoever iterates decides
when to evaluate, log, save and stop, and what to do about a step that went wrong. Its whole state is (seed, epoch,
position) and the optimizer's: the data order and the randomness of a step are functions of them, so that a run can
begin at any step.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from snapfit.core.errors import WorkFailed
from snapfit.data.batches import micro_batches, pad
from snapfit.data.tokenizer import TokenRows
from snapfit.nn.fused_layer import widen_gradients
from snapfit.training.adamw import KernelAdamW
from snapfit.training.order import DataOrder

LossSum = Callable[[Tensor, Tensor], Tensor]
"""(logits, targets) -> the loss summed over rows; of several outputs for a row, see regularise.py, their mean."""


class Targets(Protocol):
    """Targets by row: a numpy array, or what encodes them as they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Examples:
    """Tokenised rows and their targets: what a model learns from.

    tokens: the rows. targets: as the label set encodes them; regression standardised. pad_id: the encoder's.
    """

    tokens: TokenRows
    targets: Targets
    pad_id: int


@dataclass(frozen=True)
class Step:
    """What an optimizer step did.

    number: steps done, counted from 1. epoch, position: the place of its rows in the data order.
    loss: mean over the step's rows, of the model as it is. grad_norm: before clipping; group_norms: by name of each
        parameter group that learns.
    lr_multiplier: of the schedule. rows, tokens: how many went through, padding not counted.
    micro_batches: the most parts that a step is cut into by now; memory that ran out raises it.
    fault: what went wrong, or None. "loss" and "gradient": not finite; "spike": a loss that was not accepted; nothing
        was applied then. "weights": the update left a weight that is not finite.
    """

    number: int
    epoch: int
    position: int
    loss: float
    grad_norm: float
    group_norms: dict[str, float]
    lr_multiplier: float
    rows: int
    tokens: int
    micro_batches: int
    fault: str | None = None


@dataclass(frozen=True)
class StepSettings:
    """What one step needs besides data.

    accumulate: micro-batches that a step is cut into. max_grad_norm: clip above it; 0 does not clip.
    seed: of dropout. autocast: makes the context of the forward pass.
    accepts: whether a step's finite loss may be learnt from. begin: hears of each step (from 0) before it is taken, and
    may say what learns in it. copies: how often each row goes through the model in its micro-batch.
    adversary: makes the context in which the model is moved against its gradients; the gradients that all rows have
    there are added where it says so.
    """

    accumulate: int
    max_grad_norm: float
    seed: int
    autocast: Callable[[], AbstractContextManager[object]]
    accepts: Callable[[float], bool] = lambda loss: True
    begin: Callable[[int], None] = lambda step: None
    copies: int = 1
    adversary: Callable[[], AbstractContextManager[bool]] | None = None


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
    head_schedule: Callable[[int], float] | None = None,
    first_step: int = 0,
    epoch: int = 0,
    position: int = 0,
) -> Iterator[Step]:
    """Train from step `first_step` up to `last_step`, yielding a Step after every optimizer update.

    schedule: step (from 0) -> multiplier of each group's "base_lr". head_schedule: that of the head's groups, where it
    is another.
    epoch, position: the place in the data order that `first_step` begins at.
    The model is put into training mode before each step, so that callers may evaluate in between.
    A step whose numbers go wrong changes nothing and says so by its `fault`. When memory runs out the step is begun
    again in smaller parts, with the same rows and rates; WorkFailed is raised when single rows are still too much.
    """
    walk = order.walk(epoch, position)
    parts = settings.accumulate
    for number in range(first_step, last_step):
        epoch, position, rows = next(walk)
        multiplier = schedule(number)
        of_the_head = multiplier if head_schedule is None else head_schedule(number)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * (of_the_head if group.get("head") else multiplier)
        if not model.training:  # an evaluation came in between
            model.train()
        settings.begin(number)
        # ---------------------------------------------------------------- one step
        loss = None
        while loss is None:
            _seed_generators(step_seed(settings.seed, number))
            loss = _gradients(model, examples, rows, parts, loss_sum, settings)
            if loss is None:
                optimizer.zero_grad(set_to_none=True)
                parts = _more_parts(parts, len(rows), number + 1)
        norms = group_norms(optimizer)
        grad_norm = math.hypot(*norms.values())
        fault = _fault(loss, grad_norm, settings.accepts)
        if fault is None:
            clip_gradients(optimizer, settings.max_grad_norm, grad_norm)
            optimizer.step()
            fault = None if _sound(optimizer) else "weights"
        optimizer.zero_grad(set_to_none=True)
        # ------------------------------------------------------------------------
        n_tokens = int(examples.tokens.lengths_of(rows).sum())
        yield Step(number + 1, epoch, position, loss, grad_norm, norms, multiplier, len(rows), n_tokens, parts, fault)


def _gradients(
    model: nn.Module, examples: Examples, rows: np.ndarray, parts: int, loss_sum: LossSum, settings: StepSettings
) -> float | None:
    """Accumulate the step's gradients; returns its mean loss, or None when memory ran out on the way."""
    if parts > 1:
        widen_gradients(model)

    def accumulate() -> float:
        loss = 0.0
        for part in micro_batches(rows, parts):
            part_loss = _forward(model, examples, part, loss_sum, settings) / len(rows)
            torch.autograd.backward(part_loss)
            loss += part_loss.item()
        return loss

    try:
        loss = accumulate()
        if settings.adversary is not None:
            with settings.adversary() as moved:
                if moved:
                    accumulate()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return loss


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _more_parts(parts: int, rows: int, number: int) -> int:
    """Twice as many micro-batches for a step of so many rows."""
    if parts >= rows:
        raise WorkFailed(
            f"step {number}: memory ran out although every row is a micro-batch of its own; "
            "lower length.max_tokens or length.max_windows, or take a smaller encoder"
        )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return min(2 * parts, rows)


def _fault(loss: float, grad_norm: float, accepts: Callable[[float], bool]) -> str | None:
    if not math.isfinite(loss):
        return "loss"
    if not math.isfinite(grad_norm):
        return "gradient"
    return None if accepts(loss) else "spike"


def step_seed(seed: int, step: int) -> int:
    """The seed of a step's dropout, a function of the run's seed and the step alone."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _seed_generators(seed: int) -> None:
    """What torch.manual_seed does for the devices in use; it walks all that torch knows of, which takes half a ms."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def group_norms(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The norm of the gradients of each parameter group that learns, by its name; 0 for one without gradients.

    Norms of tensors are taken in float32 and joined in float64.
    """
    squares: dict[str, float] = {}
    named = [(group["name"], p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    gradients = [gradient for _, gradient in named]
    if isinstance(optimizer, KernelAdamW):
        values = optimizer.sums_of_squares([gradient.contiguous() for gradient in gradients])
    else:
        norms = torch._foreach_norm(gradients) if named else []
        values = [norm * norm for norm in (torch.stack([one.float() for one in norms]).tolist() if norms else [])]
    for (name, _), value in zip(named, values, strict=True):
        squares[name] = squares.get(name, 0.0) + value
    learning = [group["name"] for group in optimizer.param_groups if any(p.requires_grad for p in group["params"])]
    return {str(name): math.sqrt(squares.get(name, 0.0)) for name in learning}


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float, norm: float) -> None:
    """Scale all gradients, whose joint norm is `norm`, so that it is at most `max_norm` (0: leave them)."""
    if not 0 < max_norm < norm:
        return
    factor = max_norm / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ does
    if isinstance(optimizer, KernelAdamW):
        optimizer.factor = factor  # in the pass that updates
    else:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, factor)


def _sound(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all weights are finite after a step."""
    if isinstance(optimizer, KernelAdamW):
        return optimizer.finite
    return all_finite(p for group in optimizer.param_groups for p in group["params"])


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether the norm of every tensor is finite, and so every number in it: one fast pass, without a copy."""
    detached = [tensor.detach() for tensor in tensors]
    norms = torch._foreach_norm(detached) if detached else []
    return not norms or bool(torch.stack([norm.float() for norm in norms]).isfinite().all())


def _forward(
    model: nn.Module, examples: Examples, rows: np.ndarray, loss_sum: LossSum, settings: StepSettings
) -> Tensor:
    device = next(model.parameters()).device
    places = np.tile(np.arange(len(rows)), settings.copies)
    batch = pad(examples.tokens.take(rows), places, pad_id=examples.pad_id)
    ids, mask, types, targets = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids, examples.targets[rows])
    )
    with settings.autocast():
        logits = model(
            input_ids=ids, attention_mask=mask, token_type_ids=types, first_windows=batch.first_windows
        ).logits
    return loss_sum(logits, targets)
