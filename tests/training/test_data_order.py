"""The order of the data: which rows a step takes is a function of seed, epoch and position, from any place on."""

import numpy as np
import pytest

from snapfit.training.order import DataOrder

ROWS, STEP_SIZE = 40, 8
LENGTHS = np.array([3 + (7 * i) % 10 for i in range(ROWS)])


def make_order(seed: int = 3) -> DataOrder:
    return DataOrder(LENGTHS, STEP_SIZE, seed)


def test_the_walk_goes_on_from_any_place() -> None:
    order = make_order()
    walk = order.walk()
    whole = [next(walk) for _ in range(12)]
    for start in range(12):
        epoch, position, rows = whole[start]
        again = next(order.walk(epoch, position))
        assert again[:2] == (epoch, position)
        assert np.array_equal(again[2], rows)
    after_the_end = next(order.walk(0, 5))
    assert after_the_end[:2] == (1, 0)


@pytest.mark.parametrize(("epochs", "total"), [(1, 5), (4, 20), (0.2, 1), (0.01, 1), (2.5, 12), (1.6, 8)])
def test_total_steps(epochs: float, total: int) -> None:
    assert make_order().total_steps(epochs) == total


@pytest.mark.parametrize("window", [1, 2, 64])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_window_and_the_classes_reach_the_order(window: int, balanced: bool) -> None:
    classes = np.where(np.arange(ROWS) < 4, 1, 0) if balanced else None
    order = DataOrder(LENGTHS, STEP_SIZE, seed=3, window=window, classes=classes)
    first, again, second = (np.concatenate(list(order.steps(epoch))) for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    assert len(first) == ROWS
    if classes is None:
        assert sorted(first) == list(range(ROWS))
        padded = sum(int(LENGTHS[rows].max()) * len(rows) - int(LENGTHS[rows].sum()) for rows in order.steps(0))
        assert (padded < 0.1 * LENGTHS.sum()) == (window == 64)
    else:
        rare = np.mean([classes[np.concatenate(list(order.steps(epoch)))].mean() for epoch in range(8)])
        assert 0.4 < rare < 0.6  # a tenth of the rows
    assert order.total_steps(1) == 5
