"""The room that a run asks for before it begins: what it then takes, with members, averages and frozen layers."""

from pathlib import Path
from typing import Any

import pytest

import toys
from snapfit.core.errors import BadInput
from snapfit.training.members import Members
from stage import Stage, make_plan_on, newest


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def tensors_bytes(path: Path) -> int:
    """What the tensors of a safetensors file take, without its header."""
    return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ensemble__ema_share": 0.2},
        {"ensemble__ema_share": 0.2, "ensemble__tail_share": 0.2, "ensemble__members": 2},
        {"ensemble__tail_share": 0.2, "ensemble__members": 3, "optim__freeze_layers": 2},
    ],
    ids=["plain", "ema", "both-and-members", "frozen"],
)
def test_the_room_asked_for_is_what_is_written(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """With that much room a run begins, with a byte less it does not. Frozen layers are counted as trained ones are."""
    plan = make_plan_on(encoder, **settings)
    members = Members(plan.recipe.ensemble.members, tmp_path / "snapshots")
    stage = Stage(plan, tmp_path / "checkpoints", members=members).run()
    members.close(prune=True)
    folder = newest(tmp_path / "checkpoints").folder
    sizes = {path.stem: tensors_bytes(path) for path in folder.glob("*.safetensors")}
    beside = sum(tensors_bytes(path) for path in (tmp_path / "snapshots").rglob("*.safetensors"))
    model = sizes["model"]
    checkpoint = 2 * model + sizes.get("averages", 0)
    if "optim__freeze_layers" not in settings:
        counts = 4 * sum(parameter.requires_grad for parameter in stage.model.parameters())  # AdamW's of steps
        checkpoint += sizes["optimizer"] - counts
        assert_room(plan, tmp_path, monkeypatch, 3 * checkpoint + model + beside)
    else:
        assert_room(plan, tmp_path, monkeypatch, 3 * (checkpoint + 2 * model) + model + beside)


def assert_room(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int) -> None:
    """Exactly so many bytes must be free."""
    for free in (needed, needed - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda place, free=free: type("Usage", (), {"free": free})())
        if free == needed:
            Stage(plan, tmp_path / "none")
        else:
            with pytest.raises(BadInput, match="MB are free"):
                Stage(plan, tmp_path / "none")
