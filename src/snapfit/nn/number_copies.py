"""Copies of weights in the precision that products run in, made anew only when the weights have changed.

Weights are kept in float32 and multiplied in bf16. Casting all of them every step costs as much as all norms do; an
optimizer that counts what it writes as a version can write the copies in the pass that updates the weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class NumberCopy:
    """Matrices of equal width, one below the other, in another dtype.

    weights: [rows of each, width], which stay the same tensors. counted: whether whatever changes them counts a new
    version; torch's fused optimizers do not, and then nothing is trusted while training.
    """

    def __init__(self, weights: Sequence[Tensor], *, counted: bool) -> None:
        self._weights = tuple(weights)
        self._counted = counted
        self._copy: Tensor | None = None
        self._made = -1

    @property
    def _version(self) -> int:
        return sum(weight._version for weight in self._weights)

    def current(self, dtype: torch.dtype, *, changing: bool) -> Tensor:
        """The copy in a dtype; of one weight that has it already, the weight itself. Not to be changed.

        changing: whether the weights may have changed without a version.
        """
        if len(self._weights) == 1 and self._weights[0].dtype == dtype:
            return self._weights[0].detach()
        copy = self._copy
        if copy is not None and copy.dtype == dtype and self._is_fresh(changing):
            return copy
        rows = [len(weight) for weight in self._weights]
        with torch.inference_mode(False), torch.no_grad():  # an evaluation may come first, and training writes it anew
            if copy is None or copy.dtype != dtype:
                copy = self._copy = torch.empty((sum(rows), self._weights[0].shape[1]), dtype=dtype)
            for part, weight in zip(torch.split(copy, rows), self._weights, strict=True):
                part.copy_(weight)
        self._made = self._version
        return copy

    def places(self) -> list[tuple[Tensor, Tensor]]:
        """(weight, its part of the copy) of each, for an optimizer that writes both; none unless the copy is fresh,
        bf16, and to be trusted afterwards, when `written` has been called.
        """
        if self._copy is None or self._copy.dtype != torch.bfloat16 or not self._counted or not self._is_fresh(False):
            return []
        parts = torch.split(self._copy, [len(weight) for weight in self._weights])
        return list(zip(self._weights, parts, strict=True))

    def written(self) -> None:
        """Say that weights and copy were written alike since `places`."""
        self._made = self._version

    def _is_fresh(self, changing: bool) -> bool:
        return self._made == self._version and (self._counted or not changing)
