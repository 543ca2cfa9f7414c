"""Saving in the background: what is written is what was there when `save` was called, or nothing at all."""

import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snapfit.core.errors import BadInput
from snapfit.training.checkpoint import (
    BEST,
    MODEL,
    OPTIMIZER,
    Checkpoint,
    find_checkpoints,
    newest_valid,
    read_checkpoint,
    write_checkpoint,
)
from snapfit.training.saver import Outcome, Saver, check_disk


def saved(saver: Saver, step: int, changing: dict[str, Tensor], settled: dict[str, Tensor] | None = None) -> Outcome:
    """Save a group of tensors, wait, and return the one outcome."""
    saver.save({"step": step}, {MODEL: changing}, {BEST: settled or {}})
    saver.wait()
    (outcome,) = saver.outcomes()
    return outcome


def read(outcome: Outcome, group: str = MODEL) -> dict[str, Tensor]:
    assert outcome.checkpoint is not None, outcome.error
    return read_checkpoint(outcome.checkpoint.folder).tensors(group)


class Gate:
    """Holds a save back just before it becomes visible."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)


# ---------------------------------------------------------------- copies


def test_what_changes_after_save_is_not_in_it(tmp_path: Path) -> None:
    gate, weight = Gate(), torch.arange(6.0).reshape(2, 3).requires_grad_()
    saver = Saver(tmp_path, keep=2, before_rename=gate)
    saver.save({"step": 1}, {MODEL: {"w": weight, "t": weight.detach().T}}, {})
    with torch.no_grad():
        weight.zero_()
    assert gate.reached.wait(30)
    assert saver.outcomes() == []
    assert find_checkpoints(tmp_path)[0] == []  # not yet saved, not yet visible
    gate.opened.set()
    saver.wait()
    (outcome,) = saver.outcomes()
    expected = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(read(outcome)["w"], expected)
    assert torch.equal(read(outcome)["t"], expected.T)
    assert saver.outcomes() == []


def test_a_second_save_waits_for_the_first(tmp_path: Path) -> None:
    gate, tensor = Gate(), torch.ones(3)
    saver = Saver(tmp_path, keep=5, before_rename=gate)
    saver.save({"step": 1}, {MODEL: {"w": tensor}}, {})
    assert gate.reached.wait(30)
    timer = threading.Timer(0.05, gate.opened.set)
    timer.start()
    saver.save({"step": 2}, {MODEL: {"w": tensor * 2}}, {})
    saver.wait()
    timer.join()
    one, two = saver.outcomes()
    assert (one.step, two.step) == (1, 2)
    assert torch.equal(read(one)["w"], tensor)
    assert torch.equal(read(two)["w"], tensor * 2)
    assert two.blocked_seconds >= 0
    assert two.seconds >= two.blocked_seconds


def test_buffers_are_used_again_until_a_shape_or_dtype_changes(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=1)
    places = []
    for step, tensor in enumerate(
        [torch.ones(4), torch.zeros(4), torch.zeros(2, 2), torch.zeros(2, 2), torch.zeros(2, 2).long()]
    ):
        outcome = saved(saver, step, {"w": tensor})
        places.append(saver._copies[MODEL, "w"].data_ptr())
        assert saver._copies[MODEL, "w"].data_ptr() != tensor.data_ptr()
        assert torch.equal(read(outcome)["w"], tensor)
        assert read(outcome)["w"].dtype == tensor.dtype
    assert places[0] == places[1]
    assert places[2] == places[3]


def test_the_same_name_in_two_groups_has_two_buffers(tmp_path: Path) -> None:
    saver = Saver(tmp_path, keep=1)
    saver.save({"step": 1}, {MODEL: {"w": torch.ones(2)}, OPTIMIZER: {"w": torch.zeros(2)}}, {})
    saver.wait()
    (outcome,) = saver.outcomes()
    assert read(outcome)["w"].tolist() == [1.0, 1.0]
    assert read(outcome, OPTIMIZER)["w"].tolist() == [0.0, 0.0]


def test_settled_tensors_are_written_without_a_copy(tmp_path: Path) -> None:
    saver, settled = Saver(tmp_path, keep=1), torch.full((3,), 7.0)
    outcome = saved(saver, 1, {"w": torch.zeros(1)}, {"b": settled})
    assert torch.equal(read(outcome, BEST)["b"], settled)
    assert set(saver._copies) == {(MODEL, "w")}


# ---------------------------------------------------------------- only finite numbers


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf], [1e300, math.inf]])
@pytest.mark.parametrize("settled", [False, True])
def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path, bad: list[float], settled: bool) -> None:
    saver = Saver(tmp_path, keep=2)
    good = saved(saver, 1, {"w": torch.ones(2)})
    tensor = torch.cat([torch.ones(50, dtype=torch.float64), torch.tensor(bad, dtype=torch.float64)]).to(torch.float32)
    members = {"a": torch.ones(2), "layer.bad": tensor, "worse": tensor}
    outcome = saved(saver, 2, {"w": torch.ones(2)} if settled else members, members if settled else None)
    assert outcome.checkpoint is None
    assert outcome.not_finite == "layer.bad"
    assert outcome.error == "layer.bad holds numbers that are not finite"
    newest, skipped = newest_valid(tmp_path)
    assert (newest, skipped) == (good.checkpoint, [])
    assert len(list(tmp_path.iterdir())) == 1


def test_whole_numbers_truth_values_and_large_numbers_are_fine(tmp_path: Path) -> None:
    tensors = {
        "step": torch.tensor(5.0),
        "n": torch.tensor([2**62, 2**62]),
        "b": torch.tensor([True]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "huge": torch.full((64,), 3e38),
        "none": torch.zeros(0),
    }
    outcome = saved(Saver(tmp_path, keep=1), 1, tensors)
    assert outcome.error is None
    assert outcome.not_finite is None
    found = read(outcome)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


# ---------------------------------------------------------------- errors


def fails(error: BaseException) -> Any:
    def hook() -> None:
        raise error

    return hook


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "No space left"),
        (BadInput("first line", "b", "c"), "first line"),
        (MemoryError(), "MemoryError"),
        (ValueError("I/O operation on closed file"), "closed file"),  # a journal that was closed meanwhile
    ],
)
def test_an_error_is_an_outcome(tmp_path: Path, error: BaseException, text: str) -> None:
    saver = Saver(tmp_path, keep=1, before_rename=fails(error))
    outcome = saved(saver, 3, {"w": torch.ones(1)})
    assert outcome.checkpoint is None
    assert outcome.not_finite is None
    assert outcome.step == 3
    assert outcome.error is not None
    assert text in outcome.error
    assert "\n" not in outcome.error
    assert list(tmp_path.iterdir()) == []


def test_a_save_after_one_that_failed_succeeds(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("in the way")
    saver = Saver(root, keep=1)
    assert saved(saver, 1, {"w": torch.ones(1)}).error is not None
    root.unlink()
    outcome = saved(saver, 2, {"w": torch.ones(1)})
    assert outcome.error is None
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.serial == 2


# ---------------------------------------------------------------- serials and what is kept


def test_the_newest_are_kept_and_serials_rise_over_a_second_saver(tmp_path: Path) -> None:
    first = Saver(tmp_path, keep=2)
    for step in (10, 20, 30):
        saved(first, step, {"w": torch.ones(1)})
    assert [(one.step, one.serial) for one in find_checkpoints(tmp_path)[0]] == [(30, 3), (20, 2)]
    second = Saver(tmp_path, keep=2)
    saved(second, 15, {"w": torch.ones(1)})  # the run went back
    found = find_checkpoints(tmp_path)[0]
    assert [(one.step, one.serial) for one in found] == [(15, 4), (30, 3)]
    newest, _ = newest_valid(tmp_path)
    assert newest is not None
    assert newest.step == 15


def test_waiting_with_nothing_under_way_returns(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "nowhere", keep=1)
    saver.wait()
    assert saver.outcomes() == []
    assert not (tmp_path / "nowhere").exists()


# ---------------------------------------------------------------- room on the disk


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet" / "there"
    with pytest.raises(BadInput, match="MB are free at") as caught:
        check_disk(root, 10**18, keep=2, other_bytes=0)
    assert "3 checkpoints of 1,000,000,000,000 MB" in caught.value.expected
    assert "checkpoint.keep=1" in caught.value.fix
    with pytest.raises(BadInput):
        check_disk(root, 0, keep=1, other_bytes=10**18)
    check_disk(root, 10, keep=2, other_bytes=10)
    assert not (tmp_path / "not").exists()


def test_what_older_checkpoints_take_counts_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older: Checkpoint = write_checkpoint(tmp_path, {"step": 1, "serial": 1}, {MODEL: {"w": torch.zeros(100_000)}})
    size = older.bytes
    usage = type("Usage", (), {"free": size})()
    monkeypatch.setattr("shutil.disk_usage", lambda place: usage)
    check_disk(tmp_path, size, keep=1, other_bytes=0)
    with pytest.raises(BadInput):
        check_disk(tmp_path, size, keep=1, other_bytes=1)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_a_save_whose_priority_cannot_be_lowered_is_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError("not in this sandbox")

    monkeypatch.setattr(os, "setpriority", forbidden)
    saver = Saver(tmp_path, keep=1)
    saver.save({"step": 1}, {MODEL: {"w": torch.ones(2)}}, {}, patient=True)
    saver.wait()
    (outcome,) = saver.outcomes()
    assert outcome.error is None
    assert outcome.checkpoint is not None
