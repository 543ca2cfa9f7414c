"""R-Drop and multi-sample dropout against direct computations, and all options together through a whole training."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence
from torch.nn import functional as F

import tiny
import toys
from memory_runs_out import Shortage, short_of_memory
from snapfit.core.errors import WorkFailed
from snapfit.data.batches import pad
from snapfit.nn.losses import loss_sum
from snapfit.nn.packed_encoder import PackedEncoder, use_padding
from snapfit.training.loop import step_seed
from snapfit.training.regularise import several_outputs
from stage import Stage, make_plan_on, stop_at_step

ALPHA = 1.5
ALL = {"regularise__r_drop": ALPHA, "regularise__adversarial": 0.5, "regularise__dropout_samples": 3}
CALM = {"model__dropout": 0.0}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def losses(stage: Stage) -> list[float]:
    return [event["loss"] for event in stage.of_kind("step")]


def first_batch(stage: Stage, copies: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and targets of the first step's rows, each row so many times."""
    examples = stage.plan.examples["train"]
    _, _, rows = next(stage.plan.order.walk(0, 0))
    batch = pad(examples.tokens.take(rows), np.tile(np.arange(len(rows)), copies), pad_id=examples.pad_id)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return {name: torch.from_numpy(ids) for name, ids in inputs.items()}, torch.from_numpy(examples.targets[rows])


# ---------------------------------------------------------------- R-Drop


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_r_drop_is_the_formula_over_two_forward_passes(task: str) -> None:
    model = tiny.classifier("bert", "mean", hidden_dropout_prob=0.3).train()
    batch = tiny.inputs(model.config, [9, 4, 7, 2])
    with torch.no_grad():
        one, other = model(**batch).logits, model(**batch).logits
    if task == "regression":
        one, other = one[:, :1], other[:, :1]
    assert not torch.equal(one, other)
    flags = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    targets = {"single": torch.tensor([2, 0, 1, 1]), "multi": flags, "regression": flags[:, :1]}[task]
    if task == "single":
        loss, apart = F.cross_entropy, kl_divergence(Categorical(logits=one), Categorical(logits=other))
        apart = 0.5 * (apart + kl_divergence(Categorical(logits=other), Categorical(logits=one)))
    elif task == "multi":
        loss, apart = F.binary_cross_entropy_with_logits, kl_divergence(Bernoulli(logits=one), Bernoulli(logits=other))
        apart = 0.5 * (apart + kl_divergence(Bernoulli(logits=other), Bernoulli(logits=one))).mean(-1)
    else:
        loss, apart = F.mse_loss, (one - other).square().mean(-1)
    expected = 0.5 * (loss(one, targets) + loss(other, targets)) + ALPHA * apart.mean()
    total = several_outputs(partial(loss_sum, task=task), task=task, r_drop=ALPHA)
    torch.testing.assert_close(total(torch.cat((one, other)), targets) / len(targets), expected)


def test_with_several_samples_each_is_compared_with_its_own_other() -> None:
    logits, targets = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 2, 2])
    plain = partial(loss_sum, task="single")
    expected = [several_outputs(plain, task="single", r_drop=ALPHA)(pair.flatten(0, 1), targets) for pair in logits]
    both = several_outputs(plain, task="single", samples=3, r_drop=ALPHA)
    torch.testing.assert_close(both(logits.flatten(0, 2), targets), torch.stack(expected).mean())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_takes_each_row_twice_with_different_dropout(encoder: Path, precision: str) -> None:
    plan = make_plan_on(encoder, regularise__r_drop=ALPHA, train__precision=precision)
    stage = Stage(plan, on=stop_at_step(1))
    inputs, targets = first_batch(stage, copies=2)
    model = stage.training.assembly.model.train()
    torch.manual_seed(step_seed(plan.recipe.train.seed, 0))
    with stage.training.assembly.autocast():
        logits = model(**inputs).logits.detach().float()
    one, other = logits.chunk(2)
    assert float((one - other).abs().amax(1).min()) > 1e-3
    apart = (one.softmax(-1) * (one.log_softmax(-1) - other.log_softmax(-1))).sum(-1)
    apart += (other.softmax(-1) * (other.log_softmax(-1) - one.log_softmax(-1))).sum(-1)
    expected = 0.5 * (F.cross_entropy(one, targets) + F.cross_entropy(other, targets)) + ALPHA / 2 * apart.mean()
    (found,) = stage.run().of_kind("step")
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("settings", [{"regularise__r_drop": ALPHA}, {"regularise__dropout_samples": 4}])
def test_without_dropout_nothing_changes(encoder: Path, settings: dict[str, Any]) -> None:
    plain = Stage(make_plan_on(encoder, **CALM)).run()
    found = Stage(make_plan_on(encoder, **CALM, **settings)).run()
    np.testing.assert_allclose(losses(found), losses(plain), rtol=2e-5)
    same = ("number", "rows", "tokens", "epoch", "position")
    told = [[[event[name] for name in same] for event in stage.of_kind("step")] for stage in (plain, found)]
    assert told[0] == told[1]


# ---------------------------------------------------------------- multi-sample dropout


def test_a_step_takes_the_mean_over_samples(encoder: Path) -> None:
    plan = make_plan_on(encoder, regularise__dropout_samples=4)
    stage = Stage(plan, on=stop_at_step(1))
    inputs, targets = first_batch(stage)
    model = stage.training.assembly.model.train()
    torch.manual_seed(step_seed(plan.recipe.train.seed, 0))
    with torch.no_grad():
        logits = model(**inputs).logits
        assert len(logits) == 4 * len(targets)
        assert len(model.eval()(**inputs).logits) == len(targets)
    expected = torch.stack([F.cross_entropy(part, targets) for part in logits.chunk(4)]).mean()
    (found,) = stage.run().of_kind("step")
    assert found["loss"] == pytest.approx(float(expected), rel=1e-5)
    stage.training.assembly.release()
    assert model.head.samples == 1


# ---------------------------------------------------------------- all of it


def test_options_that_are_off_leave_the_plain_loss(encoder: Path) -> None:
    stage = Stage(make_plan_on(encoder))
    assert stage.training.assembly.adversary is None
    assert stage.training.assembly.unfreezing is None
    assert stage.training.assembly.model.head.samples == 1
    inputs, targets = first_batch(stage)
    assert losses(stage.run())[0] != losses(Stage(make_plan_on(encoder, **ALL)).run())[0]
    assert len(inputs["input_ids"]) == len(targets)


RARE = {"loss__function": "focal", "loss__class_weights": {"food": 3.0}, "train__sampling": "weighted"}
"""What is for rare classes, one label a text."""


@pytest.mark.parametrize("settings", [{}, ALL], ids=["alone", "with all"])
def test_losses_for_rare_classes_are_the_same_in_micro_batches_and_packed(
    encoder: Path, settings: dict[str, Any]
) -> None:
    whole = Stage(make_plan_on(encoder, **RARE, **CALM, **settings)).run()
    parts = Stage(make_plan_on(encoder, **RARE, **CALM, **settings, train__accumulate=4, train__batch=2)).run()
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=5e-5)
    assert {event["micro_batches"] for event in parts.of_kind("step")} == {4}
    padded = Stage(make_plan_on(encoder, **RARE, **CALM, **settings))
    use_padding(padded.training.assembly.model)
    np.testing.assert_allclose(losses(padded.run()), losses(whole), rtol=5e-5)
    plain = Stage(make_plan_on(encoder, **CALM, **settings)).run()
    assert abs(losses(plain)[0] - losses(whole)[0]) > 0.01


@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_accumulation_changes_nothing(tmp_path: Path, family: str) -> None:
    place = toys.encoder_folder(tmp_path, family)
    whole = Stage(make_plan_on(place, **ALL, **CALM)).run()
    parts = Stage(make_plan_on(place, **ALL, **CALM, train__accumulate=4, train__batch=2)).run()
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=5e-5)
    assert {event["micro_batches"] for event in parts.of_kind("step")} == {4}
    assert [event["rows"] for event in parts.of_kind("step")] == [event["rows"] for event in whole.of_kind("step")]


def test_packed_rows_are_padded_rows(encoder: Path) -> None:
    """Only the head drops, behind the encoder, so that both draw the same masks."""
    stages = []
    for packed in (True, False):
        stage = Stage(make_plan_on(encoder, **ALL, **CALM))
        model = stage.training.assembly.model
        model.head.dropout.p = 0.3
        if not packed:
            use_padding(model)
        assert isinstance(vars(model.encoder).get("forward"), PackedEncoder) is packed
        stages.append(stage.run())
    np.testing.assert_allclose(losses(stages[0]), losses(stages[1]), rtol=5e-5)


def test_memory_that_runs_out_counts_both_copies(encoder: Path) -> None:
    """Eight rows are sixteen in the model: where four fit, two rows at a time do."""
    plenty = Stage(make_plan_on(encoder, **ALL, **CALM)).run()
    with short_of_memory(Shortage(1, 4, MemoryError)):
        short = Stage(make_plan_on(encoder, **ALL, **CALM)).run()
    np.testing.assert_allclose(losses(short), losses(plenty), rtol=5e-5)
    assert {event["micro_batches"] for event in short.of_kind("step")} == {4}
    with short_of_memory(Shortage(1, 1, MemoryError)), pytest.raises(WorkFailed, match="every row is a micro-batch"):
        Stage(make_plan_on(encoder, **ALL)).run()


@pytest.mark.parametrize("kind", ["multi", "regression"])
def test_other_tasks_learn_with_all_of_it(tmp_path: Path, kind: str) -> None:
    column = {"multi": {"data__label": "labels"}, "regression": {}}[kind]
    settings = ALL | {"regularise__adversarial": 0.1, "train__epochs": 10, "log__interval_steps": 1} | column
    if kind == "multi":
        settings |= {"loss__function": "asymmetric", "loss__class_weights": "balanced", "train__sampling": "weighted"}
    run = toys.new_run(tmp_path, kind, model__pooling="mean", model__dropout=0.1, **settings)
    steps = [event["loss"] for event in run.events if event["kind"] == "step"]
    assert np.mean(steps[-10:]) < 0.8 * np.mean(steps[:10])
    assert run.result.metrics
