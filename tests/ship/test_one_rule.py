"""One rule on every path: what `snapfit evaluate` counts and writes is what `snapfit predict` answers, row by row,
whatever the rule and however long texts are read; and so it is for the bundle that another one is held against.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import snapfit
import toys
import trained
from snapfit.cli.app import main
from snapfit.core.calibration import calibration_error
from snapfit.ship.measuring import evaluate

N = 300
OUTSIDE = "oos"
SETTINGS = toys.QUICK | {"model__pooling": "mean", "train__epochs": 8, "length__max_tokens": 8}
WINDOWS = {"length__policy": "windows", "length__overlap": 0.25}
POLICIES: dict[str, dict[str, Any]] = {
    "head": {"length__policy": "head"},
    "mean": WINDOWS,
    "max": WINDOWS | {"length__window_pooling": "max"},
    "attention": WINDOWS | {"length__window_pooling": "attention"},
    "max_states": WINDOWS | {"length__window_pooling": "max_states"},
}
STATED = {"animals": 0.35, "food": 0.5, "tools": 0.8}
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "abstains by coverage": ("single", {"abstain_coverage": 0.7}),
    "abstains by precision": ("single", {"abstain_precision": 0.8}),
    "highest score": ("single", {"out_of_scope": "max_probability", "in_scope_share": 0.8}),
    "energy, abstains": ("single", {"out_of_scope": "energy", "in_scope_share": 0.8, "abstain_coverage": 0.7}),
    "centroids": ("single", {"out_of_scope": "centroids", "in_scope_share": 0.8}),
    "stated thresholds": ("multi", {"thresholds": STATED, "min_labels": 1, "max_labels": 2}),
    "tuned, lines": ("multi", {"thresholds": "tuned", "calibrate": "platt", "min_labels": 1}),
}
CASES = [
    *((rule, policy) for rule in ("energy, abstains", "centroids") for policy in POLICIES),
    *((rule, policy) for rule in ("stated thresholds", "tuned, lines") for policy in ("head", "mean", "attention")),
    *((rule, "mean") for rule in ("abstains by coverage", "abstains by precision", "highest score")),
]
Made = Callable[[str, str], Path]


def rows_of(kind: str, n: int, *, seed: int) -> list[dict[str, Any]]:
    """Texts of one to several windows."""
    rows = toys.ROWS[kind](n, seed=seed)
    return [{**row, "text": " ".join([row["text"]] * (1 + i % 3))} for i, row in enumerate(rows)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """made(kind, policy): a folder with a run, and tables; read it, never write to it."""
    folder = tmp_path_factory.mktemp("made")
    encoder = toys.encoder_folder(folder / "encoder")

    def make(kind: str, policy: str) -> Path:
        place = folder / kind / policy
        if not place.exists():
            place.mkdir(parents=True)
            train = trained.write_jsonl(place / "train.jsonl", rows_of(kind, 120, seed=0))
            trained.write_jsonl(place / "more.jsonl", rows_of(kind, 150, seed=5))
            rows = rows_of(kind, N, seed=7)
            if kind == "single":
                rows += [{"text": "honey now " * (1 + i % 9), "label": OUTSIDE} for i in range(40)]
            trained.write_jsonl(place / "test.jsonl", rows)
            snapfit.train(train, out=place / "run", encoder=str(encoder), **SETTINGS, **POLICIES[policy])
        return place

    return make


def commanded(bundle: Path, table: Path, folder: Path, kind: str, *more: str) -> tuple[list[Any], list[Any], list[str]]:
    """Rows as both commands write them, and the names of what was predicted."""
    folder.mkdir()
    assert main(["predict", str(bundle), str(table), "--out", str(folder / "p.parquet"), "--all-scores"]) == 0
    outside = ["--out-of-scope-label", OUTSIDE] if kind == "single" else []
    arguments = ["--out", str(folder / "e"), "--rows", "parquet", "--all-scores", *outside, *more]
    assert main(["evaluate", str(bundle), str(table), *arguments]) == 0
    predicted, evaluated = pq.read_table(folder / "p.parquet"), pq.read_table(folder / "e" / "rows.parquet")
    names = [name for name in predicted.column_names if name.startswith(("predicted", "score", "refused"))]
    return predicted.to_pylist(), evaluated.to_pylist(), names


@pytest.mark.parametrize(("rule", "policy"), CASES)
def test_evaluate_answers_as_predict_does(made: Made, tmp_path: Path, rule: str, policy: str) -> None:
    kind, settings = RULES[rule]
    place = made(kind, policy)
    plain, test = place / "run" / "bundle", place / "test.jsonl"
    train = place / "train.jsonl" if settings.get("out_of_scope") == "centroids" else None
    bundle = snapfit.decide(plain, place / "more.jsonl", out=tmp_path / "new", train=train, **settings).bundle
    predicted, evaluated, names = commanded(bundle, test, tmp_path / "written", kind, "--against", str(plain))
    assert ("refused" in names) is (kind == "single")
    assert [{name: row[name] for name in names} for row in evaluated] == [
        {name: row[name] for name in names} for row in predicted
    ]
    texts = [row["text"] for row in predicted]
    answers = snapfit.load(bundle).predict(texts)
    assert [row["predicted"] for row in evaluated] == answers
    assert [row["other_predicted"] for row in evaluated] == snapfit.load(plain).predict(texts)
    assert answers != snapfit.load(plain).predict(texts)  # else the rule would be none
    outside = {"out_of_scope_label": OUTSIDE} if kind == "single" else {}
    found = evaluate(bundle, test, against=plain, **outside)
    right = [row["right"] for row in evaluated]
    told = found["comparison"]["answers"]
    assert told["this_only"] + told["both"] == sum(right)
    assert told["other_only"] + told["both"] == sum(row["other_right"] for row in evaluated)
    if kind == "single":
        counted_by_hand(found, evaluated)
    else:
        assert found["metrics"]["subset_accuracy"] == np.mean(right)
        assert all(1 <= len(answer) <= settings.get("max_labels", 3) for answer in answers)


def counted_by_hand(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Figures of a table with rows out of scope, from the rows that were written of it."""
    inside = [row for row in rows if row["expected"] != OUTSIDE]
    kept = [row for row in inside if row["predicted"] is not None]
    silent = [row for row in rows if row["predicted"] is None]
    refused = sum(row["expected"] == OUTSIDE for row in silent)
    right = sum(row["predicted"] == row["expected"] for row in kept)
    assert len(rows) == N + 40
    assert 0 < len(kept) < N
    expected = {
        "accuracy": right / N,
        "coverage": len(kept) / N,
        "answered_accuracy": right / len(kept),
        "refusal_recall": refused / 40,
        "refusal_precision": refused / len(silent),
        "overall_accuracy": (right + refused) / len(rows),
    }
    assert {name: found["metrics"][name] for name in expected} == pytest.approx(expected)
    assert sum(row["right"] for row in rows) == right + refused
    assert found["unanswered"] == {
        why: n for why in ("low score", "out of scope") if (n := sum(row["refused"] == why for row in rows))
    }
    other = found["comparison"]["metrics"]
    assert other["coverage"] == 1.0
    assert other["answered_accuracy"] == other["accuracy"]
    assert found["comparison"]["difference"]["coverage"]["interval"][1] < 0
    names = ("animals", "food", "tools")
    scores = np.array([[row[f"score_{name}"] for name in names] for row in inside])
    targets = np.array([names.index(row["expected"]) for row in inside])
    assert found["metrics"]["ece"] == pytest.approx(calibration_error(scores, targets, "single"))


@pytest.mark.parametrize("kind", ["regression", "pair"])
def test_tasks_without_such_rules_are_as_they_were(kind: str, tmp_path: Path) -> None:
    bundle, rows = toys.trained(kind).result.bundle, toys.ROWS[kind](60, seed=7)
    table = trained.write_jsonl(tmp_path / "t.jsonl", rows)
    found = evaluate(bundle, table, against=bundle, out=tmp_path / "e", rows="parquet")
    written = pq.read_table(tmp_path / "e/rows.parquet").to_pylist()
    texts = [(row["sentence1"], row["sentence2"]) if kind == "pair" else row["text"] for row in rows]
    answers = snapfit.load(bundle).predict(texts)
    assert [row["predicted"] for row in written] == [row["other_predicted"] for row in written] == answers
    assert found["unanswered"] == {}
    assert "coverage" not in found["metrics"]
    assert "refused" not in written[0]
    assert found["comparison"]["answers"]["same"] == 60
