"""The order of the training rows: which rows a step takes is a pure function of (seed, epoch, position).

Large tables are ordered pool by pool (see data/batches.py): what is held at a time is one pool's order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from snapfit.data.batches import (
    SIZES,
    PoolSizes,
    balanced_draw,
    block_pools,
    block_rows_of,
    n_block_rows,
    pool_streams,
    step_rows,
    weighted_draw,
)


class ByRow(Protocol):
    """A whole number for each row: a numpy array, or what finds the numbers as they are asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


def _nothing() -> None:
    """What is done between pools where nothing is due."""


@dataclass(frozen=True)
class DataOrder:
    """Which rows every step takes: a pure function of these fields and (epoch, position).

    lengths: tokens of each row. step_size: rows of an optimizer step. token_budget, window, window_tokens: see
    `batches.step_rows`; `window` counts steps, `window_tokens` is of a text that is read in windows.
    classes: of each row, to draw an epoch's rows evenly from (see `batches.balanced_draw`); or else weights: of each
    row, to draw in proportion to (see `batches.weighted_draw`); of a large table pool by pool. With neither every row
    is taken once. sizes: how a large table is cut. after_pool: called when the rows of a pool are done with, so that
    memory can be given back.
    """

    lengths: ByRow
    step_size: int
    seed: int
    token_budget: int | None = None
    window: int = 64
    window_tokens: int | None = None
    classes: ByRow | None = None
    weights: ByRow | None = None
    sizes: PoolSizes = SIZES
    after_pool: Callable[[], None] = _nothing

    def steps(self, epoch: int, position: int = 0) -> Iterator[np.ndarray]:
        """The rows of every step of an epoch from `position` on, in order: int64 arrays."""
        pools = self._pools(epoch)
        for number, blocks in enumerate(pools):
            known = self._n_steps(blocks)
            if known is not None and position >= known:
                position -= known
                continue
            steps = self._pool_steps(blocks, epoch, pool_streams(number, len(pools)))
            yield from steps[position:]
            position = max(position - len(steps), 0)
            self.after_pool()

    def n_steps(self, epoch: int) -> int:
        """Steps of an epoch. With a token budget they are counted, which takes the lengths of all rows."""
        pools, total = self._pools(epoch), 0
        for number, blocks in enumerate(pools):
            known = self._n_steps(blocks)
            if known is None:
                known = len(self._pool_steps(blocks, epoch, pool_streams(number, len(pools))))
                self.after_pool()
            total += known
        return total

    def total_steps(self, epochs: float) -> int:
        """Steps in `epochs` epochs, a part of an epoch rounded; at least 1."""
        whole = int(epochs)
        part = round((epochs - whole) * self.n_steps(whole)) if epochs > whole else 0
        return max(1, sum(self.n_steps(epoch) for epoch in range(whole)) + part)

    def walk(self, epoch: int = 0, position: int = 0) -> Iterator[tuple[int, int, np.ndarray]]:
        """(epoch, position, rows) of each step from a place on, without end."""
        while True:
            for index, rows in enumerate(self.steps(epoch, position), start=position):
                yield epoch, index, rows
            epoch, position = epoch + 1, 0

    def _pools(self, epoch: int) -> list[np.ndarray]:
        return block_pools(len(self.lengths), seed=self.seed, epoch=epoch, sizes=self.sizes)

    def _n_steps(self, blocks: np.ndarray) -> int | None:
        """Steps of a pool where they follow from its rows, which they do without a token budget."""
        if self.token_budget is not None:
            return None
        return -(-n_block_rows(blocks, len(self.lengths), self.sizes) // self.step_size)

    def _pool_steps(self, blocks: np.ndarray, epoch: int, streams: tuple[int, int]) -> list[np.ndarray]:
        """The rows of every step of a pool, in order."""
        rows = block_rows_of(blocks, len(self.lengths), self.sizes)
        if self.classes is not None:
            rows = rows[balanced_draw(self.classes[rows], seed=self.seed, epoch=epoch, stream=streams[1])]
        elif self.weights is not None:
            rows = rows[weighted_draw(self.weights[rows], seed=self.seed, epoch=epoch, stream=streams[1])]
        steps = step_rows(
            self.lengths[rows],
            seed=self.seed,
            epoch=epoch,
            step_size=self.step_size,
            token_budget=self.token_budget,
            window=self.window,
            window_tokens=self.window_tokens,
            stream=streams[0],
        )
        return [rows[step] for step in steps]
