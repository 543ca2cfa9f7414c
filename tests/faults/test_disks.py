"""Trainings survive a full disk and a power cut, and one that does not sync is found; where mounts are allowed."""

import resource
import signal
from pathlib import Path

import pytest

from disks import run_full_disks, run_power_cuts
from mounts import why_no_full_disks, why_no_power_cuts
from scene import fork, wait
from snapfit.core.errors import WorkFailed
from snapfit.training.journal import Journal, read_journal
from snapfit.training.saver import Saver


@pytest.mark.parametrize("fails_with", [None, WorkFailed("something else went wrong")])
def test_a_journal_without_room_ends_in_an_error_of_ours(tmp_path: Path, fails_with: WorkFailed | None) -> None:
    def write() -> None:
        with Journal(tmp_path / "journal.jsonl") as journal:
            for number in range(100):
                if fails_with is not None and number == 3:
                    _limit_files(200)
                    with pytest.raises(WorkFailed, match="cannot be written"):
                        journal.append("step", text="x" * 200)
                    raise fails_with
                _limit_files(1000)
                journal.append("step", number=number)

    assert wait(fork(write)) == WorkFailed.exit_code
    events = read_journal(tmp_path / "journal.jsonl")
    assert [event["number"] for event in events] == list(range(len(events)))
    assert len(events) >= 3


def _limit_files(n_bytes: int) -> None:
    """Let no file of this process grow beyond a size, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_run_comes_to_the_same_end(tmp_path: Path) -> None:
    if why := why_no_full_disks(tmp_path):
        pytest.skip(why)
    result = run_full_disks(tmp_path, trials=2)
    assert result.bad == []
    assert result.refused == 1
    assert result.failed + result.told == 1


@pytest.mark.slow
def test_a_training_that_hears_nothing_of_its_saves_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := why_no_full_disks(tmp_path):
        pytest.skip(why)
    monkeypatch.setattr(Saver, "outcomes", lambda self: [])
    result = run_full_disks(tmp_path, trials=6)  # not every one of them fails a save that is the last
    assert any("ended with 0, and then otherwise" in problem for problem in result.bad)


@pytest.mark.slow
def test_a_power_cut_loses_nothing_that_was_announced(tmp_path: Path) -> None:
    if why := why_no_power_cuts(tmp_path):
        pytest.skip(why)
    result = run_power_cuts(tmp_path, trials=3, resume_every=2)
    assert result.bad == []
    assert result.ended >= 1
    assert result.announced >= 1
    assert result.resumed == 2


@pytest.mark.slow
def test_a_training_that_syncs_nothing_is_found(tmp_path: Path) -> None:
    if why := why_no_power_cuts(tmp_path):
        pytest.skip(why)
    result = run_power_cuts(tmp_path, trials=3, seed=1, resume_every=0, durable=False)
    assert any("lost" in problem or "after the end" in problem for problem in result.bad)
