"""Runs that are stopped and gone on with: what tests of it in several folders share."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapfit
from scene import SETTINGS
from snapfit.core.errors import BadInput
from snapfit.core.files import sha256_file

Event = dict[str, Any]
SHORT = SETTINGS | {"train__epochs": 2}
STOPPED_AT, TOTAL = 5, 12
"""43 of 48 rows are trained on, eight a step, twice; a run that is stopped is so after its fifth step."""


def told_to_end(step: int, number: int = signal.SIGTERM) -> Callable[[Event], None]:
    """A listener that sends this process a signal when a step has ended."""

    def listen(event: Event) -> None:
        if event["kind"] == "step" and event["number"] == step:
            os.kill(os.getpid(), number)

    return listen


def listing(folder: Path) -> dict[str, Any]:
    """Every entry below a folder with its hash and the time of its last change."""
    return {
        path.relative_to(folder).as_posix(): (
            sha256_file(path) if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


def flip(path: Path) -> None:
    """Change the last bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def refused(run: Path, match: str, /, *arguments: Any, **options: Any) -> BadInput:
    """Resuming is refused, in these words, and changes nothing on disk."""
    before = listing(run)
    with pytest.raises(BadInput, match=match) as caught:
        snapfit.train(*arguments, resume=run, **options)
    assert listing(run) == before
    return caught.value
