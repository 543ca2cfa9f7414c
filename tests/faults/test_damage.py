"""Damaged checkpoints and bundles are refused before use, and what a checkpoint's folder is called means nothing."""

import os
import shutil
from pathlib import Path

import pytest

import snapfit.runtime.bundle
import snapfit.training.checkpoint
from damage import run_damage
from kills import differing
from scene import fingerprint, make_scene
from snapfit.training.checkpoint import newest_valid


@pytest.mark.slow
def test_every_damage_is_refused(tmp_path: Path) -> None:
    result = run_damage(tmp_path, count=60, seed=1)
    assert result.bad == []
    assert result.trials == 60
    assert len(result.by_kind) >= 9


def test_accepted_damage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: nothing is compared with a manifest."""
    for module in (snapfit.runtime.bundle, snapfit.training.checkpoint):
        monkeypatch.setattr(module, "verify_manifest", lambda folder, **options: None)
    result = run_damage(tmp_path, count=30, seed=2)
    assert len([line for line in result.bad if ", bundle, " in line]) >= 5
    assert len([line for line in result.bad if ", step-" in line]) >= 5


def test_the_name_of_a_checkpoint_means_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_scene(tmp_path / "stage", n_rows=24, train__epochs=1, checkpoint__every_steps=1).train(run)
    root = run / "checkpoints"
    newest, older = sorted(root.iterdir(), reverse=True)
    step = newest_valid(root)[0].step  # type: ignore[union-attr]  # there are two

    newest.rename(root / "aside")
    older.rename(newest)
    (root / "aside").rename(older)
    found, skipped = newest_valid(root)
    assert found is not None
    assert (found.folder, found.step, skipped) == (older, step, [])

    shutil.copytree(newest, root / "step-999999")  # it is the older one by now
    found, skipped = newest_valid(root)
    assert found is not None
    assert (found.folder, skipped) == (older, [])


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    """A run goes on past them, as if they were not there, and removes none when it removes old checkpoints."""
    scene = make_scene(tmp_path / "stage", n_rows=24, train__epochs=2, checkpoint__every_steps=1)
    scene.train(tmp_path / "reference")

    class Killed(BaseException):
        """What ends the training from outside."""

    def killer(event: dict[str, object]) -> None:
        if event["kind"] == "step" and event["number"] == 3:
            raise Killed

    run = tmp_path / "run"
    with pytest.raises(Killed):
        scene.train(run, listener=killer)
    mine = {"mine/notes.txt": "mine", "step-000004/notes.txt": "mine too", "notes.txt": "and mine"}
    for name, text in mine.items():
        (run / "checkpoints" / name).parent.mkdir(exist_ok=True)
        (run / "checkpoints" / name).write_text(text)
    scene.train(run, resume=True)
    assert {name: (run / "checkpoints" / name).read_text() for name in mine} == mine
    for name in ("mine", "step-000004"):
        assert os.listdir(run / "checkpoints" / name) == ["notes.txt"]
        shutil.rmtree(run / "checkpoints" / name)
    assert differing(run, fingerprint(tmp_path / "reference")) == ""
