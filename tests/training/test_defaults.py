"""The default recipe as a table of rules: pure functions, tried at their edges, and nothing stated is overruled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.recipe import Recipe
from snapfit.training.defaults import (
    SETTLED_KEYS,
    Facts,
    batch_size,
    checkpoint_interval,
    encoder_rate,
    epoch_count,
    evaluations_per_epoch,
    head_factor,
    is_resolved,
    label_smoothing,
    layer_ratio,
    resolve,
    token_limit,
)


def facts(**changes: object) -> Facts:
    values: dict[str, object] = {
        "task": "single",
        "n_rows": 3_000,
        "n_outputs": 6,
        "lengths": np.arange(5, 45),
        "layer_parameters": 10_600_000,
        "max_positions": 512,
        "precision": ("fp32", "measured"),
        "pooling": ("mean", "measured"),
        "threads": 2,
    }
    return Facts(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [
        (10_600_000, 2e-4),
        (85_000_000, 4e-5),
        (302_000_000, 1.5e-5),
        (2_000_000_000, 1e-5),
        (100_000, 5e-4),
        (0, 5e-4),
    ],
)
def test_encoder_rate(parameters: int, rate: float) -> None:
    assert encoder_rate(parameters) == pytest.approx(rate, rel=0.03)


@given(st.integers(1, 10**10), st.integers(1, 10**10))
def test_larger_encoders_never_learn_faster(one: int, other: int) -> None:
    small, large = sorted([one, other])
    assert encoder_rate(large) <= encoder_rate(small)
    assert 1e-5 <= encoder_rate(one) <= 5e-4


@pytest.mark.parametrize(("rows", "size"), [(10, 16), (4_999, 16), (5_000, 32), (50_000, 32), (50_001, 64)])
def test_batch_size(rows: int, size: int) -> None:
    assert batch_size(rows) == size


@pytest.mark.parametrize(
    ("rows", "step", "epochs"),
    [(10, 16, 20), (800, 16, 20), (8_000, 16, 3), (5_000, 32, 7), (50_000, 64, 3), (50_001, 64, 2), (10**6, 64, 2)],
)
def test_epoch_count(rows: int, step: int, epochs: int) -> None:
    assert epoch_count(rows, step) == epochs


@pytest.mark.parametrize(("rows", "ratio"), [(10, 0.5), (50_000, 0.5), (50_001, 1.0)])
def test_layer_ratio(rows: int, ratio: float) -> None:
    assert layer_ratio(rows) == ratio


@pytest.mark.parametrize(
    ("outputs", "steps", "factor"), [(2, 500, 10.0), (2, 499, 20.0), (50, 5_000, 20.0), (49, 5_000, 10.0)]
)
def test_head_factor(outputs: int, steps: int, factor: float) -> None:
    assert head_factor(outputs, steps) == factor


@pytest.mark.parametrize(
    ("lengths", "positions", "limit"),
    [
        ([8] * 10, 512, 8),
        ([9] * 10, 512, 16),
        ([3], 512, 8),
        ([400] * 10, None, 400),
        ([4_000] * 10, None, 512),
        ([4_000] * 10, 8_192, 512),
        ([100] * 10, 64, 64),
        ([100] * 10, 62, 62),
        ([10] * 9_990 + [500] * 10, 512, 16),
    ],
)
def test_token_limit(lengths: list[int], positions: int | None, limit: int) -> None:
    assert token_limit(np.array(lengths), positions) == limit


@pytest.mark.parametrize(("epochs", "count"), [(1, 2), (5, 2), (5.5, 1), (20, 1)])
def test_evaluations_per_epoch(epochs: float, count: int) -> None:
    assert evaluations_per_epoch(epochs) == count


# ---------------------------------------------------------------- resolve


LATER = ("data.", "decision.")
"""Sections whose `auto` is settled by others: when tables are read, and when a rule is fitted to what was trained."""


def autos(recipe: Recipe) -> set[str]:
    return {
        f"{section}.{key}" for section, values in recipe.to_dict().items() for key, v in values.items() if v == "auto"
    }


def test_every_auto_becomes_a_value_with_a_reason() -> None:
    before = Recipe()
    recipe, reasons = resolve(before, facts())
    left = {key for key in autos(recipe) if not key.startswith(LATER)}
    assert left == set()
    assert set(reasons) == {key for key in autos(before) if not key.startswith(LATER)}
    assert all(isinstance(reason, str) and reason for reason in reasons.values())
    expected = {
        "train": {
            "batch": 16,
            "epochs": 6,
            "evaluations_per_epoch": 1,
            "metric": "accuracy",
            "patience": None,
        },
        "optim": {"lr": 2e-4, "head_lr_factor": 10.0, "layer_ratio": 0.5},
        "length": {"max_tokens": 48},
        "model": {"pooling": "mean"},
        "loss": {"label_smoothing": 0.0},
        "checkpoint": {"every_steps": 100},
        "log": {"interval_steps": 22},
    }
    for section, values in expected.items():
        assert {key: recipe.to_dict()[section][key] for key in values} == values


def test_resolving_again_changes_nothing() -> None:
    recipe, _ = resolve(Recipe(), facts())
    again, reasons = resolve(recipe, facts(n_rows=10, layer_parameters=1, threads=9))
    assert again == recipe
    assert reasons == {}


STATED = {
    "model.pooling": "max",
    "train.precision": "bf16",
    "train.threads": 3,
    "length.max_tokens": 100,
    "train.batch": 7,
    "train.epochs": 2.5,
    "train.evaluations_per_epoch": 4,
    "train.patience": 2,
    "train.metric": "macro_f1",
    "optim.lr": 0.5,
    "optim.head_lr_factor": 3.0,
    "optim.layer_ratio": 0.9,
    "loss.label_smoothing": 0.3,
    "checkpoint.every_steps": 17,
    "log.interval_steps": 9,
}


@pytest.mark.parametrize(
    ("task", "n_outputs", "smoothing"),
    [("single", 49, 0.0), ("single", 50, 0.1), ("multi", 90, 0.0), ("regression", 1, 0.0)],
)
def test_label_smoothing_is_for_one_of_many_classes(task: Task, n_outputs: int, smoothing: float) -> None:
    assert label_smoothing(task, n_outputs) == smoothing


@pytest.mark.parametrize("key", STATED)
def test_what_is_stated_stays(key: str) -> None:
    recipe, reasons = resolve(Recipe().with_values({key: STATED[key]}), facts())
    section, field = key.split(".")
    assert recipe.to_dict()[section][field] == STATED[key]
    assert key not in reasons


def test_every_automatic_setting_can_be_stated() -> None:
    automatic = {key for key in autos(Recipe()) if not key.startswith(LATER)}
    assert set(STATED) == automatic == set(SETTLED_KEYS)
    assert not is_resolved(Recipe().with_values({key: STATED[key] for key in automatic - {"optim.lr"}}))
    assert is_resolved(Recipe().with_values({key: STATED[key] for key in automatic}))


@pytest.mark.parametrize(("steps", "interval"), [(30, 100), (2_500, 125), (90_000, 1_000)])
def test_checkpoint_interval(steps: int, interval: int) -> None:
    assert checkpoint_interval(steps) == interval


def test_rules_build_on_what_is_stated() -> None:
    recipe, _ = resolve(Recipe().with_values({"train.batch": 200, "train.accumulate": 2}), facts())
    assert recipe.train.epochs == 20  # 1,000 steps of 400 rows would be far more
    assert recipe.optim.head_lr_factor == 20.0  # 160 steps are few
    assert recipe.log.interval_steps == 3


@pytest.mark.parametrize(("task", "metric"), [("single", "accuracy"), ("multi", "micro_f1"), ("regression", "pearson")])
def test_the_metric_goes_with_the_task(task: str, metric: str) -> None:
    assert resolve(Recipe(), facts(task=task))[0].train.metric == metric


@pytest.mark.parametrize(
    ("task", "largest", "metric"),
    [
        ("single", ("spam", 0.6), "accuracy"),
        ("single", ("spam", 0.6001), "macro_f1"),
        ("single", ("spam", 0.999), "macro_f1"),
        ("multi", ("spam", 0.9), "micro_f1"),
        ("regression", ("spam", 1.0), "pearson"),
    ],
)
def test_the_metric_sees_small_classes_beside_a_large_one(task: Task, largest: tuple[str, float], metric: str) -> None:
    recipe, reasons = resolve(Recipe(), facts(task=task, largest=largest))
    assert recipe.train.metric == metric
    assert ("macro-F1" in reasons["train.metric"]) == (metric == "macro_f1")


def test_the_reason_names_the_class_and_its_share() -> None:
    reason = resolve(Recipe(), facts(largest=("ham\x1b[31m", 0.867)))[1]["train.metric"]
    assert r"'ham\x1b[31m' has 86.7% of the training rows, more than 60%" in reason
    assert "\x1b" not in reason


def test_a_metric_of_another_task_is_refused() -> None:
    with pytest.raises(BadInput, match=r"train\.metric is 'accuracy'"):
        resolve(Recipe().with_values({"train.metric": "accuracy"}), facts(task="regression"))
