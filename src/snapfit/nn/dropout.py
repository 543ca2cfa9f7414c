"""Dropout whose randomness is cheap on a CPU.

torch draws one number after another for each element, on one thread; for short rows that costs several times more than
the matrix product whose output it drops from. Here sixteen bits decide about an element: four of them come from each
64-bit word of torch's own generator. The probability is exact to 1/65,536, and what is dropped is a function of the
generator's seed as before.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LANES = 4
"""Elements that a random word decides about."""
_RANGE = 2**16


class Dropout(nn.Dropout):
    """torch's dropout on a GPU and in evaluation; while training on a CPU, the same with cheaper randomness."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or not 0.0 < self.p < 1.0 or input.device.type != "cpu":
            return super().forward(input)
        dropped: Tensor = _Drop.apply(input, round(self.p * _RANGE))  # type: ignore[no-untyped-call]
        return dropped


class _Drop(torch.autograd.Function):
    """Zeroes elements at random and scales the others up, so that the mean stays."""

    @staticmethod
    def forward(context: Any, source: Tensor, threshold: int) -> Tensor:
        kept = keep_mask(source.numel(), threshold).view(source.shape)
        context.save_for_backward(kept)
        context.scale = _RANGE / (_RANGE - threshold)
        return torch.ops.aten.native_dropout_backward(source, kept, context.scale)  # type: ignore[no-any-return]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = context.saved_tensors
        return torch.ops.aten.native_dropout_backward(gradients[0], kept, context.scale), None


def keep_mask(n: int, threshold: int) -> Tensor:
    """bool [n], each False with probability threshold / 65,536, from torch's generator."""
    words = torch.empty((n + _LANES - 1) // _LANES, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    return words.view(torch.int16)[:n] >= threshold - _RANGE // 2


def use_cheap_dropout(model: nn.Module) -> int:
    """Replace torch's dropout modules below `model`; returns how many. Probabilities and modes stay."""
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout
    ]
    for parent, name, child in found:
        cheap = Dropout(child.p)
        cheap.train(child.training)
        setattr(parent, name, cheap)
    return len(found)
