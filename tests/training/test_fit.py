"""Fine-tuning as a whole on toy tables: it learns, keeps the best, stops when told, and repeats itself."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import toys
from snapfit.core.errors import BadInput, Interrupted, WorkFailed
from snapfit.core.interrupts import Stop
from snapfit.core.recipe import Recipe
from snapfit.nn.backend import TorchBackend
from snapfit.runtime.predictor import batched_logits
from snapfit.training.driver import evaluation_steps
from snapfit.training.fit import Fitted, fit
from snapfit.training.plan import make_plan
from snapfit.training.prepare import Tables, read_tables

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def make_recipe(encoder: Path, **settings: Any) -> Recipe:
    values = {"model__encoder": str(encoder), "model__pooling": "mean"} | toys.QUICK | settings
    return Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})


class StopAt(Stop):
    """Asks to stop after a step; in a hurry or not."""

    def __init__(self, step: int, *, hurry: bool = False) -> None:
        self.step, self.hurry, self.asked = step, hurry, step == 0

    def __call__(self) -> bool:
        return self.asked


def run(tables: Tables, recipe: Recipe, *, stop: StopAt | None = None) -> tuple[Fitted, Events]:
    events: Events = []

    def notify(kind: str, **fields: Any) -> None:
        events.append({"kind": kind, **fields})
        if stop is not None and kind == "step" and fields["number"] == stop.step:
            stop.asked = True

    plan = make_plan(tables, recipe, notify=notify)
    return fit(plan, notify=notify, stop=stop), events


def tables_of(rows: list[dict[str, Any]], encoder: Path, **settings: Any) -> Tables:
    return read_tables(rows, None, None, make_recipe(encoder, **settings).data)


def train_logits(fitted: Fitted, tables: Tables) -> torch.Tensor:
    part = tables.splits["train"]
    tokens = fitted.tokenizer.encode(part.texts, part.pairs)
    return torch.from_numpy(batched_logits(TorchBackend(fitted.model, device="cpu"), tokens, pad_id=0))


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    return fitted.model.state_dict()


def equal_weights(one: Fitted, other: Fitted) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def of_kind(events: Events, kind: str) -> Events:
    return [event for event in events if event["kind"] == kind]


# ---------------------------------------------------------------- it learns


@pytest.mark.parametrize(
    ("kind", "pooling", "metric", "least"),
    [
        ("single", "native", "accuracy", 0.9),
        ("multi", "mean", "micro_f1", 0.72),
        ("regression", "mean", "pearson", 0.95),
        ("pair", "native", "accuracy", 0.9),
    ],
)
def test_learns_each_task(encoder: Path, kind: str, pooling: str, metric: str, least: float) -> None:
    settings = {"train__epochs": 8, "optim__layer_ratio": 1.0, "model__pooling": pooling}
    tables = tables_of(toys.ROWS[kind](240), encoder)
    fitted, events = run(tables, make_recipe(encoder, **settings))
    assert fitted.metrics["valid"][metric] >= least
    losses = [event["loss"] for event in of_kind(events, "step")]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_learns_the_shared_toy_rows(tiny_encoder_dir: Path, toy_rows: list[dict[str, str]]) -> None:
    settings = {"train__epochs": 10, "optim__layer_ratio": 1.0, "optim__lr": 5e-3}
    recipe = make_recipe(tiny_encoder_dir, **settings)
    fitted, _ = run(read_tables(toy_rows, None, None, recipe.data), recipe)
    assert fitted.metrics["valid"]["accuracy"] > 0.8  # a majority label reaches 0.33


# ---------------------------------------------------------------- what is kept


def test_the_best_evaluation_is_what_is_returned(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(120), encoder)
    fitted, events = run(tables, make_recipe(encoder, train__metric="nll", optim__lr=1e-2))
    evaluations = of_kind(events, "evaluation")
    values = [event["metrics"]["nll"] for event in evaluations]
    best = int(np.argmin(values))
    assert [event["best"] for event in evaluations] == [
        v < min(values[:i], default=math.inf) for i, v in enumerate(values)
    ]
    assert evaluations[best]["step"] == fitted.best_step
    assert fitted.metrics["valid"]["nll"] == pytest.approx(values[best], abs=1e-6)
    assert not fitted.model.training
    assert all(parameter.requires_grad for parameter in fitted.model.parameters())


def test_without_validation_the_last_weights_are_kept(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(60), encoder, data__valid_fraction=0.0)
    fitted, events = run(tables, make_recipe(encoder, train__epochs=2))
    assert fitted.metrics == {}
    assert fitted.best_step == fitted.steps == 16
    assert of_kind(events, "evaluation") == []
    assert fitted.recipe.optim.lr == 2e-3


def test_a_test_table_is_measured_once_at_the_end(encoder: Path) -> None:
    recipe = make_recipe(encoder, train__epochs=2)
    tables = read_tables(toys.single_rows(60), toys.single_rows(12, seed=1), toys.single_rows(15, seed=2), recipe.data)
    fitted, events = run(tables, recipe)
    assert set(fitted.metrics) == {"valid", "test"}
    assert [event["split"] for event in of_kind(events, "final")] == ["valid", "test"]
    assert {event["split"] for event in of_kind(events, "evaluation")} == {"valid"}


def test_patience_ends_a_run_that_gains_nothing(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(120), encoder)
    settings = {"optim__lr": 1e-20, "train__patience": 2, "train__evaluations_per_epoch": 1}
    fitted, events = run(tables, make_recipe(encoder, **settings))
    assert [event["step"] for event in of_kind(events, "evaluation")] == [14, 28, 42]
    assert of_kind(events, "early_stop") == [{"kind": "early_stop", "step": 42, "best_step": 14}]
    assert (fitted.steps, fitted.best_step, fitted.complete) == (42, 14, True)


def test_stopping_keeps_the_best_so_far(encoder: Path) -> None:
    tables, recipe = tables_of(toys.single_rows(120), encoder), make_recipe(encoder, log__interval_steps=1)
    whole, _ = run(tables, recipe)
    stopped, events = run(tables, recipe, stop=StopAt(30))
    assert not stopped.complete
    assert whole.complete
    assert (stopped.steps, whole.steps) == (30, 84)
    assert of_kind(events, "interrupted") == [{"kind": "interrupted", "step": 30, "total_steps": 84}]
    assert stopped.best_step in (14, 28)
    best = next(e for e in of_kind(events, "evaluation") if e["step"] == stopped.best_step)
    assert stopped.metrics["valid"]["accuracy"] == best["metrics"]["accuracy"]


def test_stopping_before_any_evaluation_makes_one(encoder: Path) -> None:
    recipe = make_recipe(encoder, log__interval_steps=1)
    fitted, events = run(tables_of(toys.single_rows(120), encoder), recipe, stop=StopAt(3))
    assert (fitted.steps, fitted.best_step) == (3, 3)
    assert [event["step"] for event in of_kind(events, "evaluation")] == [3]
    assert "accuracy" in fitted.metrics["valid"]


def test_stopping_before_the_first_step(encoder: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was trained"):
        run(tables_of(toys.single_rows(120), encoder), make_recipe(encoder), stop=StopAt(0))


# ---------------------------------------------------------------- it repeats itself


def test_the_seed_alone_decides(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(60), encoder)

    def once(seed: int) -> Fitted:
        torch.rand(seed + 5)  # the caller's generator is anywhere
        settings = {
            "train__seed": seed,
            "train__epochs": 2,
            "model__dropout": 0.2,
            "model__attention_dropout": 0.1,
        }
        return run(tables, make_recipe(encoder, **settings))[0]

    first = once(1)
    assert equal_weights(first, once(1))
    assert not equal_weights(first, once(2))


def test_a_resolved_recipe_repeats_the_run(encoder: Path) -> None:
    settings = {
        "optim__lr": "auto",
        "optim__head_lr_factor": "auto",
        "train__batch": "auto",
        "model__pooling": "auto",
    }
    tables = tables_of(toys.single_rows(60), encoder)
    fitted, events = run(tables, make_recipe(encoder, train__epochs=1, **settings))
    assert "auto" not in str(fitted.recipe.model_copy(update={"data": None, "decision": None}))
    assert set(fitted.reasons) >= {"optim.lr", "train.batch", "model.pooling"}
    assert of_kind(events, "recipe")[0]["recipe"] == fitted.recipe.to_dict()
    again, _ = run(tables, fitted.recipe)
    assert equal_weights(fitted, again)
    assert again.recipe == fitted.recipe
    assert again.reasons == {}


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_generator_and_threads_come_back(encoder: Path, fails: bool) -> None:
    tables = tables_of(toys.single_rows(24), encoder, data__valid_fraction=0.0)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    wanted, inside = 1 if threads > 1 else 2, []

    def notify(kind: str, **fields: Any) -> None:
        inside.append(torch.get_num_threads())
        if fails and kind == "step":
            raise RuntimeError("a listener that fails")

    recipe = make_recipe(encoder, train__epochs=1, train__threads=wanted)
    if fails:
        with pytest.raises(RuntimeError, match="a listener that fails"):
            fit(make_plan(tables, recipe, notify=lambda kind, **fields: None), notify=notify)
    else:
        fit(make_plan(tables, recipe, notify=lambda kind, **fields: None), notify=notify)
    assert set(inside) == {wanted}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------- settings that reach the loop


def test_regression_answers_in_the_tables_units(encoder: Path) -> None:
    rows = toys.regression_rows(160, offset=1e5, scale=6_000.0)
    tables = tables_of(rows, encoder)
    fitted, _ = run(tables, make_recipe(encoder, optim__layer_ratio=1.0, optim__lr=5e-3))
    predicted = train_logits(fitted, tables)[:, 0].double().numpy()
    assert abs(predicted.mean() - 103_000) < 1_000
    assert fitted.metrics["valid"]["rmse"] < 1_500  # the targets' own spread is 2,000
    residual = predicted - tables.splits["train"].labels
    assert residual.std() < 0.7 * np.std(tables.splits["train"].labels)


def test_a_constant_target_is_learnt(encoder: Path) -> None:
    rows = [row | {"score": 7.5} for row in toys.regression_rows(40)]
    fitted, _ = run(tables := tables_of(rows, encoder), make_recipe(encoder, optim__lr=5e-3, optim__layer_ratio=1.0))
    np.testing.assert_allclose(train_logits(fitted, tables).numpy(), 7.5, atol=0.3)


def test_weights_and_exponents_are_in_the_loss(encoder: Path) -> None:
    rows = [*toys.single_rows(90), *(row for row in toys.single_rows(150, seed=9) if row["label"] == "food")]
    tables = tables_of(rows, encoder, data__valid_fraction=0.0)
    settings = {"optim__lr": 1e-12, "train__batch": len(rows), "train__epochs": 1}
    targets = torch.from_numpy(tables.label_set.encode(tables.splits["train"].labels))
    counts = torch.bincount(targets).float()
    for setting, factors in (("balanced", len(rows) / (3 * counts)), (None, torch.ones(3))):
        for function, gamma in (("plain", 0.0), ("focal", 3.0)):
            asked = {"loss__class_weights": setting, "loss__function": function, "loss__gamma": 3.0}
            fitted, events = run(tables, make_recipe(encoder, **asked, **settings))
            logits = train_logits(fitted, tables)
            losses = functional.cross_entropy(logits, targets, reduction="none")
            losses = (1 - logits.softmax(-1)[torch.arange(len(rows)), targets]) ** gamma * losses
            expected = (losses * factors[targets]).mean()
            assert of_kind(events, "step")[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_asymmetric_loss_of_a_step_is_the_papers(encoder: Path) -> None:
    tables = tables_of(toys.multi_rows(60), encoder, data__valid_fraction=0.0)
    settings = {"optim__lr": 1e-12, "train__batch": 60, "train__epochs": 1, "loss__function": "asymmetric"}
    settings |= {"loss__gamma_pos": 1.0, "loss__gamma_neg": 3.0, "loss__margin": 0.1}
    fitted, events = run(tables, make_recipe(encoder, **settings))
    p = torch.sigmoid(train_logits(fitted, tables))
    holds = torch.from_numpy(tables.label_set.encode(tables.splits["train"].labels))
    shifted = (p - 0.1).clamp(min=0.0)
    cells = -holds * (1 - p) * p.log() - (1 - holds) * shifted**3 * (1 - shifted).log()
    assert of_kind(events, "step")[0]["loss"] == pytest.approx(cells.mean().item(), rel=1e-5)


def test_accumulation_and_token_budget(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(120), encoder)
    whole, _ = run(tables, make_recipe(encoder, train__epochs=1, train__batch=8))
    parts, _ = run(tables, make_recipe(encoder, train__epochs=1, train__batch=2, train__accumulate=4))
    assert whole.steps == parts.steps == 14
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], tensor, atol=2e-3, rtol=0)
    budget, events = run(tables, make_recipe(encoder, train__epochs=1, train__token_budget=60))
    assert budget.steps == of_kind(events, "start")[0]["total_steps"] > 14


def test_bf16_training_is_measured_as_the_bundle_will_answer(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(120), encoder)
    fitted, _ = run(tables, make_recipe(encoder, train__precision="bf16", train__epochs=2))
    assert fitted.model.config._attn_implementation == "sdpa"
    assert {tensor.dtype for tensor in weights(fitted).values()} == {torch.float32}
    part = tables.splits["valid"]
    tokens = fitted.tokenizer.encode(part.texts)
    logits = torch.from_numpy(batched_logits(TorchBackend(fitted.model, device="cpu"), tokens, pad_id=0))
    targets = torch.from_numpy(tables.label_set.encode(part.labels))
    assert fitted.metrics["valid"]["nll"] == pytest.approx(functional.cross_entropy(logits, targets).item(), abs=1e-6)


def test_a_rate_that_is_far_too_high_fails_with_advice(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(60), encoder)
    with pytest.raises(WorkFailed, match=r"lower optim\.lr"):
        run(tables, make_recipe(encoder, optim__lr=1e30, schedule__warmup_fraction=0.0))


def test_an_unknown_family_trains_with_a_notice(tmp_path: Path) -> None:
    encoder = toys.encoder_folder(tmp_path, "rembert")
    tables = tables_of(toys.single_rows(60), encoder)
    fitted, events = run(tables, make_recipe(encoder, train__epochs=1, model__pooling="auto"))
    assert "'rembert' is not in snapfit's table" in of_kind(events, "notice")[0]["text"]
    assert fitted.recipe.model.pooling == "mean"
    with pytest.raises(BadInput, match="a native head for the family 'rembert'"):
        run(tables, make_recipe(encoder, model__pooling="native"))


def test_what_is_heard_and_in_which_order(encoder: Path) -> None:
    tables = tables_of(toys.single_rows(60), encoder)
    _, events = run(tables, make_recipe(encoder, train__epochs=2, log__interval_steps=5))
    kinds = list(dict.fromkeys(event["kind"] for event in events))
    assert kinds == ["recipe", "weights", "groups", "engine", "start", "step", "evaluation", "decision", "final"]
    assert [event["number"] for event in of_kind(events, "step")] == [1, 5, 10, 14]
    groups = of_kind(events, "groups")[0]
    assert groups["lines"][0].startswith("group")
    assert f"{groups['trainable']:,}" in groups["lines"][-1]
    assert of_kind(events, "weights")[0]["fresh"] == ["head.output.bias", "head.output.weight"]


@given(st.integers(1, 500), st.floats(0.1, 20), st.integers(1, 5))
def test_evaluations_are_spread_and_the_last_step_has_one(total: int, epochs: float, per_epoch: int) -> None:
    due = evaluation_steps(total, epochs, per_epoch)
    assert max(due) == total
    assert min(due) >= 1
    assert len(due) <= max(1, round(epochs * per_epoch))
    gaps = np.diff([0, *sorted(due)])
    assert gaps.max() - gaps.min() <= 2 or len(due) < max(1, round(epochs * per_epoch))
