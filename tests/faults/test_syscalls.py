"""Checkpoints and bundles survive a kill and an error at any of their system calls; careless writers are found."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from failing_saves import run_failing_saves
from snapfit.core.errors import SnapfitError
from snapfit.core.files import write_json_atomic
from snapfit.core.folders import write_manifest
from snapfit.training.checkpoint import FORMAT, KIND, STATE_FILE, prune, write_checkpoint
from snapfit.training.saver import Saver
from snapfit.training.tensor_files import write_tensors
from syscalls import Action, default_actions, run_io_errors, run_kill_at_syscalls, save_state, save_steps
from tracing import why_no_tracing

SAMPLE = 40
"""Places struck in a test; benchmarks strike them all."""


@pytest.fixture(scope="module", autouse=True)
def tracing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where processes cannot be traced."""
    if why := why_no_tracing(tmp_path_factory.mktemp("tracing")):
        pytest.skip(why)


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Action, ...]:
    """All that is struck, made ready once."""
    return default_actions(tmp_path_factory.mktemp("actions") / "scene")


@pytest.mark.slow
def test_a_kill_at_a_system_call_leaves_only_whole_folders(tmp_path: Path, actions: tuple[Action, ...]) -> None:
    result = run_kill_at_syscalls(tmp_path, count=SAMPLE, actions=actions)
    assert result.bad == []
    assert result.missed == 0
    assert result.trials == SAMPLE
    assert min(result.places.values()) > 50  # of each action


@pytest.mark.slow
def test_a_failing_system_call_is_reported_and_loses_nothing(tmp_path: Path, actions: tuple[Action, ...]) -> None:
    result = run_io_errors(tmp_path, count=SAMPLE, actions=actions)
    assert result.bad == []
    assert result.missed == 0
    assert result.reported > result.harmless > 0


@pytest.mark.slow
def test_no_call_of_a_save_fails_in_silence(tmp_path: Path, actions: tuple[Action, ...]) -> None:
    result = run_io_errors(tmp_path, actions=[one for one in actions if one.name == "save"], errors=["EIO"])
    assert result.bad == []
    assert result.missed == 0
    assert result.trials == result.places["save"]


@pytest.mark.slow
def test_a_training_with_a_failing_save_goes_on_or_says_that_it_cannot(tmp_path: Path) -> None:
    result = run_failing_saves(tmp_path, trials=3)
    assert result.bad == []
    assert result.struck >= 2
    assert result.reported + result.stopped > 0


# ---------------------------------------------------------------- negative controls


def test_a_writer_that_fills_the_folder_in_its_place_is_found(tmp_path: Path) -> None:
    result = run_kill_at_syscalls(tmp_path, count=12, actions=[_saving(_write_in_place)])
    assert any("neither an old one nor the new one" in problem for problem in result.bad)


def test_a_writer_that_removes_the_old_before_it_writes_the_new_is_found(tmp_path: Path) -> None:
    result = run_kill_at_syscalls(tmp_path, count=12, actions=[_saving(_remove_and_write)])
    assert any("only nothing is left" in problem for problem in result.bad)


def test_a_writer_that_swallows_errors_is_found(tmp_path: Path) -> None:
    result = run_io_errors(tmp_path, count=12, actions=[_saving(_write_and_say_nothing)])
    assert any("all is well, which it is not" in problem for problem in result.bad)


@pytest.mark.slow
def test_a_training_that_hears_nothing_of_its_saves_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Saver, "outcomes", lambda self: [])
    result = run_failing_saves(tmp_path, trials=2)
    assert any("nothing was told of the save" in problem for problem in result.bad)


def test_a_writer_that_lets_errors_of_the_system_escape_is_found(tmp_path: Path) -> None:
    result = run_io_errors(tmp_path, count=12, actions=[_saving(_write_in_place)])
    assert any("ended with 99: OSError" in problem for problem in result.bad)


def test_the_same_seed_strikes_the_same_places(tmp_path: Path) -> None:
    found = [
        run_kill_at_syscalls(tmp_path / name, seed=seed, count=8, actions=[_saving(_write_in_place)]).bad
        for name, seed in (("one", 3), ("same", 3), ("other", 4))
    ]
    places = [[problem.partition(":")[2].partition(":")[0] for problem in bad] for bad in found]
    assert places[0] == places[1] != places[2]


def _saving(write: Callable[[Path, int], None]) -> Action:
    """Saving a second checkpoint, carelessly."""
    return Action("careless", lambda place: save_steps(place, 4), lambda place: lambda: write(place, 8))


def _write_in_place(place: Path, step: int) -> None:
    state, tensors = save_state(place, step)
    folder = place / "checkpoints" / f"step-{step:06d}"
    folder.mkdir()
    hashes = {
        f"{group}.safetensors": write_tensors(folder / f"{group}.safetensors", members)
        for group, members in tensors.items()
    }
    write_json_atomic(folder / STATE_FILE, {"kind": KIND, "format": FORMAT, "serial": 2, **state})
    write_manifest(folder, known=hashes)


def _remove_and_write(place: Path, step: int) -> None:
    state, tensors = save_state(place, step)
    prune(place / "checkpoints", 0)
    write_checkpoint(place / "checkpoints", {"serial": 2, **state}, tensors)


def _write_and_say_nothing(place: Path, step: int) -> None:
    state, tensors = save_state(place, step)
    with suppress(SnapfitError, OSError):
        write_checkpoint(place / "checkpoints", {"serial": 2, **state}, tensors)
