"""Weights that a run keeps on its way, for an ensemble or a soup: at its cycles' ends and of its best evaluations.

    snapshots/step-000400/
      model.safetensors       the weights            member.json     the step, why it was kept, and its metrics
      MANIFEST.json           sizes and SHA-256, written last
    snapshots/ema/, tail/     the same, with averages of the weights along the training (trajectory.py)
    snapshots/shared.safetensors    weights that no step changes, where layers are frozen: once for all folders

A folder is there whole or not at all. They are written in the background, one at a time. Which weights are members
stands in the training's progress, and so in its checkpoints; folders of others are removed when the run is over.
Shared weights are written before the first folder that needs them; its member.json names their file's SHA-256.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from snapfit.core.errors import BadInput, SnapfitError
from snapfit.core.files import (
    cannot_write,
    make_folder,
    read_json,
    sha256_file,
    sibling,
    sync_folder,
    write_json_atomic,
)
from snapfit.core.folders import remove_folder, remove_leftovers, staged_folder, verify_manifest, write_manifest
from snapfit.core.recipe import Recipe
from snapfit.training.tensor_files import TensorFiles, write_tensors

KIND, FORMAT = "snapfit member", 1
WEIGHTS_FILE, MEMBER_FILE = "model.safetensors", "member.json"
SHARED_FILE = "shared.safetensors"
Why = Literal["anchor", "cycle", "best", "ema", "tail"]
_AVERAGED = ("ema", "tail")


@dataclass(frozen=True)
class Member:
    """Weights that were kept.

    step: optimizer steps that they had seen. why: "cycle", a cycle ended there; "anchor", and rounds begin from it;
    "best", the evaluation there was among the best; "ema" and "tail", an average of weights, the last of that step.
    metrics: of the validation split, empty without one and for averages.
    """

    step: int
    why: Why
    metrics: dict[str, float]

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return self.why if self.is_average else f"step-{self.step:06d}"

    @property
    def is_average(self) -> bool:
        """Whether it is an average of the weights along the training."""
        return self.why in _AVERAGED

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Member":
        """What `asdict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        if values["why"] not in get_args(Why):
            raise ValueError(f"a member kept as {values['why']!r}")
        return cls(int(values["step"]), values["why"], {str(k): float(v) for k, v in values["metrics"].items()})


def kept(members: Sequence[Member], most: int) -> list[Member]:
    """Those of all members that stay, in the order of their steps; at most `most`.

    The anchor comes first, then the last cycles' ends, as their rates fell to the end; then the best evaluations: those
    of the lowest nll, which is what makes a good member also where its accuracy is lower (Wang et al. 2022). Without an
    nll the latest are taken. Averages come last.
    """
    places = {"anchor": 0, "cycle": 1, "best": 2, "ema": 3, "tail": 3}

    def rank(member: Member) -> tuple[int, float]:
        by_nll = member.why == "best" and "nll" in member.metrics
        return places[member.why], member.metrics["nll"] if by_nll else -member.step

    return sorted(sorted(members, key=rank)[:most], key=lambda member: member.step)


def keeps_weights(recipe: Recipe) -> bool:
    """Whether a recipe asks for members or averages."""
    wanted = recipe.ensemble
    return bool(wanted.members or wanted.ema_share or wanted.tail_share)


class Members:
    """The members of one training, at most `most` of them, and its averages.

    root: where their weights are written; None holds them in memory. Not for several threads, but for `settle`.
    Attributes: all (the members), averages (which are counted in `most` no more than they are in `all`).
    """

    def __init__(self, most: int, root: Path | None = None) -> None:
        self.most, self.root = most, root
        self.all: list[Member] = []
        self.averages: list[Member] = []
        self._held: dict[str, Mapping[str, Tensor]] = {}  # by the folder's name, without a root
        self._fixed: dict[str, Tensor] = {}  # what those have in common
        self._shared: str | None = None  # the SHA-256 of the shared file, once it is written; the writer's own
        self._writer: ThreadPoolExecutor | None = None
        self._written: list[tuple[Member, Future[None]]] = []
        if root is not None:
            remove_leftovers(root)

    def would_keep(self, member: Member) -> bool:
        """Whether a member would be one of those that stay."""
        return member in kept([*self._others(member), member], self.most)

    def add(self, member: Member, weights: Mapping[str, Tensor], *, fixed: Collection[str] = ()) -> None:
        """Keep a member and let go of those that it takes the place of; an average is kept beside them.

        weights: on the CPU and contiguous; nobody may change them afterwards. fixed: names of those among them that are
        the same in every member of the training; they are stored once.
        """
        own = {name: tensor for name, tensor in weights.items() if name not in fixed}
        shared = {name: tensor for name, tensor in weights.items() if name in fixed}
        if self.root is None:
            self._held[member.folder] = own | {name: self._fixed.setdefault(name, shared[name]) for name in shared}
        else:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapfit-members")
            self._written.append((member, self._writer.submit(self._write, self.root, member, own, shared)))
        if member.is_average:
            self.averages = [*(one for one in self.averages if one.why != member.why), member]
        else:
            self.all = kept([*self._others(member), member], self.most)
        wanted = self._folders()
        self._held = {folder: held for folder, held in self._held.items() if folder in wanted}

    def failures(self, *, to_the_end: bool = False) -> list[str]:
        """Why members could not be written since this was last asked; those are members no longer.

        to_the_end: wait for all that is being written.
        """
        errors = []
        for member, future in list(self._written):
            if not (to_the_end or future.done()):
                continue
            self._written.remove((member, future))
            if (error := future.exception()) is not None:
                self.all = [one for one in self.all if one != member]
                self.averages = [one for one in self.averages if one != member]
                errors.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
        return errors

    def settle(self) -> None:
        """Return when what was added so far is on disk, or could not be written. For any thread: a checkpoint that
        names a member must not be visible before the member is.
        """
        wait([future for _, future in list(self._written)])

    def weights(self, member: Member) -> Mapping[str, Tensor]:
        """A member's weights, verified, each read as it is asked for. Raises BadInput when they cannot be read."""
        if self.root is None:
            return self._held[member.folder]
        self.failures(to_the_end=True)
        return open_member(self.root / member.folder)[1]

    def restore(self, values: Sequence[Mapping[str, Any]]) -> None:
        """Be what a checkpoint says. Members whose weights are gone are left out: what is trained anew brings them
        back, or others that took their places.
        """
        self.failures(to_the_end=True)
        self.all = [member for member in map(Member.from_dict, values) if self._has(member)]

    def to_dict(self) -> list[dict[str, Any]]:
        """The members as plain values, without their weights."""
        return [asdict(member) for member in self.all]

    def close(self, *, prune: bool) -> None:
        """Wait for what is being written. prune: then remove the folders of what is no member any more."""
        if self._writer is not None:
            self._writer.shutdown(wait=True)
            self._writer = None
        wanted = self._folders()
        for folder in self.root.iterdir() if prune and self.root is not None and self.root.is_dir() else ():
            if folder.name not in wanted and (folder / MEMBER_FILE).is_file():
                with suppress(SnapfitError):  # it only takes room
                    remove_folder(folder)
        if prune and self.root is not None and not wanted:
            (self.root / SHARED_FILE).unlink(missing_ok=True)

    def _folders(self) -> set[str]:
        """The names of the folders that stay."""
        return {member.folder for member in (*self.all, *self.averages)}

    def _write(self, root: Path, member: Member, own: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> None:
        """Write a member's folder, and before the first one what they share; in the writer's thread."""
        folder = root / member.folder
        about: dict[str, Any] = {"kind": KIND, "format": FORMAT, **asdict(member)}
        try:
            if shared:
                if self._shared is None:
                    self._shared = _write_shared(root / SHARED_FILE, shared)
                about["shared"] = self._shared
            with staged_folder(folder) as staged:
                digest = write_tensors(staged / WEIGHTS_FILE, own)
                write_json_atomic(staged / MEMBER_FILE, about)
                write_manifest(staged, known={WEIGHTS_FILE: digest})
        except OSError as error:
            raise cannot_write(folder, error) from error

    def _has(self, member: Member) -> bool:
        if self.root is None:
            return member.folder in self._held
        return _is_there(self.root / member.folder, member)

    def _others(self, member: Member) -> list[Member]:
        return [one for one in self.all if one.step != member.step]


def read_member(folder: Path) -> tuple[Member, dict[str, Tensor]]:
    """A member's folder, verified. Raises BadInput for one that is damaged or is none."""
    member, weights = open_member(folder)
    return member, dict(weights)


def open_member(folder: Path) -> tuple[Member, TensorFiles]:
    """A member's folder, verified once; each of its weights is read when it is asked for, and not held.

    So an average of large members needs the memory of no more than one. Raises BadInput as `read_member` does.
    """
    member, shared = _read_about(folder)
    verify_manifest(folder)
    files = [folder / WEIGHTS_FILE]
    if shared is not None:
        path = _shared_file(folder)
        _check_shared(path, shared, folder)
        files.append(path)
    return member, TensorFiles(files)


def _read_about(folder: Path) -> tuple[Member, str | None]:
    """What a member says of itself, and the SHA-256 of the shared file that it needs."""
    values = read_json(folder / MEMBER_FILE)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise BadInput(f"{folder} is not a member", f"a folder with a {MEMBER_FILE}", "leave it out")
    if values.get("format") != FORMAT:
        raise BadInput(f"{folder} has the format {values.get('format')!r}", f"{FORMAT}", "pip install -U snapfit")
    try:
        shared = values.get("shared")
        return Member.from_dict(values), None if shared is None else str(shared)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{folder / MEMBER_FILE} cannot be used: {error!r}", "a member", "leave it out") from error


def _is_there(folder: Path, member: Member) -> bool:
    try:
        found, shared = _read_about(folder)
        return found.step == member.step and (shared is None or _shared_file(folder).is_file())
    except (SnapfitError, OSError):
        return False


def _shared_file(folder: Path) -> Path:
    """Where the weights are that a member shares with the others."""
    return folder.absolute().parent / SHARED_FILE


def _check_shared(path: Path, digest: str, folder: Path) -> None:
    """Raise BadInput unless the shared file is the one that a member was written with."""
    fix = f"copy the folder {path.parent} again as a whole; a run that goes on writes the file anew"
    try:
        found = sha256_file(path)
    except OSError as error:
        what = f"{path}, which {folder} needs, cannot be read ({error.strerror or error})"
        raise BadInput(what, "the weights that all members share", fix) from error
    if found != digest:
        raise BadInput(f"{path} has the SHA-256 {found[:12]}, {folder} needs {digest[:12]}", "the same weights", fix)


def _write_shared(path: Path, weights: Mapping[str, Tensor]) -> str:
    """Write the shared file, whole or not at all, in the place of an older one; returns its SHA-256."""
    make_folder(path.parent)
    staged = sibling(path, "tmp")
    try:
        digest = write_tensors(staged, weights)
        os.replace(staged, path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return digest
