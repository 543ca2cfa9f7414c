"""Intervals of any metric by a bootstrap over rows, in memory that does not grow with them.

Rows are put into groups, and of each group only sums are kept: counts, log-likelihoods, squares. A resample draws
groups with replacement; a metric is a function of the sums of all that were drawn.

Up to the number of groups each row is a group of its own, and this is the ordinary bootstrap (Efron 1979), exactly.
Beyond, a row's group is drawn by a hash of its number, whatever the order of the table. Sums of random groups are as
independent of one another as rows are, and vary as the sum of their rows does, so that nothing is lost but precision:
with g groups the width of an interval is off by some 1 / sqrt(2 g) of itself, 0.8 % for 8,192, which is less than the
2,000 resamples bring about (1.6 %). Chamandy et al. (2012) estimate from such buckets of a stream.

Intervals are Efron's BCa (1987), corrected for bias and for the change of spread with the value; its acceleration comes
from leaving out one group at a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from snapfit.core.intervals import Interval, normal_quantile

MAX_GROUPS = 8_192
MIN_GROUPS = 256
GROUP_CELLS = 1 << 22
"""Groups become fewer, but not below MIN_GROUPS, where groups times sums would be more than this (32 MB)."""
RESAMPLES = 2_000
_TAIL_RESAMPLES = 50
"""So many resamples lie outside the interval at least."""
_BLOCK_CELLS = 1 << 18
_SEED = 20
_SAME = 1e-12

Statistics = Callable[[Sequence[np.ndarray]], Mapping[str, np.ndarray]]
"""Of one table of sums [m, columns] or more of the same groups: values by name, each [m] or [m, k]."""


class GroupSums:
    """Sums of what rows bring with them, by group.

    n_rows: how many will come. n_columns: sums of each group. Attribute: table, float64 [groups, n_columns].
    """

    def __init__(self, n_rows: int, n_columns: int) -> None:
        most = max(MIN_GROUPS, min(MAX_GROUPS, GROUP_CELLS // n_columns))
        self._own = n_rows <= most
        self.table = np.zeros((max(1, n_rows if self._own else most), n_columns))

    def groups_of(self, first: int, n: int) -> np.ndarray:
        """int64 [n]: the groups of n rows, the first of which has the number `first`."""
        rows = np.arange(first, first + n, dtype=np.int64)
        return rows if self._own else (_mixed(rows) % np.uint64(len(self.table))).astype(np.int64)

    def add(self, groups: np.ndarray, column: int, values: np.ndarray) -> None:
        """Add values float [n] to a column, each to the group of its row."""
        self.table[:, column] += np.bincount(groups, weights=values, minlength=len(self.table))

    def count(self, groups: np.ndarray, columns: np.ndarray) -> None:
        """Add 1 at each (group, column), int64 [m] each."""
        np.add.at(self.table.reshape(-1), groups * self.table.shape[1] + columns, 1.0)


def resampled_intervals(
    tables: Sequence[np.ndarray], statistics: Statistics, *, confidence: float, seed: int = _SEED
) -> dict[str, list[Interval | None]]:
    """The interval of each statistic by its name; a list, with one entry where it is a single number.

    tables: float64 [groups, columns] of `GroupSums` of the same rows, such as those of two classifiers: a resample
    draws the same groups of all, so that statistics may compare them. confidence: see `check_confidence`.
    An interval is None where no resample gives another value than the whole, as where all answers are right, and where
    there are fewer than two groups. The same seed gives the same intervals.
    """
    whole = _flat(statistics([table.sum(axis=0, keepdims=True) for table in tables]))
    n_groups = len(tables[0])
    n_resamples = max(RESAMPLES, math.ceil(_TAIL_RESAMPLES / (1 - confidence)))
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_CELLS // max(n_groups, *(table.shape[1] for table in tables)))
    drawn: list[dict[str, np.ndarray]] = []
    left_out: list[dict[str, np.ndarray]] = []
    for start in range(0, n_resamples, block):
        weights = _weights(rng, min(block, n_resamples - start), n_groups)
        drawn.append(_flat(statistics([weights @ table for table in tables])))
    totals = [table.sum(axis=0) for table in tables]
    for start in range(0, n_groups, block):
        left_out.append(
            _flat(statistics([t - table[start : start + block] for t, table in zip(totals, tables, strict=True)]))
        )
    found: dict[str, list[Interval | None]] = {}
    for name, value in whole.items():
        replicates = np.concatenate([one[name] for one in drawn])
        without = np.concatenate([one[name] for one in left_out])
        columns = zip(value[0], replicates.T, without.T, strict=True)
        found[name] = [_bca(float(v), r, w, confidence) if n_groups > 1 else None for v, r, w in columns]
    return found


def _bca(value: float, replicates: np.ndarray, without: np.ndarray, confidence: float) -> Interval | None:
    """Efron's BCa interval. replicates: of the resamples. without: with each group left out."""
    if np.ptp(replicates) <= _SAME * max(1.0, abs(value)):
        return None
    normal, z = NormalDist(), normal_quantile(confidence)
    n = len(replicates)
    below = (np.count_nonzero(replicates < value) + np.count_nonzero(replicates <= value)) / (2 * n)
    bias = normal.inv_cdf(min(max(below, 1 / (2 * n)), 1 - 1 / (2 * n)))
    apart = without.mean() - without
    spread = float((apart**2).sum()) ** 1.5
    acceleration = float((apart**3).sum()) / (6 * spread) if spread > 0 else 0.0
    ends = []
    for end in (bias - z, bias + z):
        turned = 1 - acceleration * end
        ends.append(normal.cdf(bias + end / turned) if turned > 0 else float(end > 0))
    low, high = np.quantile(replicates, ends)
    return Interval(float(low), float(high))


def _weights(rng: np.random.Generator, n: int, n_groups: int) -> np.ndarray:
    """float64 [n, n_groups]: how often each group is drawn in each of n resamples."""
    cells = rng.integers(0, n_groups, size=(n, n_groups)) + n_groups * np.arange(n)[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=n * n_groups)
    return counts.reshape(n, n_groups).astype(np.float64)


def _flat(statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values).reshape(len(values), -1) for name, values in statistics.items()}


def _mixed(rows: np.ndarray) -> np.ndarray:
    """uint64 [n]: row numbers hashed (the finaliser of SplitMix64, Steele, Lea and Flood 2014)."""
    x = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
