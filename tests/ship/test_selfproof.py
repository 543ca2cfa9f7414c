"""The proof that a bundle stands alone, and that its isolation isolates."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toys
from snapfit.core.errors import WorkFailed
from snapfit.ship.pipeline import train
from snapfit.ship.selfproof import STARTER_PACKAGE, TOLERANCE, isolated_environment, prove_self_contained

ISOLATED = """
import socket, importlib.util, urllib.request
from snapfit.ship.selfproof import isolate
isolate()
import ssl, asyncio, transformers
for attempt in (
    lambda: socket.socket(), lambda: socket.create_connection(("localhost", 1)),
    lambda: urllib.request.urlopen("http://localhost:1"), lambda: __import__("STARTER"),
):
    try:
        attempt()
    except (OSError, ImportError):
        continue
    raise SystemExit(f"not isolated")
print("isolated")
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    encoder = toys.encoder_folder(folder / "encoder")
    return train(toys.pair_rows(40), out=folder / "run", encoder=str(encoder), epochs=1).bundle


def test_a_copy_answers_the_same_elsewhere(bundle: Path) -> None:
    pairs = [(row["sentence1"], row["sentence2"]) for row in toys.pair_rows(20, seed=4)]
    assert prove_self_contained(bundle, pairs) <= TOLERANCE


def test_what_fails_there_is_told(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho 'no such weights' >&2\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(WorkFailed, match="no such weights"):
        prove_self_contained(bundle, [("a", "b")])


def test_other_scores_there_are_a_failure(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho '[[0.25, 0.75]]'\n")
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(WorkFailed, match="other scores"):
        prove_self_contained(bundle, [("a", "b")])


def test_the_isolated_process_reaches_nothing(tmp_path: Path) -> None:
    code = ISOLATED.replace("STARTER", STARTER_PACKAGE)
    done = subprocess.run(
        [sys.executable, "-c", code], env=isolated_environment(tmp_path), capture_output=True, check=False
    )
    assert done.stdout == b"isolated\n", done.stderr.decode()


def test_the_environment_is_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/somewhere")
    environment = isolated_environment(tmp_path)
    assert environment["HOME"] == str(tmp_path)
    assert environment["USER"] != os.environ.get("USER")
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "HF_HOME" not in environment
