"""Training on texts of several windows: a step's loss is that of its rows, however it is cut, packed or counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import toys
from memory_runs_out import Shortage, short_of_memory
from snapfit.core.errors import WorkFailed
from snapfit.data.cutting import windows_of
from snapfit.nn.backend import TorchBackend
from snapfit.nn.packed_encoder import use_padding
from snapfit.runtime.predictor import batched_logits
from snapfit.training.evaluation import evaluate
from snapfit.training.loop import Examples
from stage import Stage, make_plan_on, stop_at_step

WINDOWS: dict[str, Any] = {"length__policy": "windows", "length__max_tokens": 6, "model__dropout": 0.0}
"""Rows of three to twelve tokens are one to four windows."""
POOLINGS = ["mean", "max", "attention", "max_states"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def losses(stage: Stage) -> list[float]:
    return [event["loss"] for event in stage.of_kind("step")]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_steps_loss_is_the_mean_over_its_rows(encoder: Path, pooling: str) -> None:
    plan = make_plan_on(encoder, **WINDOWS, length__window_pooling=pooling)
    stage = Stage(plan, on=stop_at_step(1))
    examples = plan.examples["train"]
    _, _, rows = next(plan.order.walk(0, 0))
    tokens = examples.tokens.take(rows)
    assert windows_of(tokens.lengths, 6).max() > 1
    logits = batched_logits(TorchBackend(stage.training.assembly.model, device="cpu"), tokens, pad_id=0)
    expected = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(examples.targets[rows]))
    (step,) = stage.run().of_kind("step")
    assert step["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert (step["rows"], step["tokens"]) == (len(rows), int(tokens.lengths.sum()))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_accumulation_and_padding_change_nothing(encoder: Path, pooling: str) -> None:
    more = {"regularise__r_drop": 0.5, "regularise__dropout_samples": 2, "length__window_pooling": pooling}
    whole = Stage(make_plan_on(encoder, **WINDOWS, **more)).run()
    parts = Stage(make_plan_on(encoder, **WINDOWS, **more, train__accumulate=4, train__batch=2)).run()
    np.testing.assert_allclose(losses(parts), losses(whole), rtol=5e-5)
    assert [event["tokens"] for event in parts.of_kind("step")] == [event["tokens"] for event in whole.of_kind("step")]
    padded = Stage(make_plan_on(encoder, **WINDOWS, **more))
    use_padding(padded.training.assembly.model)
    np.testing.assert_allclose(losses(padded.run()), losses(whole), rtol=5e-5)


def test_a_token_budget_counts_all_windows(encoder: Path) -> None:
    plan = make_plan_on(encoder, **WINDOWS, train__token_budget=48, train__batch=16)
    tokens = plan.examples["train"].tokens
    steps = list(plan.order.steps(0))
    padded = []
    for rows in steps:
        lengths = tokens.lengths_of(rows)
        padded.append(int(windows_of(lengths, 6).sum() * np.minimum(lengths, 6).max()))
    assert max(padded) <= 48
    assert sum(map(len, steps)) == len(tokens)
    assert len(steps) > len(list(make_plan_on(encoder, **WINDOWS, train__batch=16).order.steps(0)))


def test_a_row_is_never_split_when_memory_runs_out(encoder: Path) -> None:
    plenty = Stage(make_plan_on(encoder, **WINDOWS)).run()
    with short_of_memory(Shortage(1, 8, MemoryError)):  # windows at a time
        short = Stage(make_plan_on(encoder, **WINDOWS)).run()
    np.testing.assert_allclose(losses(short), losses(plenty), rtol=5e-5)
    assert max(event["micro_batches"] for event in short.of_kind("step")) > 1
    with short_of_memory(Shortage(1, 1, MemoryError)), pytest.raises(WorkFailed, match=r"or length\.max_windows"):
        Stage(make_plan_on(encoder, **WINDOWS)).run()


def test_an_evaluation_measures_what_prediction_answers(encoder: Path) -> None:
    plan = make_plan_on(encoder, **WINDOWS, length__window_pooling="attention")
    stage = Stage(plan).run()
    model, examples = stage.training.assembly.model, plan.examples["valid"]
    found = evaluate(model, examples, plan.label_set, autocast=lambda: torch.autocast("cpu", enabled=False))
    assert found is not None
    backend = TorchBackend(model, device="cpu")
    alone = [batched_logits(backend, examples.tokens.take(np.array([row])), pad_id=0)[0] for row in range(24)]
    assert found.metrics["accuracy"] == np.mean(np.argmax(alone, axis=1) == examples.targets)
    nll = F.cross_entropy(torch.from_numpy(np.array(alone)), torch.from_numpy(np.asarray(examples.targets)))
    assert found.metrics["nll"] == pytest.approx(float(nll), rel=1e-5)
    assert isinstance(examples, Examples)
