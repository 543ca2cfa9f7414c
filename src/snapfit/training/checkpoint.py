"""Checkpoints: the whole state of a training in a folder that is valid or not there.

    checkpoints/step-000400/
      model.safetensors       the weights            optimizer.safetensors    what the optimizer remembers
      best.safetensors        the best weights so far, where they are others
      averages.safetensors    averages of the weights along the training, where some are made
      state.json              everything else        MANIFEST.json            sizes and SHA-256, written last

A folder is filled under a hidden name, each file synced, and renamed; only then does it exist. What a folder is
called means nothing: how new it is stands in its state.json, and whether it is whole in its manifest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from snapfit.core.errors import BadInput, SnapfitError
from snapfit.core.files import cannot_write, read_json, write_json_atomic
from snapfit.core.folders import (
    list_files,
    remove_folder,
    staged_folder,
    verify_manifest,
    write_manifest,
)
from snapfit.training.tensor_files import read_tensors, write_tensors

KIND, FORMAT = "snapfit checkpoint", 1
STATE_FILE = "state.json"
MODEL, OPTIMIZER, BEST, AVERAGES = "model", "optimizer", "best", "averages"
"""Names of the groups of tensors, each a file of its own."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, its state.json read.

    state: as it was saved, with "step" (steps done) and "serial" (how many the run had saved with it; never reused).
    """

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def serial(self) -> int:
        return int(self.state["serial"])

    @property
    def identity(self) -> dict[str, Any]:
        """What it is a training of (see identity.py). Raises BadInput when it does not say."""
        identity = self.state.get("identity")
        if not isinstance(identity, dict):
            raise BadInput(f"{self.folder / STATE_FILE} has no identity", "what it is a training of", "remove it")
        return identity

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(path.stat().st_size for path in list_files(self.folder).values())

    def tensors(self, group: str) -> dict[str, Tensor]:
        """The tensors of a group, on the CPU; none when it was saved without that group."""
        path = self.folder / f"{group}.safetensors"
        return read_tensors(path) if path.exists() else {}


@dataclass(frozen=True)
class Skipped:
    """A folder among the checkpoints that cannot be used, and why."""

    folder: Path
    why: str


def write_checkpoint(
    root: Path,
    state: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    *,
    before_rename: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """Write a checkpoint into `root` and return it when it is safe on disk.

    state: plain values with "step" and "serial". tensors: by group, then by name, on the CPU.
    before_rename: called when all is written and not yet visible. Raises WorkFailed when it cannot be written;
    nothing is visible then.
    """
    written = {"kind": KIND, "format": FORMAT, **state}
    folder = _place(root, int(state["step"]))
    with staged_folder(folder) as staged:
        hashes = {}
        try:
            for group, members in tensors.items():
                if members:
                    name = f"{group}.safetensors"
                    hashes[name] = write_tensors(staged / name, members)
        except OSError as error:
            raise cannot_write(folder, error) from error
        write_json_atomic(staged / STATE_FILE, written)
        write_manifest(staged, known=hashes)
        before_rename()
    return Checkpoint(folder, written)


def why_invalid(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint, all of it read and hashed; None when it is whole."""
    try:
        verify_manifest(checkpoint.folder)
    except (SnapfitError, OSError) as error:
        return str(error).splitlines()[0]
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint's folder with its state, not yet verified. Raises BadInput for a folder that is none."""
    state = read_json(folder / STATE_FILE)
    if not isinstance(state, dict) or state.get("kind") != KIND:
        raise BadInput(f"{folder} is not a checkpoint", f"a folder with a {STATE_FILE}", "leave it out")
    if type(state.get("format")) is not int or not 1 <= state["format"] <= FORMAT:
        raise BadInput(
            f"{folder} has the format {state.get('format')!r}", f"at most {FORMAT}", "pip install -U snapfit"
        )
    if any(type(state.get(key)) is not int or state[key] < 0 for key in ("step", "serial")):
        raise BadInput(f"{folder / STATE_FILE} has no step or serial", "whole numbers", "leave it out")
    return Checkpoint(folder, state)


def find_checkpoints(root: Path) -> tuple[list[Checkpoint], list[Skipped]]:
    """The checkpoints in `root`, newest first, unverified; and the folders there whose state cannot be read."""
    found, skipped = [], []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            found.append(read_checkpoint(folder))
        except SnapfitError as error:
            skipped.append(Skipped(folder, str(error).splitlines()[0]))
    return sorted(found, key=lambda one: (one.serial, one.step), reverse=True), skipped


def newest_valid(root: Path) -> tuple[Checkpoint | None, list[Skipped]]:
    """The newest checkpoint that is whole, or None; and what was passed over on the way to it."""
    found, skipped = find_checkpoints(root)
    for checkpoint in found:
        why = why_invalid(checkpoint)
        if why is None:
            return checkpoint, skipped
        skipped.append(Skipped(checkpoint.folder, why))
    return None, skipped


def prune(root: Path, keep: int) -> list[Path]:
    """Remove all checkpoints but the newest `keep`; returns what was removed.

    Call it when the newest one was just written. Other folders in `root` are not touched.
    """
    found, _ = find_checkpoints(root)
    for checkpoint in found[keep:]:
        remove_folder(checkpoint.folder)
    return [checkpoint.folder for checkpoint in found[keep:]]


def _place(root: Path, step: int) -> Path:
    """A name for a checkpoint: free, or that of an older one of the same step, which it then replaces."""
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        folder = root / f"step-{step:06d}{suffix}"
        if not folder.exists():
            return folder
        try:
            read_checkpoint(folder)
        except SnapfitError:
            continue  # not ours, or unreadable: left as it is
        return folder
    raise BadInput(f"a thousand folders called step-{step:06d} in {root}", "checkpoints", "remove some of them")
