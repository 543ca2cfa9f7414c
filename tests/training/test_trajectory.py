"""Averages along a training are the sums that they are said to be, of its steps' weights, however it came there."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import toys
from snapfit.core.errors import BadInput
from snapfit.training.checkpoint import AVERAGES, Checkpoint
from snapfit.training.fit import fit
from snapfit.training.members import Member, Members, read_member
from snapfit.training.plan import Plan
from snapfit.training.tensor_files import read_tensors
from snapfit.training.trajectory import Trajectory
from stage import Event, Stage, make_plan_on, newest, stop_at_step

BOTH = {"ensemble__ema_share": 0.2, "ensemble__tail_share": 0.5}
"""Of the 12 steps of the stage: the time constant is 2.4 steps, the tail are steps 7 to 12."""
Weights = Mapping[str, Tensor]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def plan(encoder: Path) -> Plan:
    return make_plan_on(encoder, **BOTH)


class Steps:
    """Copies the weights of each step, those of the last time where a step is done again."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}

    def __call__(self, stage: Stage, event: Event) -> None:
        if event["kind"] == "step":
            with torch.no_grad(), stage.training.assembly.whole():
                self.weights[event["number"]] = {
                    name: tensor.detach().clone() for name, tensor in stage.model.state_dict().items()
                }


def explicit(weights: Mapping[int, Weights], factors: Mapping[int, float]) -> dict[str, np.ndarray]:
    """The weighted mean over steps, in float64 and in one sum."""
    whole = sum(factors.values())
    names = weights[next(iter(factors))]
    return {
        name: sum(factor / whole * weights[step][name].double().numpy() for step, factor in factors.items())
        for name in names
    }


def ema_factors(steps: list[int], constant: float) -> dict[int, float]:
    """exp(-time since a step), times what one step counts for: written anew, from the formula alone."""
    gaps = {step: step - before for before, step in zip([0, *steps], steps, strict=False)}
    return {step: (1 - math.exp(-gaps[step] / constant)) * math.exp(-(steps[-1] - step) / constant) for step in steps}


def near(found: Weights, expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.double().numpy(), expected[name], rtol=2e-6, atol=2e-7)


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def all_same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def averages(stage: Stage) -> dict[str, dict[str, Tensor]]:
    return stage.training.progress.trajectory.averages()


# ---------------------------------------------------------------- when, and which sums


@pytest.mark.parametrize(
    ("steps", "due", "tail"),
    [
        (10, list(range(1, 11)), [8, 9, 10]),
        (250, list(range(2, 251, 2)), list(range(176, 251, 2))),
        (1037, [*range(10, 1031, 10), 1037], [*range(730, 1031, 10), 1037]),
    ],
)
def test_updates_are_spread_evenly_and_the_last_step_is_among_them(steps: int, due: list[int], tail: list[int]) -> None:
    trajectory = Trajectory(ema_share=0.1, tail_share=0.3, steps=steps)
    found = {step: trajectory.due(step) for step in range(-1, steps + 30)}
    assert [step for step, names in found.items() if "ema" in names] == due
    assert [step for step, names in found.items() if "tail" in names] == tail


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_tail_is_the_share_of_the_steps_that_it_says(share: float) -> None:
    """Also where 1 - share is no exact number."""
    for steps in (20, 40, 60, 80):
        trajectory = Trajectory(tail_share=share, steps=steps)
        assert sum("tail" in trajectory.due(step) for step in range(1, steps + 1)) == round(share * steps)
    assert Trajectory(tail_share=1e-6, steps=50).due(50) == ["tail"]
    assert Trajectory(tail_share=1e-6, steps=50).due(49) == []


@pytest.mark.parametrize("steps", [7, 250, 1037])
def test_averages_are_the_sums_that_they_are_said_to_be(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    trajectory = Trajectory(ema_share=0.1, tail_share=0.3, steps=steps)
    seen: dict[int, dict[str, Tensor]] = {}
    for step in range(1, steps + 1):
        if trajectory.due(step):
            seen[step] = {"a": torch.randn(3, 2, generator=generator), "b": torch.randn((), generator=generator) + 5}
            trajectory.add(step, seen[step])
            updates = [one for one in seen if one <= step]
            if step in (updates[0], updates[len(updates) // 2], steps):
                near(trajectory.averages()["ema"], explicit(seen, ema_factors(updates, 0.1 * steps)))
    tail = [step for step in seen if step > steps - round(0.3 * steps)]
    near(trajectory.averages()["tail"], explicit(seen, dict.fromkeys(tail, 1.0)))
    assert (trajectory.last_step("ema"), trajectory.last_step("tail")) == (steps, steps)


def test_the_first_weights_are_the_average_of_themselves() -> None:
    weights = {"a": torch.tensor([0.1, -7e30, 3e-30])}
    trajectory = Trajectory(ema_share=0.5, tail_share=0.5, steps=1)
    assert trajectory.averages() == {}
    trajectory.add(1, weights)
    assert all_same(trajectory.averages(), {"ema": weights, "tail": weights})


def test_equal_weights_stay_as_they_are_to_the_last_bit() -> None:
    """So frozen layers are the same in an average as in every member."""
    weights = {"a": torch.randn(1000, generator=torch.Generator().manual_seed(0))}
    trajectory = Trajectory(ema_share=0.1, tail_share=0.9, steps=100)
    for step in range(1, 101):
        trajectory.add(step, weights)
    assert all_same(trajectory.averages(), {"ema": weights, "tail": weights})


def test_what_was_taken_in_may_change_afterwards_and_what_was_given_never_does() -> None:
    weights = {"a": torch.zeros(2), "n": torch.tensor(1), "flag": torch.tensor([True])}
    trajectory = Trajectory(tail_share=0.99, steps=4)
    trajectory.add(1, weights)
    before = trajectory.averages()["tail"]
    for tensor in weights.values():
        tensor.add_(1) if tensor.dtype != torch.bool else tensor.logical_not_()
    assert before["a"].tolist() == [0.0, 0.0]
    assert before["n"].item() == 1
    trajectory.add(2, weights)
    now = trajectory.averages()["tail"]
    assert before["a"].tolist() == [0.0, 0.0]
    assert now["a"].tolist() == [0.5, 0.5]
    assert now["n"].dtype == torch.int64
    assert now["n"].item() == 2  # a counter is that of the last weights
    assert now["flag"].tolist() == [False]


def test_narrow_weights_are_averaged_in_float32() -> None:
    """In bfloat16 256 + 1 is 256: a running mean would stand still."""
    trajectory = Trajectory(tail_share=0.99, steps=100)
    for step in range(1, 101):
        trajectory.add(step, {"a": torch.tensor([256.0 if step % 2 else 258.0], dtype=torch.bfloat16)})
    found = trajectory.averages()["tail"]["a"]
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(257.0 + 1 / 99, rel=1e-6)


# ---------------------------------------------------------------- of a training


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train__precision": "bf16"},
        {"train__accumulate": 2, "train__batch": 4},
        {"optim__name": "sgd", "optim__lr": 0.01},
        {"optim__freeze_layers": 1},
    ],
    ids=["fp32", "bf16", "accumulate", "sgd", "frozen"],
)
def test_they_are_averages_of_the_weights_of_the_steps(encoder: Path, settings: dict[str, Any]) -> None:
    steps = Steps()
    stage = Stage(make_plan_on(encoder, **BOTH, **settings), on=steps).run()
    found = averages(stage)
    total = stage.plan.total_steps
    assert total == 12
    near(found["ema"], explicit(steps.weights, ema_factors(list(range(1, 13)), 2.4)))
    near(found["tail"], explicit(steps.weights, dict.fromkeys(range(7, 13), 1.0)))


def test_the_whole_table_of_word_embeddings_is_averaged(encoder: Path) -> None:
    stage = Stage(make_plan_on(encoder, **BOTH)).run()
    rows = stage.training.assembly.rows
    assert rows is not None
    assert rows.trained < rows.all
    for mean in averages(stage).values():
        assert len(mean[rows.name]) == rows.all


def test_averaging_changes_nothing_of_the_training(encoder: Path, plan: Plan, tmp_path: Path) -> None:
    plain = Stage(make_plan_on(encoder), tmp_path / "plain").run()
    averaging = Stage(plan, tmp_path / "averaging").run()
    one, other = plain.state(), averaging.state()
    assert set(other["progress"].pop("averages")) == {"ema", "tail"}
    assert one == other
    files = [{path.name for path in newest(tmp_path / name).folder.iterdir()} for name in ("plain", "averaging")]
    assert files[1] - files[0] == {"averages.safetensors"}
    assert averages(plain) == {}


@pytest.mark.parametrize("name", ["ema", "tail"])
def test_each_can_be_had_alone(encoder: Path, plan: Plan, name: str) -> None:
    alone = Stage(make_plan_on(encoder, **{f"ensemble__{name}_share": BOTH[f"ensemble__{name}_share"]})).run()
    assert all_same(averages(alone), {name: averages(Stage(plan).run())[name]})


def test_without_validation_there_are_averages_too(encoder: Path) -> None:
    steps = Steps()
    stage = Stage(make_plan_on(encoder, valid=False, **BOTH), on=steps).run()
    near(averages(stage)["tail"], explicit(steps.weights, dict.fromkeys(range(7, 13), 1.0)))


def test_rounds_are_in_no_average(encoder: Path) -> None:
    """12 steps, of which the anchor has 6: its tail are steps 4 to 6."""
    settings = {"ensemble__members": 6, "ensemble__rounds": 3, "ensemble__anchor_share": 0.5}
    plan, steps = make_plan_on(encoder, **settings, **BOTH), Steps()
    stage = Stage(plan, members=Members(6), on=steps).run()
    near(averages(stage)["tail"], explicit(steps.weights, dict.fromkeys((4, 5, 6), 1.0)))
    near(averages(stage)["ema"], explicit(steps.weights, ema_factors(list(range(1, 7)), 1.2)))
    assert stage.training.progress.trajectory.last_step("tail") == 6


def test_a_run_that_patience_ends_before_its_tail_has_none(encoder: Path) -> None:
    plan = make_plan_on(encoder, train__patience=1, optim__lr=1e-30, **BOTH)
    stage = Stage(plan).run()
    assert stage.training.progress.step == 6
    assert set(averages(stage)) == {"ema"}


def test_what_was_trained_has_its_averages_among_the_candidates(encoder: Path) -> None:
    members = Members(0)
    fitted = fit(make_plan_on(encoder, **BOTH), notify=lambda kind, **fields: None, members=members)
    expected = averages(Stage(make_plan_on(encoder, **BOTH)).run())
    for member in members.averages:
        held = dict(members.weights(member))
        assert all_same({member.why: held}, {member.why: expected[member.why]})
        fitted.model.load_state_dict(held)
    assert {member.why for member in members.averages} == {"ema", "tail"}
    assert fitted.verdict is not None
    assert {"exponential average", "average of the tail"} <= {row.name for row in fitted.verdict.rows}


# ---------------------------------------------------------------- beside the members


@pytest.mark.parametrize(("most", "frozen"), [(0, 0), (2, 0), (2, 1), (0, 1)])
def test_they_are_folders_beside_the_members(encoder: Path, tmp_path: Path, most: int, frozen: int) -> None:
    plan = make_plan_on(encoder, ensemble__members=most, optim__freeze_layers=frozen, **BOTH)
    evaluated = [event["step"] for event in Stage(plan).run().of_kind("evaluation")]
    members = Members(most, tmp_path)
    stage = Stage(plan, members=members).run()
    members.close(prune=True)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"ema", "tail", *(one.folder for one in members.all)}
    assert len(members.all) == most
    assert [event["step"] for event in stage.of_kind("evaluation")] == evaluated
    for name, mean in averages(stage).items():
        about, held = read_member(tmp_path / name)
        assert about == Member(12, name, {})  # type: ignore[arg-type]
        assert same(held, mean)
    assert (tmp_path / "shared.safetensors").exists() == (frozen > 0)


def test_in_memory_they_are_members_too(plan: Plan) -> None:
    members = Members(0)
    stage = Stage(plan, members=members).run()
    assert [(one.why, one.step) for one in members.averages] == [("ema", 12), ("tail", 12)]
    assert members.all == []
    assert all_same({one.why: members.weights(one) for one in members.averages}, averages(stage))


def test_a_run_that_is_not_over_writes_none(plan: Plan, tmp_path: Path) -> None:
    members = Members(0, tmp_path)
    Stage(plan, members=members, on=stop_at_step(11)).run()
    members.close(prune=False)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("step", range(1, 12))
@pytest.mark.parametrize("settings", [{}, {"train__precision": "bf16", "optim__freeze_layers": 1}], ids=["", "bf16"])
def test_a_stopped_training_ends_with_the_same_averages(
    encoder: Path, tmp_path: Path, settings: dict[str, Any], step: int
) -> None:
    plan = make_plan_on(encoder, **BOTH, **settings)
    whole = Stage(plan).run()
    Stage(plan, tmp_path, hurry=True, on=stop_at_step(step)).run()
    stage = Stage(plan, tmp_path, resume=newest(tmp_path)).run()
    assert stage.of_kind("notice") == []
    assert all_same(averages(stage), averages(whole))
    assert stage.state() == whole.state()


def test_going_back_takes_the_averages_back_too(encoder: Path, tmp_path: Path) -> None:
    """A weight is infinite after step 9; the run goes on from the checkpoint of step 8, inside the tail."""
    steps = Steps()

    def spoil(stage: Stage, event: Event) -> None:
        steps(stage, event)
        if event["kind"] == "step" and event["number"] == 9 and not stage.of_kind("rollback"):
            with torch.no_grad():
                next(stage.model.parameters())[0, 0] = float("inf")

    stage = Stage(make_plan_on(encoder, **BOTH), tmp_path, on=spoil).run()
    (back,) = stage.of_kind("rollback")
    assert back["step"] == 8
    near(averages(stage)["ema"], explicit(steps.weights, ema_factors(list(range(1, 13)), 2.4)))
    near(averages(stage)["tail"], explicit(steps.weights, dict.fromkeys(range(7, 13), 1.0)))


def stopped(encoder: Path, root: Path, step: int, **settings: Any) -> Checkpoint:
    Stage(make_plan_on(encoder, **settings), root, hurry=True, on=stop_at_step(step)).run()
    return newest(root)


@pytest.mark.parametrize(
    ("then", "begun_anew", "was"),
    [
        ({}, ["ema", "tail"], "there was none before"),
        (BOTH | {"ensemble__tail_share": 0.25}, ["tail"], "it was of 0.25 of 12 steps before"),
        (BOTH | {"train__epochs": 3}, ["ema", "tail"], "of 18 steps before"),
    ],
    ids=["were-not-made", "other-share", "other-length"],
)
def test_what_was_made_otherwise_begins_anew_and_is_told_of(
    encoder: Path, tmp_path: Path, then: dict[str, Any], begun_anew: list[str], was: str
) -> None:
    checkpoint, steps = stopped(encoder, tmp_path, 8, **then), Steps()
    stage = Stage(make_plan_on(encoder, **BOTH), tmp_path, resume=checkpoint, on=steps).run()
    notices = [event["text"] for event in stage.of_kind("notice")]
    assert [f"the average {name!r} of the weights begins anew after step 8" in text for name, text in
            zip(begun_anew, notices, strict=True)] == [True] * len(begun_anew)  # fmt: skip
    assert all(was in text for text in notices)
    near(averages(stage)["tail"], explicit(steps.weights, dict.fromkeys(range(9, 13), 1.0)))
    if "ema" in begun_anew:
        factors = ema_factors(list(range(1, 13)), 2.4)
        near(averages(stage)["ema"], explicit(steps.weights, {step: factors[step] for step in range(9, 13)}))


def test_averages_that_are_no_longer_wanted_are_let_go(encoder: Path, tmp_path: Path) -> None:
    checkpoint = stopped(encoder, tmp_path, 8, **BOTH)
    stage = Stage(make_plan_on(encoder), tmp_path, resume=checkpoint).run()
    assert stage.of_kind("notice") == []
    assert averages(stage) == {}
    assert newest(tmp_path).tensors(AVERAGES) == {}


def test_a_checkpoint_without_its_averages_weights_cannot_be_used(encoder: Path, tmp_path: Path) -> None:
    checkpoint = stopped(encoder, tmp_path, 8, **BOTH)
    assert set(read_tensors(checkpoint.folder / "averages.safetensors")) == set(checkpoint.tensors(AVERAGES))
    (checkpoint.folder / "averages.safetensors").unlink()
    with pytest.raises(BadInput, match="the average 'ema' without its weights"):
        Stage(make_plan_on(encoder, **BOTH), tmp_path, resume=checkpoint)
