"""Random histories of a training: begun, killed, continued, extended, damaged, copied; and what must hold after each.

A history is a sequence of rules that Hypothesis draws. Its outcome is compared with that of a training which was
extended at the same steps and never interrupted. Such references are made when they are needed, and kept.
"""

import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kills import alone, differing
from scene import Scene, fingerprint, fork, make_scene, wait
from snapfit.training.checkpoint import find_checkpoints, newest_valid, why_invalid
from snapfit.training.journal import read_journal

EVERY, FIRST_EPOCHS, MOST_EPOCHS = 2, 2, 5
RULES = 7
"""Rules of a sequence at most."""

History = tuple[tuple[int, int], ...]
"""(step, epochs): from which step on a training was one of so many epochs."""


@dataclass(frozen=True)
class Histories:
    """How the sequences went. rules: how often each was carried out. bad: what was wrong; it ends the sequences."""

    sequences: int
    rules: dict[str, int]
    bad: list[str]
    seconds: float
    seed: int


def run_histories(folder: Path, *, sequences: int, seed: int) -> Histories:
    """Carry out so many random histories. folder: an empty one. The seed alone decides what is drawn."""
    began = time.monotonic()
    stage = Stage(make_scene(folder / "stage", n_rows=32, checkpoint__every_steps=EVERY, train__patience=None), folder)

    class Sequence(Machine):
        """The machine on this stage."""

        def __init__(self) -> None:
            super().__init__(stage)

    bad: list[str] = []
    try:
        run_state_machine_as_test(
            hypothesis.seed(seed)(Sequence),
            settings=hypothesis.settings(
                max_examples=sequences,
                stateful_step_count=RULES,
                deadline=None,
                database=None,
                print_blob=False,
                phases=(hypothesis.Phase.generate,),
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )
    except Exception as error:  # Hypothesis raises what the rules do, with the sequence in its notes
        bad.append("\n".join([repr(error), *getattr(error, "__notes__", ())]))
    return Histories(stage.sequences, dict(stage.rules), bad, time.monotonic() - began, seed)


class Stage:
    """What all sequences share: the scene, and the references by history."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self.sequences = 0
        self.rules: dict[str, int] = {}
        self._references: dict[History, Path] = {}
        self._fingerprints: dict[History, dict[str, Any]] = {}

    def fingerprint(self, history: History) -> dict[str, Any]:
        """That of the uninterrupted training with this history."""
        if history not in self._fingerprints:
            self._fingerprints[history] = fingerprint(self._reference(history))
        return self._fingerprints[history]

    def _reference(self, history: History) -> Path:
        """A finished run in which the checkpoint of every step has stayed."""
        if history not in self._references:
            *before, (step, epochs) = history
            root = self._reference(tuple(before)) if before else None
            run = self.folder / f"reference-{len(self._references)}"
            if root is not None:
                shutil.copytree(root, run, ignore=shutil.ignore_patterns("bundle", "result.json", "checkpoints"))
                name = f"step-{step:06d}"
                shutil.copytree(root / "checkpoints" / name, run / "checkpoints" / name)
            self.scene.train(
                run,
                resume=True,
                accept_changes=True,
                train__epochs=epochs,
                checkpoint__every_steps=1,
                checkpoint__keep=1000,
            )
            self._references[history] = run
        return self._references[history]


class Machine(RuleBasedStateMachine):
    """One run and what happens to it.

    run: its folder. epochs: it is to be of. history: how it came to its present state; empty before it began.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        stage.sequences += 1
        self.place = stage.folder / f"sequence-{stage.sequences}"
        self.place.mkdir()
        self.copies = 0
        self.run = self.place / "run-0"
        self.epochs, self.keep = FIRST_EPOCHS, 2
        self.history: History = ()

    # ------------------------------------------------------------ what happens

    @rule(steps=st.integers(1, 6), late_ms=st.integers(0, 40), damage=st.none() | st.floats(0.0, 0.999))
    def killed(self, steps: int, late_ms: int, damage: float | None) -> None:
        """A sitting that begins or goes on and is killed a while after so many steps, or comes to its end before.

        damage: where in the newest checkpoint's tensors a byte changes then, if there is another checkpoint.
        """
        told = 0

        def killer(event: dict[str, Any]) -> None:
            nonlocal told
            told += event["kind"] == "step"
            if told == steps and event["kind"] == "step":
                signal.setitimer(signal.ITIMER_REAL, late_ms / 1000 + 1e-4)  # whose default is to end the process

        known = self._n_resumes()
        code = wait(fork(alone(lambda: self._train(listener=killer)), log=self.place / "log"))
        assert code in (0, -signal.SIGALRM), f"a killed sitting ended with {code}"
        self._took_over(known)
        self._count("killed" if code else "came to the end")
        if damage is not None and len(self._valid()) > 1 and not self._complete():
            self._damage(damage)

    @rule()
    def finished(self) -> None:
        """A sitting that comes to the end."""
        known = self._n_resumes()
        result = self._train()
        if result.already_complete:
            assert self._n_resumes() == known
        self._took_over(known)
        wrong = differing(self.run, self.stage.fingerprint(self.history))
        assert not wrong, f"{self.history}: {wrong}"
        assert self._train().already_complete
        self._count("finished")

    @precondition(lambda self: self.history and self.epochs < MOST_EPOCHS)
    @rule()
    def extended(self) -> None:
        """From the next sitting on it is of one epoch more."""
        self.epochs += 1
        self._count("extended")

    @precondition(lambda self: self.history)
    @rule()
    def copied(self) -> None:
        """The run goes on as a copy somewhere else."""
        self.copies += 1
        copy = self.place / f"elsewhere-{self.copies}"
        shutil.copytree(self.run, copy)
        shutil.rmtree(self.run)
        self.run = copy
        self._count("copied")

    @rule(keep=st.integers(1, 3))
    def kept(self, keep: int) -> None:
        """From the next sitting on so many checkpoints are kept."""
        self.keep = keep
        self._count("kept")

    # ------------------------------------------------------------ what must hold

    @invariant()
    def something_is_safe(self) -> None:
        """Once a checkpoint was reported there is a valid one, and what is not ours is as it was."""
        if not self.history:
            return
        if any(event["kind"] == "checkpoint" for event in read_journal(self.run / "journal.jsonl")):
            assert self._valid(), "no valid checkpoint is left"
        for path, text in self._foreign().items():
            if path.parent.exists():
                assert path.read_text(encoding="utf-8") == text
            else:
                path.parent.mkdir(parents=True)
                path.write_text(text, encoding="utf-8")

    def teardown(self) -> None:
        """At last every history comes to its end."""
        self.finished()
        shutil.rmtree(self.place)

    # ------------------------------------------------------------ parts

    def _train(self, **options: Any) -> Any:
        settings = {"train__epochs": self.epochs, "checkpoint__keep": self.keep}
        return self.stage.scene.train(self.run, resume=True, accept_changes=True, **options, **settings)

    def _took_over(self, n_resumes: int) -> None:
        """Bring the history up to date after a sitting. n_resumes: told of in the journal before it."""
        if not (self.run / "request.json").exists():
            return
        if not self.history:
            self.history = ((0, self.epochs),)
            return
        resumed = [event for event in self._journal() if event["kind"] == "resume"][n_resumes:]
        for event in resumed:
            before = [part for part in self.history if part[0] < event["step"]]
            if not before or before[-1][1] != self.epochs:
                before.append((event["step"], self.epochs))
            self.history = tuple(before)

    def _complete(self) -> bool:
        """Whether nothing is left to do, so that no sitting would mend the checkpoints."""
        return (self.run / "result.json").exists() and self.history[-1][1] == self.epochs

    def _damage(self, place: float) -> None:
        newest, _ = newest_valid(self.run / "checkpoints")
        assert newest is not None
        paths = sorted(newest.folder.glob("*.safetensors"))
        path = paths[int(place * 1000) % len(paths)]
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 0x10
        path.write_bytes(content)
        assert why_invalid(newest)
        self._count("damaged")

    def _n_resumes(self) -> int:
        return sum(event["kind"] == "resume" for event in self._journal())

    def _journal(self) -> list[dict[str, Any]]:
        path = self.run / "journal.jsonl"
        return read_journal(path) if path.exists() else []

    def _valid(self) -> list[Path]:
        found, _ = find_checkpoints(self.run / "checkpoints")
        return [one.folder for one in found if why_invalid(one) is None]

    def _foreign(self) -> dict[Path, str]:
        """Files of somebody else's in the run's folder, with what stands in them."""
        return {self.run / "notes" / "mine.txt": "mine", self.run / "checkpoints" / ".notes" / "mine.txt": "mine too"}

    def _count(self, name: str) -> None:
        self.stage.rules[name] = self.stage.rules.get(name, 0) + 1
