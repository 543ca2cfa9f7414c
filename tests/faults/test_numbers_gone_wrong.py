"""Numbers that go wrong in a training are noticed at once, never saved and recovered from."""

from pathlib import Path
from typing import Any

import pytest

import snapfit.training.driver
import snapfit.training.loop
import snapfit.training.saver
from numbers_gone_wrong import (
    KINDS,
    Fault,
    injected,
    learnable_scene,
    not_finite,
    run_numbers,
)
from scene import make_scene, seeded
from snapfit.core.errors import WorkFailed
from snapfit.training.guard import Guard


@pytest.mark.slow
def test_numbers_that_go_wrong_harm_nothing(tmp_path: Path) -> None:
    result = run_numbers(tmp_path, trials=len(KINDS), seed=1)
    assert result.bad == []
    assert result.by_kind.keys() == KINDS.keys()


@pytest.mark.slow
def test_numbers_that_nobody_watches_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: every check of the library says yes."""
    monkeypatch.setattr(snapfit.training.loop, "_fault", lambda loss, grad_norm, accepts: None)
    monkeypatch.setattr(snapfit.training.loop, "_sound", lambda optimizer: True)
    monkeypatch.setattr(snapfit.training.driver, "all_finite", lambda tensors: True)
    monkeypatch.setattr(snapfit.training.saver, "_not_finite", lambda groups: None)
    monkeypatch.setattr(Guard, "accepts", lambda self, loss: True)
    result = run_numbers(tmp_path, trials=4, seed=1)
    assert len(result.bad) == 4
    assert any("not finite" in line for line in result.bad)


def test_more_faults_than_are_borne_end_the_run(tmp_path: Path) -> None:
    scene = learnable_scene(tmp_path / "stage", train__max_recoveries=3)
    fault = Fault("loss NaN", 5, seeded(1, 0), forever=True)
    with injected(fault), pytest.raises(WorkFailed, match=r"step 8: the loss is nan; 3 steps .*max_recoveries"):
        scene.train(tmp_path / "run", listener=fault)
    assert [event["step"] for event in fault.events if event["kind"] == "fault"] == [5, 6, 7]
    assert not (tmp_path / "run" / "bundle").exists()
    assert not_finite(tmp_path / "run") == []


@pytest.mark.parametrize("rate", [5.0, 1e-9], ids=["far too high", "far too low"])
def test_a_training_that_learnt_nothing_is_named(tmp_path: Path, rate: float) -> None:
    scene = make_scene(tmp_path / "stage", data__valid_fraction=0.25, optim__lr=rate, optim__head_lr_factor=1.0)
    heard: list[dict[str, Any]] = []
    scene.train(tmp_path / "run", listener=heard.append)
    collapsed = [event for event in heard if event["kind"] == "collapsed"]
    assert len(collapsed) == 1
    assert "as by a model that learnt nothing" in collapsed[0]["text"]


@pytest.mark.parametrize("step", [24, 60], ids=["an evaluation", "the end"])
def test_a_weight_that_goes_wrong_just_before(tmp_path: Path, step: int) -> None:
    """It is noticed before it is evaluated, and does not get into the bundle."""
    fault = Fault("weight inf", step, seeded(1, step))
    with injected(fault):
        result = learnable_scene(tmp_path / "stage").train(tmp_path / "run", listener=fault)
    assert [event["from_step"] for event in fault.events if event["kind"] == "rollback"] == [step]
    assert result.steps == 60
    assert not_finite(tmp_path / "run") == []
