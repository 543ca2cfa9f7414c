"""Trainings in which one system call of one save fails.

A save in the middle that fails is told of, and training goes on to the very same end. When the last save of a stopped
training fails, so does the training; resumed, it comes to that end all the same.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kills import alone, differing, invalid_folders
from scene import Scene, fingerprint, fork, make_scene, seeded, wait
from snapfit.core.errors import WorkFailed
from snapfit.core.interrupts import exit_code
from snapfit.training.journal import read_journal
from syscalls import ERRORS, Fault
from tracing import Places, attach, count_places, let_anyone_trace

EVERY_STEPS, PERIODIC_SAVES = 4, 9
"""Of the scene's training: it saves before its first step, and after every fourth of 33."""
_COUNTED_SAVE = 5
"""One that removes an older checkpoint, as most do."""


@dataclass(frozen=True)
class FailingSaves:
    """How the trials went.

    struck: trials in which a call failed; the others had no such call. reported: failed saves that training told of and
    went on; stopped: trainings that failed because they were stopped and could not save. bad: what was wrong, with the
    trial's number.
    """

    trials: int
    struck: int
    reported: int
    stopped: int
    bad: list[str]
    seconds: float
    seed: int


def run_failing_saves(folder: Path, *, trials: int, seed: int = 0) -> FailingSaves:
    """Train as often as asked, each time with one failing call in one save; every third training is told to stop.

    folder: an empty one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    scene = make_scene(folder / "stage")
    if code := wait(fork(alone(lambda: scene.train(folder / "reference")))):
        raise RuntimeError(f"an undisturbed training ended with {code}")
    reference = fingerprint(folder / "reference")
    code, places = _train(scene, folder / "counted", _Strike(_COUNTED_SAVE))
    if code != 0 or not places:
        raise RuntimeError(f"a training whose calls were counted ended with {code}")
    bad: list[str] = []
    ends = []
    for trial in range(trials):
        strike = _draw(seeded(seed, trial), places, stopped=trial % 3 == 2)
        run = folder / f"run-{trial}"
        code, _ = _train(scene, run, strike)
        ends.append(_End.read(run, strike))
        wrong = [*ends[-1].problems(code), *_wrong_after(scene, run, reference, code)]
        bad += [f"trial {trial}, {strike}: {problem}" for problem in wrong]
    return FailingSaves(
        trials=trials,
        struck=sum(end.struck for end in ends),
        reported=sum(end.failed and end.strike.stop_step is None for end in ends),
        stopped=sum(end.failed and not end.saved and end.strike.stop_step is not None for end in ends),
        bad=bad,
        seconds=round(time.monotonic() - began, 1),
        seed=seed,
    )


# ---------------------------------------------------------------- one training


@dataclass(frozen=True)
class _Strike:
    """Where a training is struck. save: the number of the save, from 0. stop_step: where it is told to stop, if it is;
    then the last save is struck. fault: None only watches.
    """

    save: int
    stop_step: int | None = None
    fault: Fault | None = None

    def __str__(self) -> str:
        return f"{self.fault}" + ("" if self.stop_step is None else f", told to stop at step {self.stop_step}")

    @property
    def step(self) -> int:
        """The step whose save is struck."""
        return self.save * EVERY_STEPS if self.stop_step is None else self.stop_step


def _draw(dice: random.Random, places: Places, *, stopped: bool) -> _Strike:
    save = dice.randrange(PERIODIC_SAVES)
    call = dice.choices(list(places), list(places.values()))[0]
    fault = Fault(f"save {save}", call, dice.randint(1, places[call]), dice.choice(ERRORS))
    return _Strike(save, dice.randint(1, EVERY_STEPS * (PERIODIC_SAVES - 1)) if stopped else None, fault)


class _Gate:
    """Holds the thread of one save, as it begins, until strace watches it; in the process that trains."""

    def __init__(self, tell: int, go: int, strike: _Strike) -> None:
        self._tell, self._go, self._strike = tell, go, strike
        self._saves_to_come = strike.save if strike.stop_step is None else None

    def thread_begins(self, frame: FrameType, event: str, argument: Any) -> None:
        """A profile function, called by every new thread before anything else."""
        sys.setprofile(None)
        if threading.current_thread().name != "snapfit-saver" or self._saves_to_come is None:
            return
        if self._saves_to_come == 0:
            os.write(self._tell, str(threading.get_native_id()).encode())
            os.read(self._go, 1)
        self._saves_to_come -= 1

    def hear(self, event: dict[str, Any]) -> None:
        """A listener: at the step where the training is to stop, tell it so; the save that follows is the last."""
        if event["kind"] == "step" and event["number"] == self._strike.stop_step:
            self._saves_to_come = 0
            os.kill(os.getpid(), signal.SIGTERM)


def _train(scene: Scene, run: Path, strike: _Strike) -> tuple[int, Places]:
    """Train in another process, with strace on the thread of the save that is struck; returns how it ended."""
    (told, tell), (go, let_go) = os.pipe(), os.pipe()

    def work() -> object:
        os.close(told)
        let_anyone_trace()
        gate = _Gate(tell, go, strike)
        threading.setprofile(gate.thread_begins)
        return scene.train(run, listener=gate.hear)

    pid = fork(alone(work), log=run.with_suffix(".log"))
    os.close(tell)
    trace = run.with_suffix(".trace")
    trace.touch()
    try:
        if thread := os.read(told, 32):  # nothing when the process has ended
            tampering = None if strike.fault is None else strike.fault.tampering
            tracer = attach(int(thread), trace, tampering, threads=False)
            os.write(let_go, b"g")
            code = wait(pid)
            tracer.communicate()
        else:
            code = wait(pid)
    finally:
        for end in (told, go, let_go):
            os.close(end)
    return code, count_places(trace)


@dataclass(frozen=True)
class _End:
    """What a struck training said. failed, saved: whether it told that the struck save failed, and that it was made."""

    strike: _Strike
    struck: bool
    failed: bool
    saved: bool
    other_failures: int
    log: str

    @classmethod
    def read(cls, run: Path, strike: _Strike) -> "_End":
        """From the files of the run."""
        events = read_journal(run / "journal.jsonl")
        failures = [event["step"] for event in events if event["kind"] == "checkpoint_failed"]
        saved = [event["step"] for event in events if event["kind"] == "checkpoint"]
        return cls(
            strike=strike,
            struck="(INJECTED)" in run.with_suffix(".trace").read_text(),
            failed=strike.step in failures,
            saved=strike.step in saved,
            other_failures=sum(step != strike.step for step in failures),
            log=run.with_suffix(".log").read_text(errors="replace"),
        )

    def problems(self, code: int) -> Iterator[str]:
        """What should not have ended so."""
        if not (self.failed or self.saved):
            yield f"nothing was told of the save of step {self.strike.step}"
        if self.other_failures:
            yield f"{self.other_failures} other saves failed"
        if self.strike.stop_step is None:
            expected = 0
        else:
            expected = exit_code(signal.SIGTERM) if self.saved else WorkFailed.exit_code
        if code != expected:
            yield f"it ended with {code}, not with {expected}: {self.log[-300:]}"
        if code == WorkFailed.exit_code and "could not be saved" not in self.log:
            yield f"it does not say that it could not be saved: {self.log[-300:]}"


def _wrong_after(scene: Scene, run: Path, reference: dict[str, Any], code: int) -> Iterator[str]:
    """What is wrong with a struck training on disk, and at its end, resumed if it did not come to it."""
    yield from invalid_folders(run)
    if code != 0:
        again = wait(fork(alone(lambda: scene.train(run, resume=True)), log=run.with_suffix(".log")))
        if again != 0:
            yield f"resumed, it ended with {again}"
    if wrong := differing(run, reference):
        yield wrong
