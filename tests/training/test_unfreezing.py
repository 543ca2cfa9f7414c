"""Phases: golden lists, layers that wait untouched, what a phase is equal to, and going on inside any of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
import toys
from snapfit.core.recipe import Recipe
from snapfit.nn.families import depth_reader, n_depths
from snapfit.nn.weights import LoadReport
from snapfit.training.assemble import Assembly, assemble
from snapfit.training.members import Members
from snapfit.training.unfreezing import Phases
from stage import Event, Stage, make_plan_on, newest, stop_at_step

SLOW = {"schedule__head_first": 0.25, "schedule__unfreeze_share": 0.5}
"""12 steps and three layers: the top one begins after 3, the others after 5 and 7, the embeddings after 9."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


# ---------------------------------------------------------------- when a layer begins


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (Phases(0.0, 0.0, 20, 3), [0, 0, 0, 0]),
        (Phases(0.25, 0.0, 20, 3), [5, 5, 5, 5]),
        (Phases(0.0, 0.6, 20, 3), [12, 8, 4, 0]),
        (Phases(0.25, 0.5, 12, 3), [9, 7, 5, 3]),
        (Phases(0.1, 0.3, 100, 12), [40, 38, 35, 33, 30, 28, 25, 23, 20, 18, 15, 13, 10]),
        (Phases(0.3, 0.3, 10, 1), [6, 3]),
        (Phases(0.9, 0.09, 3, 2), [2, 2, 2]),
        (Phases(0.5, 0.4, 1, 2), [0, 0, 0]),
    ],
)
def test_golden_lists(phases: Phases, expected: list[int]) -> None:
    assert [phases.begins(depth) for depth in range(phases.n_depths + 1)] == expected
    assert phases.begins("head") == 0
    for step in range(phases.total_steps):
        assert phases.learns(step, "head")
        assert [phases.learns(step, depth) for depth in range(phases.n_depths + 1)] == [
            step >= first for first in expected
        ]


def test_phases_spread_over_the_layers_that_learn() -> None:
    assert [Phases(0.1, 0.4, 20, 6, lowest=4).begins(depth) for depth in (4, 5, 6)] == [10, 6, 2]
    assert Phases(0.1, 0.4, 20, 6, lowest=6).begins(6) == 2


def test_phases_in_words() -> None:
    assert str(Phases(0.25, 0.0, 20, 3)) == "the head learns alone for 5 steps"
    assert str(Phases(0.25, 0.5, 20, 3)) == (
        "the head learns alone for 5 steps; layers follow from the top down, the last after 15 steps"
    )
    assert str(Phases(0.0, 0.5, 20, 3)).startswith("the head and the top layer learn from the start; layers follow")


# ---------------------------------------------------------------- what a training does


class Watch:
    """Notes after each step which depths learn, which changed, and which are remembered by the optimizer."""

    def __init__(self) -> None:
        self.learning: list[set[Any]] = []
        self.changed: list[set[Any]] = []
        self.remembered: list[set[Any]] = []
        self.decay: list[float] = []
        self._last: dict[str, Tensor] = {}

    def __call__(self, stage: Stage, event: Event) -> None:
        if event["kind"] == "start":
            self._last = whole(stage.training.assembly)
        if event["kind"] != "step":
            return
        assembly = stage.training.assembly
        depth = depth_reader(assembly.model.config, assembly.model.encoder_prefix)
        now, last = whole(assembly), self._last
        named = list(assembly.model.named_parameters())
        self.learning.append({depth(name) for name, parameter in named if parameter.requires_grad})
        self.changed.append({depth(name) for name in now if not torch.equal(now[name], last[name])})
        self.remembered.append({depth(name) for name, parameter in named if assembly.optimizer.state.get(parameter)})
        self.decay.append(1.0 if assembly.rows is None else assembly.rows.decay)
        self._last = now


def whole(assembly: Assembly) -> dict[str, Tensor]:
    """Copies of all parameters, with the whole table of word embeddings."""
    with torch.no_grad(), assembly.whole():
        return {name: tensor.detach().clone() for name, tensor in assembly.model.named_parameters()}


@pytest.mark.parametrize("settings", [{}, {"train__precision": "bf16"}, {"optim__name": "sgd", "optim__lr": 0.01}])
def test_layers_wait_untouched_and_begin_from_the_top_down(encoder: Path, settings: dict[str, Any]) -> None:
    watch = Watch()
    stage = Stage(make_plan_on(encoder, **SLOW, **settings), on=watch).run()
    assert (stage.training.assembly.rows is None) == ("optim__name" in settings)
    depths = [{"head"}] * 3 + [{"head", 3}] * 2 + [{"head", 3, 2}] * 2 + [{"head", 3, 2, 1}] * 2
    depths += [{"head", 3, 2, 1, 0}] * 3
    assert watch.learning == depths
    assert watch.changed == depths
    assert watch.remembered == depths
    if stage.training.assembly.rows is not None:
        assert watch.decay[:9] == [1.0] * 9
        assert 1.0 > watch.decay[9] > watch.decay[10] > watch.decay[11]
    (engine,) = stage.of_kind("engine")
    assert engine["lines"][-1].startswith("the head learns alone for 3 steps; layers follow")


def test_group_norms_are_those_of_what_learns(encoder: Path) -> None:
    steps = Stage(make_plan_on(encoder, **SLOW)).run().of_kind("step")
    assert set(steps[0]["group_norms"]) == {"head", "head, no decay"}
    assert min(steps[-1]["group_norms"].values()) > 0
    assert len(steps[-1]["group_norms"]) == 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("settings", "steps", "frozen"),
    [
        ({"schedule__head_first": 0.5}, 6, 3),
        ({"schedule__unfreeze_share": 0.9}, 4, 2),  # until the second layer begins
    ],
)
def test_a_phase_is_a_training_with_the_others_frozen(
    encoder: Path, precision: str, settings: dict[str, Any], steps: int, frozen: int
) -> None:
    """Dense and compact tables of word embeddings meet here, so the forward pass is the same too."""
    phase = Stage(make_plan_on(encoder, train__precision=precision, **settings), on=stop_at_step(steps)).run()
    held = make_plan_on(encoder, train__precision=precision, optim__freeze_layers=frozen)
    reference = Stage(held, on=stop_at_step(steps)).run()
    assert [one["loss"] for one in phase.of_kind("step")] == [one["loss"] for one in reference.of_kind("step")]
    found, expected = whole(phase.training.assembly), whole(reference.training.assembly)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(phase.training.assembly.optimizer.state) == len(reference.training.assembly.optimizer.state)


@pytest.mark.parametrize("family", tiny.ALL)
def test_in_every_family_gradients_end_where_nothing_learns(family: str) -> None:
    """An encoder of an unknown family begins as a whole, for nobody knows its layers."""
    model = tiny.classifier(family, "mean")
    recipe = Recipe().with_values({"optim.lr": 1e-3, "optim.head_lr_factor": 1.0, "optim.layer_ratio": 1.0})
    recipe = recipe.with_values({key.replace("__", "."): value for key, value in SLOW.items()})
    assembly = assemble(model, LoadReport((), (), (), ""), recipe, total_steps=12, device="cpu")
    depth, last = depth_reader(model.config, model.encoder_prefix), n_depths(model.config)
    seen = []
    for step in (0, 3, 5, 7, 9, 2):
        assembly.begin(step)
        model.zero_grad(set_to_none=True)
        model.train()(**tiny.inputs(model.config, [7, 3, 5])).logits.square().sum().backward()
        learning = {depth(name) for name, parameter in model.named_parameters() if parameter.grad is not None}
        lowest = next((one for one in range(last + 1) if Phases(0.25, 0.5, 12, last).learns(step, one)), None)
        assert learning - {"head"} <= set(range(last + 1 if lowest is None else lowest, last + 1))
        assert "head" in learning
        seen.append(len(learning))
    assert seen[0] == seen[-1] == 1
    assert seen[4] == (last + 2 if family in tiny.KNOWN else 2)


def test_frozen_layers_stay_frozen(encoder: Path) -> None:
    watch = Watch()
    settings = {"optim__freeze_layers": 1, "schedule__head_first": 0.25, "schedule__unfreeze_share": 0.5}
    Stage(make_plan_on(encoder, **settings), on=watch).run()
    assert watch.learning == [{"head"}] * 3 + [{"head", 3}] * 6 + [{"head", 3, 2}] * 3
    assert watch.changed == watch.learning


def test_with_all_layers_frozen_the_head_learns_alone_to_the_end(encoder: Path) -> None:
    phases = Stage(make_plan_on(encoder, optim__freeze_layers=3, **SLOW)).run()
    plain = Stage(make_plan_on(encoder, optim__freeze_layers=3)).run()
    assert phases.state() == plain.state()


def test_in_rounds_everything_learns(encoder: Path) -> None:
    watch = Watch()
    plan = make_plan_on(encoder, ensemble__members=4, ensemble__rounds=2, ensemble__anchor_share=0.5, **SLOW)
    Stage(plan, members=Members(4, None), on=watch).run()
    assert [len(depths) for depths in watch.learning] == [1, 1, 2, 3, 4, 5] + [5] * 6


@pytest.mark.parametrize("settings", [{}, {"train__precision": "bf16", "train__accumulate": 2, "train__batch": 4}])
@pytest.mark.parametrize("step", [2, 4, 8, 10])
def test_going_on_inside_any_phase_changes_nothing(
    encoder: Path, tmp_path: Path, step: int, settings: dict[str, Any]
) -> None:
    plan = make_plan_on(encoder, **SLOW, **settings)
    straight = Stage(plan).run()
    Stage(plan, tmp_path, on=stop_at_step(step)).run()
    continued = Stage(plan, tmp_path, resume=newest(tmp_path))
    assert continued.training.progress.step == step
    assert continued.run().state() == straight.state()
    found, expected = whole(continued.training.assembly), whole(straight.training.assembly)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_going_back_to_an_earlier_phase_lets_layers_wait_again(encoder: Path, tmp_path: Path) -> None:
    """A weight that is spoilt once all layers learn sends the training back to a step in which they did not."""
    watch, spoilt = Watch(), []

    def on(stage: Stage, event: Event) -> None:
        watch(stage, event)
        if event["kind"] == "step" and event["number"] == 10 and not spoilt:
            spoilt.append(True)
            with torch.no_grad():
                next(iter(stage.training.assembly.model.head.parameters())).fill_(float("nan"))

    plan = make_plan_on(encoder, checkpoint__every_steps=4, train__evaluations_per_epoch=6, **SLOW)
    stage = Stage(plan, tmp_path, on=on).run()
    (back,) = stage.of_kind("rollback")
    numbers = [event["number"] for event in stage.of_kind("step")]
    assert back["step"] < 9 < back["from_step"]
    assert numbers.count(back["step"] + 1) == 2
    by_number = dict(zip(numbers, watch.learning, strict=True))  # of each step its last time
    first = {number: watch.learning[numbers.index(number)] for number in numbers}
    assert by_number == first
    remembered = dict(zip(numbers, watch.remembered, strict=True))
    assert remembered == by_number
