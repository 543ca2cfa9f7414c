"""Integrals over 0..1 by rules that refine themselves: Clenshaw and Curtis (1960).

The points of a rule are among those of the rule of twice its order, so that refining costs new points alone; between
two rules of one order the accuracy is near that of Gauss's, whose points cannot be used again (Trefethen 2008).
"""

import numpy as np

from snapfit.core.errors import BadInput


def clenshaw_curtis(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights, float64 [order + 1] each, that integrate polynomials of degree `order` over 0..1 exactly.

    Points ascend from 0 to 1 and crowd at both ends; the even ones (0, 2, ...) are those of half the order. Weights are
    above 0. Raises BadInput for an order that is odd or below 2.
    """
    if order < 2 or order % 2:
        raise BadInput(f"a rule of order {order}", "an even order of 2 or more", "correct the number")
    angles = np.pi * np.arange(order + 1) / order
    terms = np.arange(1, order // 2 + 1)
    factors = np.where(terms == order // 2, 1.0, 2.0) / (4.0 * terms**2 - 1.0)
    weights = (1.0 - np.cos(2.0 * np.outer(angles, terms)) @ factors) / order
    weights[[0, -1]] /= 2.0
    points: np.ndarray = (1.0 - np.cos(angles)) / 2.0
    return points, weights


def new_points(order: int, before: int | None) -> np.ndarray:
    """Which points of a rule are to be evaluated, int64: all, or with `before`, its half, those in between."""
    if before is None:
        return np.arange(order + 1)
    if 2 * before != order:
        raise BadInput(f"a rule of order {order} after one of {before}", "twice the order", "correct the number")
    return np.arange(1, order, 2)
