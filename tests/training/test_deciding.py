"""The end of a training: the rule that ships is fitted to the validation rows, and every split is measured by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.metrics import tally
from snapfit.core.recipe import Recipe
from snapfit.core.rule_fitting import HeldRows, fit_rule
from snapfit.core.scope import fit_centroids
from snapfit.nn.backend import TorchBackend
from snapfit.runtime.predictor import outputs_by_batch
from snapfit.training import deciding
from snapfit.training.fit import Fitted, fit
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables

Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def run(encoder: Path, kind: str = "single", *, n_valid: int = 120, **settings: Any) -> tuple[Fitted, Plan, Events]:
    """A short training with tables of its own for validation (none for 0 rows) and test."""
    quick = {"model__encoder": str(encoder), "model__pooling": "mean", **toys.QUICK, "train__epochs": 2}
    nothing_held_out = {} if n_valid else {"data__valid_fraction": 0.0}
    values = quick | nothing_held_out | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    rows = toys.ROWS[kind]
    valid = rows(n_valid, seed=2) if n_valid else None
    tables = read_tables(rows(60, seed=1), valid, rows(80, seed=3), recipe.data)
    events: Events = []
    plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
    return fit(plan, notify=lambda kind, **fields: events.append({"kind": kind, **fields})), plan, events


def outputs(fitted: Fitted, plan: Plan, split: str) -> HeldRows:
    """Logits, vectors and targets of a split by the model that ships."""
    backend, examples = TorchBackend(fitted.model, device="cpu"), plan.examples[split]
    n = len(examples.tokens)
    logits, vectors = np.empty((n, plan.label_set.n_outputs), np.float32), np.empty((n, 32), np.float32)
    for rows, part, their in outputs_by_batch(backend, examples.tokens, pad_id=0, vectors=True):
        logits[rows], vectors[rows] = part, their
    return HeldRows(logits, examples.targets[np.arange(n)], vectors)


def flat(rule: dict[str, Any]) -> dict[str, float]:
    """Its numbers by name; what was packed differs from what was padded in the last bits."""
    values = {name: value for name, value in rule.items() if name != "scope"} | rule.get("scope", {})
    lists = {name: value if isinstance(value, list) else [value] for name, value in values.items() if name != "method"}
    return {f"{name} {i}": number for name, numbers in lists.items() for i, number in enumerate(numbers)}


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("single", {}),
    ("single", {"decision__calibrate": "temperature", "decision__abstain_coverage": 0.8}),
    ("single", {"decision__out_of_scope": "energy", "decision__in_scope_share": 0.8}),
    ("single", {"decision__out_of_scope": "centroids", "decision__in_scope_share": 0.8}),
    ("multi", {"decision__thresholds": "tuned", "decision__threshold_metric": "macro_f1"}),
    ("multi", {"decision__calibrate": "platt", "decision__min_labels": 1, "decision__max_labels": 2}),
    ("multi", {"decision__thresholds": 0.3, "decision__calibrate": "none"}),
]


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_what_ships_is_what_was_measured(encoder: Path, kind: str, settings: dict[str, Any]) -> None:
    fitted, plan, events = run(encoder, kind, **settings)
    valid, test = outputs(fitted, plan, "valid"), outputs(fitted, plan, "test")
    centroids = None
    if "centroids" in settings.values():
        train = outputs(fitted, plan, "train")
        assert train.vectors is not None
        centroids = fit_centroids(train.vectors, train.targets, 3)
    names, section = plan.label_set.names, plan.recipe.decision
    metric = plan.recipe.train.metric
    expected = fit_rule(valid, section, plan.label_set.task, names, metric=metric, centroids=centroids)
    assert flat(fitted.rule.to_dict()) == pytest.approx(flat(expected.rule.to_dict()), rel=1e-4)
    for split, rows in (("valid", valid), ("test", test)):
        counted = tally(plan.label_set.task, 3, rule=fitted.rule)
        counted.add_answers(fitted.rule.answers(rows.logits, vectors=rows.vectors), rows.targets)
        assert fitted.metrics[split] == pytest.approx(counted.metrics(), abs=1e-6)
    plain = tally(plan.label_set.task, 3)
    plain.add_answers(plain.rule.answers(test.logits), test.targets)
    if fitted.rule != DecisionRule(plan.label_set.task):
        assert fitted.report["test_plain"] == pytest.approx(plain.metrics(), abs=1e-6)
    (told,) = [event for event in events if event["kind"] == "decision"]
    assert (told["rule"], told["report"]) == (fitted.rule.to_dict(), fitted.report)
    assert told["lines"]
    finals = {event["split"]: event["metrics"] for event in events if event["kind"] == "final"}
    assert finals == fitted.metrics


def test_a_regression_has_nothing_to_decide(encoder: Path) -> None:
    fitted, _, events = run(encoder, "regression")
    assert (fitted.rule, fitted.report) == (DecisionRule("regression"), {})
    assert not [event for event in events if event["kind"] == "decision"]
    assert set(fitted.metrics) == {"valid", "test"}


def test_without_validation_rows_only_what_is_stated_counts(encoder: Path) -> None:
    fitted, _, _ = run(encoder, "multi", n_valid=0, decision__thresholds=0.25)
    assert fitted.rule == DecisionRule("multi", thresholds=(0.25,) * 3)
    assert set(fitted.metrics) == {"test"}
    assert fitted.report["rows"] == 0
    for settings in ({"decision__thresholds": "tuned"}, {"decision__calibrate": "platt"}):
        with pytest.raises(BadInput, match="with 0 held-out rows"):
            run(encoder, "multi", n_valid=0, **settings)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("single", {"decision__min_labels": 1}),
        ("multi", {"decision__out_of_scope": "energy"}),
        ("multi", {"decision__thresholds": {"cars": 0.2}}),
        ("single", {"decision__out_of_scope": "energy", "n_valid": 20}),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_work(
    encoder: Path, kind: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=r"decision\."):
        run(encoder, kind, **settings)


def test_of_many_validation_rows_a_sample_is_fitted_to(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MOST_ROWS", 60)
    fitted, plan, _ = run(encoder, "single", decision__calibrate="temperature")
    assert fitted.report["rows"] == 60
    valid = outputs(fitted, plan, "valid")
    counted = tally("single", 3, rule=fitted.rule)
    counted.add_answers(fitted.rule.answers(valid.logits), valid.targets)
    assert fitted.metrics["valid"] == pytest.approx(counted.metrics(), abs=1e-6)  # of all 120
    assert fitted.report["fitted"] != fitted.metrics["valid"]


def test_the_decision_changes_no_weight(encoder: Path) -> None:
    one, _, _ = run(encoder, "multi")
    other, _, _ = run(encoder, "multi", decision__thresholds="tuned", decision__calibrate="platt")
    assert one.best_step == other.best_step
    for name, tensor in one.model.state_dict().items():
        assert (tensor == other.model.state_dict()[name]).all()
