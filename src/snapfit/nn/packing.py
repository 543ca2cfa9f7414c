"""Rows without padding: the real tokens of a batch one after another, through an encoder that is transformers' own.

Linear layers, normalisation and activations do not care which row a token is of, so they run on real tokens only.
Attention does: it gets the rows' places by the keyword `packing`, and cuts the tokens back into rows of like length
(see attention.py). Behind the encoder the states are padded again (see packed_encoder.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snapfit.data.cutting import token_places

ROUNDED = 32
"""Under bf16 on a CPU, tokens are filled up to a multiple of this with a row that nobody reads. The library of products
compiles code for every new size, which takes longer than the product; rounded, a run needs few sizes and keeps them."""
MAX_BUCKETS = 4
"""The most groups of rows that attention runs in, one after another; measured, more cost more than they save."""


@dataclass(frozen=True)
class Bucket:
    """Neighbouring rows of a packing that attention takes at once.

    tokens: their slice of the packed tokens. rows: how many. width: the longest. places: int64 [tokens], where each
    token lies in [rows * width]; None when all rows are as long, and nothing is padded.
    """

    tokens: slice
    rows: int
    width: int
    places: Tensor | None = None

    def mask(self) -> Tensor | None:
        """True on real tokens, bool [rows, 1, 1, width]; None when all are."""
        if self.places is None:
            return None
        real = torch.zeros(self.rows * self.width, dtype=torch.bool, device=self.places.device)
        real[self.places] = True
        return real.view(self.rows, 1, 1, self.width)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are once they are packed, rows in order of length.

    rows, width: of the padded batch. places: int64 [tokens], of each packed token in [rows * width]. filling: tokens
    that are put behind them, a row of its own. lengths: of the rows as packed, the filling's last. starts: int64, where
    each begins, and the end. buckets: what attention takes at once.
    """

    rows: int
    width: int
    places: Tensor
    filling: int
    lengths: np.ndarray
    starts: Tensor
    buckets: tuple[Bucket, ...]

    @classmethod
    def of(cls, mask: Tensor, *, multiple: int = 1) -> "Packing | None":
        """The packing of a batch, or None when it cannot be packed.

        mask: [rows, width], not 0 on real tokens, which stand on the left; each row has one at least.
        multiple: fill the tokens up to a multiple of it.
        """
        real = mask.bool().cpu().numpy()
        lengths = real.sum(1)
        rows, width = real.shape
        if not rows or lengths.min() < 1 or not np.array_equal(real, np.arange(width) < lengths[:, None]):
            return None
        order = np.argsort(lengths, kind="stable")
        lengths = lengths[order]
        places = torch.from_numpy(token_places(order * width, lengths)).to(mask.device)
        buckets = _buckets(lengths, mask.device)
        total = int(lengths.sum())
        filling = -total % multiple
        if filling:
            lengths = np.append(lengths, filling)
            buckets = (*buckets, Bucket(slice(total, total + filling), 1, filling))
        starts = torch.from_numpy(np.concatenate(([0], np.cumsum(lengths)))).to(mask.device)
        return cls(rows, width, places, filling, lengths, starts, buckets)

    def pack(self, padded: Tensor) -> Tensor:
        """[rows, width, ...] -> [1, tokens, ...]: the real tokens alone; the filling repeats the first of them."""
        packed = padded.flatten(0, 1)[self.places]
        if self.filling:
            packed = torch.cat((packed, packed[:1].expand(self.filling, *packed.shape[1:])))
        return packed.unsqueeze(0)

    def pad(self, packed: Tensor) -> Tensor:
        """[1, tokens, features] -> [rows, width, features], with zeros on padding."""
        return spread(packed[0], self.places, self.rows * self.width).view(self.rows, self.width, -1)


def spread(source: Tensor, places: Tensor, size: int) -> Tensor:
    """Rows of [n, ...] to distinct places of zeros [size, ...]; backwards they are picked up again.

    Rows beyond those that have a place are left out.
    """
    result: Tensor = _Spread.apply(source, places, size)  # type: ignore[no-untyped-call]
    return result


def collect(source: Tensor, places: Tensor) -> Tensor:
    """Rows at distinct places of [size, ...], the reverse of `spread`: its gradient needs no accumulation."""
    result: Tensor = _Collect.apply(source, places)  # type: ignore[no-untyped-call]
    return result


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, source: Tensor, places: Tensor, size: int) -> Tensor:
        context.save_for_backward(places)
        context.rows = len(source)
        spread = source.new_zeros((size, *source.shape[1:]))
        spread[places] = source[: len(places)]
        return spread

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (places,) = context.saved_tensors
        picked = gradients[0][places]
        if context.rows > len(places):
            picked = torch.cat((picked, picked.new_zeros((context.rows - len(places), *picked.shape[1:]))))
        return picked, None, None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, source: Tensor, places: Tensor) -> Tensor:
        context.save_for_backward(places)
        context.size = source.shape[0]
        return source[places]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = context.saved_tensors
        spread = gradients[0].new_zeros((context.size, *gradients[0].shape[1:]))
        spread[places] = gradients[0]
        return spread, None


def _buckets(lengths: np.ndarray, device: torch.device) -> tuple[Bucket, ...]:
    """Rows in order of length, cut where the length changes; into MAX_BUCKETS of like token counts if that is often."""
    ends = np.cumsum(lengths)
    cuts = np.flatnonzero(np.diff(lengths)) + 1
    if len(cuts) >= MAX_BUCKETS:
        shares = ends[-1] * np.arange(1, MAX_BUCKETS) / MAX_BUCKETS
        cuts = np.unique(np.searchsorted(ends, shares, side="right").clip(1, len(lengths) - 1))
    buckets = []
    for rows in np.split(np.arange(len(lengths)), cuts):
        first, last = int(rows[0]), int(rows[-1])
        tokens = slice(int(ends[first] - lengths[first]), int(ends[last]))
        width = int(lengths[last])
        places = None
        if lengths[first] != width:
            starts = np.arange(len(rows), dtype=np.int64) * width
            places = torch.from_numpy(token_places(starts, lengths[first : last + 1])).to(device)
        buckets.append(Bucket(tokens, len(rows), width, places))
    return tuple(buckets)
