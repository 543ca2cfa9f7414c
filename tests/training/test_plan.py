"""The plan: what a training is, settled before its first step, and an identity that tells trainings apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe
from snapfit.training.class_weights import class_weights
from snapfit.training.defaults import is_resolved
from snapfit.training.identity import differences
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables

SETTINGS = toys.QUICK | {"model__pooling": "mean", "data__task": "auto"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def recipe_for(encoder: Path, **settings: Any) -> Recipe:
    values = {"model__encoder": str(encoder)} | SETTINGS | settings
    return Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})


def plan_of(
    encoder: Path, rows: list[dict[str, Any]] | None = None, *, valid: Any = None, test: Any = None, **settings: Any
) -> Plan:
    recipe = recipe_for(encoder, **settings)
    tables = read_tables(rows or toys.single_rows(60), valid, test, recipe.data)
    return make_plan(tables, recipe, notify=lambda kind, **fields: None)


# ---------------------------------------------------------------- resolved once


def test_a_resolved_recipe_is_taken_as_it_is(encoder: Path) -> None:
    first = plan_of(encoder, train__batch="auto", model__pooling="auto", optim__lr="auto")
    assert is_resolved(first.recipe)
    assert {"train.batch", "model.pooling", "optim.lr", "data.text", "data.valid_fraction"} <= set(first.reasons)
    heard: list[dict[str, Any]] = []
    again = make_plan(
        read_tables(toys.single_rows(60), None, None, first.recipe.data),
        first.recipe,
        notify=lambda kind, **fields: heard.append({"kind": kind, **fields}),
        reasons=first.reasons,
    )
    assert again.recipe == first.recipe
    assert again.reasons == first.reasons
    assert again.total_steps == first.total_steps
    assert heard == [{"kind": "recipe", "recipe": first.recipe.to_dict(), "reasons": first.reasons}]
    assert differences(first.identity(), again.identity()) == []


def test_what_was_not_a_setting_is_not_measured_again(encoder: Path) -> None:
    """A pooling that the probe would never choose stays, since nothing is probed."""
    first = plan_of(encoder)
    other = first.recipe.with_values({"model.pooling": "max"})
    plan = make_plan(first.tables, other, notify=lambda kind, **fields: None)
    assert plan.recipe.model.pooling == "max"
    assert "model.pooling" not in plan.reasons


@pytest.mark.parametrize(("samples", "pooling"), [(1, "native"), (2, "cls")])
def test_several_dropout_samples_need_a_head_of_our_own(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, samples: int, pooling: str
) -> None:
    monkeypatch.setattr("snapfit.training.pooling_probe.CLEAR_GAIN", -100.0)  # the first token wins
    plan = plan_of(encoder, model__pooling="auto", regularise__dropout_samples=samples)
    assert plan.recipe.model.pooling == pooling


def test_a_metric_that_does_not_fit_is_refused_in_a_resolved_recipe_too(encoder: Path) -> None:
    first = plan_of(encoder)
    wrong = first.recipe.with_values({"train.metric": "rmse"})
    with pytest.raises(BadInput, match=r"train\.metric is 'rmse'"):
        make_plan(first.tables, wrong, notify=lambda kind, **fields: None)


def test_the_order_is_that_of_the_recipe(encoder: Path) -> None:
    plan = plan_of(encoder, train__accumulate=2, train__window=3, train__seed=5, train__epochs=2)
    n_rows = len(plan.examples["train"].tokens)
    assert (plan.order.step_size, plan.order.window, plan.order.seed, plan.order.classes) == (16, 3, 5, None)
    assert plan.total_steps == 2 * -(-n_rows // 16)
    assert set(plan.examples) == {"train", "valid"}


# ---------------------------------------------------------------- rare classes


def lopsided(share: int) -> list[dict[str, Any]]:
    """A hundred rows, so many of them food."""
    food, others = ([row for row in toys.single_rows(300) if (row["label"] == "food") == of] for of in (True, False))
    return food[:share] + others[: 100 - share]


@pytest.mark.parametrize(("share", "metric"), [(60, "accuracy"), (61, "macro_f1")])
def test_the_metric_of_a_table_that_one_class_has_most_of(encoder: Path, share: int, metric: str) -> None:
    plan = plan_of(encoder, lopsided(share), valid=toys.single_rows(12, seed=1))
    assert plan.recipe.train.metric == metric
    assert ("'food' has 61.0% of the training rows" in plan.reasons["train.metric"]) == (metric == "macro_f1")
    stated = plan_of(encoder, lopsided(share), valid=toys.single_rows(12, seed=1), train__metric="nll")
    assert stated.recipe.train.metric == "nll"
    assert "train.metric" not in stated.reasons


def test_class_weights_are_settled_and_told(encoder: Path) -> None:
    plan = plan_of(encoder, lopsided(80), valid=toys.single_rows(12, seed=1), loss__class_weights="effective")
    counts = plan.label_set.counts(plan.examples["train"].targets)
    expected = class_weights("effective", plan.label_set, counts, 100)
    assert np.array_equal(plan.weights, expected)
    assert plan.reasons["loss.class_weights"].startswith("rows weigh 0.")
    assert plan.reasons["loss.class_weights"].endswith("; beta 0.97")
    given = plan_of(encoder, lopsided(80), loss__class_weights="effective", loss__effective_beta=0.5)
    assert given.reasons["loss.class_weights"].endswith("; beta 0.5")
    assert plan_of(encoder).weights is None


def test_a_resolved_plan_has_the_weights_of_its_table_again(encoder: Path) -> None:
    first = plan_of(encoder, lopsided(80), loss__class_weights="balanced")
    again = make_plan(first.tables, first.recipe, notify=lambda kind, **fields: None, reasons=first.reasons)
    assert np.array_equal(again.weights, first.weights)
    assert again.reasons == first.reasons
    without = first.recipe.with_values({"loss.class_weights": None})
    plain = make_plan(first.tables, without, notify=lambda kind, **fields: None, reasons=first.reasons)
    assert plain.weights is None
    assert "loss.class_weights" not in plain.reasons
    (found,) = differences(first.identity(), plain.identity())
    assert (found.what, found.weight) == ("loss.class_weights", "acceptable")


@pytest.mark.parametrize(
    ("kind", "settings", "found"),
    [
        ("regression", {"loss__function": "focal"}, "'focal' for a regression"),
        ("regression", {"loss__function": "asymmetric"}, "'asymmetric' for a regression"),
        ("single", {"loss__function": "asymmetric"}, "'asymmetric' for one label a text"),
        ("regression", {"loss__class_weights": "effective"}, r"loss\.class_weights for a regression"),
        ("multi", {"loss__class_weights": {"foods": 2.0}}, "'foods'"),
    ],
)
def test_losses_that_mean_nothing_are_refused_before_anything_is_read(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, settings: dict[str, Any], found: str
) -> None:
    monkeypatch.setattr("snapfit.training.plan.open_encoder", None)
    with pytest.raises(BadInput, match=found) as caught:
        plan_of(encoder, toys.ROWS[kind](40), **settings)
    assert caught.value.fix


# ---------------------------------------------------------------- identity


def test_the_identity_knows_no_paths(encoder: Path, tmp_path: Path) -> None:
    moved = toys.encoder_folder(tmp_path / "elsewhere")
    one, other = plan_of(encoder).identity(), plan_of(moved).identity()
    assert differences(one, other) == []
    assert one == other
    assert str(encoder) not in repr(one)
    assert "source" not in repr(one["data"])


def changed_word(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"text": rows[0]["text"] + " honey"}, *rows[1:]]


def swapped_labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    one, two = rows[0]["label"], rows[1]["label"]
    return [rows[0] | {"label": two}, rows[1] | {"label": one}, *rows[2:]]


def renamed_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"label": row["label"].replace("food", "meals")} for row in rows]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (changed_word, {"the SHA-256 of the texts in the train table"}),
        (swapped_labels, {"the SHA-256 of the labels in the train table"}),
        (renamed_label, {"the SHA-256 of the labels in the train table", "labels"}),
        (lambda rows: rows[:-1], {"the train table"}),
    ],
)
def test_the_identity_changes_with_the_data(encoder: Path, change: Any, what: set[str]) -> None:
    rows, valid = toys.single_rows(60), toys.single_rows(12, seed=1)
    changed_valid = renamed_label(valid) if change is renamed_label else valid
    then = plan_of(encoder, rows, valid=valid).identity()
    now = plan_of(encoder, change(rows), valid=changed_valid).identity()
    found = {one.what: one.weight for one in differences(then, now)}
    found.pop("the SHA-256 of the labels in the valid table", None)
    assert set(found) == what
    assert set(found.values()) == {"forbidden"}


def test_the_identity_changes_with_recipe_tokenizer_and_encoder(encoder: Path, tmp_path: Path) -> None:
    then = plan_of(encoder).identity()
    assert [one.what for one in differences(then, plan_of(encoder, train__seed=9).identity())] == ["train.seed"]

    tokenizer = toys.encoder_folder(tmp_path / "tokenizer")
    text = (tokenizer / "tokenizer.json").read_text("utf-8")
    (tokenizer / "tokenizer.json").write_text(text.replace('"honey"', '"money"'), "utf-8")
    assert [one.what for one in differences(then, plan_of(tokenizer).identity())] == ["tokenizer"]

    wider = toys.encoder_folder(tmp_path / "wider", intermediate_size=48)
    assert [one.what for one in differences(then, plan_of(wider).identity())] == ["encoder"]


def test_the_test_table_is_in_the_identity_and_free(encoder: Path) -> None:
    then, now = plan_of(encoder).identity(), plan_of(encoder, test=toys.single_rows(9, seed=2)).identity()
    (found,) = differences(then, now)
    assert (found.what, found.weight) == ("the test table", "free")
