"""What the tests of the command line share: one trained workplace, and a way to run commands in-process."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import trained
from snapfit.cli.app import main


class Outcome(NamedTuple):
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """See `trained.workplace`; tests only read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNAPFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield trained.workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture
def run(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    workplace: Path,
) -> Run:
    """run(*arguments, stdin=b"") -> Outcome; runs in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    capfdbinary.readouterr()

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Outcome(code, out.decode(), err.decode())

    return run
