"""Memory that runs out in a training: the step is taken again in smaller parts, and nothing else changes.

It runs out in two ways: an error comes out of the forward pass, or the system really gives a process no more.
"""

import json
import random
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import toys
import trained
from kills import alone, differing
from scene import SETTINGS, Scene, fingerprint, fork, make_scene, seeded, wait
from snapfit.nn.head import Head


@dataclass(frozen=True)
class Shortages:
    """How the trials went. by_kind: trials of each kind of shortage."""

    trials: int
    by_kind: dict[str, int]
    bad: list[str]
    seconds: float
    seed: int


class Killed(BaseException):
    """What ends a training from outside."""


OUT_OF_MEMORY: Mapping[str, Callable[[], BaseException]] = {
    "MemoryError": MemoryError,
    "OutOfMemoryError": lambda: torch.OutOfMemoryError("CUDA out of memory."),
    "allocator": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
}


@dataclass
class Shortage:
    """Memory that holds `limit` rows at most in the forward pass of step `step` and of all later ones.

    A listener of the training. done: steps so far. kill: end the training with the first checkpoint of a later step.
    """

    step: int
    limit: int
    error: Callable[[], BaseException]
    kill: bool = False
    done: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event["kind"] == "step":
            self.done = event["number"]
        if self.kill and event["kind"] == "checkpoint" and event["step"] >= self.step:
            raise Killed

    def told(self, *names: str) -> list[Any]:
        """These fields of every step."""
        return [[event[name] for name in names] for event in self.events if event["kind"] == "step"]


@contextmanager
def short_of_memory(shortage: Shortage) -> Iterator[None]:
    """Trainings inside run out of memory."""

    def see(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, Head) and module.training and shortage.done + 1 >= shortage.step:
            _, mask = inputs
            if len(mask) > shortage.limit:
                raise shortage.error()

    handle = register_module_forward_pre_hook(see)
    try:
        yield
    finally:
        handle.remove()


def run_out_of_memory(folder: Path, *, trials: int, seed: int) -> Shortages:
    """Let memory run out in so many trainings; each must take the same rows at the same rates and learn the same.

    The losses agree to 1e-5 with those of a training with enough memory, and a training that is killed after the
    shortage goes on exactly as one that is not. folder: an empty one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    scene = make_scene(folder / "stage", model__dropout=0.0)
    plenty = Shortage(1000, 0, MemoryError)
    scene.train(folder / "clean", listener=plenty)
    bad: list[str] = []
    by_kind: dict[str, int] = {}
    for trial in range(trials):
        dice = seeded(seed, trial)
        kind = tuple(OUT_OF_MEMORY)[trial % len(OUT_OF_MEMORY)]
        limit = dice.randint(1, 7)
        step = dice.choice([number for number, rows in plenty.told("number", "rows")[:28] if rows > limit])
        by_kind[kind] = by_kind.get(kind, 0) + 1
        runs = [folder / f"run-{trial}", folder / f"killed-{trial}"]
        shortages = [Shortage(step, limit, OUT_OF_MEMORY[kind], kill=kill) for kill in (False, True)]
        for run, shortage in zip(runs, shortages, strict=True):
            with short_of_memory(shortage), suppress(Killed):
                scene.train(run, listener=shortage)
        scene.train(runs[1], resume=True)
        wrong = _memory_wrong(plenty, shortages[0], step) or differing(runs[1], fingerprint(runs[0]))
        if wrong:
            bad.append(f"trial {trial}, {kind} at step {step}, room for {limit} rows: {wrong}")
    return Shortages(trials, by_kind, bad, time.monotonic() - began, seed)


def _memory_wrong(plenty: Shortage, short: Shortage, step: int) -> str:
    """How a training that was short of memory differs from one that was not."""
    memory = [event for event in short.events if event["kind"] == "memory"]
    if not memory or memory[0]["step"] != step:
        return f"told of a shortage at {[event['step'] for event in memory]}"
    same = ("number", "epoch", "position", "rows", "tokens", "lr_multiplier")
    if plenty.told(*same) != short.told(*same):
        return "other rows or rates"
    pairs = zip(plenty.told("loss"), short.told("loss"), strict=True)
    worst = max(abs(one / other - 1) for (one,), (other,) in pairs)
    return f"a loss differs by {worst:.1e}" if worst > 1e-5 else ""


# ---------------------------------------------------------------- a real shortage


LONG_WORDS, LONG_BATCH = 480, 48
"""Words of a text, and texts of a step: a step takes some 450 MB."""

_BLOCK_BYTES = 1 << 16
"""Small enough to come from the heap rather than from a mapping of its own."""


def run_real_shortage(folder: Path, *, trials: int, seed: int) -> Shortages:
    """Train on long texts in processes that may take 20 to 250 MB more than they had before the first step.

    Linux only. folder: an empty one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    scene = _long_texts(folder / "stage")
    plenty = _limited(scene, folder / "clean", None)
    bad: list[str] = []
    for trial in range(trials):
        room_bytes = seeded(seed, trial).randint(20, 250) * 1_000_000
        try:
            short = _limited(scene, folder / f"run-{trial}", room_bytes)
            steps = [event["step"] for event in short.events if event["kind"] == "memory"]
            wrong = _memory_wrong(plenty, short, steps[0]) if steps else "it never ran out"
        except RuntimeError as error:
            wrong = str(error)
        if wrong:
            bad.append(f"trial {trial}, room for {room_bytes:,} bytes: {wrong}")
    return Shortages(trials, {"RLIMIT_AS": trials}, bad, time.monotonic() - began, seed)


def _long_texts(folder: Path) -> Scene:
    toys.encoder_folder(folder / "encoder", max_position_embeddings=512, hidden_size=64, intermediate_size=256)
    dice, names = random.Random(0), sorted(toys.TOPICS)
    rows = [{"text": " ".join(dice.choices(toys.WORDS, k=LONG_WORDS)), "label": names[i % 3]} for i in range(108)]
    trained.write_csv(folder / "train.csv", rows)
    trained.write_csv(folder / "test.csv", rows[:6])
    changes = {"train__epochs": 1, "train__batch": LONG_BATCH, "train__evaluations_per_epoch": 1, "model__dropout": 0.0}
    return Scene(folder, SETTINGS | changes)


def _limited(scene: Scene, run: Path, room_bytes: int | None) -> Shortage:
    """What a forked training told. room_bytes: how much it may take from its first step to its last."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    heard = Shortage(1000, 0, MemoryError)
    note, log = run.with_suffix(".json"), run.with_suffix(".log")

    held: list[bytearray] = []

    def listener(event: dict[str, Any]) -> None:
        heard(event)
        if event["kind"] == "start" and room_bytes is not None:
            held.extend(_unused_heap())
            resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + room_bytes, before[1]))
        elif event["kind"] == "final":  # the steps are over; a loader that gets nothing for a thread ends the process
            resource.setrlimit(resource.RLIMIT_AS, before)

    def work() -> None:
        scene.train(run, listener=listener)
        note.write_text(json.dumps(heard.events), encoding="utf-8")

    code = wait(fork(alone(work), log=log))
    if code != 0:
        raise RuntimeError(f"ended with {code}: {log.read_text(encoding='utf-8')[-300:]}")
    heard.events = json.loads(note.read_text(encoding="utf-8"))
    return heard


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    return pages * resource.getpagesize()


def _unused_heap() -> list[bytearray]:
    """What earlier work left mapped and free: blocks small enough to come from the heap, until it has to grow."""
    held, mapped = [], _mapped_bytes()
    while _mapped_bytes() == mapped:
        held.append(bytearray(_BLOCK_BYTES))
    return held
