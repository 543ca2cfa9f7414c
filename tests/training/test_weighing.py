"""The end of a training that kept members: its verdict ships, for every task; a student can be stopped and go on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import toys
from snapfit.core.combining import as_logits, combine
from snapfit.core.interrupts import Stop
from snapfit.core.metrics import compute_metrics
from snapfit.core.recipe import Recipe
from snapfit.nn.backend import TorchBackend
from snapfit.runtime.predictor import batched_logits
from snapfit.training import weighing
from snapfit.training.fit import Fitted, fit
from snapfit.training.journal import Journal, read_journal
from snapfit.training.members import Members
from snapfit.training.plan import Plan, make_plan
from snapfit.training.prepare import read_tables
from snapfit.training.weighing import Beyond

ROWS = {
    "single": (toys.single_rows, {}),
    "multi": (toys.multi_rows, {}),
    "regression": (toys.regression_rows, {"offset": 40.0, "scale": 8.0}),
}
ROUNDS = {"ensemble__members": 5, "ensemble__rounds": 2, "train__epochs": 3, "train__evaluations_per_epoch": 2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


def plan_of(encoder: Path, task: str = "single", *, n_valid: int = 60, **settings: Any) -> Plan:
    rows, more = ROWS[task]
    values = {"model__encoder": str(encoder), "model__pooling": "mean"} | toys.QUICK | ROUNDS | settings
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    tables = read_tables(rows(96, seed=1, **more), rows(n_valid, seed=2, **more), rows(60, seed=3, **more), recipe.data)
    return make_plan(tables, recipe, notify=lambda kind, **fields: None)


def run(plan: Plan, *, stop: Stop | None = None, **beyond: Any) -> tuple[Fitted, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    fitted = fit(
        plan,
        notify=lambda kind, **fields: events.append({"kind": kind, **fields}),
        stop=stop,
        members=Members(plan.recipe.ensemble.members) if plan.recipe.ensemble.members else None,
        beyond=Beyond(**beyond),
    )
    return fitted, events


def logits_of(fitted: Fitted, plan: Plan, weights: Any, split: str) -> np.ndarray:
    """Logits of the model with these weights, in the table's units."""
    kept = {name: tensor.clone() for name, tensor in fitted.model.state_dict().items()}
    fitted.model.load_state_dict(dict(weights))
    logits = batched_logits(TorchBackend(fitted.model, device="cpu"), plan.examples[split].tokens, pad_id=0)
    fitted.model.load_state_dict(kept)
    return logits


@pytest.mark.parametrize("task", list(ROWS))
def test_what_ships_gives_the_metrics_that_are_told(encoder: Path, task: str) -> None:
    plan = plan_of(encoder, task)
    fitted, events = run(plan)
    verdict, answer = fitted.verdict, fitted.answer
    assert verdict is not None
    assert answer is not None
    label_set = plan.label_set
    for split in ("valid", "test"):
        models = [fitted.model.state_dict(), *answer.others]
        parts = [logits_of(fitted, plan, weights, split) for weights in models]
        logits = parts[0]
        if answer.is_mean:
            mean = combine(parts, answer.temperatures, task, 1.0, shares=answer.shares)  # type: ignore[arg-type]
            logits = as_logits(mean, task)  # type: ignore[arg-type]
        scores = fitted.rule.scores(logits)
        targets = plan.examples[split].targets[np.arange(60)]
        if task == "regression":
            targets = targets * label_set.target_scale + label_set.target_mean
        assert fitted.metrics[split] == pytest.approx(
            compute_metrics(task, scores, targets),
            rel=1e-4,
            abs=1e-4,  # type: ignore[arg-type]
        )
    told = [event for event in events if event["kind"] == "verdict"]
    assert len(told) == 1
    assert json.loads(json.dumps(told[0]))["rule"] == verdict.rule
    names = [row.name for row in verdict.rows]
    assert any(name.startswith("best evaluation") for name in names)
    assert sum(name.startswith("snapshot") for name in names) >= 1
    assert "mean of all" in names


def test_several_models_ship_together_where_they_are_chosen(encoder: Path) -> None:
    plan = plan_of(encoder, "regression", train__epochs=2, optim__lr=5e-3)
    fitted, _ = run(plan)
    assert fitted.verdict is not None
    assert fitted.answer is not None
    means = [row for row in fitted.verdict.rows if row.cost > 1]
    assert means
    assert len(fitted.answer.others) + 1 == len(fitted.answer.shares) == len(fitted.verdict.team.weights)


def test_without_members_all_is_as_it_was(encoder: Path) -> None:
    plan = plan_of(encoder, ensemble__members=0, ensemble__rounds=0)
    fitted, events = run(plan)
    assert (fitted.verdict, fitted.answer) == (None, None)
    assert not [event for event in events if event["kind"] in ("verdict", "student")]


def test_of_many_validation_rows_a_sample_is_chosen_by(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "MOST_ROWS", 20)
    fitted, _ = run(plan_of(encoder))
    assert fitted.verdict is not None
    assert fitted.verdict.rows[0].quality.metric * 20 == pytest.approx(
        round(fitted.verdict.rows[0].quality.metric * 20)
    )
    again, _ = run(plan_of(encoder))
    assert again.verdict is not None
    assert again.verdict.to_dict() == fitted.verdict.to_dict()


def test_too_few_validation_rows_leave_the_best_weights(encoder: Path) -> None:
    fitted, _ = run(plan_of(encoder, n_valid=3))
    assert fitted.complete
    assert fitted.verdict is None


def test_what_stands_beside_is_in_the_table(encoder: Path) -> None:
    plan = plan_of(encoder)
    alone, _ = run(plan_of(encoder, ensemble__members=0, ensemble__rounds=0))
    fitted, _ = run(plan, beside={"control": alone.model.state_dict()})
    assert fitted.verdict is not None
    assert fitted.verdict.rows[-1].name == "control"
    assert not fitted.verdict.rows[-1].contends


def test_a_run_that_is_stopped_while_it_is_weighed_ships_its_best_weights(encoder: Path) -> None:
    class AtTheEnd(Stop):
        asked = False

        def __call__(self) -> bool:
            return self.asked

    stop, plan = AtTheEnd(), plan_of(encoder)

    def notify(kind: str, **fields: Any) -> None:
        stop.asked = stop.asked or kind == "working"

    fitted = fit(plan, notify=notify, stop=stop, members=Members(5))
    assert not fitted.complete
    assert fitted.verdict is None


# ---------------------------------------------------------------- the student


@pytest.mark.parametrize("task", list(ROWS))
def test_a_student_is_a_candidate(encoder: Path, task: str) -> None:
    fitted, events = run(plan_of(encoder, task, ensemble__student_epochs=1))
    assert fitted.verdict is not None
    student = next(row for row in fitted.verdict.rows if row.name == "student")
    assert student.cost == 1.0
    assert student.made_of[0].startswith("from ")
    told = next(event for event in events if event["kind"] == "student")
    assert told["rows"] == 96
    error = {row.name: row.quality.error for row in fitted.verdict.rows}
    worst = max(value for name, value in error.items() if name != "student")
    assert error["student"] <= 2.0 * worst


def test_a_student_learns_from_texts_without_labels_too(encoder: Path) -> None:
    plan = plan_of(encoder, ensemble__student_epochs=1)
    tokens = plan.tokenizer.encode([row["text"] for row in toys.single_rows(30, seed=9)])
    fitted, events = run(plan, unlabelled=tokens, unlabelled_hash="nine")
    assert next(event for event in events if event["kind"] == "student")["rows"] == 126
    assert fitted.verdict is not None


def test_a_student_that_is_stopped_goes_on_to_the_same_weights(encoder: Path, tmp_path: Path) -> None:
    settings = {"ensemble__student_epochs": 2, "checkpoint__every_steps": 3}

    class WhileItLearns(Stop):
        asked = False

        def __call__(self) -> bool:
            return self.asked

    def student_of(root: Path, stop: Stop | None = None, stop_at: int = -1) -> tuple[Fitted, list[dict[str, Any]]]:
        with Journal(root / "journal.jsonl") as journal:

            def notify(kind: str, **fields: Any) -> None:
                journal.append(kind, **fields)
                if kind == "step" and fields["number"] == stop_at and isinstance(stop, WhileItLearns):
                    stop.asked = True

            return run(plan_of(encoder, **settings), stop=stop, root=root, notify=notify)

    whole, _ = student_of(tmp_path / "whole")
    first, _ = student_of(tmp_path / "parts", WhileItLearns(), 7)
    assert not first.complete
    again, _ = student_of(tmp_path / "parts")
    assert again.complete
    assert whole.verdict is not None
    assert again.verdict is not None
    assert [row.to_dict() for row in whole.verdict.rows] == [row.to_dict() for row in again.verdict.rows]
    for one, other in zip(whole.verdict.team.weights, again.verdict.team.weights, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [e["number"] for e in read_journal(tmp_path / "parts/journal.jsonl") if e["kind"] == "step"]
    assert steps == sorted(set(steps))
