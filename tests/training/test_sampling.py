"""What rows are drawn by: classes of rows with several labels, weights by how rare a class is, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables
from snapfit.training.sampling import WEIGHT_SCALE, drawn_by, row_weights

SETTINGS = toys.QUICK | {"model__pooling": "mean"}
MULTI = LabelSet("multi", ("common", "rare", "some"))
TARGETS = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]], dtype=np.float32)
"""4 common, 2 rare, 4 some; a row with none."""


class OnDemand:
    """Targets that are found as they are asked for, as those of a large table."""

    def __init__(self, targets: np.ndarray) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.targets[rows]

    def counts(self) -> np.ndarray:
        return np.bincount(self.targets) if self.targets.ndim == 1 else self.targets.sum(axis=0).astype(np.int64)


def recipe_of(sampling: str, **settings: Any) -> Recipe:
    return Recipe().with_values({"train.sampling": sampling, **settings})


def plan_of(encoder: Path, rows: list[dict[str, Any]], **settings: Any) -> Plan:
    values = {"model__encoder": str(encoder)} | SETTINGS | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    return make_plan(read_tables(rows, None, None, recipe.data), recipe, notify=lambda kind, **fields: None)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


# ---------------------------------------------------------------- classes and weights


def test_every_row_once_needs_neither() -> None:
    assert drawn_by(recipe_of("all"), np.array([0, 1]), LabelSet("single", ("a", "b"))) == (None, None)


def test_classes_of_single_labels_are_the_targets() -> None:
    targets = np.array([2, 0, 0, 1])
    classes, weights = drawn_by(recipe_of("balanced"), targets, LabelSet("single", ("a", "b", "c")))
    assert classes is targets
    assert weights is None


def test_of_several_labels_the_rarest_counts() -> None:
    classes, weights = drawn_by(recipe_of("balanced"), TARGETS, MULTI)
    assert classes.tolist() == [0, 0, 1, 1, 3, 0, 2]  # of equally rare ones the first counts; 3 has none
    assert weights is None


def test_weights_are_a_power_of_how_rare_a_class_is() -> None:
    targets = np.array([0] * 64 + [1] * 16 + [2] * 4)
    _, weights = drawn_by(recipe_of("weighted"), targets, LabelSet("single", ("a", "b", "c")))
    assert weights.dtype == np.int64
    assert (weights / WEIGHT_SCALE).tolist() == [0.25] * 64 + [0.5] * 16 + [1.0] * 4
    _, weights = drawn_by(recipe_of("weighted", sampling_power=1.0), targets, LabelSet("single", ("a", "b", "c")))
    assert (weights / WEIGHT_SCALE).tolist() == [0.0625] * 64 + [0.25] * 16 + [1.0] * 4


def test_a_row_weighs_what_its_rarest_label_does() -> None:
    _, weights = drawn_by(recipe_of("weighted", sampling_power=1.0), TARGETS, MULTI)
    assert (weights / WEIGHT_SCALE).tolist() == [0.25, 0.25, 0.5, 0.5, 1.0, 0.25, 0.25]  # one row without a label


def test_weights_are_whole_numbers_and_none_is_lost() -> None:
    assert row_weights(np.array([0, 3, 10**15]), 1.0).tolist() == [3 * WEIGHT_SCALE, WEIGHT_SCALE, 1]


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
@pytest.mark.parametrize("task", ["single", "multi"])
def test_of_a_large_table_the_same_numbers_are_found_on_demand(sampling: str, task: str) -> None:
    targets = TARGETS if task == "multi" else np.array([2, 0, 0, 1, 2, 2, 0])
    label_set = MULTI if task == "multi" else LabelSet("single", ("a", "b", "c"))
    held = drawn_by(recipe_of(sampling), targets, label_set)
    found = drawn_by(recipe_of(sampling), OnDemand(targets), label_set)
    rows = np.array([6, 0, 3, 3])
    for one, other in zip(held, found, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert isinstance(one, np.ndarray)
            assert not isinstance(other, np.ndarray)
            assert len(other) == len(one) == 7
            assert np.array_equal(other[rows], one[rows])


# ---------------------------------------------------------------- through a plan


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_balanced_sampling_draws_the_classes_alike(encoder: Path, kind: str) -> None:
    rows = toys.ROWS[kind](90) + [row for row in toys.ROWS[kind](200, seed=7) if row.get("label") == "food"]
    plan = plan_of(encoder, rows, train__sampling="balanced")
    classes = plan.order.classes
    assert classes is not None
    assert len(classes) == len(plan.examples["train"].tokens)
    drawn = np.concatenate([classes[step] for epoch in range(4) for step in plan.order.steps(epoch)])
    shares = np.bincount(drawn)[np.unique(classes)] / len(drawn)
    np.testing.assert_allclose(shares, 1 / len(shares), atol=0.08)
    if kind == "single":  # as they stand in the table they are far from it
        own = np.bincount(classes) / len(classes)
        assert own.max() - own.min() > 0.2


def test_weighted_sampling_brings_classes_up_as_the_roots_of_their_rows(encoder: Path) -> None:
    rows = [row for row in toys.single_rows(270) if row["label"] == "food"][:81]
    rows += [row for row in toys.single_rows(90, seed=1) if row["label"] == "tools"][:9]
    plan = plan_of(encoder, rows, train__sampling="weighted", data__valid_fraction=0.0)
    targets = plan.examples["train"].targets
    drawn = np.concatenate([targets[step] for epoch in range(4) for step in plan.order.steps(epoch)])
    assert len(drawn) == 4 * 90
    assert np.bincount(drawn) / len(drawn) == pytest.approx([0.75, 0.25], abs=0.02)  # 9 to 3


@pytest.mark.parametrize("sampling", ["balanced", "weighted"])
def test_a_regression_has_no_classes_to_draw_by(encoder: Path, sampling: str) -> None:
    with pytest.raises(BadInput, match=rf"train\.sampling is '{sampling}' for a regression"):
        plan_of(encoder, toys.regression_rows(40), train__sampling=sampling)
