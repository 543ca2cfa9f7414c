"""Weights that a run keeps on its way, for an ensemble or a soup: at its cycles' ends and of its best evaluations.

    snapshots/step-000400/
      model.safetensors       the weights            member.json     the step, why it was kept, and its metrics
      MANIFEST.json           sizes and SHA-256, written last

A folder is there whole or not at all. They are written in the background, one at a time. Which weights are members
stands in the training's progress, and so in its checkpoints; folders of others are removed when the run is over.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from snapfit.core.errors import BadInput, SnapfitError
from snapfit.core.files import cannot_write, read_json, write_json_atomic
from snapfit.core.folders import remove_folder, remove_leftovers, staged_folder, verify_manifest, write_manifest
from snapfit.training.tensor_files import read_tensors, write_tensors

KIND, FORMAT = "snapfit member", 1
WEIGHTS_FILE, MEMBER_FILE = "model.safetensors", "member.json"
Why = Literal["anchor", "cycle", "best"]


@dataclass(frozen=True)
class Member:
    """Weights that were kept.

    step: optimizer steps that they had seen. why: "cycle", a cycle ended there; "anchor", and rounds begin from it;
    "best", the evaluation there was among the best. metrics: of the validation split, empty without one.
    """

    step: int
    why: Why
    metrics: dict[str, float]

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"step-{self.step:06d}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Member":
        """What `asdict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        if values["why"] not in ("anchor", "cycle", "best"):
            raise ValueError(f"a member kept as {values['why']!r}")
        return cls(int(values["step"]), values["why"], {str(k): float(v) for k, v in values["metrics"].items()})


def kept(members: Sequence[Member], most: int) -> list[Member]:
    """Those of all members that stay, in the order of their steps; at most `most`.

    The anchor comes first, then the last cycles' ends, as their rates fell to the end; then the best evaluations: those
    of the lowest nll, which is what makes a good member also where its accuracy is lower (Wang et al. 2022). Without an
    nll the latest are taken.
    """
    places = {"anchor": 0, "cycle": 1, "best": 2}

    def rank(member: Member) -> tuple[int, float]:
        by_nll = member.why == "best" and "nll" in member.metrics
        return places[member.why], member.metrics["nll"] if by_nll else -member.step

    return sorted(sorted(members, key=rank)[:most], key=lambda member: member.step)


class Members:
    """The members of one training, at most `most` of them.

    root: where their weights are written; None holds them in memory. Not for several threads, but for `settle`.
    """

    def __init__(self, most: int, root: Path | None = None) -> None:
        self.most, self.root = most, root
        self.all: list[Member] = []
        self._held: dict[int, Mapping[str, Tensor]] = {}
        self._writer: ThreadPoolExecutor | None = None
        self._written: list[tuple[Member, Future[None]]] = []
        if root is not None:
            remove_leftovers(root)

    def would_keep(self, member: Member) -> bool:
        """Whether a member would be one of those that stay."""
        return member in kept([*self._others(member), member], self.most)

    def add(self, member: Member, weights: Mapping[str, Tensor]) -> None:
        """Keep a member and let go of those that it takes the place of.

        weights: on the CPU and contiguous; nobody may change them afterwards.
        """
        if self.root is None:
            self._held[member.step] = weights
        else:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapfit-members")
            folder = self.root / member.folder
            self._written.append((member, self._writer.submit(_write, folder, member, dict(weights))))
        self.all = kept([*self._others(member), member], self.most)
        self._held = {step: held for step, held in self._held.items() if step in {one.step for one in self.all}}

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
                errors.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
        return errors

    def settle(self) -> None:
        """Return when what was added so far is on disk, or could not be written. For any thread: a checkpoint that
        names a member must not be visible before the member is.
        """
        wait([future for _, future in list(self._written)])

    def weights(self, member: Member) -> Mapping[str, Tensor]:
        """A member's weights, verified. Raises WorkFailed or BadInput when they cannot be read."""
        if self.root is None:
            return self._held[member.step]
        self.failures(to_the_end=True)
        return read_member(self.root / member.folder)[1]

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
        wanted = {member.folder for member in self.all}
        for folder in self.root.iterdir() if prune and self.root is not None and self.root.is_dir() else ():
            if folder.name not in wanted and (folder / MEMBER_FILE).is_file():
                with suppress(SnapfitError):  # it only takes room
                    remove_folder(folder)

    def _has(self, member: Member) -> bool:
        if self.root is None:
            return member.step in self._held
        return _is_there(self.root / member.folder, member)

    def _others(self, member: Member) -> list[Member]:
        return [one for one in self.all if one.step != member.step]


def read_member(folder: Path) -> tuple[Member, dict[str, Tensor]]:
    """A member's folder, verified. Raises BadInput for one that is damaged or is none."""
    member = _read_about(folder)
    verify_manifest(folder)
    return member, read_tensors(folder / WEIGHTS_FILE)


def _read_about(folder: Path) -> Member:
    values = read_json(folder / MEMBER_FILE)
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise BadInput(f"{folder} is not a member", f"a folder with a {MEMBER_FILE}", "leave it out")
    if values.get("format") != FORMAT:
        raise BadInput(f"{folder} has the format {values.get('format')!r}", f"{FORMAT}", "pip install -U snapfit")
    try:
        return Member.from_dict(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{folder / MEMBER_FILE} cannot be used: {error!r}", "a member", "leave it out") from error


def _is_there(folder: Path, member: Member) -> bool:
    try:
        return _read_about(folder).step == member.step
    except (SnapfitError, OSError):
        return False


def _write(folder: Path, member: Member, weights: Mapping[str, Tensor]) -> None:
    try:
        with staged_folder(folder) as staged:
            digest = write_tensors(staged / WEIGHTS_FILE, weights)
            write_json_atomic(staged / MEMBER_FILE, {"kind": KIND, "format": FORMAT, **asdict(member)})
            write_manifest(staged, known={WEIGHTS_FILE: digest})
    except OSError as error:
        raise cannot_write(folder, error) from error
