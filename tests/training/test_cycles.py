"""Cycles of a run: when they end and how the rates move in them, as whole lists, for every kind of them."""

import math
from typing import Any

import pytest

from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe
from snapfit.training.cycles import Cycles, plan_cycles
from snapfit.training.schedules import build_schedule, cycle_ends, round_ends, with_rounds


def half_cosine(way: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * way))


def cycles_of(total_steps: int, **settings: Any) -> Cycles:
    values = {key.replace("__", "."): value for key, value in settings.items()}
    return plan_cycles(Recipe().with_values(values), total_steps)


def test_a_run_has_one_cycle_and_head_and_encoder_move_alike() -> None:
    cycles = cycles_of(10)
    assert (cycles.ends, cycles.rounds) == ((10,), 0)
    wanted = build_schedule("linear", 10, warmup_steps=1)
    for step in range(12):
        assert cycles.encoder(step) == cycles.head(step) == wanted(step)
    assert not any(cycles.restarts_after(step) or cycles.in_rounds(step) for step in range(11))


def test_equal_cycles_are_those_of_snapshot_ensembles() -> None:
    """Huang et al. 2017: alpha_0 / 2 * (cos(pi * mod(t - 1, ceil(T / M)) / ceil(T / M)) + 1), t counted from 1."""
    steps, m = 12, 3
    cycles = cycles_of(steps, schedule__shape="cosine_restarts", schedule__cycles=m, schedule__warmup_fraction=0.0)
    length = math.ceil(steps / m)
    published = [0.5 * (math.cos(math.pi * ((t - 1) % length) / length) + 1) for t in range(1, steps + 1)]
    assert [cycles.encoder(step) for step in range(steps)] == pytest.approx(published, abs=1e-12)
    assert cycles.ends == (4, 8, 12)
    assert not any(cycles.restarts_after(step) for step in range(13))  # the schedule alone begins them anew


def test_cycles_that_grow_end_where_the_schedule_says() -> None:
    settings = {"schedule__shape": "cosine_restarts", "schedule__cycles": 3, "schedule__cycle_mult": 2.0}
    cycles = cycles_of(80, **settings, schedule__cycle_decay=0.5, schedule__warmup_fraction=0.125)
    assert list(cycles.ends) == cycle_ends("cosine_restarts", 80, warmup_steps=10, cycles=3, cycle_mult=2.0)
    assert cycles.ends == (20, 40, 80)
    assert [cycles.encoder(end) for end in (20, 40)] == [0.5, 0.25]


def test_rounds_after_an_anchor_as_a_whole_list() -> None:
    cycles = cycles_of(
        20,
        schedule__warmup_fraction=0.2,
        ensemble__members=3,
        ensemble__rounds=2,
        ensemble__anchor_share=0.5,
        ensemble__rewarm_fraction=0.4,
    )
    assert cycles.ends == (10, 15, 20)
    anchor = [0.5, 1.0, *(1 - i / 8 for i in range(8))]
    one_round = [0.5, 1.0, *(half_cosine(i / 3) for i in range(3))]
    assert [cycles.encoder(s) for s in range(20)] == pytest.approx(anchor + 2 * [0.5 * r for r in one_round], abs=1e-12)
    assert [cycles.head(s) for s in range(20)] == pytest.approx(anchor + 2 * [0.1 * r for r in one_round], abs=1e-12)
    assert [step for step in range(21) if cycles.restarts_after(step)] == [10, 15]
    assert [step for step in range(20) if cycles.in_rounds(step)] == list(range(10, 20))
    assert cycles.star
    assert cycles.encoder(25) == cycles.encoder(19)


def test_the_anchor_is_the_run_that_would_have_as_many_steps() -> None:
    rounds = cycles_of(100, ensemble__members=4, ensemble__rounds=3, schedule__shape="wsd")
    alone = cycles_of(60, schedule__shape="wsd")
    assert [rounds.encoder(step) for step in range(60)] == [alone.encoder(step) for step in range(60)]


@pytest.mark.parametrize(("total", "rounds", "share"), [(17, 3, 0.6), (101, 5, 0.5), (9, 2, 0.3)])
def test_rounds_share_the_rest_alike(total: int, rounds: int, share: float) -> None:
    ends = round_ends(total, rounds, share)
    lengths = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    assert (ends[0], ends[-1], len(lengths)) == (round(share * total), total, rounds)
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("steps", range(2, 9))
def test_a_round_always_learns_and_never_exceeds_its_rate(steps: int) -> None:
    for fraction in (0.0, 0.05, 0.5, 0.99):
        schedule = with_rounds(lambda step: 1.0, [3, 3 + steps], rate=0.5, rewarm_fraction=fraction)
        values = [schedule(step) for step in range(3, 3 + steps)]
        assert all(0.0 < value <= 0.5 for value in values)
        assert max(values) == 0.5


@pytest.mark.parametrize(("total", "rounds", "share"), [(10, 5, 0.6), (4, 1, 0.9), (3, 1, 0.1)])
def test_rounds_that_do_not_fit(total: int, rounds: int, share: float) -> None:
    with pytest.raises(BadInput, match=f"{rounds} rounds after"):
        round_ends(total, rounds, share)
