"""A training that was killed, continued, extended, damaged and copied in any order ends as if it never had been."""

from pathlib import Path
from typing import Any

import pytest

from histories import Machine, run_histories
from kills import break_position, differing
from scene import fingerprint, make_scene


@pytest.mark.slow
def test_any_history_ends_the_same(tmp_path: Path) -> None:
    result = run_histories(tmp_path, sequences=6, seed=1)
    assert result.bad == []
    assert result.sequences >= 6
    assert result.rules["killed"] >= 3


@pytest.mark.slow
def test_a_history_with_a_broken_resume_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: before every sitting the newest checkpoint claims another place in the data."""
    usual = Machine._train

    def break_and_train(self: Machine, **options: object) -> object:
        if not (self.run / "result.json").exists():
            break_position(self.run)
        return usual(self, **options)

    monkeypatch.setattr(Machine, "_train", break_and_train)
    result = run_histories(tmp_path, sequences=6, seed=1)
    assert len(result.bad) == 1


def test_an_extension_that_was_killed_goes_on(tmp_path: Path) -> None:
    """The result of the shorter training, which was complete, does not stand for the longer one."""
    scene = make_scene(tmp_path / "stage", n_rows=24, train__epochs=1, checkpoint__every_steps=1)
    longer = {"train__epochs": 3, "accept_changes": True}
    for name in ("reference", "run"):
        scene.train(tmp_path / name)
    scene.train(tmp_path / "reference", resume=True, **longer)

    class Killed(BaseException):
        """What ends the training from outside."""

    def killer(event: dict[str, Any]) -> None:
        if event["kind"] == "checkpoint" and event["step"] > 4:
            raise Killed

    with pytest.raises(Killed):
        scene.train(tmp_path / "run", resume=True, listener=killer, **longer)
    result = scene.train(tmp_path / "run", resume=True, **longer)
    assert not result.already_complete
    assert differing(tmp_path / "run", fingerprint(tmp_path / "reference")) == ""
