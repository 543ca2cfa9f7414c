"""The stage on which faults happen: a tiny training that takes a second, and what must be the same afterwards.

Everything is real: tables in files, `snapfit.train`, a bundle. Processes are forked from one that has torch loaded, so
that hundreds of them are cheap.
"""

import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import snapfit
import toys
import trained
from snapfit.core.errors import SnapfitError
from snapfit.core.files import sha256_file
from snapfit.training.checkpoint import newest_valid
from snapfit.training.journal import read_journal, settled_events

SETTINGS: dict[str, Any] = toys.QUICK | {
    "train__epochs": 3,
    "train__threads": 1,
    "train__evaluations_per_epoch": 2,
    "model__dropout": 0.2,
    "model__pooling": "mean",
    "checkpoint__every_steps": 4,
    "log__interval_steps": 1,
}
"""33 steps with dropout, six evaluations, and a checkpoint every four steps."""


@dataclass(frozen=True)
class Scene:
    """Tables and an encoder in a folder, and the settings of the training on them."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    def train(self, run: Path, *, resume: bool = False, listener: Any = None, **settings: Any) -> snapfit.TrainResult:
        """Train into `run`. resume: go on with what is there; begin when there is nothing."""
        return snapfit.train(
            self.folder / "train.csv",
            test=self.folder / "test.csv",
            recipe=None,
            listener=listener,
            encoder=str(self.folder / "encoder"),
            **{"resume" if resume else "out": run},
            **(self.settings | settings),
        )


def make_scene(folder: Path, n_rows: int = 96, **settings: Any) -> Scene:
    """A scene in `folder`, which must be empty."""
    toys.encoder_folder(folder / "encoder")
    trained.write_csv(folder / "train.csv", toys.single_rows(n_rows))
    trained.write_csv(folder / "test.csv", toys.single_rows(24, seed=1))
    return Scene(folder, SETTINGS | settings)


def fingerprint(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: weights, optimizer, best weights, metrics, losses and predictions."""
    checkpoint, skipped = newest_valid(run / "checkpoints")
    assert checkpoint is not None
    assert skipped == []
    files = sorted(path.name for path in checkpoint.folder.glob("*.safetensors"))
    events = settled_events(read_journal(run / "journal.jsonl"))
    predictor = snapfit.load(run / "bundle")
    texts = [row["text"] for row in toys.single_rows(24, seed=1)]
    return {
        "step": checkpoint.step,
        **{name: sha256_file(checkpoint.folder / name) for name in files},
        "bundle": sha256_file(run / "bundle" / "model.safetensors"),
        "losses": [(e["number"], e["loss"], e["lr_multiplier"]) for e in events if e["kind"] == "step"],
        "evaluations": [(e["step"], e["metrics"], e["best"]) for e in events if e["kind"] == "evaluation"],
        "final": [(e["split"], e["metrics"]) for e in events if e["kind"] == "final"],
        "verdicts": [(e["rows"], e["chosen"], e["temperatures"]) for e in events if e["kind"] == "verdict"],
        "scores": predictor.predict_proba(texts).tolist(),
    }


def fork(work: Callable[[], object], *, log: Path | None = None) -> int:
    """Start `work` in a forked process and return its number. It exits as the command line does.

    0 when the work returns, an error's exit code for one of ours, 99 with a traceback for a defect.
    log: where its output goes; default nowhere.
    """
    pid = os.fork()
    if pid == 0:
        _work_and_leave(work, log)
    return pid


def wait(pid: int, seconds: float = 60.0) -> int:
    """The exit code of a forked process, negative for the signal that ended it; killed and -9 when it takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise TimeoutError(f"process {pid} took longer than {seconds} s")


def _work_and_leave(work: Callable[[], object], log: Path | None) -> NoReturn:
    code = 99
    try:
        target = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        try:
            result = work()
            code = 0
            if isinstance(result, snapfit.TrainResult):
                print(json.dumps({"steps": result.steps, "resumed_from": result.resumed_from}))
        except SnapfitError as error:
            print(f"error: {error}", file=sys.stderr)
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def seeded(seed: int, trial: int) -> random.Random:
    """The dice of one trial, which the seed and the trial's number alone decide."""
    return random.Random(f"{seed}/{trial}")
