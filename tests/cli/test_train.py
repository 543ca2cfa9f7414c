"""`snapfit train`, from a table to a bundle, and where its settings come from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def base(workplace: Path) -> list[str]:
    """A training that takes a second."""
    return [
        "train",
        str(workplace / "train.csv"),
        "--encoder",
        str(workplace / "encoder"),
        "--set",
        "train.batch=32",
    ]


def test_the_run_is_told_in_plain_lines(run: Any, base: list[str], workplace: Path) -> None:
    outcome = run(*base, "--epochs", "2", "--out", "first", "--test", workplace / "test.csv")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "\r" not in outcome.out
    assert "\x1b" not in outcome.out
    words = [line.split()[0] for line in outcome.out.splitlines() if not line.startswith(" ")]
    for word in (
        "run",
        "data",
        "split",
        "recipe",
        "weights",
        "groups",
        "train",
        "step",
        "valid",
        "metrics",
        "bundle",
    ):
        assert word in words, word
    assert "* best" in outcome.out
    assert "model.pooling = " in outcome.out
    assert "train.batch = 32" in outcome.out
    assert "(given)" in outcome.out
    assert "snapfit predict first/bundle --text" in outcome.out
    assert (Path("first") / "bundle" / "MANIFEST.json").is_file()


def test_json_is_the_last_and_only_line_on_stdout(run: Any, base: list[str], workplace: Path) -> None:
    outcome = run(*base, "--epochs", "1", "--out", "first", "--test", workplace / "test.csv", "--json")
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    assert set(result["metrics"]) == {"valid", "test"}
    assert result["bundle"] == "first/bundle"
    assert result["stopped_by"] is None
    assert result["recipe"]["train"]["epochs"] == 1
    assert "recipe" in outcome.err


def test_quiet_leaves_only_the_result(run: Any, base: list[str]) -> None:
    outcome = run(*base, "--epochs", "1", "--out", "first", "--quiet")
    assert outcome.code == 0
    assert outcome.err == ""
    assert [line.split()[0] for line in outcome.out.splitlines() if not line.startswith(" ")] == [
        "metrics",
        "bundle",
    ]
    silent = run(*base, "--epochs", "1", "--out", "second", "--quiet", "--json")
    assert silent.err == ""
    assert json.loads(silent.out)["run"] == "second"


def test_debug_shows_every_setting_and_warning_none(run: Any, base: list[str]) -> None:
    debug = run(*base, "--epochs", "1", "--out", "first", "--set", "log.level=debug").out
    assert "optim.weight_decay = 0.01" in debug
    assert "(default)" in debug
    quiet = run(*base, "--epochs", "1", "--out", "second", "--set", "log.level=warning").out
    assert "optim" not in quiet
    assert quiet.startswith("metrics")


def test_flag_wins_over_environment_over_file_over_default(
    run: Any, base: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("recipe.yaml").write_text("train:\n  epochs: 3\n  seed: 3\noptim:\n  lr: 3e-3\n  momentum: 0.3\n")
    monkeypatch.setenv("SNAPFIT_TRAIN_SEED", "2")
    monkeypatch.setenv("SNAPFIT_OPTIM_LR", "2e-3")
    monkeypatch.setenv("SNAPFIT_TRAIN_EPOCHS", "2")
    outcome = run(
        *base,
        "--out",
        "first",
        "--recipe",
        "recipe.yaml",
        "--epochs",
        "1",
        "--set",
        "optim.lr=1e-3",
        "--quiet",
    )
    assert outcome.code == 0, outcome.err
    recipe = yaml.safe_load((Path("first") / "recipe.yaml").read_text())
    assert (recipe["train"]["epochs"], recipe["optim"]["lr"]) == (1, 1e-3)  # flag and --set
    assert recipe["train"]["seed"] == 2  # environment
    assert recipe["optim"]["momentum"] == 0.3  # file
    assert recipe["optim"]["weight_decay"] == 0.01  # default


def test_the_same_seed_gives_the_same_bundle(run: Any, base: list[str]) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(*base, "--epochs", "1", "--out", name, "--seed", seed, "--quiet").code == 0
    a, b, c = ((Path(name) / "bundle" / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_without_out_a_free_name_is_taken(run: Any, base: list[str]) -> None:
    for expected in ("runs/train", "runs/train-2"):
        assert json.loads(run(*base, "--epochs", "0.5", "--json", "--quiet").out)["run"] == expected


@pytest.mark.parametrize(
    ("table", "options", "task"),
    [
        ("multi.jsonl", [], "multi"),
        ("scores.csv", [], "regression"),
        ("pairs.csv", [], "single"),
        ("train.csv", ["--delimiter", "|"], "multi"),
        ("train.csv", ["--text", "text", "--label", "label", "--pair", "none", "--task", "single"], "single"),
    ],
)
def test_every_task_goes_all_the_way(run: Any, workplace: Path, table: str, options: list[str], task: str) -> None:
    path = workplace / table
    encoder = ["--encoder", workplace / "encoder", "--epochs", "1", "--out", "first", "--quiet"]
    assert run("train", path, *encoder, *options).code == 0
    shown = run("inspect", "first", "--json")
    assert shown.code == 0
    assert json.loads(shown.out)["bundle"]["task"] == task
    measured = run("evaluate", "first/bundle", path, "--json")
    assert measured.code == 0, measured.err
    assert json.loads(measured.out)["rows"] == 90 or table == "multi.jsonl"
    predicted = run("predict", "first/bundle", path, "--out", "answers.parquet")
    assert predicted.code == 0, predicted.err


def test_without_validation_the_result_says_so(run: Any, base: list[str]) -> None:
    outcome = run(*base, "--epochs", "0.5", "--out", "first", "--set", "data.valid_fraction=0", "--quiet")
    assert outcome.code == 0
    assert "none: no split was held out" in outcome.out


def test_kernels_can_be_switched_off(base: list[str], tmp_path: Path) -> None:
    """In a process of its own, for one that has loaded them keeps them; all of a training runs without."""
    command = [sys.executable, "-m", "snapfit.cli.app", *base, "--epochs", "1", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "SNAPFIT_KERNELS": "off"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch's own operators alone: SNAPFIT_KERNELS is off" in done.stdout
    assert (tmp_path / "run" / "result.json").is_file()
