"""Training killed at random moments, also inside saves, must come to the very state of an uninterrupted training.

The moments are times on a clock, so that a trial repeats its plan exactly and where it strikes nearly.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scene import Scene, fingerprint, fork, make_scene, seeded, wait
from snapfit.core.errors import SnapfitError
from snapfit.training.checkpoint import find_checkpoints, newest_valid, why_invalid

EVERY_STEPS = (1, 1, 2, 4, 40)
"""Steps between checkpoints: with every step a training spends most of its time saving, with 40 only the first and
the last state are saved."""


@dataclass(frozen=True)
class Kills:
    """How the trials went. kills: those that struck a living process. bad: what was wrong, with the trial's number."""

    trials: int
    kills: int
    bad: list[str]
    seconds: float
    seed: int


def run_kills(
    folder: Path, *, trials: int, seed: int, after_kill: Callable[[Path], None] | None = None, **settings: Any
) -> Kills:
    """Kill one to three processes of a training, resume it to its end, and compare; as often as asked.

    folder: an empty one. after_kill: done to the run between a kill and the next process; a negative control breaks
    the run there. settings: of the training, beyond the scene's. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    scene = make_scene(folder / "stage", **settings)
    scene.train(folder / "reference")
    reference = fingerprint(folder / "reference")
    durations = {every: _duration(scene, folder / f"timed-{every}", every) for every in set(EVERY_STEPS)}
    bad, kills, done = [], 0, 0
    while done < trials or (kills < trials and done < 2 * trials):  # a machine that got faster ends before its kill
        trial, done = done, done + 1
        dice = seeded(seed, trial)
        every = dice.choice(EVERY_STEPS)
        run = folder / f"run-{trial}"
        struck, wrong = _one_trial(scene, run, every, durations[every], dice, after_kill)
        kills += struck
        wrong = wrong or differing(run, reference)
        if wrong:
            bad.append(f"trial {trial}, a checkpoint every {every} steps: {wrong}")
        else:
            shutil.rmtree(run)
    return Kills(done, kills, bad, time.monotonic() - began, seed)


def differing(run: Path, reference: Mapping[str, Any]) -> str:
    """Which parts of a finished run differ from a reference's fingerprint, in words; empty when none does."""
    try:
        found = fingerprint(run)
    except (AssertionError, SnapfitError, OSError) as error:
        return f"there is no fingerprint: {error!r}"
    parts = [name for name in sorted(found | dict(reference)) if found.get(name) != reference.get(name)]
    return f"other {', '.join(parts)}" if parts else ""


def invalid_folders(run: Path) -> list[str]:
    """What is visible among a run's checkpoints and is not whole."""
    found, skipped = find_checkpoints(run / "checkpoints")
    wrong = [f"{one.folder.name}: {why}" for one in found if (why := why_invalid(one))]
    return wrong + [f"{one.folder.name}: {one.why}" for one in skipped]


def alone(work: Callable[[], object]) -> Callable[[], object]:
    """The work of a forked process on one thread: the threads of the process it comes from are not in it."""

    def on_one_thread() -> object:
        torch.set_num_threads(1)
        return work()

    return on_one_thread


def break_position(run: Path) -> None:
    """Break a resume for a negative control: the newest checkpoint claims another place in the data, consistently."""
    from snapfit.core.files import read_json, write_json_atomic
    from snapfit.core.folders import write_manifest

    checkpoint, _ = newest_valid(run / "checkpoints")
    if checkpoint is None:
        return
    path = checkpoint.folder / "state.json"
    state = read_json(path)
    state["progress"]["epoch"] += 1
    write_json_atomic(path, state)
    write_manifest(checkpoint.folder)


def _duration(scene: Scene, run: Path, every: int) -> float:
    """Seconds that an uninterrupted process takes."""
    began = time.monotonic()
    code = wait(fork(alone(lambda: scene.train(run, checkpoint__every_steps=every))))
    if code != 0:
        raise RuntimeError(f"an uninterrupted training ended with {code}")
    return time.monotonic() - began


def _one_trial(
    scene: Scene,
    run: Path,
    every: int,
    duration: float,
    dice: random.Random,
    after_kill: Callable[[Path], None] | None,
) -> tuple[int, str]:
    """Kills that struck, and what was wrong on the way."""
    log = run.with_suffix(".log")

    def go_on() -> int:
        return fork(alone(lambda: scene.train(run, resume=True, checkpoint__every_steps=every)), log=log)

    struck = 0
    for _ in range(dice.randint(1, 3)):
        pid = go_on()
        time.sleep(dice.uniform(0.0, duration))
        os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        if code == -signal.SIGKILL:
            struck += 1
        elif code != 0:
            return struck, f"a process ended with {code}: {_last_words(log)}"
        if wrong := invalid_folders(run):
            return struck, f"visible after a kill: {'; '.join(wrong)}"
        if after_kill is not None:
            after_kill(run)
    code = wait(go_on())
    return struck, "" if code == 0 else f"the last process ended with {code}: {_last_words(log)}"


def _last_words(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-300:] if log.exists() else ""
