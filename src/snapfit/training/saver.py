"""Saves checkpoints in the background: training waits only while its tensors are copied.

A copy is as consistent as the moment it was made in. A thread writes it, and nothing counts as saved before that thread
has made it safe on disk. A checkpoint with a number that is not finite is never written.
"""

import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snapfit.core.errors import BadInput
from snapfit.training.checkpoint import Checkpoint, find_checkpoints, prune, write_checkpoint

Groups = Mapping[str, Mapping[str, Tensor]]

_PATIENT = 10
"""How nice a patient save is: it takes what training leaves, and a tenth of a core beside another busy process."""


@dataclass(frozen=True)
class Outcome:
    """How a save ended.

    step: of the training. checkpoint: what was written, or None. error: why not. not_finite: the first tensor with a
    number that is not finite, if that is why. blocked_seconds: how long training waited; seconds: of the whole save.
    """

    step: int
    checkpoint: Checkpoint | None
    error: str | None
    not_finite: str | None
    blocked_seconds: float
    seconds: float


class Saver:
    """Writes the checkpoints of one run, one at a time, and keeps the newest.

    root: their folder. keep: how many stay. before_rename: called just before a checkpoint becomes visible.
    Not for several threads: whoever trains calls all methods.
    """

    def __init__(self, root: Path, *, keep: int, before_rename: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self._keep = keep
        self._serial = max((one.serial for one in find_checkpoints(root)[0]), default=0)
        self._before_rename = before_rename
        self._copies: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._outcomes: deque[Outcome] = deque()  # one thread appends, the other takes; each at once

    def save(self, state: Mapping[str, Any], changing: Groups, unchanging: Groups, *, patient: bool = False) -> None:
        """Begin to save; an earlier save is finished first.

        state: plain values with "step"; the serial is added here. changing: tensors that training goes on to change,
        which are copied here. unchanging: tensors that nobody changes any more, which are not.
        patient: nobody waits for it, so training's own threads go first.
        """
        start = time.monotonic()
        self.wait()
        groups = {group: self._copied(group, members) for group, members in changing.items()}
        groups |= {group: dict(members) for group, members in unchanging.items()}
        blocked = time.monotonic() - start
        self._serial += 1
        written = {"serial": self._serial, **state}
        # A daemon: when the process must end at once it is abandoned, and leaves nothing that is visible.
        self._thread = threading.Thread(
            target=self._write, args=(written, groups, start, blocked, patient), name="snapfit-saver", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when no save is under way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def outcomes(self) -> list[Outcome]:
        """The saves that ended since this was last asked."""
        ended = []
        while self._outcomes:
            ended.append(self._outcomes.popleft())
        return ended

    def _copied(self, group: str, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors on the CPU, in buffers that the next save uses again."""
        for name, tensor in members.items():
            buffer = self._copies.get((group, name))
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = self._copies[group, name] = torch.empty_like(
                    tensor, device="cpu", memory_format=torch.contiguous_format
                )
            buffer.copy_(tensor.detach())
        return {name: self._copies[group, name] for name in members}

    def _write(self, state: dict[str, Any], groups: Groups, start: float, blocked: float, patient: bool) -> None:
        checkpoint, error = None, None
        if patient:
            _step_aside()
        bad = _not_finite(groups)
        try:
            if bad is None:
                checkpoint = write_checkpoint(self.root, state, groups, before_rename=self._before_rename)
                prune(self.root, self._keep)
        except Exception as problem:  # whatever it is, the training hears of it and goes on
            error = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        if bad is not None:
            error = f"{bad} holds numbers that are not finite"
        seconds = time.monotonic() - start
        self._outcomes.append(Outcome(int(state["step"]), checkpoint, error, bad, blocked, seconds))


def _step_aside() -> None:
    """Let this thread be patient, where a thread has a priority of its own and may lower it."""
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid it, and the save matters more
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(_PATIENT, own))


def check_disk(root: Path, checkpoint_bytes: int, *, keep: int, other_bytes: int) -> None:
    """Prove that the disk holds what a run will write, before it begins.

    checkpoint_bytes: of one checkpoint. other_bytes: what is written beside them. One checkpoint more than `keep` is
    there while it is written; what older ones take is counted as theirs. Raises BadInput when there is too little room.
    """
    needed = (keep + 1) * checkpoint_bytes + other_bytes - sum(one.bytes for one in find_checkpoints(root)[0])
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise BadInput(
            f"{free / 1e6:,.0f} MB are free at {place}",
            f"{needed / 1e6:,.0f} MB, for {keep + 1} checkpoints of {checkpoint_bytes / 1e6:,.0f} MB and the bundle",
            "free some space, choose another disk with --out, or keep fewer: --set checkpoint.keep=1",
        )


def _not_finite(groups: Groups) -> str | None:
    """The first tensor with a number that is not finite; in numpy, which does not disturb torch's threads."""
    for members in groups.values():
        for name, tensor in members.items():
            if tensor.is_floating_point():
                known = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16
                with np.errstate(invalid="ignore", over="ignore"):  # of infinities that cancel out, and of large sums
                    finite = np.isfinite(known.sum()) or np.isfinite(known.sum(dtype=np.float64))
                if not finite:
                    return name
    return None
