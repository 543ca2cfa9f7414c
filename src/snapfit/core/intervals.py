"""Confidence intervals in closed form: of shares, F1, correlations, and quotients of two sums over rows.

    a share of rows          Wilson 1927; the best of the usual ones in Brown, Cai and DasGupta 2001
    F1 of one label          Wilson's of hits / (hits + misses + false alarms), of which F1 is a function (Lam, Gopal
                             and Qian 2023, "Wilson indirect"; the function is Hand, Christen and Kirielle's F*, 2021)
    Pearson's correlation    Fisher 1921: atanh(r) has the standard error 1 / sqrt(n - 3)
    Spearman's               the same with sqrt((1 + r * r / 2) / (n - 3)) (Bonett and Wright 2000)
    difference of two        Zou 2007, for two correlations with the same numbers, on the same rows
    a quotient of sums       its first-order expansion (Cochran 1977, 6.3); for one in 0..1 on the scale of log-odds

Everything else is resampled: see `resampling`. An interval that nothing is known of is None.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from snapfit.core.errors import BadInput

MOST_CONFIDENCE = 0.999
"""Beyond, the ends of a resampled interval would be a matter of chance."""


class Interval(NamedTuple):
    """From low to high, both included."""

    low: float
    high: float


def check_confidence(confidence: float) -> float:
    """The confidence itself. Raises BadInput unless it is in 0.5..MOST_CONFIDENCE."""
    if not 0.5 <= confidence <= MOST_CONFIDENCE:
        expected = f"a share from 0.5 to {MOST_CONFIDENCE}, such as 0.95"
        raise BadInput(f"a confidence of {confidence}", expected, "--confidence 0.95")
    return confidence


def normal_quantile(confidence: float) -> float:
    """How many standard deviations to each side hold this share of a normal distribution; 1.96 for 0.95."""
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)


def wilson(part: float, whole: float, confidence: float) -> Interval | None:
    """Wilson's score interval of the share part / whole; None when the whole is 0."""
    if whole <= 0:
        return None
    z2 = normal_quantile(confidence) ** 2
    share = part / whole
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = math.sqrt(z2 * (share * (1 - share) / whole + z2 / (4 * whole * whole))) / (1 + z2 / whole)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(0.0 if part == 0 else low, 1.0 if part == whole else high)


def f1_interval(hits: float, given: float, support: float, confidence: float) -> Interval | None:
    """Of the F1 of one label; None when it is neither given nor true in any row.

    Of the rows where the label is given or true, the number of hits is binomial; F1 is 2 s / (1 + s) of their share s.
    """
    share = wilson(hits, given + support - hits, confidence)
    return None if share is None else Interval(*(2 * s / (1 + s) for s in share))


def correlation_interval(r: float, n: int, confidence: float, *, of_ranks: bool = False) -> Interval | None:
    """Of a correlation of n rows. of_ranks: Spearman's. None for fewer than 4 rows."""
    if n < 4:
        return None
    if abs(r) >= 1.0:
        return Interval(r, r)
    error = math.sqrt((1.0 + r * r / 2.0 if of_ranks else 1.0) / (n - 3))
    reach = normal_quantile(confidence) * error
    return Interval(math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach))


def correlation_difference(
    first: float, second: float, between: float, n: int, confidence: float, *, of_ranks: bool = False
) -> Interval | None:
    """Of first - second: two correlations with the same third numbers, on the same n rows.

    between: the correlation of the two with each other. None for fewer than 4 rows.
    """
    a, b = (correlation_interval(r, n, confidence, of_ranks=of_ranks) for r in (first, second))
    if a is None or b is None:
        return None
    free = (1 - first * first) * (1 - second * second)
    together = 1.0
    if free > 0:
        left = 1 - first * first - second * second - between * between
        together = ((between - first * second / 2) * left + between**3) / free
    together = min(1.0, max(-1.0, together))

    def reach(mine: float, other: float) -> float:
        return math.sqrt(max(0.0, mine * mine + other * other - 2 * together * mine * other))

    difference = first - second
    return Interval(
        difference - reach(first - a.low, b.high - second), difference + reach(a.high - first, second - b.low)
    )


class QuotientSums(NamedTuple):
    """Of rows that add x to a numerator and y to a denominator: how many, and the sums of x, y, xx, xy and yy.

    They are numbers, or arrays of the same shape.
    """

    rows: np.ndarray | float
    x: np.ndarray | float
    y: np.ndarray | float
    xx: np.ndarray | float
    xy: np.ndarray | float
    yy: np.ndarray | float


def quotient(sums: QuotientSums) -> float:
    """Sum of x by sum of y; 0 where that is 0."""
    return float(sums.x / sums.y) if sums.y > 0 else 0.0


def quotient_variance(sums: QuotientSums) -> float | None:
    """The variance of `quotient`; None for fewer than two rows, or a denominator of 0."""
    if sums.rows < 2 or sums.y <= 0:
        return None
    value = quotient(sums)
    squares = max(0.0, float(sums.xx - 2 * value * sums.xy + value * value * sums.yy))
    return float(sums.rows / (sums.rows - 1) * squares / sums.y**2)


def quotient_interval(sums: QuotientSums, confidence: float, *, is_share: bool) -> Interval | None:
    """Of `quotient`. is_share: it is in 0..1, else it has no end above. None where nothing is known.

    A share of exactly 0 or 1, where nothing varies, has Wilson's interval over the rows.
    """
    value, variance = quotient(sums), quotient_variance(sums)
    if variance is None:
        return None
    z = normal_quantile(confidence)
    if not is_share:
        return Interval(max(0.0, value - z * math.sqrt(variance)), value + z * math.sqrt(variance))
    if not 0.0 < value < 1.0 or variance == 0.0:
        return wilson(value * float(sums.rows), float(sums.rows), confidence)
    middle, reach = math.log(value / (1 - value)), z * math.sqrt(variance) / (value * (1 - value))
    return Interval(1 / (1 + math.exp(reach - middle)), 1 / (1 + math.exp(-reach - middle)))
