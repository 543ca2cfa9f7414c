"""Checkpoints on disk: whole or not there, told apart by what is in them and never by their names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from snapfit.core.errors import BadInput, SnapfitError, WorkFailed
from snapfit.core.folders import MANIFEST, verify_manifest, write_manifest
from snapfit.training.checkpoint import (
    BEST,
    FORMAT,
    MODEL,
    OPTIMIZER,
    STATE_FILE,
    Checkpoint,
    find_checkpoints,
    newest_valid,
    prune,
    read_checkpoint,
    why_invalid,
    write_checkpoint,
)


def write(root: Path, step: int, serial: int | None = None, **more: Any) -> Checkpoint:
    """A checkpoint of three small tensors; its serial is its step unless another is given."""
    state = {"step": step, "serial": step if serial is None else serial, **more}
    return write_checkpoint(root, state, tensors_of(step))


def tensors_of(step: int) -> dict[str, dict[str, Tensor]]:
    return {MODEL: {"w": torch.full((2, 3), float(step))}, OPTIMIZER: {"w/exp_avg": torch.arange(4)}, BEST: {}}


def edit_state(checkpoint: Checkpoint, **values: Any) -> None:
    """Change state.json as somebody would who also keeps the manifest right."""
    path = checkpoint.folder / STATE_FILE
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")
    write_manifest(checkpoint.folder)


def names(root: Path) -> list[str]:
    """All entries of a folder, hidden ones too."""
    return sorted(path.name for path in root.iterdir())


# ---------------------------------------------------------------- writing and reading


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "checkpoints"
    written = write(root, 7, 3, progress={"best": None, "guard": [0.5]})
    assert written.folder == root / "step-000007"
    assert names(written.folder) == [MANIFEST, "model.safetensors", "optimizer.safetensors", STATE_FILE]
    verify_manifest(written.folder)
    read = read_checkpoint(written.folder)
    assert read == written
    assert (read.step, read.serial) == (7, 3)
    assert read.state["progress"] == {"best": None, "guard": [0.5]}
    for group, members in tensors_of(7).items():
        found = read.tensors(group)
        assert found.keys() == members.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in members.items())
    assert read.bytes == sum(path.stat().st_size for path in read.folder.iterdir())
    assert names(root) == ["step-000007"]


def test_nothing_is_visible_before_the_rename(tmp_path: Path) -> None:
    seen: list[tuple[list[Checkpoint], bool]] = []

    def look() -> None:
        (staged,) = tmp_path.iterdir()
        verify_manifest(staged)  # all is written by now
        seen.append((find_checkpoints(tmp_path)[0], staged.name.startswith(".")))

    write_checkpoint(tmp_path, {"step": 1, "serial": 1}, tensors_of(1), before_rename=look)
    assert seen == [([], True)]
    assert len(find_checkpoints(tmp_path)[0]) == 1


class DiskFault(dict[str, Tensor]):
    """Tensors whose reading fails as a disk does."""

    def __iter__(self) -> Iterator[str]:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["tensors", "before the rename", "state"])
def test_an_error_leaves_nothing(tmp_path: Path, where: str) -> None:
    state: dict[str, Any] = {"step": 1, "serial": 1}
    tensors: dict[str, dict[str, Tensor]] = tensors_of(1)

    def fail() -> None:
        raise OSError(5, "Input/output error")

    if where == "tensors":
        tensors[BEST] = DiskFault(w=torch.zeros(1))
    if where == "state":
        state["progress"] = float("nan")
    hook = fail if where == "before the rename" else (lambda: None)
    with pytest.raises((WorkFailed, OSError)) as caught:
        write_checkpoint(tmp_path, state, tensors, before_rename=hook)
    if where != "before the rename":
        assert isinstance(caught.value, WorkFailed)
        assert "step-000001" in str(caught.value)
    assert names(tmp_path) == []


def test_a_root_that_is_a_file_is_reported(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("in the way")
    with pytest.raises(SnapfitError, match="could not write"):
        write(root, 1)
    assert root.read_text() == "in the way"


# ---------------------------------------------------------------- the same step again


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, 4, 1, note="old")
    again = write(tmp_path, 4, 2, note="new")
    assert names(tmp_path) == ["step-000004"]
    assert read_checkpoint(tmp_path / "step-000004").state["note"] == "new"
    assert why_invalid(again) is None


def test_a_foreign_or_newer_folder_of_that_name_is_not(tmp_path: Path) -> None:
    (tmp_path / "step-000004").mkdir()
    (tmp_path / "step-000004" / "mine.txt").write_text("keep")
    other = write(tmp_path, 4, 1)
    assert other.folder.name == "step-000004-2"
    edit_state(other, format=FORMAT + 1)
    third = write(tmp_path, 4, 2)
    assert third.folder.name == "step-000004-3"
    assert (tmp_path / "step-000004" / "mine.txt").read_text() == "keep"
    assert write(tmp_path, 4, 3).folder == third.folder


def test_a_thousand_foreign_folders_are_too_many(tmp_path: Path) -> None:
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        (tmp_path / f"step-000001{suffix}").mkdir()
    with pytest.raises(BadInput, match="a thousand folders called step-000001"):
        write(tmp_path, 1)


# ---------------------------------------------------------------- what is no checkpoint


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ([], "is not a checkpoint"),
        ({}, "is not a checkpoint"),
        ({"kind": "snapfit run"}, "is not a checkpoint"),
        ({"kind": "snapfit checkpoint"}, "has the format None"),
        ({"kind": "snapfit checkpoint", "format": 0}, "has the format 0"),
        ({"kind": "snapfit checkpoint", "format": True}, "has the format True"),
        ({"kind": "snapfit checkpoint", "format": FORMAT + 1}, f"has the format {FORMAT + 1}"),
        ({"kind": "snapfit checkpoint", "format": FORMAT}, "no step or serial"),
        ({"kind": "snapfit checkpoint", "format": FORMAT, "step": 1.5, "serial": 1}, "no step or serial"),
        ({"kind": "snapfit checkpoint", "format": FORMAT, "step": -1, "serial": 1}, "no step or serial"),
        ({"kind": "snapfit checkpoint", "format": FORMAT, "step": 1, "serial": "1"}, "no step or serial"),
    ],
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, state: Any, found: str) -> None:
    folder = tmp_path / "step-000001"
    folder.mkdir()
    (folder / STATE_FILE).write_text(json.dumps(state))
    with pytest.raises(BadInput, match=found):
        read_checkpoint(folder)
    assert find_checkpoints(tmp_path)[0] == []


def test_a_newer_format_says_what_to_do(tmp_path: Path) -> None:
    edit_state(write(tmp_path, 3), format=FORMAT + 1)
    with pytest.raises(BadInput, match=f"at most {FORMAT}") as caught:
        read_checkpoint(tmp_path / "step-000003")
    assert caught.value.fix == "pip install -U snapfit"
    newest, skipped = newest_valid(tmp_path)
    assert newest is None
    assert [one.folder.name for one in skipped] == ["step-000003"]


# ---------------------------------------------------------------- finding


def test_names_mean_nothing(tmp_path: Path) -> None:
    for step, serial, name in ((10, 1, "zzz"), (20, 3, "step-000001"), (15, 2, "x y"), (5, 3, "step-999999")):
        write(tmp_path, step, serial).folder.rename(tmp_path / name)
    found, skipped = find_checkpoints(tmp_path)
    assert [(one.serial, one.step) for one in found] == [(3, 20), (3, 5), (2, 15), (1, 10)]
    assert skipped == []
    newest, _ = newest_valid(tmp_path)
    assert newest is not None
    assert newest.folder.name == "step-000001"


def test_only_folders_in_plain_sight_are_looked_at(tmp_path: Path) -> None:
    write(tmp_path, 1).folder.rename(tmp_path / ".hidden")
    (tmp_path / "file").write_text("x")
    (tmp_path / "notes").mkdir()
    found, skipped = find_checkpoints(tmp_path)
    assert found == []
    assert [one.folder.name for one in skipped] == ["notes"]
    assert STATE_FILE in skipped[0].why
    assert "\n" not in skipped[0].why
    assert find_checkpoints(tmp_path / "nowhere") == ([], [])
    assert newest_valid(tmp_path / "nowhere") == (None, [])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: flip(folder / "model.safetensors"), "'model.safetensors'"),
        (lambda folder: (folder / "optimizer.safetensors").unlink(), "'optimizer.safetensors'"),
        (lambda folder: (folder / "extra").write_text("x"), "'extra'"),
        (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
        (lambda folder: (folder / STATE_FILE).write_text("{"), STATE_FILE),
    ],
)
def test_a_damaged_one_is_passed_over_with_the_reason(tmp_path: Path, damage: Any, why: str) -> None:
    older, newer = write(tmp_path, 1), write(tmp_path, 2)
    damage(newer.folder)
    newest, skipped = newest_valid(tmp_path)
    assert newest == older
    assert [one.folder for one in skipped] == [newer.folder]
    assert why in skipped[0].why
    damage(older.folder)
    newest, skipped = newest_valid(tmp_path)
    assert newest is None
    assert {one.folder for one in skipped} == {older.folder, newer.folder}


# ---------------------------------------------------------------- pruning


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_the_newest_are_kept_and_what_is_not_ours_stays(tmp_path: Path, keep: int) -> None:
    for step, serial in ((30, 1), (20, 2), (10, 3), (40, 4)):  # after a rollback a later save has an earlier step
        write(tmp_path, step, serial)
    (tmp_path / "notes").mkdir()
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / STATE_FILE).write_text("{")
    (tmp_path / "file").write_text("x")
    removed = prune(tmp_path, keep)
    left = [40, 10, 20, 30][:keep]
    assert [one.step for one in find_checkpoints(tmp_path)[0]] == left
    assert [path.name for path in removed] == [f"step-{step:06d}" for step in [40, 10, 20, 30][keep:]]
    assert {"notes", "unreadable", "file"} < set(names(tmp_path))
    assert len(names(tmp_path)) == len(left) + 3
    assert prune(tmp_path, keep) == []


def test_a_state_without_identity_is_refused_when_it_is_asked_for(tmp_path: Path) -> None:
    assert write(tmp_path, 1, identity={"recipe": {}}).identity == {"recipe": {}}
    with pytest.raises(BadInput, match="has no identity"):
        assert write(tmp_path, 2).identity
