"""Members: which weights stay, that they are stored as they were, and what becomes of damage and of failed writes."""

from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch
from torch import Tensor

from snapfit.core.errors import BadInput
from snapfit.training import members as members_module
from snapfit.training.members import Member, Members, Why, kept, read_member


def member(step: int, why: Why = "best", nll: float | None = None) -> Member:
    return Member(step, why, {} if nll is None else {"accuracy": 0.5, "nll": nll})


def weights(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"a": torch.randn(3, 4, generator=generator), "b": torch.arange(5), "c": torch.ones(2, dtype=torch.bfloat16)}


def equal(one: object, other: dict[str, Tensor]) -> bool:
    assert isinstance(one, dict)
    same = [one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in other]
    return one.keys() == other.keys() and all(same)


# ---------------------------------------------------------------- which stay


def test_the_anchor_then_the_last_cycles_then_the_lowest_nll() -> None:
    everyone = [
        *(member(step, "best", nll) for step, nll in ((2, 0.9), (4, 0.3), (6, 0.5), (8, 0.4))),
        member(10, "anchor", 0.6),
        *(member(step, "cycle", 0.7) for step in (12, 14, 16)),
    ]
    steps = {most: [one.step for one in kept(everyone, most)] for most in (1, 2, 4, 6, 8, 20)}
    assert steps == {
        1: [10],
        2: [10, 16],
        4: [10, 12, 14, 16],
        6: [4, 8, 10, 12, 14, 16],
        8: [2, 4, 6, 8, 10, 12, 14, 16],
        20: [2, 4, 6, 8, 10, 12, 14, 16],
    }


def test_without_an_nll_the_latest_stay() -> None:
    assert [one.step for one in kept([member(step) for step in (3, 1, 2)], 2)] == [2, 3]


def test_the_order_in_which_members_come_changes_nothing() -> None:
    """So a training that goes on from a checkpoint ends with the members of one that was never stopped."""
    everyone = [member(step, "best", nll) for step, nll in ((2, 0.5), (4, 0.3), (6, 0.8), (8, 0.4), (10, 0.2))]
    found = Members(3)
    for one in everyone:
        if found.would_keep(one):
            found.add(one, weights(one.step))
    assert found.all == kept(everyone, 3)
    assert [one.step for one in found.all] == [4, 8, 10]
    assert not found.would_keep(member(12, "best", 0.9))


def test_a_step_is_a_member_once() -> None:
    found = Members(3)
    found.add(member(4, "best", 0.3), weights(4))
    found.add(member(4, "cycle", 0.3), weights(5))
    assert found.all == [member(4, "cycle", 0.3)]
    assert equal(found.weights(found.all[0]), weights(5))


# ---------------------------------------------------------------- what is stored


@pytest.mark.parametrize("on_disk", [False, True])
def test_weights_come_back_as_they_were(tmp_path: Path, on_disk: bool) -> None:
    found = Members(2, tmp_path / "snapshots" if on_disk else None)
    for step in (2, 4, 6):
        found.add(member(step, "cycle", 0.5), weights(step))
    assert found.failures(to_the_end=True) == []
    assert [one.step for one in found.all] == [4, 6]
    for one in found.all:
        assert equal(dict(found.weights(one)), weights(one.step))
    found.close(prune=True)
    if on_disk:
        assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["step-000004", "step-000006"]
        about, held = read_member(tmp_path / "snapshots" / "step-000006")
        assert about == member(6, "cycle", 0.5)
        assert equal(held, weights(6))


def test_what_was_added_is_on_disk_once_it_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Event()
    write = members_module.write_tensors

    def slowly(*arguments: Any) -> str:
        assert written.wait(20)
        return write(*arguments)

    monkeypatch.setattr(members_module, "write_tensors", slowly)
    found = Members(2, tmp_path)
    found.add(member(2), weights(2))
    assert found.failures() == []
    assert not (tmp_path / "step-000002").exists()
    Timer(0.05, written.set).start()
    found.settle()
    assert read_member(tmp_path / "step-000002")[0] == member(2)
    found.close(prune=True)


def test_others_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = Members(1, tmp_path)
    found.add(member(2), weights(2))
    found.add(member(4), weights(4))
    found.close(prune=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "step-000004"]


def test_members_go_on_from_what_a_checkpoint_says(tmp_path: Path) -> None:
    found = Members(3, tmp_path)
    for step in (2, 4):
        found.add(member(step, "cycle", 0.5), weights(step))
    found.close(prune=False)
    again = Members(3, tmp_path)
    again.restore([*found.to_dict(), {"step": 6, "why": "cycle", "metrics": {}}])  # whose folder never came to be
    assert again.all == found.all
    assert equal(dict(again.weights(again.all[1])), weights(4))


def test_in_memory_going_back_leaves_out_what_was_let_go() -> None:
    found = Members(2)
    for step in (2, 4):
        found.add(member(step, "cycle", 0.5), weights(step))
    before = found.to_dict()
    found.add(member(6, "cycle", 0.5), weights(6))
    found.restore(before)
    assert [one.step for one in found.all] == [4]
    assert equal(dict(found.weights(found.all[0])), weights(4))


def test_a_member_that_cannot_be_written_is_none_and_is_told_of(tmp_path: Path) -> None:
    found = Members(3, tmp_path)
    (tmp_path / "step-000002").write_text("in the way")
    found.add(member(2), weights(2))
    found.add(member(4), weights(4))
    (error,) = found.failures(to_the_end=True)
    assert "is a file" in error
    assert [one.step for one in found.all] == [4]
    assert found.failures(to_the_end=True) == []
    found.close(prune=True)


@pytest.mark.parametrize("damage", ["weights", "about", "kind", "format", "why"])
def test_damage_is_seen(tmp_path: Path, damage: str) -> None:
    found = Members(1, tmp_path)
    found.add(member(2), weights(2))
    found.close(prune=False)
    folder = tmp_path / "step-000002"
    path = folder / ("model.safetensors" if damage == "weights" else "member.json")
    if damage in ("weights", "about"):
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    else:
        text = path.read_text(encoding="utf-8")
        old, new = {
            "kind": ("snapfit member", "other"),
            "format": ('"format": 1', '"format": 9'),
            "why": ('"best"', '"?"'),
        }[damage]
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadInput):
        read_member(folder)
