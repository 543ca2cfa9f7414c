"""Two ways of training on the same rows, with several seeds each: McNemar's test and a bootstrap over rows.

What `snapfit evaluate --against` says of two bundles is in `snapfit.core`; here is what several seeds add to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snapfit.core.significance import mcnemar

RESAMPLES = 2_000
SEED = 20
LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """What came of comparing `this` with `other` on the same rows and seeds.

    points: mean accuracy of this less that of the other, in points. low, high: the bootstrap's interval of it.
    this_only, other_only: how many (seed, row) only one of them has right. p: of McNemar's exact test on these.
    """

    points: float
    low: float
    high: float
    this_only: int
    other_only: int
    p: float


def compare(this: np.ndarray, other: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> Comparison:
    """Hold one classifier's answers against another's. this, other: bool [seeds, rows], whether an answer is right.

    McNemar's test takes every (seed, row) for itself. A row that is hard is so with every seed, which makes its p too
    small with several seeds; the bootstrap draws rows with all of their seeds, and does not have this fault.
    """
    if this.shape != other.shape or this.ndim != 2 or not this.size:
        raise ValueError(f"answers of shapes {this.shape} and {other.shape}, not [seeds, rows] twice")
    this_only, other_only = int((this & ~other).sum()), int((other & ~this).sum())
    of_rows = 100 * (this.astype(np.float64) - other).mean(axis=0)
    low, high = bootstrap_interval(of_rows, resamples=resamples, seed=seed)
    return Comparison(float(of_rows.mean()), low, high, this_only, other_only, mcnemar(this_only, other_only))


def bootstrap_interval(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED) -> tuple[float, float]:
    """The percentile interval, at LEVEL, of the mean of `values` float [n] under drawing n of them with replacement.

    How often each different value is drawn is multinomial, so that is what is drawn: as exact as drawing rows, and
    there are few different values.
    """
    different, counts = np.unique(values, return_counts=True)
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    means = drawn @ different / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def rows_as_text(rows: np.ndarray) -> str:
    """The numbers of the rows that a bool [n] marks, with spaces between: small in a JSON file, and still readable."""
    return " ".join(map(str, np.flatnonzero(rows).tolist()))


def rows_from_text(text: str, n: int) -> np.ndarray:
    """bool [n]: the other way round."""
    marked = np.zeros(n, dtype=bool)
    marked[[int(row) for row in text.split()]] = True
    return marked


def right_answers(wrong: Sequence[str], n: int) -> np.ndarray:
    """bool [seeds, n] from each seed's wrong rows as text."""
    return np.stack([~rows_from_text(one, n) for one in wrong])
