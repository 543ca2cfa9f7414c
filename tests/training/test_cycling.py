"""Where cycles end: a snapshot is the weights of that step, a round begins as it should, and a hot one is let go."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import toys
from snapfit.core.errors import WorkFailed
from snapfit.training import cycling
from snapfit.training.members import Members
from snapfit.training.plan import Plan
from snapfit.training.tensor_files import read_tensors
from stage import Event, Stage, make_plan_on, newest, stop_at_step

STAR = {"ensemble__members": 6, "ensemble__rounds": 3, "ensemble__anchor_share": 0.5}
"""12 steps: the anchor ends after 6, the rounds after 8, 10 and 12; evaluations after 3, 6, 9 and 12 besides."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def star(encoder: Path) -> Plan:
    return make_plan_on(encoder, **STAR)


class Watch:
    """Copies what the training holds whenever it tells of a kind of event."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.weights: dict[int, dict[str, Tensor]] = {}
        self.optimizer: dict[int, dict[str, dict[str, Tensor]]] = {}

    def __call__(self, stage: Stage, event: Event) -> None:
        if event["kind"] == self.kind:
            step = event.get("number", event.get("step"))
            with torch.no_grad(), stage.training.assembly.whole():
                self.weights[step] = {name: tensor.clone() for name, tensor in stage.model.state_dict().items()}
            optimizer = stage.training.assembly.optimizer
            names = {id(p): name for name, p in stage.model.named_parameters()}
            self.optimizer[step] = {
                names[id(p)]: {key: value.clone() for key, value in state.items()}
                for p, state in optimizer.state.items()
                if id(p) in names
            }


def same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def members_of(plan: Plan, root: Path | None = None) -> Members:
    return Members(plan.recipe.ensemble.members, root)


# ---------------------------------------------------------------- snapshots


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_snapshot_is_exactly_the_weights_of_its_step(star: Plan, tmp_path: Path, on_disk: bool) -> None:
    steps, members = Watch("step"), members_of(star, tmp_path if on_disk else None)
    stage = Stage(star, members=members, on=steps).run()
    assert [(one.step, one.why) for one in members.all] == [
        (3, "best"),
        (6, "anchor"),
        (8, "cycle"),
        (9, "best"),
        (10, "cycle"),
        (12, "cycle"),
    ]
    told = {event["step"]: event["metrics"] for event in stage.of_kind("evaluation")}
    assert {one.step: one.metrics for one in members.all} == told
    for one in members.all:
        assert same(dict(members.weights(one)), steps.weights[one.step])
    members.close(prune=True)


def test_keeping_members_changes_no_weight(encoder: Path) -> None:
    plain = Stage(make_plan_on(encoder)).run()
    plan = make_plan_on(encoder, ensemble__members=3)
    keeping = Stage(plan, members=members_of(plan)).run()
    one, other = plain.state(), keeping.state()
    assert one["weights"] == other["weights"]
    assert [event["step"] for event in keeping.of_kind("member")]
    assert len(keeping.training.progress.members.all) == 3


def test_equal_cycles_are_kept_at_their_ends_and_go_on_from_there(encoder: Path) -> None:
    settings = {"schedule__shape": "cosine_restarts", "schedule__cycles": 3, "schedule__warmup_fraction": 0.0}
    plan = make_plan_on(encoder, ensemble__members=2, **settings)
    kept = Stage(plan, members=members_of(plan)).run()
    alone = Stage(make_plan_on(encoder, **settings)).run()
    assert [event["step"] for event in kept.of_kind("member") if event["why"] == "cycle"] == [4, 8, 12]
    assert [one.step for one in kept.training.progress.members.all] == [8, 12]
    assert kept.of_kind("round") == []
    assert kept.state()["weights"] == alone.state()["weights"]


def test_without_validation_cycles_ends_are_kept(encoder: Path) -> None:
    plan = make_plan_on(encoder, valid=False, **STAR)
    members = members_of(plan)
    Stage(plan, members=members).run()
    assert [(one.step, one.metrics) for one in members.all] == [(6, {}), (8, {}), (10, {}), (12, {})]


# ---------------------------------------------------------------- rounds


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_round_of_a_star_begins_with_the_anchors_weights(encoder: Path, precision: str) -> None:
    plan = make_plan_on(encoder, train__precision=precision, **STAR)
    rounds, steps, members = Watch("round"), Watch("step"), members_of(plan)
    Stage(plan, members=members, on=lambda stage, event: (rounds(stage, event), steps(stage, event))[0]).run()
    assert list(rounds.weights) == [6, 8, 10]
    for step in rounds.weights:
        assert same(rounds.weights[step], steps.weights[6])
        assert not same(steps.weights[step + 1], steps.weights[6])
    assert not same(steps.weights[8], steps.weights[10])


def test_rounds_in_sequence_go_on_from_the_last_one(encoder: Path) -> None:
    plan = make_plan_on(encoder, **STAR, ensemble__restart="last")
    rounds, steps, members = Watch("round"), Watch("step"), members_of(plan)
    Stage(plan, members=members, on=lambda stage, event: (rounds(stage, event), steps(stage, event))[0]).run()
    for step in (6, 8, 10):
        assert same(rounds.weights[step], steps.weights[step])


def test_a_round_forgets_where_the_weights_were_heading_and_nothing_else(star: Plan) -> None:
    rounds, steps = Watch("round"), Watch("step")
    Stage(star, members=members_of(star), on=lambda stage, event: (rounds(stage, event), steps(stage, event))[0]).run()
    for step, states in rounds.optimizer.items():
        for name, state in states.items():
            assert not state["exp_avg"].any()
            before = steps.optimizer[step].get(name)
            assert before is None or torch.equal(state["exp_avg_sq"], before["exp_avg_sq"])
            assert before is None or torch.equal(state["step"], before["step"])


def test_head_and_encoder_have_rates_of_their_own_in_rounds(star: Plan) -> None:
    found: dict[int, dict[str, float]] = {}

    def note(stage: Stage, event: Event) -> None:
        if event["kind"] == "step":
            groups = stage.training.assembly.optimizer.param_groups
            found[event["number"]] = {group["name"]: group["lr"] / group["base_lr"] for group in groups}

    stage = Stage(star, members=members_of(star), on=note).run()
    cycles = stage.training.assembly.cycles
    for number, rates in found.items():
        for name, rate in rates.items():
            wanted = (cycles.head if name.startswith("head") else cycles.encoder)(number - 1)
            assert rate == pytest.approx(wanted, rel=1e-12)
    assert found[7]["head"] == pytest.approx(0.2 * found[7]["layer 1"])


# ---------------------------------------------------------------- rounds that are too hot


def test_a_round_that_left_the_basin_is_let_go_and_the_next_is_cooler(
    star: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycling, "MOST_NLL", 0.0)  # whatever a round comes to is too much
    members = members_of(star)
    rates: dict[int, float] = {}

    def note(stage: Stage, event: Event) -> None:
        if event["kind"] == "step":
            rates[event["number"]] = event["lr_multiplier"]

    stage = Stage(star, members=members, on=note).run()
    assert [(event["step"], event["restart_factor"]) for event in stage.of_kind("left_basin")] == [
        (8, 0.5),
        (10, 0.25),
        (12, 0.125),
    ]
    assert "its nll is" in stage.of_kind("left_basin")[0]["why"]
    assert [one.step for one in members.all if one.why != "best"] == [6]
    schedule = stage.training.assembly.cycles.encoder
    assert [rates[n] for n in (7, 9, 11)] == [schedule(6), 0.5 * schedule(8), 0.25 * schedule(10)]
    assert stage.training.progress.to_dict()["restart_factor"] == 0.125


def test_a_metric_that_is_clearly_worse_counts_too(star: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycling, "MOST_NLL", 1e9)
    monkeypatch.setattr(cycling, "STANDARD_ERRORS", -1e9)  # no metric is good enough
    stage = Stage(star, members=members_of(star)).run()
    left = stage.of_kind("left_basin")
    accuracy = {event["step"]: event["metrics"]["accuracy"] for event in stage.of_kind("evaluation")}
    possible = [step for step in (8, 10, 12) if 0.0 < accuracy[6] < 1.0]
    assert [event["step"] for event in left] == possible
    assert all("its accuracy is" in event["why"] for event in left)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("step", range(1, 12))
def test_a_stopped_training_ends_with_the_same_members(star: Plan, tmp_path: Path, step: int) -> None:
    whole = Stage(star, members=members_of(star)).run()
    first = members_of(star, tmp_path / "snapshots")
    Stage(star, tmp_path / "checkpoints", members=first, hurry=True, on=stop_at_step(step)).run()
    first.close(prune=False)
    again = members_of(star, tmp_path / "snapshots")
    stage = Stage(star, tmp_path / "checkpoints", members=again, resume=newest(tmp_path / "checkpoints")).run()
    assert stage.state() == whole.state()
    reference = whole.training.progress.members
    assert reference is not None
    for one in again.all:
        assert same(dict(again.weights(one)), dict(reference.weights(one)))
    again.close(prune=True)


def test_a_member_that_could_not_be_kept_is_told_of_to_the_last(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, ensemble__members=2, schedule__shape="cosine_restarts", schedule__cycles=2)
    for step in (6, 12):
        (tmp_path / f"step-{step:06d}").write_text("in the way", encoding="utf-8")
    members = members_of(plan, tmp_path)
    stage = Stage(plan, members=members).run()
    texts = [event["text"] for event in stage.of_kind("notice")]
    assert sum("a member could not be kept" in text and "is a file" in text for text in texts) >= 1
    assert 12 not in [one.step for one in members.all]
    assert "step-000012" in texts[-1]
    members.close(prune=True)


def test_a_star_whose_anchor_is_gone_says_so(star: Plan, tmp_path: Path) -> None:
    first = members_of(star, tmp_path / "snapshots")
    Stage(star, tmp_path / "checkpoints", members=first, hurry=True, on=stop_at_step(7)).run()
    first.close(prune=False)
    (tmp_path / "snapshots" / "step-000006" / "member.json").unlink()
    again = members_of(star, tmp_path / "snapshots")
    stage = Stage(star, tmp_path / "checkpoints", members=again, resume=newest(tmp_path / "checkpoints"))
    with pytest.raises(WorkFailed, match="the anchor is gone"):
        stage.run()


def test_frozen_layers_are_stored_once_and_a_star_begins_with_them(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, optim__freeze_layers=2, **STAR)
    rounds, steps, members = Watch("round"), Watch("step"), members_of(plan, tmp_path)
    Stage(plan, members=members, on=lambda stage, event: (rounds(stage, event), steps(stage, event))[0]).run()
    for one in members.all:
        assert same(dict(members.weights(one)), steps.weights[one.step])
    for step in rounds.weights:
        assert same(rounds.weights[step], steps.weights[6])
    members.close(prune=True)
    shared = read_tensors(tmp_path / "shared.safetensors")
    assert any("word_embeddings" in name for name in shared)
    for one in members.all:
        own = read_tensors(tmp_path / one.folder / "model.safetensors")
        assert not own.keys() & shared.keys()
        assert own.keys() | shared.keys() == steps.weights[6].keys()


@pytest.mark.parametrize("step", [4, 7, 9, 11])
def test_a_stopped_training_with_frozen_layers_ends_with_the_same_members(
    encoder: Path, tmp_path: Path, step: int
) -> None:
    plan = make_plan_on(encoder, optim__freeze_layers=2, **STAR)
    whole = Stage(plan, members=members_of(plan)).run()
    first = members_of(plan, tmp_path / "snapshots")
    Stage(plan, tmp_path / "checkpoints", members=first, hurry=True, on=stop_at_step(step)).run()
    first.close(prune=False)
    again = members_of(plan, tmp_path / "snapshots")
    stage = Stage(plan, tmp_path / "checkpoints", members=again, resume=newest(tmp_path / "checkpoints")).run()
    assert stage.state() == whole.state()
    reference = whole.training.progress.members
    assert reference is not None
    for one in again.all:
        assert same(dict(again.weights(one)), dict(reference.weights(one)))
    again.close(prune=True)
