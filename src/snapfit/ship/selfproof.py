"""Proof that a bundle needs nothing but itself: it is copied away and answers in a process that can reach
nothing else.

In that process the starter encoder's package cannot be imported, no socket can be opened, the model hub is
switched off, and the home folder and user are others. Run as `python -m snapfit.ship.selfproof BUNDLE`, this
module is that
process: texts as JSON on standard input, scores as JSON on standard output.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from snapfit.core.errors import WorkFailed
from snapfit.nn.encoder import STARTER_PACKAGE

TOLERANCE = 1e-6
_SECONDS = 600


def prove_self_contained(bundle: str | Path, texts: Sequence[Any]) -> float:
    """The largest difference between scores from `bundle` here and from a copy of it in an isolated process.

    texts: what to score; str, or (first, second) tuples. Raises WorkFailed when the process fails or a score
    differs by more than TOLERANCE.
    """
    from snapfit.loading import load

    here = load(bundle).scores(texts)
    with tempfile.TemporaryDirectory(prefix="snapfit-proof-") as folder:
        copy = Path(folder) / "bundle"
        shutil.copytree(bundle, copy)
        there = np.array(_scores_elsewhere(copy, texts), dtype=np.float64).reshape(here.shape)
    difference = float(np.abs(here - there).max(initial=0.0))
    if not difference <= TOLERANCE:
        raise WorkFailed(
            f"a copy of {bundle} gives other scores in an isolated process: they differ by {difference:.2g}"
        )
    return difference


def isolated_environment(home: Path) -> dict[str, str]:
    """The environment of the isolated process: offline, with another home and user, nothing of the hub's
    caches.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "XDG_"))}
    user = "somebody-else"
    return kept | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "USER": user,
        "LOGNAME": user,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def _scores_elsewhere(bundle: Path, texts: Sequence[Any]) -> Any:
    home = bundle.parent / "home"
    home.mkdir()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "snapfit.ship.selfproof", str(bundle)],
            input=json.dumps(list(texts)).encode(),
            capture_output=True,
            env=isolated_environment(home),
            cwd=home,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkFailed(f"the isolated process gave no answer within {_SECONDS} seconds") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-8:]
        raise WorkFailed("the bundle does not work in an isolated process:\n" + "\n".join(last))
    return json.loads(done.stdout.splitlines()[-1])


class _NoSocket(socket.socket):
    """Refuses to exist; still a class, since other modules derive from it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        refuse()


def refuse(*arguments: Any, **options: Any) -> NoReturn:
    """Stands where a connection would be made."""
    raise OSError("this process must not use the network")


def isolate() -> None:
    """Make the starter package unimportable and sockets unusable, for the rest of this process."""
    sys.modules[STARTER_PACKAGE] = None  # type: ignore[assignment]  # how the import system spells "not there"
    socket.socket = _NoSocket  # type: ignore[misc]
    socket.create_connection = socket.getaddrinfo = refuse


def main(bundle: str) -> None:
    """The isolated process."""
    isolate()
    from snapfit.loading import load

    texts = [tuple(text) if isinstance(text, list) else text for text in json.load(sys.stdin)]
    scores = load(bundle).scores(texts)
    sys.stdout.write(json.dumps(scores.tolist()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
