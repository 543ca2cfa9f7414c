"""Damage to every file of checkpoints and bundles: refused before use, and a checkpoint's place taken by an older one.

Each trial damages one thing, asks, and puts it back; a damage that changes nothing is not made.
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scene import make_scene, seeded
from snapfit.core.errors import BadInput
from snapfit.core.folders import MANIFEST, list_files
from snapfit.runtime.bundle import Bundle
from snapfit.training.checkpoint import newest_valid, read_checkpoint, why_invalid


@dataclass(frozen=True)
class Damages:
    """How the trials went. by_kind: how many of each kind of damage were made."""

    trials: int
    by_kind: dict[str, int]
    bad: list[str]
    seconds: float
    seed: int


def run_damage(folder: Path, *, count: int, seed: int) -> Damages:
    """Damage a finished run's newest checkpoint and its bundle, by turns, so many times in all.

    folder: an empty one. A trial depends on `seed` and its number alone.
    """
    began = time.monotonic()
    run, outside = folder / "run", folder / "outside"
    make_scene(folder / "stage").train(run)
    outside.mkdir()
    newest, older = sorted((run / "checkpoints").iterdir(), reverse=True)
    bad: list[str] = []
    by_kind: dict[str, int] = {}
    for trial in range(count):
        dice = seeded(seed, trial)
        victim = newest if trial % 2 else run / "bundle"
        kept = outside / "kept"
        shutil.copytree(victim, kept)
        kind, what = _damage(victim, kept, dice, older if victim == newest else newest, outside)
        by_kind[kind] = by_kind.get(kind, 0) + 1
        wrong = _checkpoint_accepted(run, newest, older) if victim == newest else _bundle_accepted(victim)
        shutil.rmtree(victim)
        os.rename(kept, victim)
        if wrong:
            bad.append(f"trial {trial}, {victim.name}, {kind} of {what}: {wrong}")
    for whole in (why_invalid(read_checkpoint(newest)), why_invalid(read_checkpoint(older)), _refusal(run / "bundle")):
        if whole is not None:
            raise RuntimeError(f"the trials left damage behind: {whole}")
    return Damages(count, by_kind, bad, time.monotonic() - began, seed)


def _damage(victim: Path, kept: Path, dice: random.Random, other: Path, outside: Path) -> tuple[str, str]:
    """Damage `victim`, of which `kept` is a copy; returns the kind of damage, and what was damaged."""
    while True:
        kind = dice.choice(sorted(KINDS))
        what = KINDS[kind](victim, dice, other, outside)
        if not _same(victim, kept):
            return kind, what
        shutil.rmtree(victim)
        shutil.copytree(kept, victim)


def _same(one: Path, other: Path) -> bool:
    """Whether nothing is damaged, for a blank at the end of a manifest is not damage."""
    try:
        files, others = list_files(one), list_files(other)
    except BadInput:
        return False
    return files.keys() == others.keys() and all(
        _meaning(path) == _meaning(others[name]) for name, path in files.items()
    )


def _meaning(path: Path) -> bytes:
    return path.read_bytes().strip() if path.name == MANIFEST else path.read_bytes()


# ---------------------------------------------------------------- is it refused


def _checkpoint_accepted(run: Path, newest: Path, older: Path) -> str:
    """What is wrong with how a damaged newest checkpoint is passed over; empty when nothing is."""
    try:
        found, skipped = newest_valid(run / "checkpoints")
    except Exception as error:  # whatever it is, resuming would have ended with it
        return f"looking for a checkpoint ended with {error!r}"
    if found is None or found.folder != older:
        return f"{None if found is None else found.folder.name} was taken, not {older.name}"
    said = [one for one in skipped if one.folder == newest]
    if said and said[0].why:
        return ""
    # With another serial it looks no newer than the one that was taken; it must be refused all the same.
    claimed = read_checkpoint(newest)
    if (claimed.serial, claimed.step) <= (found.serial, found.step) and why_invalid(claimed):
        return ""
    return "nothing was said about the one that was passed over"


def _bundle_accepted(bundle: Path) -> str:
    try:
        why = _refusal(bundle)
    except Exception as error:
        return f"opening it ended with {error!r}"
    return "it was opened" if why is None else ""


def _refusal(bundle: Path) -> str | None:
    """Why a bundle is refused, None when it is not."""
    try:
        Bundle.open(bundle)
    except BadInput as error:
        return str(error)
    return None


# ---------------------------------------------------------------- kinds of damage


def _one_of(folder: Path, dice: random.Random) -> Path:
    return dice.choice(list(list_files(folder).values()))


def _flip(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """One bit, anywhere."""
    path = _one_of(folder, dice)
    content = bytearray(path.read_bytes())
    place, bit = dice.randrange(len(content)), dice.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.name}, byte {place}, bit {bit}"


def _truncate(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """The end is missing, at worst everything."""
    path = _one_of(folder, dice)
    n_bytes = dice.choice((0, path.stat().st_size - 1, dice.randrange(path.stat().st_size)))
    os.truncate(path, n_bytes)
    return f"{path.name} to {n_bytes} bytes"


def _extend(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    path = _one_of(folder, dice)
    with open(path, "ab") as file:
        file.write(dice.choice((b"\0", b"\n", b" ", b"}", dice.randbytes(512))))
    return path.name


def _zero(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """A block of zeros, as a disk may leave it, where there were other bytes."""
    path = _one_of(folder, dice)
    content = bytearray(path.read_bytes())
    place = dice.choice([i for i in range(len(content)) if content[i]][:4096])
    block = content[place : place + 64]
    content[place : place + 64] = bytes(len(block))
    path.write_bytes(content)
    return f"{path.name}, from byte {place}"


def _swap(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """Two files under each other's names."""
    paths = list(list_files(folder).values())
    one, two = dice.choice([(a, b) for a in paths for b in paths if a < b and a.read_bytes() != b.read_bytes()])
    os.rename(one, outside / "one")
    os.rename(two, one)
    os.rename(outside / "one", two)
    return f"{one.name} and {two.name}"


def _remove(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    path = _one_of(folder, dice)
    path.unlink()
    return path.name


def _rename(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    path = _one_of(folder, dice)
    path.rename(path.with_name(path.name.swapcase() if dice.random() < 0.5 else f"{path.name}.old"))
    return path.name


def _add(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """A file that the manifest does not know, also one that only pickle reads, also in a folder of its own."""
    path = folder / dice.choice(("notes.txt", "model-2.safetensors", "pytorch_model.bin", "x/state.json", "MANIFEST"))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(dice.choice((b"", b"{}", dice.randbytes(64))))
    return path.relative_to(folder).as_posix()


def _foreign(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """A whole file of another folder under the same name, or under a name of its own."""
    path = dice.choice(list(list_files(other).values()))
    target = folder / path.name
    if target.exists() and target.read_bytes() == path.read_bytes():
        target = folder / f"copy-of-{path.name}"
    shutil.copy(path, target)
    return f"{path.name} as {target.name}"


def _link(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """A link to the same content, but outside of the folder."""
    path = _one_of(folder, dice)
    shutil.move(path, outside / "moved")
    path.symlink_to(outside / "moved")
    return path.name


def _folder(folder: Path, dice: random.Random, other: Path, outside: Path) -> str:
    """A folder where a file was."""
    path = _one_of(folder, dice)
    path.unlink()
    path.mkdir()
    return path.name


KINDS: dict[str, Callable[[Path, random.Random, Path, Path], str]] = {
    "flip": _flip,
    "truncation": _truncate,
    "extension": _extend,
    "zeros": _zero,
    "swap": _swap,
    "removal": _remove,
    "renaming": _rename,
    "addition": _add,
    "foreign file": _foreign,
    "link": _link,
    "folder": _folder,
}
"""Each damages something in a folder and says what. other: a whole folder with other content. outside: for things."""
