"""A bundle's head kept for more training: rows of the output go by the labels' names, a regression by its units."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import snapfit
import toys
from snapfit.core.errors import BadInput
from snapfit.core.interrupts import Stop
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.predictor import batched_logits
from snapfit.training.assemble import build_model
from snapfit.training.driver import Training
from snapfit.training.kept_head import keep_head
from snapfit.training.plan import make_plan
from snapfit.training.prepare import open_encoder, read_tables

POOLINGS = ["native", "mean"]
BundleOf = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> BundleOf:
    """bundle_of(kind, pooling): the bundle of a training of six steps, made once; tests only read it."""
    made: dict[tuple[str, str], Path] = {}

    def bundle(kind: str = "single", pooling: str = "native") -> Path:
        if (kind, pooling) not in made:
            folder = tmp_path_factory.mktemp("trained")
            run = toys.new_run(folder, kind, n_rows=48, train__epochs=1, model__pooling=pooling)
            made[kind, pooling] = run.result.bundle
        return made[kind, pooling]

    return bundle


def model_on(folder: Path, label_set: LabelSet, pooling: str) -> Classifier:
    """A model whose encoder is the bundle's and whose head is fresh, as the driver builds it."""
    recipe = Recipe().with_values({"model.encoder": str(folder), "model.pooling": pooling, "train.seed": 7})
    source, _ = open_encoder(recipe)
    names = list(label_set.names)
    model, _ = build_model(recipe, source, task=label_set.task, label_names=names, pooling=pooling)
    return model.eval()


def logits(model: Classifier, folder: Path, texts: list[str]) -> np.ndarray:
    tokens = Bundle.open(folder).tokenizer().encode(texts)
    return np.asarray(batched_logits(TorchBackend(model, device="cpu"), tokens, pad_id=0))


def saved_logits(folder: Path, texts: list[str]) -> np.ndarray:
    return logits(Classifier.from_pretrained(folder).eval(), folder, texts)


TEXTS = [row["text"] for row in toys.single_rows(12, seed=3)]


# ---------------------------------------------------------------- labels by name


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_same_labels_give_the_same_logits(bundle_of: BundleOf, pooling: str) -> None:
    folder = bundle_of(pooling=pooling)
    label_set = Bundle.open(folder).label_set
    model = model_on(folder, label_set, pooling)
    assert not np.allclose(logits(model, folder, TEXTS), saved_logits(folder, TEXTS), atol=0.1)
    text = keep_head(model, folder, label_set)
    np.testing.assert_array_equal(logits(model, folder, TEXTS), saved_logits(folder, TEXTS))
    assert text == f"of the head of {folder} 3 labels are kept, 0 are new, 0 are left out"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_new_labels_stay_fresh_and_old_ones_are_left_out(bundle_of: BundleOf, pooling: str) -> None:
    folder = bundle_of(pooling=pooling)
    old = list(Bundle.open(folder).label_set.names)
    assert old == ["animals", "food", "tools"]
    label_set = LabelSet("single", ("aardvarks", "tools", "zebras", "animals"))
    model = model_on(folder, label_set, pooling)
    fresh = {name: tensor.clone() for name, tensor in model.output.state_dict().items()}
    text = keep_head(model, folder, label_set)
    found, before = logits(model, folder, TEXTS), saved_logits(folder, TEXTS)
    np.testing.assert_allclose(found[:, 1], before[:, 2], atol=1e-6)
    np.testing.assert_allclose(found[:, 3], before[:, 0], atol=1e-6)
    for name, tensor in model.output.state_dict().items():
        assert torch.equal(tensor[[0, 2]], fresh[name][[0, 2]])
        assert not torch.equal(tensor[[1, 3]], fresh[name][[1, 3]])
    assert text == f"of the head of {folder} 2 labels are kept, 2 are new, 1 are left out"


def test_many_labels_a_row(bundle_of: BundleOf) -> None:
    folder = bundle_of("multi", "mean")
    label_set = LabelSet("multi", ("tools", "food"))
    model = model_on(folder, label_set, "mean")
    keep_head(model, folder, label_set)
    np.testing.assert_allclose(logits(model, folder, TEXTS), saved_logits(folder, TEXTS)[:, [2, 1]], atol=1e-6)


def test_labels_that_share_nothing_leave_the_output_fresh(bundle_of: BundleOf) -> None:
    folder = bundle_of()
    label_set = LabelSet("single", ("x", "y"))
    model = model_on(folder, label_set, "native")
    fresh = {name: tensor.clone() for name, tensor in model.output.state_dict().items()}
    assert "0 labels are kept, 2 are new, 3 are left out" in keep_head(model, folder, label_set)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.output.state_dict().items())


# ---------------------------------------------------------------- regression


@pytest.mark.parametrize(("mean", "scale"), [(0.5, 0.3), (1e4, 250.0), (-3.0, 1e-3)])
def test_a_regression_answers_the_same_in_the_tables_units(bundle_of: BundleOf, mean: float, scale: float) -> None:
    """Whatever the new table's mean and scale are: its targets are standardised by them, its answers are not."""
    folder = bundle_of("regression", "mean")
    label_set = LabelSet("regression", ("another name",), mean, scale)
    model = model_on(folder, label_set, "mean")
    assert keep_head(model, folder, label_set) == f"the head of {folder} is kept"
    texts = [row["text"] for row in toys.regression_rows(12, seed=3)]
    in_units = logits(model, folder, texts) * scale + mean
    np.testing.assert_allclose(in_units, saved_logits(folder, texts), atol=max(1e-5, 1e-6 * abs(mean)))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("label_set", "pooling", "what"),
    [
        (LabelSet("multi", ("animals", "food", "tools")), "native", "the task of .* is 'single', here it is 'multi'"),
        (LabelSet("regression", ("score",)), "native", "the task of .* is 'single', here it is 'regression'"),
        (LabelSet("single", ("animals", "food", "tools")), "mean", "the pooling of .* is 'native', here it is 'mean'"),
    ],
)
def test_another_task_or_pooling_is_refused(bundle_of: BundleOf, label_set: LabelSet, pooling: str, what: str) -> None:
    folder = bundle_of()
    model = model_on(folder, label_set, pooling)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(BadInput, match=what) as caught:
        keep_head(model, folder, label_set)
    assert f"--encoder {folder}" in caught.value.fix
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_encoder_is_no_bundle(bundle_of: BundleOf) -> None:
    folder = bundle_of()
    label_set = Bundle.open(folder).label_set
    model = model_on(folder, label_set, "native")
    with pytest.raises(BadInput, match=r"has no snapfit\.json"):
        keep_head(model, folder.parents[1] / "encoder", label_set)


# ---------------------------------------------------------------- through the driver


def training_on(folder: Path, rows: list[dict[str, Any]], pooling: str) -> tuple[Training, list[dict[str, Any]]]:
    values = {"model__encoder": str(folder), "model__pooling": pooling, "model__head": "kept"} | toys.QUICK
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    heard: list[dict[str, Any]] = []

    def notify(kind: str, **fields: Any) -> None:
        heard.append({"kind": kind, **fields})

    plan = make_plan(read_tables(rows, None, None, recipe.data), recipe, notify=notify)
    return Training(plan, notify=notify, stop=Stop()), heard


@pytest.mark.parametrize(("kind", "pooling"), [("single", "native"), ("regression", "mean")])
def test_a_training_begins_with_the_bundles_answers(bundle_of: BundleOf, kind: str, pooling: str) -> None:
    folder = bundle_of(kind, pooling)
    rows = toys.ROWS[kind](60, seed=5)
    training, heard = training_on(folder, rows, pooling)
    label_set = training.plan.label_set
    texts = [row["text"] for row in rows[:10]]
    found = logits(training.assembly.model.eval(), folder, texts)
    if kind == "regression":
        found = found * label_set.target_scale + label_set.target_mean
    np.testing.assert_allclose(found, saved_logits(folder, texts), atol=1e-5)
    (notice,) = [event["text"] for event in heard if event["kind"] == "notice"]
    assert "the head of" in notice
    (weights,) = [event for event in heard if event["kind"] == "weights"]
    assert weights["fresh"] == []
    assert weights["loaded"] == len(training.assembly.model.state_dict())


def test_more_training_keeps_what_was_learnt(bundle_of: BundleOf, tmp_path: Path) -> None:
    """A rate near zero leaves the bundle's answers as they were, all the way to the new bundle."""
    folder = bundle_of("regression", "mean")
    rows = toys.regression_rows(60, seed=8)
    settings = toys.QUICK | {"train__epochs": 1, "optim__lr": 1e-12, "optim__head_lr_factor": 1.0}
    result = snapfit.train(rows, out=tmp_path / "run", continue_from=folder, **settings)
    texts = [row["text"] for row in toys.regression_rows(10, seed=9)]
    before, after = (np.array(snapfit.load(one).predict(texts), float) for one in (folder, result.bundle))
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert math.isfinite(result.metrics["valid"]["rmse"])
