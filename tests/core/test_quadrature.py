"""Clenshaw-Curtis rules against polynomials, closed forms and scipy; each rule holds the points of the one before."""

import numpy as np
import pytest
from scipy.integrate import quad

from snapfit.core.errors import BadInput
from snapfit.core.quadrature import clenshaw_curtis, new_points

ORDERS = (2, 4, 8, 16, 32, 64, 256)


@pytest.mark.parametrize("order", ORDERS)
def test_polynomials_up_to_the_order_are_exact(order: int) -> None:
    points, weights = clenshaw_curtis(order)
    for degree in range(order + 1):
        assert weights @ points**degree == pytest.approx(1.0 / (degree + 1), abs=1e-14)


@pytest.mark.parametrize("order", ORDERS)
def test_points_ascend_from_end_to_end_and_no_weight_is_below_zero(order: int) -> None:
    points, weights = clenshaw_curtis(order)
    assert points[0] == 0.0
    assert points[-1] == 1.0
    assert (np.diff(points) > 0).all()
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-14)


def test_a_smooth_step_is_as_scipy_has_it() -> None:
    def step(t: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-40.0 * (t - 0.3)))

    errors = []
    for order in (16, 32, 64, 128):
        points, weights = clenshaw_curtis(order)
        errors.append(abs(weights @ step(points) - quad(step, 0.0, 1.0, epsabs=1e-13, points=[0.3])[0]))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_the_even_points_are_those_of_half_the_order() -> None:
    before = 8
    known = clenshaw_curtis(before)[0]
    for order in (16, 32, 64):
        points = clenshaw_curtis(order)[0]
        assert np.array_equal(points[::2], known)
        fresh = new_points(order, before)
        assert sorted([*fresh, *range(0, order + 1, 2)]) == list(range(order + 1))
        known, before = points, order
    assert list(new_points(4, None)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", [0, 1, 3, -2])
def test_orders_that_are_no_rule_are_refused(order: int) -> None:
    with pytest.raises(BadInput, match="even order"):
        clenshaw_curtis(order)


def test_a_rule_is_refined_by_doubling() -> None:
    with pytest.raises(BadInput, match="twice the order"):
        new_points(24, 8)
