"""The driver when something goes wrong: bad numbers, memory that runs out, a model that learns nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import toys
from snapfit.core.errors import WorkFailed
from snapfit.training.plan import Plan
from stage import Event, Stage, make_plan_on, newest, stop_at_step


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def plan(encoder: Path) -> Plan:
    return make_plan_on(encoder)


def spoil_logits(step: int) -> Callable[[Stage, Event], None]:
    """The logits of the step after `step` are not numbers, once."""

    def on(stage: Stage, event: Event) -> None:
        if event["kind"] == "step" and event["number"] == step:
            layer = stage.training.assembly.model.output

            def spoil(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
                if not stage.model.training:
                    return None
                handle.remove()
                return output * float("nan")

            handle = layer.register_forward_hook(spoil)

    return on


def test_a_bad_batch_is_skipped(plan: Plan, tmp_path: Path) -> None:
    stage = Stage(plan, tmp_path, on=spoil_logits(4)).run()
    (fault,) = stage.of_kind("fault")
    assert fault == {"kind": "fault", "step": 5, "why": "the loss is nan", "action": "its batch is skipped"}
    assert stage.of_kind("rollback") == []
    assert stage.training.progress.guard.recoveries == 1
    assert [event["number"] for event in stage.of_kind("step")] == list(range(1, 13))
    assert stage.of_kind("step")[4]["fault"] == "loss"
    assert newest(tmp_path).state["progress"]["guard"]["recoveries"] == 1


def spoil_weight(step: int) -> Callable[[Stage, Event], None]:
    def on(stage: Stage, event: Event) -> None:
        if event["kind"] == "step" and event["number"] == step and not stage.of_kind("rollback"):
            with torch.no_grad():
                next(stage.model.parameters())[0, 0] = float("inf")

    return on


def test_bad_weights_send_the_training_back(plan: Plan, tmp_path: Path) -> None:
    usual = [event["lr_multiplier"] for event in Stage(plan).run().of_kind("step")]
    stage = Stage(plan, tmp_path, on=spoil_weight(5)).run()
    (back,) = stage.of_kind("rollback")
    assert (back["from_step"], back["step"], back["rate_factor"]) == (6, 4, 0.5)
    numbers = [event["number"] for event in stage.of_kind("step")]
    assert numbers == [1, 2, 3, 4, 5, 6, *range(5, 13)]
    multipliers = [event["lr_multiplier"] for event in stage.of_kind("step")]
    assert multipliers[-8:] == [0.5 * one for one in usual[4:]]
    guard = newest(tmp_path).state["progress"]["guard"]
    assert (guard["recoveries"], guard["rate_factor"]) == (1, 0.5)
    assert all(bool(tensor.isfinite().all()) for tensor in stage.model.state_dict().values())


def test_a_bad_number_in_the_optimizer_is_found_by_the_save(plan: Plan, tmp_path: Path) -> None:
    def spoil(stage: Stage, event: Event) -> None:
        if event["kind"] == "step" and event["number"] == 8 and not stage.of_kind("rollback"):
            optimizer = stage.training.assembly.optimizer
            frozen = optimizer.param_groups[0]["params"][0]
            optimizer.state[frozen]["exp_avg_sq"].view(-1)[0] = float("inf")  # its update is 0: no weight shows it
        if event["kind"] == "step" and event["number"] == 9:
            assert stage.saver is not None
            stage.saver.wait()  # so that what the save of step 8 found is known while there are steps to do

    stage = Stage(plan, tmp_path, on=spoil).run()
    assert len(stage.of_kind("rollback")) == 1
    assert "exp_avg_sq holds numbers that are not finite" in stage.of_kind("rollback")[0]["why"]
    assert stage.of_kind("rollback")[0]["step"] == 4
    assert "exp_avg_sq" in stage.of_kind("checkpoint_failed")[0]["error"]
    assert stage.training.over


def test_without_a_checkpoint_there_is_no_way_back(plan: Plan) -> None:
    with pytest.raises(WorkFailed, match=r"step 6: .*; there is no checkpoint to go back to; lower optim\.lr"):
        Stage(plan, on=spoil_weight(5)).run()


def test_too_much_that_goes_wrong_fails(encoder: Path, tmp_path: Path) -> None:
    plan = make_plan_on(encoder, train__max_recoveries=0)
    with pytest.raises(WorkFailed, match=r"step 5: the loss is nan; 0 steps .*train\.max_recoveries"):
        Stage(plan, tmp_path, on=spoil_logits(4)).run()


def test_memory_that_runs_out_cuts_steps_from_then_on(plan: Plan, tmp_path: Path) -> None:
    def small_memory(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if module.training and len(output) > 4:
            raise torch.OutOfMemoryError("out of memory")

    stage = Stage(plan, tmp_path, hurry=True, on=stop_at_step(5))
    stage.training.assembly.model.output.register_forward_hook(small_memory)
    stage.run()
    assert stage.of_kind("memory") == [{"kind": "memory", "step": 1, "micro_batches": 2, "rows": 8}]
    again = Stage(plan, tmp_path, resume=newest(tmp_path))
    assert again.training.progress.micro_batches == 2
    again.run()
    assert {event["micro_batches"] for event in again.of_kind("step")} == {2}


def test_a_model_that_learnt_nothing_is_told_once(encoder: Path) -> None:
    def same_answer(stage: Stage, event: Event) -> None:
        if event["kind"] == "start":
            with torch.no_grad():
                stage.training.assembly.model.output.bias[1] = 100.0

    stage = Stage(make_plan_on(encoder, optim__lr=1e-20), on=same_answer).run()
    (told,) = stage.of_kind("collapsed")
    assert told["step"] == 6  # in the second half
    assert "all 24 validation rows are answered 'food'" in told["text"]
