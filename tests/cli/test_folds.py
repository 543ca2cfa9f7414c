"""`snapfit train --folds`: what is shown of it, as lines and as JSON, and what inspect says of it afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest

Run = Any


@pytest.fixture
def command(workplace: Path) -> list[Any]:
    """A cross-validation that takes a few seconds."""
    settings = ["--set", "optim.lr=0.003", "--set", "train.batch=32", "--epochs", "1"]
    encoder = ["--encoder", workplace / "encoder", "--test", workplace / "test.csv"]
    return ["train", workplace / "train.csv", "--folds", "2", "--out", "first", *encoder, *settings]


def test_a_cross_validation_from_the_command_line(run: Run, command: list[Any]) -> None:
    outcome = run(*command)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    starts = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    for word in ("folds", "fold", "held out", "suspects", "metrics", "bundle", "next"):
        assert word in starts, word
    assert sum(line.startswith("groups") for line in lines) == 1
    assert "fold       2 of 2 begins; it holds out 45 rows" in lines
    assert any("labels look wrong" in line and "first/label_errors.csv" in line for line in lines)
    assert any(line.split()[:1] == ["out_of_fold"] for line in lines)

    shown = run("inspect", "first")
    assert shown.code == 0
    assert "labels look wrong" in shown.out
    values = json.loads(run("inspect", "first", "--json").out)
    assert values["folds"]["finished"] == values["folds"]["count"] == 2
    assert values["folds"]["report"] == json.loads((Path("first") / "folds.json").read_text())
    assert len(values["folds"]["suspects"]) <= 5
    assert json.loads(run("inspect", "first/folds/1", "--json").out)["folds"] is None

    again = run("train", "--resume", "first", "--json")
    (line,) = again.out.splitlines()
    result = json.loads(line)
    assert result["already_complete"]
    assert result["folds"]["count"] == 2
    assert set(result["metrics"]) == {"out_of_fold", "test"}


def test_the_mean_of_the_folds_models_and_nothing(run: Run, command: list[Any]) -> None:
    outcome = run(*command, "--fold-bundle", "none", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["bundle"] is None
    assert "none, as asked for" in outcome.err
    assert "snapfit predict" not in outcome.err
    assert "bundle     none yet" in run("inspect", "first").out
    made = run("train", "--resume", "first", "--fold-bundle", "ensemble", "--json")
    assert made.code == 0, made.err
    assert "what ships is the mean of the folds' models" in made.err
    bundle = json.loads(made.out)["bundle"]
    assert run("predict", bundle, "--text", "the honey").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--folds", "1"], "train.folds is '1'"),
        (["--folds", "many"], "train.folds is 'many'"),
        (["--folds", "46"], "train.folds is '46'"),
        (["--fold-bundle", "ensemble"], "train.fold_bundle is 'ensemble', train.folds is none"),
        (["--folds", "9", "--fold-bundle", "ensemble"], "train.fold_bundle is 'ensemble', train.folds is 9"),
        (["--folds", "2", "--fold-bundle", "mean"], "train.fold_bundle is 'mean'"),
    ],
)
def test_what_cannot_be_is_said(run: Run, workplace: Path, arguments: list[str], words: str) -> None:
    outcome = run("train", workplace / "train.csv", "--encoder", workplace / "encoder", *arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert not Path("runs").exists()
