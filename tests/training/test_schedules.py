"""Schedules: whole golden lists, equality with torch and transformers, and what holds for every schedule."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_cosine_schedule_with_warmup,
    get_cosine_with_hard_restarts_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from snapfit.core.errors import BadInput
from snapfit.training.schedules import build_schedule, cycle_ends


def values(shape, total_steps, **settings):
    schedule = build_schedule(shape, total_steps, **settings)
    return [schedule(step) for step in range(total_steps)]


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(scheduler, n_steps):
    """The rate that torch's loop uses at each step: read, step the optimizer, step the scheduler."""
    used = []
    for _ in range(n_steps):
        used.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return used


def shifted(theirs, warmup_steps):
    """Transformers' rates on our steps: their warm-up begins at 0, so ours is one step ahead of it."""
    return theirs[1 : warmup_steps + 1] + theirs[warmup_steps:]


GOLDEN = {
    "linear": (
        dict(total_steps=10, warmup_steps=2),
        [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    ),
    "linear to a floor": (dict(total_steps=5, floor=0.5), [1.0, 0.9, 0.8, 0.7, 0.6]),
    "cosine": (dict(total_steps=6), [1.0, 0.933012701892, 0.75, 0.5, 0.25, 0.066987298108]),
    "cosine_restarts": (
        dict(total_steps=9, warmup_steps=1, cycles=2, cycle_decay=0.5),
        [1.0, 1.0, 0.853553390593, 0.5, 0.146446609407, 0.5, 0.426776695297, 0.25, 0.073223304703],
    ),
    "cosine_restarts, longer": (
        dict(total_steps=6, cycles=2, cycle_mult=2.0, floor=0.2),
        [1.0, 0.6, 1.0, 0.882842712475, 0.6, 0.317157287525],
    ),
    "cosine_restarts, peaks under the floor": (
        dict(total_steps=6, cycles=3, cycle_decay=0.25, floor=0.25),
        [1.0, 0.625, 0.25, 0.25, 0.25, 0.25],
    ),
    "one_cycle": (
        dict(total_steps=6, warmup_steps=2),
        [0.03125, 0.515625, 1.0, 0.7578125, 0.515625, 0.2734375],
    ),
    "one_cycle to a floor": (dict(total_steps=4, warmup_steps=2, floor=0.5), [0.5, 0.75, 1.0, 0.75]),
    "wsd": (
        dict(total_steps=8, warmup_steps=2, decay_fraction=0.5),
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)],
    ),
    "constant": (dict(total_steps=4, warmup_steps=2, floor=0.3), [0.5, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    settings, expected = GOLDEN[name]
    assert values(name.split(",")[0].split(" ")[0], **settings) == pytest.approx(expected, abs=1e-12)


def test_one_step_runs_at_the_peak():
    for shape in ("linear", "cosine", "cosine_restarts", "one_cycle", "wsd", "constant"):
        assert values(shape, 1) == [1.0]


def test_the_last_value_holds_after_the_end_and_steps_count_from_zero():
    for shape in ("linear", "cosine_restarts", "one_cycle", "wsd"):
        schedule = build_schedule(shape, 10, warmup_steps=2)
        assert schedule(10) == schedule(1000) == schedule(9)
        with pytest.raises(ValueError, match="from 0"):
            schedule(-1)


def test_one_cycle_is_the_formula_of_ulmfit():
    total, cut_fraction, ratio = 200, 0.1, 32
    cut = math.floor(total * cut_fraction)

    def published(step):
        p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / cut_fraction - 1))
        return (1 + p * (ratio - 1)) / ratio

    expected = [published(step) for step in range(total)]
    assert values("one_cycle", total, warmup_steps=cut) == pytest.approx(expected, abs=1e-12)


def test_snapshot_ensembles_formula():
    total, cycles = 60, 5
    length = math.ceil(total / cycles)
    published = [0.5 * (math.cos(math.pi * ((t - 1) % length) / length) + 1) for t in range(1, total + 1)]
    assert values("cosine_restarts", total, cycles=cycles) == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize(("first", "mult", "cycles"), [(8, 1, 4), (4, 2, 3), (3, 3, 3), (50, 1, 1)])
def test_restarts_equal_torch(first, mult, cycles):
    total = sum(first * mult**k for k in range(cycles))
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer(), T_0=first, T_mult=mult, eta_min=0.05)
    ours = values("cosine_restarts", total, cycles=cycles, cycle_mult=float(mult), floor=0.05)
    assert ours == pytest.approx(rates(theirs, total), abs=1e-12)
    ends = [sum(first * mult**k for k in range(n + 1)) for n in range(cycles)]
    assert cycle_ends("cosine_restarts", total, cycles=cycles, cycle_mult=float(mult)) == ends


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_linear_and_cosine_equal_transformers(warmup):
    total = 60
    for shape, build in (
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
    ):
        theirs = rates(build(optimizer(), warmup, total), total)
        assert values(shape, total, warmup_steps=warmup) == pytest.approx(shifted(theirs, warmup), abs=1e-12)


def test_restarts_equal_transformers():
    theirs = rates(get_cosine_with_hard_restarts_schedule_with_warmup(optimizer(), 8, 8 + 64, num_cycles=4), 72)
    ours = values("cosine_restarts", 72, warmup_steps=8, cycles=4)
    assert ours == pytest.approx(shifted(theirs, 8), abs=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_wsd_equals_transformers(floor):
    """Theirs warms up from the floor, ours from zero, so with a floor the comparison begins after the
    warm-up.
    """
    theirs = get_wsd_schedule(
        optimizer(), num_warmup_steps=10, num_decay_steps=20, num_training_steps=100, decay_type="1-sqrt",
        min_lr_ratio=floor,
    )  # fmt: skip
    ours = values("wsd", 100, warmup_steps=10, decay_fraction=0.2, floor=floor)
    first = 10 if floor else 0
    assert ours[first:] == pytest.approx(shifted(rates(theirs, 100), 10)[first:], abs=1e-12)


def test_runs_inside_torch_lambda_lr():
    schedule = build_schedule("cosine", 20, warmup_steps=4)
    lambda_lr = torch.optim.lr_scheduler.LambdaLR(optimizer(), schedule)
    assert rates(lambda_lr, 20) == [schedule(step) for step in range(20)]


@st.composite
def any_schedule(draw):
    total = draw(st.integers(1, 300))
    warmup = draw(st.integers(0, total - 1))
    shape = draw(st.sampled_from(["linear", "cosine", "cosine_restarts", "one_cycle", "wsd", "constant"]))
    settings = dict(
        warmup_steps=warmup,
        floor=draw(st.floats(0, 0.9)),
        decay_fraction=draw(st.floats(0.01, 1)),
        cycle_decay=draw(st.floats(0.01, 1)),
        cycles=1,
        cycle_mult=1.0,
    )
    if shape == "cosine_restarts":
        settings |= dict(cycles=draw(st.integers(1, 12)), cycle_mult=draw(st.floats(0.5, 3)))
    return shape, total, settings


@given(any_schedule())
def test_every_schedule(drawn):
    shape, total, settings = drawn
    cycle_settings = {key: settings[key] for key in ("warmup_steps", "cycles", "cycle_mult")}
    try:
        got = values(shape, total, **settings)
    except BadInput:
        with pytest.raises(BadInput):
            cycle_ends(shape, total, **cycle_settings)
        assert settings["cycles"] > 1
        return
    warmup, floor = settings["warmup_steps"], settings["floor"]
    assert all(0.0 < value <= 1.0 + 1e-12 for value in got)
    assert all(value >= floor - 1e-12 for value in got[warmup:])
    if shape != "one_cycle":
        assert got[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    ends = cycle_ends(shape, total, **cycle_settings)
    assert len(ends) == settings["cycles"]
    assert ends[-1] == total
    starts = [warmup, *ends[:-1]]
    for start, end in zip(starts, ends, strict=True):
        assert end > start
        assert got[end - 1] == min(got[start:end])
        assert got[start] == max(got[start:end])


@pytest.mark.parametrize("cycles", [2, 3, 50])
def test_cycles_that_do_not_fit(cycles):
    total = 2 * cycles
    assert len(cycle_ends("cosine_restarts", total, cycles=cycles)) == cycles
    with pytest.raises(BadInput, match=f"{cycles} cycles in {total - 1} steps"):
        build_schedule("cosine_restarts", total - 1, cycles=cycles)
    with pytest.raises(BadInput, match="two steps in every cycle"):
        cycle_ends("cosine_restarts", total + 1, warmup_steps=2, cycles=cycles)


@pytest.mark.parametrize("cycle_mult", [1e300, 1e-300, 50.0])
def test_extreme_growth_is_refused_and_never_overflows(cycle_mult):
    with pytest.raises(BadInput, match="times as long"):
        cycle_ends("cosine_restarts", 40, cycles=9, cycle_mult=cycle_mult)


@pytest.mark.parametrize(
    ("shape", "total", "settings", "words"),
    [
        ("cosin", 10, {}, "--set schedule.shape=cosine"),
        ("linear", 0, {}, "at least one optimizer step"),
        ("linear", 10, dict(warmup_steps=10), "between 0 and 9"),
        ("linear", 10, dict(warmup_steps=-1), "between 0 and 9"),
        ("linear", 10, dict(cycles=3), "no cycles"),
        ("linear", 10, dict(floor=1.0), "schedule.floor is 1.0"),
        ("wsd", 10, dict(decay_fraction=0.0), "schedule.decay_fraction is 0.0"),
        ("cosine_restarts", 10, dict(cycles=0), "at least one cycle"),
        ("cosine_restarts", 10, dict(cycles=2, cycle_mult=math.nan), "a cycle_mult above 0"),
        ("cosine_restarts", 10, dict(cycles=2, cycle_decay=1.5), "schedule.cycle_decay is 1.5"),
    ],
)
def test_refused(shape, total, settings, words):
    with pytest.raises(BadInput, match=words):
        build_schedule(shape, total, **settings)
