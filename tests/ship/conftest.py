"""A complete run and one that was stopped, made once, and copies of them for tests that go on with them."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from resuming import SHORT, STOPPED_AT, told_to_end
from scene import Scene, fingerprint, make_scene
from snapfit.core.errors import Interrupted


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), 48, **SHORT)


@pytest.fixture(scope="session")
def complete(scene: Scene) -> Path:
    """A run that nobody interrupted; read it, copy it, never write to it."""
    return scene.train(scene.folder / "complete").run


@pytest.fixture(scope="session")
def whole(complete: Path) -> dict[str, Any]:
    return fingerprint(complete)


@pytest.fixture(scope="session")
def stopped(scene: Scene) -> Path:
    """A run that was told to end after its fifth step; copy it, never write to it."""
    run = scene.folder / "stopped"
    with pytest.raises(Interrupted):
        scene.train(run, listener=told_to_end(STOPPED_AT))
    return run


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run, at another place."""
    return Path(shutil.copytree(stopped, tmp_path / "moved" / "run"))


@pytest.fixture
def done(complete: Path, tmp_path: Path) -> Path:
    """A copy of the complete run, at another place."""
    return Path(shutil.copytree(complete, tmp_path / "moved" / "done"))
