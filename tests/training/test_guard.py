"""The guard: which losses are learnt from, how much is borne, and what a training that learnt nothing looks like."""

import json
import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import WorkFailed
from snapfit.core.labels import LabelSet
from snapfit.core.metrics import tally
from snapfit.training.guard import (
    DEAD_SHARE,
    FAULTS,
    FEWEST_ROWS,
    FIRST_STEPS,
    RATE_CUT,
    RECENT_STEPS,
    SPIKE,
    Guard,
)
from snapfit.training.guard import collapse as collapse_of_range

LOSSES = st.floats(0.0, 1e6)


def guard_after(losses: list[float], max_recoveries: int = 3) -> Guard:
    guard = Guard(max_recoveries)
    for loss in losses:
        guard.saw(loss)
    return guard


# ---------------------------------------------------------------- spikes


def test_the_first_steps_may_be_anything() -> None:
    guard = Guard(3)
    for step in range(FIRST_STEPS):
        assert guard.accepts(1e30), step
        guard.saw(1.0)
    assert not guard.accepts(1e30)


def test_a_loss_far_beyond_the_usual_is_a_spike() -> None:
    guard = guard_after([2.0] * FIRST_STEPS)
    assert guard.accepts(SPIKE * 2.0)
    assert not guard.accepts(math.nextafter(SPIKE * 2.0, math.inf))


def test_heavy_rows_are_no_spike() -> None:
    guard = Guard(3, heaviest=15.0)
    for _ in range(FIRST_STEPS):
        guard.saw(2.0)
    assert guard.accepts(SPIKE * 30.0)
    assert not guard.accepts(math.nextafter(SPIKE * 30.0, math.inf))
    light = Guard(3, heaviest=0.5)  # no row weighs more than the mean one: as without weights
    for _ in range(FIRST_STEPS):
        light.saw(2.0)
    assert light.accepts(SPIKE * 2.0)


def test_what_is_usual_falls_no_lower_than_it_was_in_the_first_steps() -> None:
    guard = guard_after([2.0] * FIRST_STEPS + [1e-6] * 3 * RECENT_STEPS)
    assert guard.accepts(SPIKE * 2.0)


def test_what_is_usual_rises_with_the_latest_losses() -> None:
    guard = guard_after([0.1] * FIRST_STEPS)
    assert not guard.accepts(100.0)
    for _ in range(RECENT_STEPS):
        guard.saw(5.0)
    assert guard.accepts(100.0)


@given(st.lists(LOSSES, min_size=FIRST_STEPS, max_size=90), LOSSES)
def test_the_rule_is_its_formula(losses: list[float], loss: float) -> None:
    usual = max(median(losses[:FIRST_STEPS]), median(losses[-RECENT_STEPS:]))
    assert guard_after(losses).accepts(loss) == (loss <= SPIKE * usual)


# ---------------------------------------------------------------- counting


def test_too_many_recoveries_fail_the_run() -> None:
    guard = Guard(2)
    guard.count(4, "the loss is nan")
    guard.count(5, "the loss is nan")
    with pytest.raises(WorkFailed, match=r"step 9: the loss is inf; 2 steps .* lower optim\.lr"):
        guard.count(9, "the loss is inf")
    assert guard.recoveries == 3


def test_none_may_be_borne() -> None:
    with pytest.raises(WorkFailed):
        Guard(0).count(1, "x")


def test_rates_are_cut_again_and_again() -> None:
    guard = Guard(3)
    assert guard.rate_factor == 1.0
    guard.slow_down()
    guard.slow_down()
    assert guard.rate_factor == RATE_CUT**2


def test_every_fault_has_words() -> None:
    for text in FAULTS.values():
        assert "{" not in text.format(loss=1.5, grad_norm=math.inf)


# ---------------------------------------------------------------- state


@given(st.lists(LOSSES, max_size=90), st.lists(LOSSES, max_size=40), st.lists(LOSSES, max_size=5), st.integers(0, 3))
def test_a_restored_guard_behaves_alike(before: list[float], after: list[float], asked: list[float], cuts: int) -> None:
    guard, restored = guard_after(before), Guard(3)
    for step in range(cuts):
        guard.count(step, "x")
        guard.slow_down()
    restored.restore(json.loads(json.dumps(guard.to_dict())))
    assert restored.to_dict() == guard.to_dict()
    for loss in after:
        assert restored.accepts(loss) == guard.accepts(loss)
        guard.saw(loss)
        restored.saw(loss)
    assert [restored.accepts(loss) for loss in asked] == [guard.accepts(loss) for loss in asked]
    assert restored.to_dict() == guard.to_dict()
    assert (restored.recoveries, restored.rate_factor) == (cuts, RATE_CUT**cuts)


# ---------------------------------------------------------------- collapse

SINGLE = LabelSet("single", ("food", "tools", "animals"))
NUMBER = LabelSet("regression", ("price",), 100.0, 10.0)


def collapse(scores: np.ndarray, label_set: LabelSet, norms: dict[str, float]) -> str | None:
    """What is said of an evaluation that gave these scores."""
    counted, targets = tally(label_set.task, label_set.n_outputs), np.zeros_like(scores)
    counted.add(scores, targets[:, 0].astype(np.int64) if label_set.task == "single" else targets)
    return collapse_of_range(counted.rows, counted.answer_range(), label_set, norms)


def same_answers(n: int, column: int = 1) -> np.ndarray:
    scores = np.random.default_rng(0).random((n, 3))
    scores[:, column] += 2.0
    return scores


def test_one_answer_for_every_row_is_a_collapse() -> None:
    text = collapse(same_answers(1500), SINGLE, {"head": 1.0, "layer 1": 0.5})
    assert text is not None
    assert "all 1,500 validation rows are answered 'tools'" in text
    assert "lower optim.lr" in text
    assert "gradient" not in text


def test_two_answers_are_none() -> None:
    scores = same_answers(50)
    scores[7] = [0.0, 0.0, 9.0]
    assert collapse(scores, SINGLE, {}) is None


def test_few_rows_prove_nothing() -> None:
    assert collapse(same_answers(FEWEST_ROWS - 1), SINGLE, {}) is None
    assert collapse(same_answers(FEWEST_ROWS), SINGLE, {}) is not None
    assert collapse(np.full((FEWEST_ROWS - 1, 1), 100.0), NUMBER, {}) is None


def test_many_labels_a_row_are_never_called_collapsed() -> None:
    assert collapse(same_answers(50), LabelSet("multi", ("a", "b", "c")), {}) is None


def test_a_regression_that_answers_one_number() -> None:
    rng = np.random.default_rng(0)
    flat = 123.456 + rng.uniform(-0.004, 0.004, (60, 1))  # within a thousandth of the targets' spread
    text = collapse(flat, NUMBER, {})
    assert text is not None
    assert "all 60 validation rows are answered 123.5" in text
    assert collapse(123.456 + rng.uniform(-0.1, 0.1, (60, 1)), NUMBER, {}) is None


@pytest.mark.parametrize(("n_dead", "ending"), [(1, "low 0;"), (3, "low 0, low 1, low 2;"), (5, "low 2 and others;")])
def test_groups_without_signal_are_named(n_dead: int, ending: str) -> None:
    norms = {f"low {i}": 0.9 * DEAD_SHARE for i in range(n_dead)} | {"head": 1.0, "top": 2 * DEAD_SHARE}
    text = collapse(same_answers(30), SINGLE, norms)
    assert text is not None
    assert "hardly any gradient reaches low 0" in text
    assert ending in text
    assert "top" not in text


def test_gradients_that_all_vanished_name_no_group() -> None:
    text = collapse(same_answers(30), SINGLE, {"head": 0.0, "low": 0.0})
    assert text is not None
    assert "gradient" not in text
