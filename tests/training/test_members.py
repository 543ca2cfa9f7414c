"""Members: which weights stay, that they are stored as they were, and what becomes of damage and of failed writes."""

import weakref
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch
from torch import Tensor

from snapfit.core.errors import BadInput
from snapfit.core.files import sha256_file
from snapfit.training import members as members_module
from snapfit.training.averaging import average
from snapfit.training.members import Member, Members, Why, kept, open_member, read_member
from snapfit.training.tensor_files import TensorFiles, read_tensors, write_tensors


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


# ---------------------------------------------------------------- averages beside them


def test_averages_stay_beside_the_members_and_are_not_counted(tmp_path: Path) -> None:
    found = Members(1, tmp_path)
    found.add(member(4, "cycle", 0.5), weights(4))
    for why, step in (("ema", 4), ("tail", 4), ("ema", 6)):
        found.add(Member(step, why, {}), weights(10 + step))  # type: ignore[arg-type]
    assert found.all == [member(4, "cycle", 0.5)]
    assert [(one.why, one.step) for one in found.averages] == [("tail", 4), ("ema", 6)]
    assert [one["why"] for one in found.to_dict()] == ["cycle"]
    for one in found.averages:
        assert equal(dict(found.weights(one)), weights(10 + one.step))
    found.close(prune=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ema", "step-000004", "tail"]
    assert read_member(tmp_path / "ema")[0] == Member(6, "ema", {})
    Members(1, tmp_path).close(prune=True)
    assert list(tmp_path.iterdir()) == []


def test_averages_come_after_all_others() -> None:
    everyone = [Member(9, "ema", {}), member(2), Member(9, "tail", {}), member(4)]
    assert [one.step for one in kept(everyone, 2)] == [2, 4]


def test_an_average_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "ema").write_text("in the way")
    found = Members(1, tmp_path)
    found.add(Member(6, "ema", {}), weights(6))
    (error,) = found.failures(to_the_end=True)
    assert "is a file" in error
    assert found.averages == []
    found.close(prune=True)


# ---------------------------------------------------------------- weights that all of them share


FIXED = {"b", "table"}


def large(step: int) -> dict[str, Tensor]:
    """As `weights`, with a table that is the same in all."""
    return weights(step) | {"table": torch.arange(1000.0).reshape(10, 100)}


def frozen_members(root: Path | None, *steps: int) -> Members:
    found = Members(5, root)
    for step in steps:
        found.add(member(step, "cycle", 0.5), large(step), fixed=FIXED)
    return found


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_no_step_changes_is_stored_once(tmp_path: Path, on_disk: bool) -> None:
    found = frozen_members(tmp_path if on_disk else None, 2, 4, 6)
    for one in found.all:
        assert equal(dict(found.weights(one)), large(one.step))
    if not on_disk:
        assert len({id(found.weights(one)["table"]) for one in found.all}) == 1
        return
    found.close(prune=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shared.safetensors",
        *(f"step-{step:06d}" for step in (2, 4, 6)),
    ]
    assert set(read_tensors(tmp_path / "shared.safetensors")) == FIXED
    for step in (2, 4, 6):
        assert set(read_tensors(tmp_path / f"step-{step:06d}" / "model.safetensors")) == {"a", "c"}
    found.all = []
    found.close(prune=True)
    assert list(tmp_path.iterdir()) == []


def test_going_on_the_shared_weights_are_the_same_ones(tmp_path: Path) -> None:
    frozen_members(tmp_path, 2).close(prune=False)
    before = sha256_file(tmp_path / "shared.safetensors")
    again = Members(5, tmp_path)
    again.restore([{"step": 2, "why": "cycle", "metrics": {}}])
    again.add(member(4, "cycle"), large(4), fixed=FIXED)
    again.close(prune=True)
    assert sha256_file(tmp_path / "shared.safetensors") == before
    for step in (2, 4):
        assert equal(read_member(tmp_path / f"step-{step:06d}")[1], large(step))


def test_a_shared_file_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "shared.safetensors").mkdir()
    found = frozen_members(tmp_path, 2)
    (error,) = found.failures(to_the_end=True)
    assert "step-000002" in error
    (tmp_path / "shared.safetensors").rmdir()
    found.add(member(4, "cycle"), large(4), fixed=FIXED)
    assert found.failures(to_the_end=True) == []
    assert [one.step for one in found.all] == [4]
    assert equal(dict(found.weights(found.all[0])), large(4))
    found.close(prune=True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("missing", r"shared\.safetensors, which .*step-000002 needs, cannot be read \(No such file"),
        ("changed", r"shared\.safetensors has the SHA-256 [0-9a-f]{12}, .*step-000002 needs [0-9a-f]{12}"),
        ("other", r"shared\.safetensors has the SHA-256"),
        ("folder", r"cannot be read"),
    ],
)
def test_a_damaged_shared_file_is_one_clear_error(tmp_path: Path, damage: str, found: str) -> None:
    frozen_members(tmp_path, 2).close(prune=False)
    path = tmp_path / "shared.safetensors"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "changed":
        content[-2] ^= 1
        path.write_bytes(content)
    elif damage == "other":
        write_tensors(path, {"table": torch.zeros(10, 100)})
    elif damage == "folder":
        path.mkdir()
    for read in (read_member, open_member):
        with pytest.raises(BadInput, match=found) as caught:
            read(tmp_path / "step-000002")
        assert "again as a whole" in caught.value.fix
    again = Members(5, tmp_path)
    again.restore([{"step": 2, "why": "cycle", "metrics": {}}])
    assert len(again.all) == (damage in ("changed", "other"))  # its file is there, and is read only when it is needed


def test_a_member_is_found_from_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen_members(tmp_path, 2).close(prune=False)
    monkeypatch.chdir(tmp_path / "step-000002")
    assert equal(read_member(Path("."))[1], large(2))


def test_a_tensor_in_both_files_is_refused(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_tensors(tmp_path / name, {"a": torch.zeros(1), name: torch.zeros(1)})
    with pytest.raises(BadInput, match="holds 'a', as another file does"):
        TensorFiles([tmp_path / "one", tmp_path / "other"])
    (tmp_path / "bad").write_bytes(b"no tensors")
    for path in (tmp_path / "bad", tmp_path / "missing"):
        with pytest.raises(BadInput, match="cannot be read"):
            TensorFiles([path])


# ---------------------------------------------------------------- one tensor at a time


class Counted(TensorFiles):
    """Counts how many of all tensors that were read are there at once."""

    alive, most = 0, 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = super().__getitem__(name)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        weakref.finalize(tensor, Counted.gone)
        return tensor

    @staticmethod
    def gone() -> None:
        Counted.alive -= 1


@pytest.mark.parametrize("fixed", [False, True])
def test_opened_members_are_averaged_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    many = {step: {f"w{i}": torch.full((50,), float(step * i)) for i in range(20)} for step in (2, 4, 6)}
    many = {step: one | {"n": torch.tensor(7), "w0": torch.ones(9)} for step, one in many.items()}
    found = Members(5, tmp_path)
    for step, one in many.items():
        found.add(member(step, "cycle"), one, fixed={"w0"} if fixed else ())
    found.close(prune=True)
    monkeypatch.setattr(members_module, "TensorFiles", Counted)
    opened = [open_member(tmp_path / one.folder) for one in found.all]
    assert [about for about, _ in opened] == found.all
    assert (Counted.alive, Counted.most) == (0, 0)
    mean = average([one for _, one in opened])
    assert Counted.alive == 0
    assert 0 < Counted.most <= 3
    Counted.most = 0
    assert equal(mean, average(list(many.values())))
    assert all(len(one) == 21 and set(one) == set(mean) for _, one in opened)
    with pytest.raises(KeyError):
        opened[0][1]["nothing"]
    (tmp_path / found.all[0].folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        opened[0][1]["w1"]


def test_what_is_read_of_a_file_are_its_tensors(tmp_path: Path) -> None:
    found = Members(1, tmp_path)
    found.add(member(2), weights(2))
    found.close(prune=False)
    about, lazily = open_member(tmp_path / "step-000002")
    again, at_once = read_member(tmp_path / "step-000002")
    assert about == again == member(2)
    assert equal(at_once, weights(2))
    assert equal(dict(lazily), weights(2))
