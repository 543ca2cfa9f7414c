"""The range test on a tiny encoder: its rates, that it repeats, where it ends, and what it leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

import toys
from snapfit.core.errors import BadInput, Interrupted, WorkFailed
from snapfit.training.assemble import torch_as_wanted
from snapfit.training.plan import Plan
from snapfit.training.rate_curve import RateCurve
from snapfit.training.rate_finder import run_range_test
from stage import StopWhenTold, make_plan_on

LOWEST, HIGHEST, STEPS = 1e-5, 1.0, 80


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def plan(encoder: Path) -> Plan:
    return make_plan_on(encoder, train__batch=24)


def tried(plan: Plan, **options: Any) -> tuple[RateCurve, list[dict[str, Any]]]:
    """A test and what was heard of it."""
    events: list[dict[str, Any]] = []

    def notify(kind: str, **fields: Any) -> None:
        events.append({"kind": kind, **fields})

    values = {"lowest": LOWEST, "highest": HIGHEST, "steps": STEPS, "notify": notify} | options
    with torch_as_wanted(plan.recipe):
        return run_range_test(plan, **values), events


@pytest.fixture(scope="module")
def curve(plan: Plan) -> RateCurve:
    return tried(plan)[0]


def test_the_rate_rises_and_the_loss_falls_and_runs_away(curve: RateCurve) -> None:
    expected = np.geomspace(LOWEST, HIGHEST, STEPS)[: len(curve)]
    np.testing.assert_allclose(curve.rates, expected, rtol=1e-12)
    assert curve.over == "diverged"
    assert 20 < len(curve) < STEPS
    assert min(curve.smoothed()) < 0.9 * curve.losses[0]


def test_it_repeats_to_the_bit_and_another_seed_differs(plan: Plan, curve: RateCurve, encoder: Path) -> None:
    assert tried(plan)[0] == curve
    other = tried(make_plan_on(encoder, train__batch=24, train__seed=1))[0]
    assert other.losses[0] != curve.losses[0]


def test_the_recipes_rate_cancels_out(encoder: Path, curve: RateCurve) -> None:
    """What rises is the rate itself: where the recipe would have had it changes the last bits at most."""
    other = tried(make_plan_on(encoder, train__batch=24, optim__lr=7e-5))[0]
    np.testing.assert_allclose(other.losses[:20], curve.losses[:20], rtol=1e-4)


def test_every_group_keeps_its_proportion(plan: Plan) -> None:
    """Looked at from outside, by torch's own hook, after each step of the optimizer."""
    seen: list[list[float]] = []

    def note(optimizer: torch.optim.Optimizer, *rest: Any) -> None:
        seen.append([group["lr"] for group in optimizer.param_groups])

    hook = register_optimizer_step_post_hook(note)
    try:
        curve, _ = tried(plan)
    finally:
        hook.remove()
    seen = seen[-len(curve) :]  # building an optimizer may try a step
    recipe = plan.recipe
    assert len(seen) == len(curve)
    top_layer, head, bottom = 1.0, recipe.optim.head_lr_factor, recipe.optim.layer_ratio
    for rate, rates in zip(curve.rates, seen, strict=True):
        proportions = sorted({round(one / rate, 9) for one in rates})
        assert proportions[0] == pytest.approx(bottom)
        assert proportions[-1] == pytest.approx(head)
        assert any(one == pytest.approx(top_layer) for one in proportions)
        assert len(proportions) == 4  # embeddings and layer 1, layer 2, layer 3, head


def test_what_is_told(plan: Plan, curve: RateCurve) -> None:
    _, events = tried(plan)
    kinds = [event["kind"] for event in events]
    assert kinds[:4] == ["weights", "groups", "engine", "start"]
    assert set(kinds[4:]) == {"step"}
    steps = events[4:]
    assert [event["number"] for event in steps] == list(range(1, len(curve) + 1))
    lr = plan.recipe.optim.lr
    assert [event["lr_multiplier"] * lr for event in steps] == pytest.approx(curve.rates)  # type: ignore[operator]
    assert [event["loss"] for event in steps] == curve.losses
    assert {event["total_steps"] for event in steps} == {STEPS}


# ---------------------------------------------------------------- how it ends


def test_it_goes_on_to_the_highest_rate_where_nothing_diverges(plan: Plan) -> None:
    curve, _ = tried(plan, highest=2e-5, steps=12)
    assert (len(curve), curve.over, curve.rates[-1]) == (12, "", 2e-5)


def test_stopping_gives_what_was_seen_until_then(plan: Plan, curve: RateCurve) -> None:
    stop = StopWhenTold()

    def notify(kind: str, **fields: Any) -> None:
        stop.asked = stop.asked or fields.get("number") == 7

    stopped, _ = tried(plan, notify=notify, stop=stop)
    assert stopped.losses == curve.losses[:7]
    assert stopped.over == ""


def test_in_a_hurry_it_only_ends(plan: Plan) -> None:
    stop = StopWhenTold(hurry=True)
    stop.asked = True
    with pytest.raises(Interrupted, match="stopped after step 1 of 80"):
        tried(plan, stop=stop)


def test_numbers_that_overflow_end_it(plan: Plan) -> None:
    curve, _ = tried(plan, lowest=1e30, highest=1e38, steps=20)
    assert curve.over == "not finite"
    assert len(curve) < 20
    assert np.isfinite(curve.losses).all()


def test_a_first_loss_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    folder = toys.encoder_folder(tmp_path / "encoder")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][:] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WorkFailed, match="first step"):
        tried(make_plan_on(folder))


def test_bad_rates_are_refused_before_anything_is_built(plan: Plan) -> None:
    with pytest.raises(BadInput, match=r"rates from 1 to 0\.5"):
        tried(plan, lowest=1.0, highest=0.5)
    with pytest.raises(BadInput, match="3 steps"):
        tried(plan, steps=3)
