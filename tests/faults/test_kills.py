"""A training that is killed anywhere goes on to the same weights, optimizer, metrics and predictions."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kills import break_position, differing, run_kills
from scene import fingerprint, make_scene


@pytest.mark.slow
def test_a_killed_training_comes_to_the_same_state(tmp_path: Path) -> None:
    result = run_kills(tmp_path, trials=12, seed=1)
    assert result.bad == []
    assert result.kills >= 12


@pytest.mark.slow
def test_a_killed_training_comes_to_the_same_verdict(tmp_path: Path) -> None:
    """Members, rounds, averages and a student: kills also strike while members are written and in the weighing."""
    wanted = {"ensemble__members": 4, "ensemble__rounds": 2, "ensemble__ema_share": 0.2, "ensemble__student_epochs": 1}
    result = run_kills(tmp_path, trials=5, seed=4, train__patience=None, **wanted)
    assert result.bad == []
    assert result.kills >= 5


@pytest.mark.slow
def test_a_broken_resume_is_noticed(tmp_path: Path) -> None:
    """The negative control: state.json tells another epoch, and its manifest agrees."""
    result = run_kills(tmp_path, trials=3, seed=2, after_kill=break_position)
    assert len(result.bad) >= 1
    assert any("other" in line for line in result.bad)


@pytest.mark.parametrize("kind", ["final", "end"])
def test_what_is_told_of_the_end_stands_once(tmp_path: Path, kind: str) -> None:
    """A run that was killed after its last step tells of its end again when it is continued."""
    scene = make_scene(tmp_path / "stage", n_rows=24, train__epochs=1)
    scene.train(tmp_path / "reference")

    class Killed(BaseException):
        """What ends the training from outside."""

    def killer(event: dict[str, Any]) -> None:
        if event["kind"] == kind:
            raise Killed

    with pytest.raises(Killed):
        scene.train(tmp_path / "run", listener=killer)
    (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    scene.train(tmp_path / "run", resume=True)
    assert differing(tmp_path / "run", fingerprint(tmp_path / "reference")) == ""


def test_a_run_that_was_killed_in_its_first_write_begins_anew(tmp_path: Path) -> None:
    """All that such a run leaves is a hidden, half-written request.json."""
    scene = make_scene(tmp_path / "stage", n_rows=24, train__epochs=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".request.json.0123456789ab.tmp").write_text('{"kind": "snap')
    result = scene.train(tmp_path / "run", resume=True)
    assert result.resumed_from is None
    assert [path.name for path in result.run.iterdir() if path.name.startswith(".")] == []


def test_what_an_interrupted_run_told_of_its_own_bundle_is_forgotten(tmp_path: Path) -> None:
    """A run that is stopped by Ctrl-C before its first evaluation makes one for its bundle, outside of the training."""
    scene = make_scene(tmp_path / "stage", n_rows=48, train__epochs=1)
    scene.train(tmp_path / "reference")

    def presser(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["number"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = scene.train(tmp_path / "run", listener=presser)
    assert (stopped.steps, stopped.stopped_by) == (1, signal.SIGINT)
    scene.train(tmp_path / "run", resume=True)
    assert differing(tmp_path / "run", fingerprint(tmp_path / "reference")) == ""
