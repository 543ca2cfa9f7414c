"""The arithmetic of a range test: rates, smoothing, and suggestions on curves whose answer is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from snapfit.core.errors import BadInput
from snapfit.training.rate_curve import (
    DIVERGED,
    FEWEST_STEPS,
    SMOOTHING,
    RateCurve,
    exponential_rates,
    spread,
    suggest,
)


def seen(rate_of: Callable[[int], float], steps: int, loss_of: Callable[[float], float]) -> RateCurve:
    """The curve of a test in which the loss is a function of the rate."""
    curve = RateCurve()
    for step in range(steps):
        curve.take(rate_of(step), loss_of(rate_of(step)))
        if curve.over:
            break
    return curve


# ---------------------------------------------------------------- the rates


def test_the_rates_are_these() -> None:
    rate_of = exponential_rates(1e-7, 1e2, 10)
    assert [rate_of(step) for step in range(10)] == pytest.approx([10.0**power for power in range(-7, 3)], rel=1e-12)
    assert (rate_of(0), rate_of(9), rate_of(10)) == (1e-7, 1e2, 1e2)
    assert exponential_rates(1e-300, 1e300, 11)(5) == pytest.approx(1.0, rel=1e-9)
    rate_of = exponential_rates(3e-6, 0.7, 57)
    rates = np.array([rate_of(step) for step in range(57)])
    assert (rates[0], rates[-1]) == (3e-6, 0.7)
    np.testing.assert_allclose(rates, np.geomspace(3e-6, 0.7, 57), rtol=1e-12)


@pytest.mark.parametrize(
    ("lowest", "highest"),
    [(0.0, 1.0), (-1e-3, 1.0), (1e-3, 1e-3), (1e-3, 1e-4), (1e-3, math.inf), (math.nan, 1.0), (1e-3, math.nan)],
)
def test_rates_that_do_not_rise_from_above_0_are_refused(lowest: float, highest: float) -> None:
    with pytest.raises(BadInput, match="rates from") as error:
        exponential_rates(lowest, highest, 100)
    assert "--lowest" in error.value.fix


@pytest.mark.parametrize("steps", [-1, 0, 9])
def test_too_few_steps_are_refused(steps: int) -> None:
    with pytest.raises(BadInput, match=f"{steps} steps"):
        exponential_rates(1e-7, 1.0, steps)


# ---------------------------------------------------------------- the smoothing


def test_a_smoothed_loss_is_the_weighted_mean_of_all() -> None:
    losses = np.random.default_rng(0).uniform(1, 1.2, 40)
    curve = RateCurve(np.geomspace(1e-6, 1e-2, 40).tolist(), losses.tolist())
    places = np.arange(40)
    expected = [np.average(losses, weights=SMOOTHING ** np.abs(places - now)) for now in places]
    assert curve.smoothed() == pytest.approx(expected, rel=1e-12)


def test_smoothing_does_not_shift_a_curve() -> None:
    """Turned around it is the same curve turned around; a running mean would be behind in both."""
    slope = [3.0 - step / 20 for step in range(30)]
    losses = [*[3.0] * 12, *slope, *[1.5] * 3, *slope[::-2], *[3.0] * 12]
    n = len(losses)
    there = RateCurve([1.0] * n, losses).smoothed()
    assert there == pytest.approx(RateCurve([1.0] * n, losses[::-1]).smoothed()[::-1], rel=1e-12)
    line = RateCurve([1.0] * 80, [4.0 - step / 40 for step in range(80)]).smoothed()
    assert line[30:50] == pytest.approx([4.0 - step / 40 for step in range(30, 50)], abs=1e-3)


def test_losses_that_ran_away_do_not_hide_what_was_before_them() -> None:
    steps = [4.0 - step / 40 for step in range(80)]
    near, far = (RateCurve([1.0] * 83, [*steps, *[lost] * 3]).smoothed() for lost in (50.0, 5e30))
    assert near == far
    assert min(range(83), key=near.__getitem__) >= 70


def test_the_spread_is_that_of_the_noise_whatever_the_trend() -> None:
    rng = np.random.default_rng(0)
    noise = 0.2 * rng.standard_normal(4000)
    trend = np.linspace(4, 1, 4000)
    assert spread(noise.tolist()) == pytest.approx(0.2, rel=0.05)
    assert spread((noise + trend).tolist()) == pytest.approx(0.2, rel=0.05)
    assert spread([*(noise + trend).tolist(), 1e9, 1e12]) == pytest.approx(0.2, rel=0.05)
    assert spread([1.0]) == spread([]) == 0.0


# ---------------------------------------------------------------- where it ends


def test_it_ends_where_the_running_mean_is_four_times_its_least() -> None:
    def jump(to: float) -> RateCurve:
        return seen(exponential_rates(1e-6, 1.0, 100), 100, lambda rate: 1.0 if rate < 1e-3 else to)

    curve = jump(16.0)
    after = sum(rate >= 1e-3 for rate in curve.rates)
    # 1 + 15 (1 - 0.9^n) > 4 first for n = 3: 1 - 0.9^2 = 0.19, 1 - 0.9^3 = 0.271
    assert (curve.over, after) == ("diverged", 3)
    flat = jump(3.9)
    assert (flat.over, len(flat)) == ("", 100)
    assert DIVERGED == 4.0


def test_it_does_not_end_among_the_first_steps() -> None:
    curve = RateCurve()
    for step, loss in enumerate([0.1, *[9.0] * (FEWEST_STEPS - 1)]):
        curve.take(1e-6 * 2.0**step, loss)
        assert not curve.over
    curve.take(1e-2, 9.0)
    assert curve.over == "diverged"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_it_and_is_not_kept(bad: float) -> None:
    curve = RateCurve()
    curve.take(1e-6, 1.0)
    curve.take(2e-6, bad)
    assert curve.over == "not finite"
    assert (curve.rates, curve.losses, curve.smoothed()) == ([1e-6], [1.0], [1.0])


# ---------------------------------------------------------------- what it suggests

FALLS_AT, RUNS_AWAY_AT = 2e-4, 1e-2


def loss_at(rate: float) -> float:
    """A loss that falls from 4.3 to 2.3, fastest at FALLS_AT, and runs away near RUNS_AWAY_AT."""
    decades, beyond = math.log10(rate / FALLS_AT), math.log10(rate / RUNS_AWAY_AT)
    return 4.3 - 2 / (1 + math.exp(-5 * decades)) + math.exp(min(4 * beyond, 6.0))


def known_answers() -> tuple[float, float]:
    """Where it falls fastest and where it is least, from a fine grid."""
    rates = np.geomspace(1e-7, RUNS_AWAY_AT, 100_001)
    losses = np.array([loss_at(rate) for rate in rates])
    slopes = np.gradient(losses, np.log(rates))
    return float(rates[slopes.argmin()]), float(rates[losses.argmin()])


def noisy(rate_of: Callable[[int], float], steps: int, noise: float, seed: int) -> RateCurve:
    rng = np.random.default_rng(seed)
    return seen(rate_of, steps, lambda rate: loss_at(rate) + noise * float(rng.standard_normal()))


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(1e-7, 1.0, 100), (1e-6, 0.1, 100), (1e-7, 1.0, 200)])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_known_answers_are_found_whatever_the_range(lowest: float, highest: float, steps: int, noise: float) -> None:
    steepest, least = known_answers()
    assert (steepest, least) == (pytest.approx(2e-4, rel=0.1), pytest.approx(1.5e-3, rel=0.5))
    rate_of = exponential_rates(lowest, highest, steps)
    found = [suggest(noisy(rate_of, steps, noise, seed)) for seed in range(40)]
    assert all(one.steepest is not None and one.least is not None for one in found)
    off = np.log10([one.steepest for one in found]) - math.log10(steepest)  # type: ignore[arg-type]
    assert abs(off.mean()) < 0.1
    assert abs(off).max() < 0.1 + 1.5 * noise  # a tenth of a decade, and what noise does
    off_least = np.log10([one.least for one in found]) - math.log10(least)  # type: ignore[arg-type]
    assert abs(off_least.mean()) < 0.15
    assert abs(off_least).max() < 0.2 + 1.5 * noise
    for one in found:
        assert one.rate == float(f"{one.steepest:.1e}")
        assert one.tenth == pytest.approx(one.least / 10)  # type: ignore[operator]


def test_where_nothing_is_learnt_nothing_is_suggested() -> None:
    kinds = (lambda rng: rng.standard_normal(100), lambda rng: rng.exponential(size=100))
    for draw in kinds:
        found = 0
        for seed in range(200):
            losses = 3.0 + 0.3 * draw(np.random.default_rng(seed))
            curve = RateCurve(np.geomspace(1e-7, 1, 100).tolist(), losses.tolist())
            found += suggest(curve).rate is not None
        assert found <= 2  # of 200


def test_why_nothing_is_suggested() -> None:
    few = suggest(RateCurve([1e-3] * 10, [1.0] * 10))
    assert (few.steepest, few.least, few.tenth, few.rate) == (None, None, None, None)
    assert few.why == "10 steps are too few"
    flat = suggest(RateCurve(np.geomspace(1e-7, 1, 50).tolist(), [1.0] * 50))
    assert flat.why == "the loss fell by 0 at most, while single steps vary by 0"
    rising = suggest(RateCurve(np.geomspace(1e-7, 1, 50).tolist(), np.linspace(1, 3, 50).tolist()))
    assert rising.rate is None


def test_a_loss_that_still_falls_at_the_end_is_told() -> None:
    open_end = seen(exponential_rates(1e-7, 1e-3, 100), 100, loss_at)
    assert not open_end.over
    assert "had not risen again" in suggest(open_end).why
    assert "had not risen again" not in suggest(seen(exponential_rates(1e-7, 1.0, 100), 100, loss_at)).why


@pytest.mark.parametrize("curvature", [0.5, 1.0, 300.0])
def test_on_a_quadratic_the_rate_is_stable_and_learns(curvature: float) -> None:
    """Gradient descent on c w^2 / 2 diverges from 2 / c on, the closed form, and is done in one step at 1 / c."""
    curve, weight = RateCurve(), 1.0
    rate_of = exponential_rates(1e-6 / curvature, 100 / curvature, 100)
    for step in range(100):
        curve.take(rate_of(step), 1e-3 + curvature * weight**2 / 2)
        weight -= rate_of(step) * curvature * weight
        if curve.over:
            break
    found = suggest(curve)
    assert curve.over == "diverged"
    assert found.rate is not None
    assert 0.01 / curvature < found.rate < 1 / curvature
    print(found.rate * curvature, found.least * curvature)  # type: ignore[operator]
