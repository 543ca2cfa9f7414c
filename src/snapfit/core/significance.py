"""Whether a difference is more than chance: exact tests on counts, and a correction for many of them.

All are two-sided, need no tables, and stay exact for any counts: probabilities are built from ratios of neighbours.
"""

import math
from collections.abc import Sequence

import numpy as np

from snapfit.core.intervals import QuotientSums, quotient, quotient_variance

FEWEST_EXPECTED = 5.0
"""Below so many expected rows in a cell of four, the normal approximation is replaced by Fisher's exact test."""
FEWEST_ROWS = 30
"""On fewer rows the first-order expansion of a quotient is no ground for a test."""
_NEGLIGIBLE_DEVIATIONS = 40.0


def mcnemar(this_only: int, other_only: int) -> float:
    """The p of McNemar's exact test: a binomial with one half on the rows that only one has right (1 without any).

    The sign test is the same, of rows where one is nearer and rows where the other is.
    """
    pairs, fewer = this_only + other_only, min(this_only, other_only)
    if this_only == other_only:
        return 1.0
    top = math.lgamma(pairs + 1) - math.lgamma(fewer + 1) - math.lgamma(pairs - fewer + 1) - pairs * math.log(2)
    n_terms = min(fewer, math.ceil(_NEGLIGIBLE_DEVIATIONS * math.sqrt(pairs)))
    k = np.arange(fewer, fewer - n_terms, -1, dtype=np.float64)
    below = np.exp(np.cumsum(np.log(k) - np.log(pairs - k + 1)))  # probabilities below the top one, in shares of it
    return min(1.0, 2 * math.exp(top) * (1.0 + float(below.sum())))


def compare_shares(part: int, whole: int, other_part: int, other_whole: int) -> float | None:
    """The p of part / whole and other_part / other_whole being one share; None when either has no rows.

    The pooled normal test (Pearson's chi-square of the four cells) where every cell expects FEWEST_EXPECTED rows at
    least, as Cochran (1954) advises, else Fisher's exact test.
    """
    if not whole or not other_whole:
        return None
    n, hits = whole + other_whole, part + other_part
    if min(whole, other_whole) * min(hits, n - hits) / n < FEWEST_EXPECTED:
        return fisher_exact(part, whole, other_part, other_whole)
    pooled = hits / n
    error = math.sqrt(pooled * (1 - pooled) * (1 / whole + 1 / other_whole))
    return math.erfc(abs(part / whole - other_part / other_whole) / error / math.sqrt(2))


def fisher_exact(part: int, whole: int, other_part: int, other_whole: int) -> float:
    """The p of Fisher's exact test: all tables with these margins that are no likelier than the one at hand."""
    n, hits = whole + other_whole, part + other_part
    least, most = max(0, hits - other_whole), min(hits, whole)
    a = np.arange(least, most, dtype=np.float64)
    steps = np.log(hits - a) + np.log(whole - a) - np.log(a + 1) - np.log(n - hits - whole + a + 1)
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    chosen = weights[weights <= weights[part - least] * (1 + 1e-7)]
    return min(1.0, float(chosen.sum() / weights.sum()))


def compare_quotients(first: QuotientSums, second: QuotientSums) -> float | None:
    """The p of two quotients over different rows being one; None where either has fewer than FEWEST_ROWS rows."""
    if min(float(first.rows), float(second.rows)) < FEWEST_ROWS:
        return None
    variances = quotient_variance(first), quotient_variance(second)
    if variances[0] is None or variances[1] is None:
        return None
    difference, error = quotient(first) - quotient(second), math.sqrt(variances[0] + variances[1])
    if error == 0.0:
        return None if difference else 1.0
    return math.erfc(abs(difference) / error / math.sqrt(2))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted for their number (Holm 1979): the chance that any is below a level by chance is at most that level.

    It holds however the tests depend on one another, as those of overlapping parts of a table do. None is no test.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted
