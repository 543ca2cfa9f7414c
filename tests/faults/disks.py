"""Takes the disk away from a training: it fills up, or the power goes. Needs root, for mounts of its own.

A full disk is a small tmpfs that something else fills while the training runs. A power cut is a copy of the file behind
a loop device with ext4, made while the training is stopped between two system calls: what was not synced is in no such
copy. The copy is then mounted, which replays the file system's journal, as a machine does that starts again.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kills import alone, invalid_folders
from mounts import Stage, blank_image, device_of, differing_apart, mounted, run_command
from scene import fork, seeded, wait
from snapfit.core.errors import BadInput, SnapfitError, WorkFailed
from snapfit.core.files import read_json
from snapfit.core.folders import is_leftover
from snapfit.runtime.bundle import Bundle
from snapfit.training.checkpoint import newest_valid
from snapfit.training.journal import read_journal

_BLOCK_BYTES = 16 * 1024
_COPIES = 50
_LAST_STEP = 33
"""Of the scene's training."""
_UNHURRIED = "loop,commit=600"
"""Mount options: ext4 writes nothing of its own accord for ten minutes, as it else does every five seconds."""
_EVERY_STEPS = (1, 4)
"""Steps between checkpoints in trials of power cuts; with every step a training saves most of its time."""


@dataclass(frozen=True)
class FullDisks:
    """How the trials went.

    refused: trainings that did not begin for want of room. failed: those that ended with an error when the disk was
    full. told: those that went on to their end and told of saves that failed. bad: what was wrong, with the trial's
    number.
    """

    trials: int
    refused: int
    failed: int
    told: int
    bad: list[str]
    seconds: float
    seed: int


@dataclass(frozen=True)
class PowerCuts:
    """How the trials went.

    announced: trials in which a checkpoint had been announced before the cut. inside_writes: those with a half-written
    file or folder on the disk. ended: those cut right after the end. resumed: those that were trained to the end after
    the cut. bad: what was wrong, with the trial's number.
    """

    trials: int
    announced: int
    inside_writes: int
    ended: int
    resumed: int
    bad: list[str]
    seconds: float
    seed: int


def run_full_disks(folder: Path, *, trials: int, seed: int = 0) -> FullDisks:
    """Train on disks with too little room, free some, and resume.

    folder: an empty one. Of three trials, one has too small a disk from the start; in the others something else leaves
    too little room for another checkpoint from some step on, for nine steps or for good. Each training must be refused,
    fail with an error of ours, or tell of the saves that failed; what is visible must be whole; and it must then come
    to the same end as an undisturbed one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    stage = Stage.make(folder)
    bad: list[str] = []
    codes, told = [], 0
    for trial in range(trials):
        with mounted(folder / f"disk-{trial}", "-t", "tmpfs", "-o", f"size={8 * stage.needed_bytes}", "tmpfs") as disk:
            code, wrong, any_told = _fill_and_free(stage, disk, trial, seeded(seed, trial))
        codes.append(code)
        told += any_told and code == 0
        bad += [f"trial {trial}: {problem}" for problem in wrong]
    return FullDisks(
        trials=trials,
        refused=codes.count(BadInput.exit_code),
        failed=codes.count(WorkFailed.exit_code),
        told=told,
        bad=bad,
        seconds=round(time.monotonic() - began, 1),
        seed=seed,
    )


def run_power_cuts(
    folder: Path, *, trials: int, seed: int = 0, resume_every: int = 1, durable: bool = True
) -> PowerCuts:
    """Cut the power at random moments of a training, and in every tenth trial, from the first, right after its end.

    folder: an empty one. resume_every: train to the end after every so many-th cut; 0 for none. durable: False switches
    syncing off, as a negative control. What is visible after the cut must be whole and no file of it empty, and among
    it must be the newest checkpoint that had been announced, or a later one, and after the end the bundle; resumed, the
    training must come to the same end as an undisturbed one. A trial depends on `seed` and its number, up to the speed
    of the machine.
    """
    began = time.monotonic()
    stage = Stage.make(folder)
    blank = blank_image(folder / "blank.img")
    cuts: list[_Cut] = []
    bad: list[str] = []
    resumed = inside_writes = 0
    for trial in range(trials):
        place = folder / f"trial-{trial}"
        place.mkdir()
        dice = seeded(seed, trial)
        seconds = None if trial % 10 == 0 else dice.uniform(0.0, stage.seconds)
        work = partial(stage.scene.train, checkpoint__every_steps=dice.choice(_EVERY_STEPS))
        cuts.append(_cut_power(work, place, blank, seconds, durable=durable))
        resumes = resume_every > 0 and trial % resume_every == 0
        resumed += resumes
        with mounted(place / "after", "-o", "loop", str(place / "cut.img")) as disk:
            inside_writes += _has_leftovers(disk / "run")
            wrong = list(_wrong_after(stage, disk / "run", cuts[-1], place, resumes=resumes))
        bad += [f"trial {trial}, {cuts[-1]}: {problem}" for problem in wrong]
        shutil.rmtree(place)
    return PowerCuts(
        trials=trials,
        announced=sum(bool(cut.announced) for cut in cuts),
        inside_writes=inside_writes,
        ended=sum(cut.ended for cut in cuts),
        resumed=resumed,
        bad=bad,
        seconds=round(time.monotonic() - began, 1),
        seed=seed,
    )


# ---------------------------------------------------------------- a full disk


def _fill_and_free(stage: Stage, disk: Path, trial: int, dice: random.Random) -> tuple[int, list[str], bool]:
    """How a training on a full disk ended, what was wrong with it, and whether it told of saves that failed."""
    run, ballast, log = disk / "run", disk / "ballast", disk.with_suffix(".log")
    if trial % 3 == 0:
        at_step, room = 0, int(stage.needed_bytes * dice.uniform(0.1, 0.9))
        _fill(ballast, room)
    else:
        share = dice.choice((0.0, dice.uniform(0.0, 0.7)))
        at_step, room = dice.randint(1, _LAST_STEP - 12), int(stage.checkpoint_bytes * share)
    until = at_step + dice.choice((9, _LAST_STEP))  # some disks are freed while the training still runs

    def hear(event: dict[str, Any]) -> None:
        # Again and again: a save that was under way removes an older checkpoint, and what it frees is taken too.
        if event["kind"] == "step" and 0 < at_step <= event["number"] < until:
            _fill(ballast, room)
        elif event["kind"] == "step" and event["number"] == until:
            ballast.unlink(missing_ok=True)

    code = wait(fork(alone(lambda: stage.scene.train(run, listener=hear)), log=log))
    told = bool(_failed_steps(run))
    wrong = list(_wrong_when_full(run, code, log, refused=at_step == 0))
    if dice.random() < 0.5:
        ballast.unlink(missing_ok=True)
    else:
        run_command("mount", "-o", f"remount,size={16 * stage.needed_bytes}", str(disk))
    again = wait(fork(alone(lambda: stage.scene.train(run, resume=True)), log=log))
    if again != 0:
        wrong.append(f"with {room:,} bytes left it ended with {code}, and resumed with {again}: {_tail(log)}")
        return code, wrong, told
    # A training that came to its end without its last checkpoint is complete: it is not trained again for that.
    is_saved = code != 0 or _failed_steps(run)[-1:] != [_LAST_STEP]
    if difference := differing_apart(run, stage.reference, disk.with_suffix(".answer"), with_checkpoint=is_saved):
        wrong.append(f"with {room:,} bytes left it ended with {code}, and then otherwise: {difference}")
    return code, wrong, told


def _fill(ballast: Path, room: int) -> None:
    """Write to a file until a disk has at most `room` bytes left."""
    with contextlib.suppress(OSError), open(ballast, "ab", buffering=0) as file:
        while (left := shutil.disk_usage(ballast.parent).free - room) > 0:
            file.write(bytes(min(left, _BLOCK_BYTES)))


def _failed_steps(run: Path) -> list[int]:
    """The steps whose saves failed, as a run's journal tells."""
    try:
        return [event["step"] for event in read_journal(run / "journal.jsonl") if event["kind"] == "checkpoint_failed"]
    except SnapfitError:
        return []


def _wrong_when_full(run: Path, code: int, log: Path, *, refused: bool) -> Iterator[str]:
    expected = (BadInput.exit_code,) if refused else (0, WorkFailed.exit_code)
    if code not in expected:
        yield f"it ended with {code}: {_tail(log)}"
    if refused and run.exists():
        yield "a training that was refused left a folder"
    yield from invalid_folders(run)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:]


# ---------------------------------------------------------------- a power cut


@dataclass(frozen=True)
class _Cut:
    """A training that was cut off. after_seconds: from its first step on, None for its end. ended: whether it had.

    announced: the steps of the checkpoints that it had announced, in order. The disk as it then was is in a file.
    """

    after_seconds: float | None
    ended: bool
    announced: list[int]

    def __str__(self) -> str:
        moment = "the end" if self.after_seconds is None else f"{self.after_seconds:.3f} s"
        return f"cut at {moment}, {len(self.announced)} checkpoints announced"


def _cut_power(
    work: Callable[..., object], place: Path, blank: Path, after_seconds: float | None, *, durable: bool
) -> _Cut:
    """Train on a disk of its own, and copy that disk to `place`/cut.img as it is at a moment. work: `Scene.train`."""
    image = Path(shutil.copyfile(blank, place / "disk.img"))
    heard = place / "heard"
    heard.touch()
    with mounted(place / "disk", "-o", _UNHURRIED, str(image)) as disk, open(heard, "ab", buffering=0) as told:

        def hear(event: dict[str, Any]) -> None:
            if event["kind"] in ("start", "checkpoint"):
                told.write(f"{event['kind']} {event['step']}\n".encode())

        def train() -> object:
            if not durable:
                os.fsync = lambda handle: None
            return work(disk / "run", listener=hear)

        pid = fork(alone(train), log=place / "log")
        ended = _stopped_or_ended(pid, heard, after_seconds)
        announced = [int(step) for kind, step in map(str.split, heard.read_text().splitlines()) if kind == "checkpoint"]
        try:
            _copy_at_rest(image, place / "cut.img", device_of(disk))
        finally:
            if ended is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    if ended:
        raise RuntimeError(f"a training on a disk of its own ended with {ended}: {_tail(place / 'log')}")
    return _Cut(after_seconds, ended == 0, announced)


def _stopped_or_ended(pid: int, heard: Path, after_seconds: float | None) -> int | None:
    """Stop a process so long after it was first heard of; None, or its exit code when it ended before."""
    if after_seconds is None:
        return wait(pid)
    deadline: float | None = None
    while deadline is None or time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is None and heard.stat().st_size:
            deadline = time.monotonic() + after_seconds
        time.sleep(0.0005)
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)  # when all its threads have come back from their system calls
    return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def _copy_at_rest(image: Path, copy: Path, device: str) -> None:
    """Copy a disk's file, again if the file system wrote to it meanwhile of its own accord."""
    statistics = Path("/sys/block", device, "stat")
    for _ in range(_COPIES):
        before = statistics.read_text().split()
        shutil.copyfile(image, copy)
        after = statistics.read_text().split()
        writes, in_flight = 4, 8  # fields of the kernel's block statistics
        if before[writes] == after[writes] and before[in_flight] == after[in_flight] == "0":
            return
    raise RuntimeError(f"{device} never came to rest")


def _wrong_after(stage: Stage, run: Path, cut: _Cut, place: Path, *, resumes: bool) -> Iterator[str]:
    """What is wrong with a run after a cut; resumes: also at its end, resumed. place: for files beside the disk."""
    yield from invalid_folders(run)
    yield from (f"{path.name} is empty" for path in _visible_files(run) if path.stat().st_size == 0)
    if cut.announced and not _is_there(run / "checkpoints", cut.announced[-1]):
        yield f"the checkpoint of step {cut.announced[-1]}, which had been announced, is lost"
    if cut.ended:
        try:
            Bundle.open(run / "bundle")
            read_json(run / "result.json")
        except SnapfitError as error:
            yield f"after the end: {str(error).splitlines()[0]}"
    if resumes:
        code = wait(fork(alone(lambda: stage.scene.train(run, resume=True)), log=place / "log"))
        if code != 0:
            yield f"resumed, it ended with {code}: {_tail(place / 'log')}"
        elif difference := differing_apart(run, stage.reference, place / "answer"):
            yield f"resumed, it ended otherwise: {difference}"


def _has_leftovers(run: Path) -> bool:
    return any(is_leftover(path) for folder in (run, run / "checkpoints") for path in folder.glob(".*"))


def _visible_files(run: Path) -> Iterator[Path]:
    """The files of a run but for its journal, which is whole only up to the last checkpoint."""
    for path in run.rglob("*"):
        is_hidden = any(part.startswith(".") for part in path.relative_to(run).parts)
        if path.is_file() and not is_hidden and path.name != "journal.jsonl":
            yield path


def _is_there(root: Path, step: int) -> bool:
    """Whether a checkpoint of that step is there and whole, or a later one that took its place."""
    newest, _ = newest_valid(root)
    return newest is not None and newest.step >= step
