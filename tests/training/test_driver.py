"""The driver: what it decides after every step, and that a training goes on from any of its states to the same end."""

from pathlib import Path
from typing import Any

import pytest
import torch

import toys
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.folders import write_manifest
from snapfit.training.checkpoint import (
    BEST,
    MODEL,
    OPTIMIZER,
    find_checkpoints,
    write_checkpoint,
)
from snapfit.training.plan import Plan
from stage import Event, Stage, make_plan_on, newest, stop_at_step


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def plan(encoder: Path) -> Plan:
    return make_plan_on(encoder)


@pytest.fixture(scope="module")
def whole(plan: Plan) -> dict[str, Any]:
    """The state at the end of the training that nobody interrupts."""
    return Stage(plan).run().state()


# ---------------------------------------------------------------- to the end, and what is told


def test_what_a_training_tells_and_saves(plan: Plan, tmp_path: Path, whole: dict[str, Any]) -> None:
    stage = Stage(plan, tmp_path).run()
    assert stage.state() == whole  # saving changes nothing
    assert [event["kind"] for event in stage.events[:3]] == ["weights", "groups", "engine"]
    assert stage.of_kind("start") == [{"kind": "start", "total_steps": 12, "step": 0, "rows": 48}]
    assert [event["step"] for event in stage.of_kind("evaluation")] == [3, 6, 9, 12]
    saved = stage.of_kind("checkpoint")
    assert [event["step"] for event in saved] == [0, 4, 8, 12]
    assert [event["folder"] for event in saved] == [f"step-{step:06d}" for step in (0, 4, 8, 12)]
    assert all(event["seconds"] >= event["blocked_seconds"] >= 0 for event in saved)
    assert [one.step for one in find_checkpoints(tmp_path)[0]] == [12, 8, 4]
    assert newest(tmp_path).state["identity"] == plan.identity()
    assert stage.training.over
    assert stage.of_kind("interrupted") == stage.of_kind("early_stop") == []


def test_without_regular_saves_only_the_ends_are_saved(encoder: Path, tmp_path: Path) -> None:
    stage = Stage(make_plan_on(encoder, checkpoint__every_steps=None), tmp_path).run()
    assert [event["step"] for event in stage.of_kind("checkpoint")] == [0, 12]


def test_the_best_weights_are_written_where_they_are_others(plan: Plan, tmp_path: Path) -> None:
    stage = Stage(plan, tmp_path).run()
    best = stage.training.progress.best
    for checkpoint in find_checkpoints(tmp_path)[0]:
        held = checkpoint.tensors(BEST)
        its_best = checkpoint.state["progress"]["best"]["step"]
        assert (held == {}) == (its_best == checkpoint.step)
    last = newest(tmp_path)
    held = last.tensors(BEST) or last.tensors(MODEL)
    assert all(torch.equal(tensor, held[name]) for name, tensor in best.weights.items())


def test_asked_before_the_first_step_nothing_happens(plan: Plan, tmp_path: Path) -> None:
    stage = Stage(plan, tmp_path / "checkpoints")
    stage.stop.asked = True
    stage.run()
    assert [event["kind"] for event in stage.events] == ["weights", "groups", "engine"]
    assert not (tmp_path / "checkpoints").exists()


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("step", [1, 2, 4, 5, 8, 11])
def test_a_stopped_training_goes_on_to_the_same_end(
    plan: Plan, tmp_path: Path, whole: dict[str, Any], step: int
) -> None:
    first = Stage(plan, tmp_path, hurry=True, on=stop_at_step(step)).run()
    assert first.of_kind("interrupted") == [{"kind": "interrupted", "step": step, "total_steps": 12}]
    checkpoint = newest(tmp_path)
    assert checkpoint.step == step
    again = Stage(plan, tmp_path, resume=checkpoint)
    assert [event["kind"] for event in again.events] == ["groups", "engine"]
    assert again.state() == first.state()
    again.run()
    assert again.of_kind("start")[0]["step"] == step
    assert [event["number"] for event in again.of_kind("step")] == list(range(step + 1, 13))
    assert again.state() == whole


@pytest.mark.parametrize("hurry", [False, True])
@pytest.mark.parametrize("step", [6, 12])
def test_a_stop_within_an_evaluation_leaves_it_for_later(
    plan: Plan, tmp_path: Path, whole: dict[str, Any], hurry: bool, step: int
) -> None:
    first = Stage(plan, tmp_path, hurry=hurry, on=stop_at_step(step)).run()
    assert [event["step"] for event in first.of_kind("evaluation")] == list(range(3, step, 3))
    assert first.training.progress.evaluated is False
    assert not first.training.over
    checkpoint = newest(tmp_path)
    assert (checkpoint.step, checkpoint.state["progress"]["evaluated"]) == (step, False)
    again = Stage(plan, tmp_path, resume=checkpoint).run()
    assert [event["step"] for event in again.of_kind("evaluation")] == list(range(step, 13, 3))
    assert again.state() == whole
    assert again.training.over


def test_a_stop_in_a_hurry_makes_no_evaluation_and_another_one_does(plan: Plan) -> None:
    for hurry, evaluated in ((True, []), (False, [2])):
        stage = Stage(plan, hurry=hurry, on=stop_at_step(2)).run()
        assert [event["step"] for event in stage.of_kind("evaluation")] == evaluated


def test_a_finished_training_has_nothing_left_to_do(plan: Plan, tmp_path: Path, whole: dict[str, Any]) -> None:
    Stage(plan, tmp_path).run()
    again = Stage(plan, tmp_path, resume=newest(tmp_path))
    assert again.training.over
    again.run()
    assert again.of_kind("step") == again.of_kind("checkpoint") == []
    assert again.state() == whole


def test_the_first_state_is_saved_at_once_where_that_is_wanted(plan: Plan, tmp_path: Path) -> None:
    Stage(plan, tmp_path, hurry=True, on=stop_at_step(5)).run()
    before = newest(tmp_path)
    for at_once, saved in ((False, [8, 12]), (True, [5, 8, 12])):
        root = tmp_path / str(at_once)
        stage = Stage(plan, root, resume=before).run(save_at_once=at_once)
        assert [event["step"] for event in stage.of_kind("checkpoint")] == saved


def test_without_a_validation_split_every_state_counts_as_evaluated(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, valid=False)
    whole = Stage(plan).run().state()
    Stage(plan, tmp_path, on=stop_at_step(6)).run()
    checkpoint = newest(tmp_path)
    assert checkpoint.state["progress"]["evaluated"] is True
    assert checkpoint.tensors(BEST) == {}
    again = Stage(plan, tmp_path, resume=checkpoint).run()
    assert again.of_kind("evaluation") == []
    assert again.state() == whole


# ---------------------------------------------------------------- patience


def test_patience_ends_a_training_for_good(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, optim__lr=1e-20, train__patience=2)
    stage = Stage(plan, tmp_path).run()
    assert [event["step"] for event in stage.of_kind("evaluation")] == [3, 6, 9]
    assert stage.of_kind("early_stop") == [{"kind": "early_stop", "step": 9, "best_step": 3}]
    assert stage.training.over
    checkpoint = newest(tmp_path)
    assert checkpoint.step == 9
    again = Stage(plan, tmp_path, resume=checkpoint)
    assert again.training.over
    again.run()
    assert again.of_kind("step") == []
    assert len(again.of_kind("early_stop")) == 1


def test_patience_counts_over_an_interruption(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, optim__lr=1e-20, train__patience=2)
    Stage(plan, tmp_path, hurry=True, on=stop_at_step(7)).run()
    again = Stage(plan, tmp_path, resume=newest(tmp_path)).run()
    assert [event["step"] for event in again.of_kind("early_stop")] == [9]


# ---------------------------------------------------------------- saves that fail


def test_a_save_that_fails_is_told_and_training_goes_on(plan: Plan, tmp_path: Path, whole: dict[str, Any]) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("in the way")
    stage = Stage(plan, root).run()
    failed = stage.of_kind("checkpoint_failed")
    assert [event["step"] for event in failed] == [0, 4, 8, 12, 12]  # the last one is tried once more
    assert all("could not write" in event["error"] for event in failed)
    assert stage.training.over
    assert stage.state() == whole


def test_the_next_save_is_tried_again(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("in the way")

    def make_way(stage: Stage, event: Event) -> None:
        if event["kind"] == "step" and event["number"] == 6:
            stage.saver.wait()  # it gives way to others, and may take long
            root.unlink()

    stage = Stage(plan, root, on=make_way).run()
    assert [event["step"] for event in stage.of_kind("checkpoint_failed")] == [0, 4]
    assert [event["step"] for event in stage.of_kind("checkpoint")] == [8, 12]


def test_a_stopped_training_that_cannot_be_saved_fails(plan: Plan, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("in the way")
    stage = Stage(plan, root, on=stop_at_step(5))
    with pytest.raises(WorkFailed, match=r"stopped after step 5, which could not be saved: .*; .* that of step 0"):
        stage.run()


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def state_and_tensors(plan: Plan, tmp_path: Path) -> tuple[dict[str, Any], dict[str, dict[str, torch.Tensor]]]:
    Stage(plan, tmp_path / "good", hurry=True, on=stop_at_step(5)).run()
    checkpoint = newest(tmp_path / "good")
    return dict(checkpoint.state), {group: checkpoint.tensors(group) for group in (MODEL, OPTIMIZER, BEST)}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda state, tensors: state.pop("progress"), "cannot be used: KeyError"),
        (lambda state, tensors: state["progress"].pop("guard"), "cannot be used: KeyError"),
        (lambda state, tensors: state["progress"].update(step="many"), "cannot be used: ValueError"),
        (lambda state, tensors: state.update(progress=[]), "cannot be used: TypeError"),
        (lambda state, tensors: state.pop("optimizer"), "cannot be used: KeyError"),
        (lambda state, tensors: tensors[MODEL].popitem(), "does not fit the model: 1 weights missing"),
        (lambda state, tensors: tensors[MODEL].update(x=torch.zeros(1)), "does not fit the model: 0 weights missing"),
        (lambda state, tensors: tensors[OPTIMIZER].update({"x/exp_avg": torch.zeros(1)}), "remembers the parameter"),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    plan: Plan, tmp_path: Path, state_and_tensors: Any, change: Any, found: str
) -> None:
    state, tensors = state_and_tensors
    change(state, tensors)
    checkpoint = write_checkpoint(tmp_path / "bad", state, tensors)
    write_manifest(checkpoint.folder)
    with pytest.raises(BadInput, match=found):
        Stage(plan, tmp_path / "bad", resume=checkpoint)


def test_a_disk_without_room_is_refused_before_work(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    with pytest.raises(BadInput, match="MB are free") as caught:
        Stage(plan, tmp_path)
    assert "3 checkpoints" in caught.value.expected
    assert Stage(plan).run().training.over  # without checkpoints nothing is asked of the disk
