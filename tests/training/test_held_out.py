"""To out-of-fold logits a training on all rows fits its rule, for its bundle and for what it measures."""

from pathlib import Path

import numpy as np
import pytest

import toys
from snapfit.core.calibration import doubt_of, fit_temperature
from snapfit.core.errors import BadInput
from snapfit.core.metrics import label_tally
from snapfit.core.recipe import Recipe
from snapfit.nn.backend import TorchBackend
from snapfit.runtime.predictor import batched_logits
from snapfit.training.fit import fit
from snapfit.training.held_out import HeldOut
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables
from stage import SETTINGS

RNG = np.random.default_rng(0)
LOGITS, TARGETS = 4 * RNG.normal(size=(200, 3)), RNG.integers(0, 3, 200)


def held_out() -> HeldOut:
    return HeldOut(LOGITS, TARGETS, {"accuracy": 0.4}, "a training on all rows", "fitted elsewhere")


def planned(folder: Path, *, valid: bool = False, **settings: object) -> Plan:
    """A plan on rows with a test split, of which none are held out unless `valid`."""
    encoder = toys.encoder_folder(folder / "encoder")
    values = {"model__encoder": str(encoder)} | SETTINGS | {"train__epochs": 1} | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    recipe = recipe.with_values({"data.valid_fraction": 0.0})
    held = toys.single_rows(60, seed=3) if valid else None
    tables = read_tables(toys.single_rows(40), held, toys.single_rows(24, seed=2), recipe.data)
    n_held_out = None if recipe.decision.out_of_scope == "centroids" else len(LOGITS)
    return make_plan(tables, recipe, notify=lambda kind, **fields: None, n_held_out=n_held_out)


@pytest.mark.parametrize("scope", [None, "energy"])
def test_what_is_measured_is_what_ships(tmp_path: Path, scope: str | None) -> None:
    plan = planned(tmp_path, decision__abstain_coverage=0.7, decision__out_of_scope=scope)
    test = plan.examples["test"]
    fitted = fit(plan, notify=lambda kind, **fields: None, held_out=held_out())
    expected = fit_temperature(LOGITS, TARGETS, "single", doubt=doubt_of(TARGETS))
    assert fitted.rule.temperature == pytest.approx(expected, rel=1e-6)
    assert expected > 1.0
    assert fitted.rule.answers(LOGITS).answered.mean() == pytest.approx(0.7, abs=0.01)
    assert fitted.report["rows"] == len(LOGITS)
    assert fitted.report["fitted"]["coverage"] == pytest.approx(0.7, abs=0.01)
    assert fitted.answer is not None
    assert fitted.answer.made_of == {"rule": "fitted elsewhere"}
    assert fitted.metrics["out_of_fold"] == {"accuracy": 0.4}
    logits = batched_logits(TorchBackend(fitted.model, device="cpu"), test.tokens.take(np.arange(24)), pad_id=0)
    counted = label_tally("single", 3, rule=fitted.rule)
    counted.add_answers(fitted.rule.answers(logits), test.targets[np.arange(24)])
    assert fitted.metrics["test"] == pytest.approx(counted.metrics(), rel=1e-5)


def test_the_rows_of_other_models_do_not_measure_its_own(tmp_path: Path) -> None:
    fitted = fit(planned(tmp_path, valid=True), notify=lambda kind, **fields: None, held_out=held_out())
    assert fitted.report["rows"] == len(LOGITS)
    assert fitted.metrics["valid"]["accuracy"] != fitted.report["fitted"]["accuracy"]
    assert set(fitted.metrics) == {"out_of_fold", "valid", "test"}


def test_centroids_are_of_its_own_rows(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="with 0 held-out rows"):
        planned(tmp_path / "none", decision__out_of_scope="centroids")
    plan = planned(tmp_path / "some", valid=True, decision__out_of_scope="centroids")
    fitted = fit(plan, notify=lambda kind, **fields: None, held_out=held_out())
    assert fitted.report["rows"] == 60
    assert fitted.rule.needs_vectors
