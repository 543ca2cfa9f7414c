"""`snapfit decide`, and what the other commands say and do with the rule that it wrote."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import trained


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table(workplace: Path, tmp_path: Path) -> Path:
    """The labelled rows of the workplace, with texts that none of its labels is right for."""
    rows = rows_of(workplace / "train.csv")
    odd = [{"text": "here there now then " * (1 + i % 3), "label": "oos"} for i in range(12)]
    return trained.write_csv(tmp_path / "table.csv", [*rows, *odd])


def test_a_bundle_that_refuses(run: Any, workplace: Path, table: Path) -> None:
    scope = ("--set", "decision.out_of_scope=energy", "--set", "decision.in_scope_share=0.9")
    odd = ("--out-of-scope-label", "oos")
    made = run("decide", workplace / "single/bundle", table, "--out", "new", *scope, *odd, "--json")
    assert made.code == 0, made.err
    result = json.loads(made.out)
    assert (result["bundle"], result["report"]["out_of_scope_rows"]) == ("new", 12)
    assert "no answer (out of scope) where the energy is below" in made.err

    measured = run("evaluate", "new", table, *odd, "--json")
    metrics = json.loads(measured.out)["metrics"]
    assert metrics == pytest.approx(result["report"]["fitted"], abs=1e-6)
    assert "no answer (out of scope)" in measured.err
    shown = run("evaluate", "new", table, *odd)
    assert "refusal_recall" in shown.out
    assert run("evaluate", "new", table).code == 2  # a label that the bundle does not know

    answered = run("predict", "new", table, "--out", "answers.csv", "--json")
    rows = rows_of(Path("answers.csv"))
    refused = [row for row in rows if row["refused"]]
    assert {row["refused"] for row in refused} == {"out of scope"}
    assert all(not row["predicted"] and row["score"] for row in refused)
    assert all(row["predicted"] for row in rows if not row["refused"])
    summary = json.loads(answered.out)
    assert summary["refused"] == {"out of scope": len(refused)}
    assert sum(summary["given"].values()) == len(rows) - len(refused)
    outside = [row for row in rows if row["label"] == "oos"]
    assert metrics["refusal_recall"] == pytest.approx(sum(bool(row["refused"]) for row in outside) / 12)
    assert metrics["refusal_precision"] == pytest.approx(
        sum(row["label"] == "oos" for row in refused) / max(len(refused), 1)
    )
    alone = json.loads(run("predict", "new", "--text", refused[0]["text"], "--json").out)
    assert alone["answers"][0]["predicted"] is None
    assert alone["answers"][0]["refused"] == "out of scope"

    inspected = run("inspect", "new")
    assert "decides    the label with the highest score" in inspected.out
    assert "no answer (out of scope)" in inspected.out
    assert json.loads(run("inspect", "new", "--json").out)["decision"]["scope"]["method"] == "energy"


def test_mistakes_are_told_before_anything_is_written(run: Any, workplace: Path) -> None:
    bundle, table = workplace / "single/bundle", workplace / "test.csv"
    for arguments, words in (
        (("--set", "decision.thresholds=0.3"), "decision.thresholds is 0.3, with the task 'single'"),
        (("--set", "train.epochs=3"), "settings of decisions"),
        (("--set", "decision.abstain_precison=0.9"), "did you mean decision.abstain_precision"),
        (("--out-of-scope-label", "food"), "was not trained to give"),
        (("--set", "decision.out_of_scope=energy"), "30 held-out rows"),
    ):
        outcome = run("decide", bundle, table, "--out", "new", *arguments)
        assert outcome.code == 2
        assert words in outcome.err
        assert not Path("new").exists()
    assert run("decide", bundle, table).code == 2  # --out is missing


def test_training_says_what_was_decided(run: Any, workplace: Path) -> None:
    settings = ("--set", "data.valid_fraction=0.5", "--set", "decision.thresholds=tuned")
    settings = (*settings, "--set", "decision.threshold_metric=macro_f1", "--epochs", "1")
    table = workplace / "multi.jsonl"
    outcome = run("train", table, "--encoder", workplace / "encoder", "--out", "run", *settings)
    assert outcome.code == 0, outcome.err
    assert "decides    every label whose score reaches" in outcome.out
    assert "tuned for macro_f1" in outcome.out
    assert "to expect (cross-fitted)" in outcome.out
    result = json.loads(Path("run/result.json").read_text("utf-8"))["decision"]
    assert result["report"]["thresholds"] == "tuned"
    assert set(result["report"]["reliability"]) == {"plain", "fitted", "expected"}
    kinds = [json.loads(line)["kind"] for line in Path("run/journal.jsonl").read_text("utf-8").splitlines()]
    assert kinds.count("decision") == 1
