"""Strikes a writer at one of its system calls: the process dies there, or the call fails there, at every place in turn.

strace attaches to a forked process that waits, ready to write, and tampers with one call of it. The places are counted
in a run that nothing disturbs; that run also says what a finished write looks like. Calls are counted by thread, as
strace does.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import toys
from scene import Scene, make_scene, seeded
from snapfit.core.errors import BadInput, SnapfitError, WorkFailed
from snapfit.core.files import sha256_file
from snapfit.core.folders import MANIFEST, remove_leftovers
from snapfit.core.recipe import Recipe
from snapfit.runtime.bundle import Bundle
from snapfit.ship.bundling import write_bundle
from snapfit.training.checkpoint import BEST, MODEL, OPTIMIZER, read_checkpoint, why_invalid
from snapfit.training.fit import Fitted, fit
from snapfit.training.journal import Journal
from snapfit.training.plan import make_plan
from snapfit.training.prepare import Tables, read_tables
from snapfit.training.saver import Saver
from tracing import Places, count_places, run_traced

ERRORS = ("ENOSPC", "EIO", "EMFILE", "EACCES")
KILLED = -9
OWN_ERRORS = (WorkFailed.exit_code, BadInput.exit_code)
_TRIES = 3


@dataclass(frozen=True)
class Action:
    """One write into a folder.

    set_up: makes what is there before. begin: gets ready in that folder and returns the write itself, which raises
    an error of ours when it fails.
    """

    name: str
    set_up: Callable[[Path], None]
    begin: Callable[[Path], Callable[[], None]]


@dataclass(frozen=True)
class Fault:
    """A place and what happens there: the call of this number in a thread fails with `error`, or kills when None."""

    action: str
    call: str
    number: int
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.action}: {self.error or 'killed'} at {self.call} {self.number}"

    @property
    def tampering(self) -> str:
        """The fault in strace's words."""
        what = "signal=SIGKILL" if self.error is None else f"error={self.error}"
        return f"inject={self.call}:{what}:when={self.number}"


@dataclass(frozen=True)
class SyscallResult:
    """What came of striking at many places.

    seed: of the choice of places. places: how many there are, by action. trials: how many were struck. bad: what went
    wrong where. reported: faults that the writer told of; harmless: faults with which the write was whole all the same.
    missed: places that a second run did not reach. seconds: in all.
    """

    seed: int
    places: dict[str, int]
    trials: int
    bad: list[str]
    reported: int
    harmless: int
    missed: int
    seconds: float


def run_kill_at_syscalls(
    folder: Path, *, seed: int = 0, count: int | None = None, actions: Sequence[Action] | None = None
) -> SyscallResult:
    """Kill every action at every place.

    folder: empty or new, for all that is written. count: only so many places, drawn with `seed`; default all of them.
    actions: default those of `default_actions`.
    After each kill every folder that is visible must be whole, and what was there before must be there until the new
    is. `remove_leftovers` must then take away all that is hidden, and no more.
    """
    return _strike_all(folder, (None,), seed=seed, count=count, actions=actions)


def run_io_errors(
    folder: Path,
    *,
    seed: int = 0,
    count: int | None = None,
    actions: Sequence[Action] | None = None,
    errors: Sequence[str] = ERRORS,
) -> SyscallResult:
    """Let every action's calls fail once, at every place with each of `errors`.

    The arguments are those of `run_kill_at_syscalls`. What that demands must hold; and every failure must end in an
    error of ours, unless the write was whole nevertheless, with all that is to be synced synced.
    """
    return _strike_all(folder, errors, seed=seed, count=count, actions=actions)


# ---------------------------------------------------------------- what is written


@dataclass(frozen=True)
class _Trained:
    fitted: Fitted
    tables: Tables


def default_actions(folder: Path) -> tuple[Action, ...]:
    """Saves in their four situations, and a bundle that replaces another. folder: for a training that makes these."""
    trained = _train(make_scene(folder))
    return (
        Action("first save", lambda _: None, lambda place: _begin_save(place, 4, keep=2)),
        Action("save", lambda place: save_steps(place, 4), lambda place: _begin_save(place, 8, keep=3)),
        Action("prune", lambda place: save_steps(place, 4, 8, 12), lambda place: _begin_save(place, 16, keep=2)),
        Action("save again", lambda place: save_steps(place, 4, 8), lambda place: _begin_save(place, 8, keep=2)),
        Action(
            "bundle",
            lambda place: _write_bundle(place, trained),
            lambda place: lambda: _write_bundle(place, trained, shift=1.0),
        ),
    )


def save_state(place: Path, step: int) -> tuple[dict[str, object], dict[str, dict[str, torch.Tensor]]]:
    """A small state of a training at a step; it differs with what `place` holds already."""
    there = float(len(list((place / "checkpoints").glob("*"))))
    weights = {"layer.weight": torch.full((16, 8), step + there), "layer.bias": torch.zeros(8)}
    tensors = {
        MODEL: weights,
        OPTIMIZER: {f"{name}/exp_avg": tensor / 2 for name, tensor in weights.items()},
        BEST: weights,
    }
    return {"step": step, "progress": {"seconds": 1.5}, "optimizer": {}, "identity": {"recipe": {}}}, tensors


def _begin_save(place: Path, step: int, *, keep: int) -> Callable[[], None]:
    journal = Journal(place / "journal.jsonl")
    journal.append("begun")
    saver = Saver(place / "checkpoints", keep=keep, before_rename=journal.sync)
    state, tensors = save_state(place, step)

    def save() -> None:
        with journal:
            saver.save(state, {group: tensors[group] for group in (MODEL, OPTIMIZER)}, {BEST: tensors[BEST]})
            saver.wait()
            for outcome in saver.outcomes():
                if outcome.error is not None:
                    raise WorkFailed(outcome.error)

    return save


def save_steps(place: Path, *steps: int) -> None:
    """Save a checkpoint of each step, and keep them all."""
    for step in steps:
        _begin_save(place, step, keep=len(steps))()


def _train(scene: Scene) -> _Trained:
    """A short training in this process, in memory."""
    values = toys.QUICK | {"train__epochs": 1, "train__threads": 1, "model__pooling": "mean"}
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    recipe = recipe.with_values({"model.encoder": str(scene.folder / "encoder")})
    tables = read_tables(scene.folder / "train.csv", None, None, recipe.data)
    plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
    return _Trained(fit(plan, notify=lambda kind, **fields: None), tables)


def _write_bundle(place: Path, trained: _Trained, *, shift: float = 0.0) -> None:
    """Write the bundle with weights moved by `shift`, so that two can be told apart; the weights are put back."""
    parameters = list(trained.fitted.model.parameters())
    with torch.no_grad():
        parameters[-1].add_(shift)
        try:
            write_bundle(place / "bundle", trained.fitted, trained.tables)
        finally:
            parameters[-1].sub_(shift)


# ---------------------------------------------------------------- striking


def _strike_all(
    folder: Path,
    errors: Sequence[str | None],
    *,
    seed: int,
    count: int | None,
    actions: Sequence[Action] | None,
) -> SyscallResult:
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    actions = default_actions(folder / "scene") if actions is None else actions
    stages = {action.name: _Stage.make(folder / action.name.replace(" ", "-"), action) for action in actions}
    faults = [
        Fault(name, call, number, error)
        for name, stage in stages.items()
        for call, calls in stage.places.items()
        for number in range(1, calls + 1)
        for error in errors
    ]
    places = Counter(fault.action for fault in faults)
    if count is not None and count < len(faults):
        faults = seeded(seed, 0).sample(faults, count)
    bad: list[str] = []
    ends: Counter[str] = Counter()
    for fault in faults:
        end, problems = stages[fault.action].strike(fault)
        ends[end] += 1
        bad += [f"{fault}: {problem}" for problem in problems]
    struck = len(faults) - ends["missed"]
    seconds = time.monotonic() - start
    return SyscallResult(
        seed, dict(places), struck, bad, ends["reported"], ends["harmless"], ends["missed"], round(seconds, 1)
    )


@dataclass(frozen=True)
class _Stage:
    """An action with what its folder holds before it and after it, and the places where it can be struck."""

    folder: Path
    action: Action
    before: dict[str, str]
    after: dict[str, str]
    places: Places = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, action: Action) -> "_Stage":
        template, place = folder / "template", folder / "undisturbed"
        template.mkdir(parents=True)
        action.set_up(template)
        before = visible(template)
        action.begin(shutil.copytree(template, folder / "untraced"))()  # all that is imported late is imported now
        shutil.copytree(template, place)
        code = run_traced(lambda: action.begin(place), trace=folder / "trace", log=folder / "log")
        if code != 0:
            raise RuntimeError(f"{action.name}, which nothing disturbed, ended with {code}: {_said(folder / 'log')}")
        return cls(folder, action, before, visible(place), count_places(folder / "trace"))

    def strike(self, fault: Fault) -> tuple[str, list[str]]:
        """How a write ends that a fault strikes ("killed", "reported", "harmless" or "missed"), and what is bad."""
        place, trace, log = (self.folder / name for name in ("place", "trace", "log"))
        for _ in range(_TRIES):
            log.unlink(missing_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.folder / "template", place)
            code = run_traced(lambda: self.action.begin(place), trace=trace, log=log, tampering=fault.tampering)
            if code == KILLED if fault.error is None else "(INJECTED)" in trace.read_text():
                break
        else:
            return "missed", []
        end = "killed" if fault.error is None else "harmless" if code == 0 else "reported"
        problems = list(self._problems(place, code, log, count_places(trace).get("fsync", 0)))
        return end, problems

    def _problems(self, place: Path, code: int, log: Path, syncs: int) -> Iterator[str]:
        now = visible(place)
        before, after, there = (set(contents.values()) for contents in (self.before, self.after, now))
        for name, content in now.items():
            if content not in before | after:
                yield f"{name} is neither an old one nor the new one: {content}"
        is_written = after - before <= there
        # What is passed over because it cannot be read just now is neither replaced nor removed: then more stay.
        if not (len(now) >= len(self.after) if is_written else before <= there):
            yield f"only {', '.join(now) or 'nothing'} is left"
        if code == 0 and not is_written:
            yield "it says that all is well, which it is not"
        # A folder is synced for each removal; those that were passed over were not removed.
        if code == 0 and syncs < self.places.get("fsync", 0) - max(0, len(now) - len(self.after)):
            yield f"it synced {syncs} times instead of {self.places['fsync']}"
        if code not in (0, *OWN_ERRORS, KILLED):
            yield f"it ended with {code}: {_said(log)}"
        for parent in (place, place / "checkpoints"):
            remove_leftovers(parent)
            if parent.is_dir() and (hidden := [path.name for path in parent.iterdir() if path.name.startswith(".")]):
                yield f"{hidden} is left"
        if visible(place) != now:
            yield "removing leftovers changed what is visible"


def visible(place: Path) -> dict[str, str]:
    """The visible checkpoints and the bundle in a folder, by name: the SHA-256 of the manifest, or why not whole."""
    contents: dict[str, str] = {}
    for path in sorted((place / "checkpoints").glob("[!.]*")):
        try:
            why = why_invalid(read_checkpoint(path))
        except SnapfitError as error:
            why = str(error).splitlines()[0]
        contents[path.name] = why or sha256_file(path / MANIFEST)
    if (place / "bundle").exists():
        try:
            Bundle.open(place / "bundle", verify=True)
            contents["bundle"] = sha256_file(place / "bundle" / MANIFEST)
        except SnapfitError as error:
            contents["bundle"] = str(error).splitlines()[0]
    return contents


def _said(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "nothing was said"
