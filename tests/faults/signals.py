"""Signals at every stage of a training: it ends soon with a code that is not 0, loses nothing, and can be continued.

The signals come from the process itself: in a listener, at an event, or from a thread a random time after it. So the
stage that a trial strikes is certain, and where in it is chance.
"""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import alone, differing, invalid_folders
from scene import Scene, fingerprint, fork, make_scene, seeded, wait
from snapfit.core.errors import Interrupted
from snapfit.core.interrupts import SIGNALS, exit_code

STAGES: tuple[tuple[str, str, int, float], ...] = (
    ("reading", "", 0, 0.006),
    ("tokenising", "data", 1, 0.01),
    ("probing", "data", 1, 0.1),
    ("building", "recipe", 1, 0.03),
    ("loading", "weights", 1, 0.0),
    ("grouping", "groups", 1, 0.0),
    ("starting", "start", 1, 0.01),
    ("first step", "step", 1, 0.0),
    ("a step", "step", 17, 0.01),
    ("evaluating", "step", 11, 0.004),
    ("evaluated", "evaluation", 2, 0.0),
    ("saving", "step", 8, 0.05),
    ("saved", "checkpoint", 3, 0.0),
    ("last step", "step", 33, 0.08),
    ("measuring", "final", 1, 0.006),
    ("bundling", "final", 2, 0.1),
    ("the end", "end", 1, 0.0),
)
"""Name; the event after which the signal comes, and which of its kind; and within how many seconds after it. Without
an event it comes once signals are heard, and with 0 seconds while the event is being told."""


@dataclass(frozen=True)
class Signals:
    """How the trials went. struck: the signals that came in time. slowest_seconds: from a signal to the exit."""

    trials: int
    struck: int
    bad: list[str]
    slowest_seconds: float
    seconds: float
    seed: int


def run_signals(folder: Path, *, moments: int, seed: int, double: bool = False, limit_seconds: float = 5.0) -> Signals:
    """Send each of the three signals at so many moments, then continue the run and compare.

    folder: an empty one. double: a second signal follows within 30 ms. limit_seconds: the longest that a process may
    take to end. A trial depends on `seed` and its number alone, but for the clock.
    """
    began = time.monotonic()
    stages = {pooling: make_scene(folder / f"stage-{pooling}", model__pooling=pooling) for pooling in ("mean", "auto")}
    references = {}
    for pooling, scene in stages.items():
        scene.train(folder / f"reference-{pooling}")
        references[pooling] = fingerprint(folder / f"reference-{pooling}")
    bad, struck, slowest = [], 0, 0.0
    for trial in range(len(SIGNALS) * moments):
        dice = seeded(seed, trial)
        moment = _moment(trial, dice, double)
        pooling = "auto" if moment.stage == "probing" else "mean"
        run = folder / f"run-{trial}"
        took, wrong = _one_trial(stages[pooling], run, moment, limit_seconds)
        wrong = wrong or differing(run, references[pooling])
        if took is not None:
            struck, slowest = struck + 1, max(slowest, took)
        if wrong:
            bad.append(f"trial {trial}, signal {moment.number} while {moment.stage}: {wrong}")
        shutil.rmtree(run, ignore_errors=True)
    return Signals(len(SIGNALS) * moments, struck, bad, slowest, time.monotonic() - began, seed)


@dataclass(frozen=True)
class _Moment:
    """When a signal is sent: `delay` seconds after the `count`-th event of a kind; a second one so much later."""

    stage: str
    number: int
    kind: str
    count: int
    delay: float
    second_after: float | None


def _moment(trial: int, dice: random.Random, double: bool) -> _Moment:
    stage, kind, count, within = STAGES[(trial + dice.randrange(3) * len(SIGNALS)) % len(STAGES)]
    number = SIGNALS[trial % len(SIGNALS)]
    delay, second_after = dice.uniform(0.0, within), dice.choice((0.0, 0.002, 0.03))
    return _Moment(stage, number, kind, count, delay, second_after if double else None)


class _Sender:
    """Sends the signals of a moment to its own process, and notes when, and how many steps came after.

    A listener of the training. Nothing is sent any more once the training returned.
    """

    def __init__(self, moment: _Moment) -> None:
        self.moment = moment
        self.sent: float | None = None
        self.steps_after = 0
        self._seen = 0
        self._over = False
        self._lock = threading.Lock()
        if not moment.kind:
            threading.Thread(target=self._once_heard, daemon=True).start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        if self.sent is not None and event["kind"] == "step":
            self.steps_after += 1
        if event["kind"] != self.moment.kind:
            return
        self._seen += 1
        if self._seen == self.moment.count:
            if self.moment.delay == 0.0:
                self._send()
            else:
                threading.Thread(target=self._later, daemon=True).start()

    def finish(self, note: Path) -> None:
        with self._lock:
            self._over = True
        note.write_text(json.dumps({"sent": self.sent, "steps_after": self.steps_after}), encoding="utf-8")

    def _once_heard(self) -> None:
        while signal.getsignal(SIGNALS[-1]) in (signal.SIG_DFL, None) and not self._over:
            time.sleep(0.0002)
        self._later()

    def _later(self) -> None:
        time.sleep(self.moment.delay)
        self._send()

    def _send(self) -> None:
        if self.moment.second_after is not None:
            threading.Thread(target=self._again, daemon=True).start()
        with self._lock:
            if self._over:
                return
            self.sent = time.monotonic()
        os.kill(os.getpid(), self.moment.number)

    def _again(self) -> None:
        while self.sent is None and not self._over:
            time.sleep(0.0002)
        time.sleep(self.moment.second_after or 0.0)
        with self._lock:
            if not self._over:
                os.kill(os.getpid(), self.moment.number)


def _one_trial(scene: Scene, run: Path, moment: _Moment, limit_seconds: float) -> tuple[float | None, str]:
    """The seconds from the signal to the exit, None where it came too late; and what was wrong."""
    note, log, cache = (run.with_suffix(suffix) for suffix in (".note", ".log", ".cache"))
    code = wait(fork(alone(lambda: _train_under_signal(scene, run, moment, note, cache)), log=log))
    ended = time.monotonic()
    complete = (run / "result.json").exists()
    if complete and not note.exists():  # it came when the training had returned, and hit the process alone
        return None, ""
    told = json.loads(note.read_text(encoding="utf-8"))
    took = None if told["sent"] is None else ended - told["sent"]
    expected = exit_code(moment.number)
    if took is None and code != 0:
        wrong = f"ended with {code} before any signal: {_last_words(log)}"
    elif code == 0 and not complete:
        wrong = "ended with 0 and is not complete"
    elif code == 0 and told["steps_after"] > 1:
        wrong = f"went on for {told['steps_after']} steps as if there had been no signal"
    elif code not in (0, expected):
        wrong = f"ended with {code}, not {expected}: {_last_words(log)}"
    elif took is not None and took > limit_seconds:
        wrong = f"took {took:.1f} s to end"
    else:
        wrong = "; ".join(invalid_folders(run))
    if not wrong:
        with _cache_in(cache):
            scene.train(run, resume=True)
    shutil.rmtree(cache, ignore_errors=True)
    return took, wrong


def _train_under_signal(scene: Scene, run: Path, moment: _Moment, note: Path, cache: Path) -> object:
    """What the child does; it ends as the command line does."""
    sender = _Sender(moment)
    with _cache_in(cache):
        try:
            result = scene.train(run, listener=sender)
            if result.stopped_by is not None and not (run / "result.json").exists():
                raise Interrupted("stopped", exit_code(result.stopped_by))
            return result
        finally:
            sender.finish(note)


@contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """Token ids in a cache of this run's own, which is empty at first."""
    before = os.environ.get("SNAPFIT_CACHE")
    os.environ["SNAPFIT_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["SNAPFIT_CACHE"]
        else:
            os.environ["SNAPFIT_CACHE"] = before


def _last_words(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-300:] if log.exists() else ""
