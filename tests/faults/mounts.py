"""Disks of a training's own: mounts that go away again, and what a training on them must come to. Needs root."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import alone
from scene import Scene, fingerprint, fork, make_scene, wait
from snapfit.core.errors import SnapfitError
from snapfit.training.checkpoint import find_checkpoints
from snapfit.training.journal import read_journal

IMAGE_BYTES = 32 * 1024 * 1024
_OF_CHECKPOINTS = (".safetensors", "step")
"""How the names end of what a fingerprint takes from the newest checkpoint."""


def why_no_full_disks(folder: Path) -> str | None:
    """Why a tmpfs cannot be mounted here, or None when it can."""
    try:
        with mounted(folder / "probe", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            return None
    except (OSError, RuntimeError) as error:
        return f"no tmpfs can be mounted: {error}"


def why_no_power_cuts(folder: Path) -> str | None:
    """Why a file with ext4 cannot be mounted here, or None when it can."""
    try:
        with mounted(folder / "probe", "-o", "loop", str(blank_image(folder / "probe.img"))) as disk:
            device_of(disk)
            return None
    except (OSError, RuntimeError) as error:
        return f"no ext4 image can be mounted: {error}"


@dataclass(frozen=True)
class Stage:
    """A training, what it comes to, how much room it asks for, and how long it takes from its first step on.

    checkpoint_bytes: of its smallest checkpoint.
    """

    scene: Scene
    reference: dict[str, Any]
    needed_bytes: int
    checkpoint_bytes: int
    seconds: float

    @classmethod
    def make(cls, folder: Path) -> "Stage":
        scene, run = make_scene(folder / "scene"), folder / "reference"
        if code := wait(fork(alone(lambda: scene.train(run)))):
            raise RuntimeError(f"an undisturbed training ended with {code}")
        found, _ = find_checkpoints(run / "checkpoints")
        model_bytes = (run / "bundle" / "model.safetensors").stat().st_size
        times = {event["kind"]: event["time"] for event in read_journal(run / "journal.jsonl")}
        sizes = [one.bytes for one in found]
        needed = (len(found) + 1) * max(sizes) + model_bytes
        # The first checkpoint of a run remembers nothing yet, but is not among those that are kept; others may lack
        # the best weights, which are at most as large as the model.
        return cls(scene, fingerprint(run), needed, min(sizes) - model_bytes, times["end"] - times["start"])


def differing_apart(run: Path, reference: Mapping[str, Any], answer: Path, *, with_checkpoint: bool = True) -> str:
    """What differs between a finished run and the reference, in words; empty when nothing does.

    It is asked in another process, which lets go of the disk when it ends. answer: a file for what it says.
    with_checkpoint: whether the newest checkpoint must be that of the last step too.
    """

    def compare() -> None:
        try:
            found = fingerprint(run)
        except (AssertionError, SnapfitError, OSError) as error:
            answer.write_text(f"there is no fingerprint: {error!r}")
            return
        names = [name for name in sorted(found | dict(reference)) if found.get(name) != reference.get(name)]
        answer.write_text(", ".join(name for name in names if with_checkpoint or not name.endswith(_OF_CHECKPOINTS)))

    code = wait(fork(alone(compare)))
    return answer.read_text() if code == 0 else f"taking the fingerprint ended with {code}"


@contextlib.contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    """A mount at a new folder, taken away with it. Raises RuntimeError when it cannot be made."""
    place.mkdir(parents=True, exist_ok=True)
    run_command("mount", *arguments, str(place))
    try:
        yield place
    finally:
        try:
            run_command("umount", str(place))
        except RuntimeError:
            run_command("umount", "--lazy", str(place))  # nothing may stay mounted, whatever went wrong
            raise
        place.rmdir()


def run_command(*command: str) -> str:
    """What a command prints. Raises RuntimeError with what it complains about when it fails."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr.strip()}")
    return done.stdout


def blank_image(path: Path) -> Path:
    """A file with an empty ext4, which writes nothing of its own accord when it is mounted."""
    with open(path, "wb") as file:
        file.truncate(IMAGE_BYTES)
    run_command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(path))
    return path


def device_of(mount: Path) -> str:
    """The block device that is mounted at a folder, such as "loop0". Raises RuntimeError where there are no figures."""
    numbers = mount.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(numbers)}:{os.minor(numbers)}")
    if not (device / "stat").exists():
        raise RuntimeError(f"the kernel keeps no statistics of {mount}")
    return device.resolve().name
