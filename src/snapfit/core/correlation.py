"""Sums of two columns of numbers, added up batch by batch: moments, errors and ranks; what a regression is measured by.

Moments are those of Chan, Golub and LeVeque (1979), merged batch by batch in float64. Rows may come in any batches and
in any order; results differ in their last bits at most. Only ranks need the rows themselves: see `RankPairs`.
"""

from typing import NamedTuple

import numpy as np

from snapfit.core.decisions import Answers
from snapfit.core.tallies import RunningSum, Tally

RANK_ROWS = 1 << 20
"""Up to this many rows ranks are exact, at 8 bytes a row."""
RANK_BINS = 1024
"""Beyond, they are those of a grid of RANK_BINS * RANK_BINS counts (8 MB)."""


class Moments:
    """Means, spreads and the covariance of pairs of numbers (a, b).

    Attributes: n; spread_a and spread_b, the sums of squared distances from the mean; low_a, high_a, low_b, high_b.
    Squares must fit float64: numbers up to about 1e150 do, and so all of float32.
    """

    def __init__(self) -> None:
        self.n = 0
        self._pivot = self._mean = np.zeros(2)
        self._products = np.zeros((2, 2))
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Count pairs in. a, b: float [n], finite."""
        if len(a) == 0:
            return
        values = np.stack([a, b]).astype(np.float64)
        self._low, self._high = np.minimum(self._low, values.min(axis=1)), np.maximum(self._high, values.max(axis=1))
        if self.n == 0:
            self._pivot = values[:, 0].copy()
        values -= self._pivot[:, None]  # so that numbers far from 0 lose nothing of their differences
        n, mean = values.shape[1], values.mean(axis=1)
        values -= mean[:, None]
        slip = values.sum(axis=1)  # what rounding left of the mean
        products = values @ values.T - np.outer(slip, slip) / n
        apart = mean - self._mean
        together = self.n + n
        self._products = self._products + products + np.outer(apart, apart) * (self.n * (n / together))
        self._mean = self._mean + apart * (n / together)
        self.n = together

    @property
    def range_a(self) -> tuple[float, float]:
        """The lowest and the highest a."""
        return float(self._low[0]), float(self._high[0])

    @property
    def spread_b(self) -> float:
        """The sum of the squared distances of b from its mean; exactly 0 when it is constant."""
        return 0.0 if self._low[1] == self._high[1] else float(self._products[1, 1])

    def correlation(self) -> float:
        """Pearson's; 0 when either side is constant."""
        spread = np.sqrt(self._products[0, 0]) * np.sqrt(self._products[1, 1])
        if (self._low == self._high).any() or not spread > 0.0:
            return 0.0
        return float(np.clip(self._products[0, 1] / spread, -1.0, 1.0))


class RegressionTally(Tally):
    """One number a row. targets: [n, 1], in the same units as the scores.

    Metrics: pearson, spearman, rmse, mae, r2; correlations are 0 where undefined.
    rank_rows: up to how many rows Spearman's correlation is exact; see `RankPairs`.
    """

    task = "regression"

    def __init__(self, *, rank_rows: int = RANK_ROWS) -> None:
        super().__init__(1)
        self._moments, self._ranks = Moments(), RankPairs(rank_rows)
        self._squares, self._distances = RunningSum(), RunningSum()

    def answer_range(self) -> tuple[float, float] | None:
        return self._moments.range_a if self.rows else None

    def _add(self, answers: Answers, targets: np.ndarray) -> None:
        predicted, truth = answers.chosen, targets[:, 0].astype(np.float64)
        residual = predicted - truth
        self._squares.add(float(np.square(residual).sum()))
        self._distances.add(float(np.abs(residual).sum()))
        self._moments.add(predicted, truth)
        self._ranks.add(predicted, truth)

    def _metrics(self) -> dict[str, float]:
        rest, spread = self._squares.value, self._moments.spread_b
        return {
            "pearson": self._moments.correlation(),
            "spearman": self._ranks.correlation(),
            "rmse": float(np.sqrt(rest / self.rows)),
            "mae": self._distances.value / self.rows,
            "r2": 1.0 - rest / spread if spread else float(rest == 0.0 and self.rows > 1),
        }


class _Grid(NamedTuple):
    """How often values of a (rows of counts) and b (columns) came together; a_values and b_values ascend."""

    a_values: np.ndarray
    b_values: np.ndarray
    counts: np.ndarray


class RankPairs:
    """Spearman's correlation of pairs that come in batches.

    Ranks are known only when all rows are. Up to `exact_rows` rows are held as they came, as float32 (8 bytes a row)
    while that loses nothing and as float64 else, and the result is exact. Beyond, they are counted in a grid of
    RANK_BINS values a side, each for about as many rows as another, which follows what comes: with at most RANK_BINS
    different values a side nothing is lost; else ranks are off by at most about 1/RANK_BINS of the rows each time that
    `exact_rows` more have come, and the correlation by far less (tests hold it to 1e-3).
    """

    def __init__(self, exact_rows: int = RANK_ROWS) -> None:
        self._limit = max(1, exact_rows)
        self._held = 0
        self._buffer = np.empty((2, 0), dtype=np.float32)
        self._grid: _Grid | None = None

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """Count pairs in. a, b: float [n], finite."""
        pairs, start = np.stack([a, b]), 0
        while start < pairs.shape[1]:
            if self._held == self._limit:
                self._grid, self._held = self._whole_grid(), 0
            part = pairs[:, start : start + self._limit - self._held]
            self._hold(part)
            start += part.shape[1]

    def correlation(self) -> float:
        """Pearson's of the ranks, equal values sharing the mean of theirs; 0 when either side is constant."""
        if self._grid is None:
            ranks = Moments()
            ranks.add(*(_ranks(side) for side in self._buffer[:, : self._held]))
            return ranks.correlation()
        counts = self._whole_grid().counts.astype(np.float64)
        a, b = counts.sum(axis=1), counts.sum(axis=0)
        a_ranks, b_ranks = (np.cumsum(side) - side / 2.0 - side.sum() / 2.0 for side in (a, b))
        spread = np.sqrt(np.square(a_ranks) @ a) * np.sqrt(np.square(b_ranks) @ b)
        return float(np.clip(a_ranks @ counts @ b_ranks / spread, -1.0, 1.0)) if spread > 0.0 else 0.0

    def _hold(self, pairs: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            short = pairs.astype(np.float32)
        lossless = self._buffer.dtype == np.float32 and (short == pairs).all()
        needed, room = self._held + pairs.shape[1], self._buffer.shape[1]
        if needed > room or (self._buffer.dtype == np.float32 and not lossless):
            room = max(room, min(self._limit, max(2 * needed, 1024))) if needed > room else room
            larger = np.empty((2, room), dtype=np.float32 if lossless else np.float64)
            larger[:, : self._held] = self._buffer[:, : self._held]
            self._buffer = larger
        self._buffer[:, self._held : needed] = pairs
        self._held = needed

    def _whole_grid(self) -> _Grid:
        """The grid of all pairs so far; nothing is changed."""
        fresh = self._buffer[:, : self._held].astype(np.float64)
        old = self._grid or _Grid(np.empty(0), np.empty(0), np.zeros((0, 0), dtype=np.int64))
        sides = []
        for values, kept, axis in ((fresh[0], old.a_values, 1), (fresh[1], old.b_values, 0)):
            weights = np.concatenate([np.ones(self._held), old.counts.sum(axis=axis)])
            sides.append(_binned(np.concatenate([values, kept]), weights))
        (a_values, a_bins), (b_values, b_bins) = sides
        shape, n = (len(a_values), len(b_values)), self._held
        counts = np.bincount(a_bins[:n] * shape[1] + b_bins[:n], minlength=shape[0] * shape[1])
        a_old, b_old = np.nonzero(old.counts)
        cells = a_bins[n:][a_old] * shape[1] + b_bins[n:][b_old]
        moved = np.bincount(cells, weights=old.counts[a_old, b_old], minlength=counts.size)  # whole below 2**53
        return _Grid(a_values, b_values, (counts + moved.astype(np.int64)).reshape(shape))


def _binned(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most RANK_BINS ascending values that stand for all, and of each value, int64 [n], which one stands for it.

    weights: how many rows each value is. A value that is often enough stands for itself alone.
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) <= RANK_BINS:
        return distinct, inverse
    mass = np.bincount(inverse, weights=weights)
    ends = np.cumsum(mass)
    places = ((ends - mass / 2.0) * (RANK_BINS / ends[-1])).astype(np.int64)
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    lasts = np.append(firsts[1:], len(distinct)) - 1
    middles = (ends[firsts] - mass[firsts] + ends[lasts]) / 2.0
    chosen = np.clip(np.searchsorted(ends, middles), firsts, lasts)
    bins = np.cumsum(np.diff(places, prepend=places[0]) > 0)
    return distinct[chosen], bins[inverse]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equals sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return ranks
