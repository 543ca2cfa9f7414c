"""Out-of-fold logits give a training on all rows its temperature, in its bundle and in what it measures."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

import toys
from snapfit.core.metrics import compute_metrics
from snapfit.core.recipe import Recipe
from snapfit.core.scores import logits_to_scores
from snapfit.nn.backend import TorchBackend
from snapfit.runtime.predictor import batched_logits
from snapfit.training.fit import fit
from snapfit.training.held_out import HeldOut
from snapfit.training.plan import make_plan
from snapfit.training.prepare import read_tables
from stage import SETTINGS

RNG = np.random.default_rng(0)
LOGITS, TARGETS = 4 * RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)


def held_out() -> HeldOut:
    return HeldOut(LOGITS, TARGETS, {"accuracy": 0.4}, "a training on all rows", "fitted elsewhere")


def test_the_temperature_is_the_likeliest() -> None:
    found = minimize_scalar(
        lambda cold: -log_softmax(LOGITS * cold, axis=1)[np.arange(200), TARGETS].mean(), bounds=(0.05, 20.0)
    )
    assert held_out().temperature("single") == pytest.approx(1 / found.x, rel=1e-3)
    assert HeldOut(LOGITS[:, :1], LOGITS[:, :1], {}, "", "").temperature("regression") == 1.0


def test_what_is_measured_is_what_ships(tmp_path: Path) -> None:
    encoder = toys.encoder_folder(tmp_path / "encoder")
    values = {"model__encoder": str(encoder)} | SETTINGS | {"train__epochs": 1}
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    recipe = recipe.with_values({"data.valid_fraction": 0.0})
    tables = read_tables(toys.single_rows(40), None, toys.single_rows(24, seed=2), recipe.data)
    plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
    test = plan.examples["test"]
    fitted = fit(plan, notify=lambda kind, **fields: None, held_out=held_out())
    assert fitted.answer is not None
    assert fitted.answer.last_temperature == held_out().temperature("single") > 1.0
    assert fitted.answer.made_of == {"rule": "fitted elsewhere"}
    assert fitted.metrics["out_of_fold"] == {"accuracy": 0.4}
    logits = batched_logits(TorchBackend(fitted.model, device="cpu"), test.tokens.take(np.arange(24)), pad_id=0)
    scores = logits_to_scores(logits, "single", fitted.answer.last_temperature)
    expected = compute_metrics("single", scores, test.targets[np.arange(24)])
    assert fitted.metrics["test"] == pytest.approx(expected, rel=1e-5)
