"""`snapfit inspect`: bundles, run folders and encoders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_a_run_folder_shows_its_checkpoints_and_its_bundle(run: Any, workplace: Path) -> None:
    folder, bundle = run("inspect", workplace / "single"), run("inspect", workplace / "single/bundle")
    assert folder.code == bundle.code == 0
    assert folder.out.endswith(bundle.out)
    for word in ("complete", "train.csv", "step-", "valid", "resume     nothing: the run is complete"):
        assert word in folder.out.removesuffix(bundle.out)
    for word in (
        "single",
        "animals, food, tools",
        "pooling",
        "the same scores",
        "model.safetensors",
        "torch",
    ):
        assert word in bundle.out
    assert "\r" not in bundle.out


def test_bundle_as_json(run: Any, workplace: Path) -> None:
    result = json.loads(run("inspect", workplace / "single/bundle", "--json").out)
    assert result["kind"] == "bundle"
    assert result["labels"] == ["animals", "food", "tools"]
    assert result["probes"]["same"] is True
    assert result["probes"]["largest_difference"] < 1e-5
    assert result["bytes"] == sum(path.stat().st_size for path in (workplace / "single/bundle").iterdir())
    assert result["transformers"]["opens"] is (result["head"] == "native")


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_whether_transformers_opens_it(run: Any, workplace: Path, pooling: str) -> None:
    arguments = ["--encoder", workplace / "encoder", "--epochs", "0.3", "--set", f"model.pooling={pooling}"]
    assert run("train", workplace / "train.csv", *arguments, "--out", "first", "--quiet").code == 0
    result = json.loads(run("inspect", "first", "--json").out)["bundle"]
    assert result["transformers"]["opens"] is (pooling == "native")
    assert "it was tried" in result["transformers"]["why"] or pooling == "mean"


def test_what_resuming_would_do(run: Any, workplace: Path) -> None:
    shutil.copytree(workplace / "single", "copy")
    (Path("copy") / "result.json").unlink()
    result = json.loads(run("inspect", "copy", "--json").out)
    newest = result["checkpoints"][0]
    assert result["kind"] == "run"
    assert (result["complete"], result["resume"]["does"]) == (False, "go on")
    assert result["resume"]["checkpoint"] == newest["folder"]
    assert "snapfit train --resume copy" in result["resume"]["text"]
    weights = Path("copy/checkpoints") / newest["folder"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    shown = run("inspect", "copy")
    assert "NOT VALID: 'model.safetensors'" in shown.out
    for folder in (Path("copy") / "checkpoints").iterdir():
        (folder / "state.json").write_text("{}")
    shutil.rmtree("copy/bundle")
    result = json.loads(run("inspect", "copy", "--json").out)
    assert (result["resume"]["does"], result["bundle"]) == ("begin", None)
    assert not any(one["valid"] for one in result["checkpoints"])
    assert "bundle     none yet" in run("inspect", "copy").out


def test_a_bundle_moved_elsewhere(run: Any, workplace: Path) -> None:
    shutil.copytree(workplace / "single/bundle", "elsewhere")
    assert json.loads(run("inspect", "elsewhere", "--json").out)["probes"]["same"] is True


def test_encoder(run: Any, workplace: Path) -> None:
    outcome = run("inspect", workplace / "encoder")
    assert outcome.code == 0, outcome.err
    for word in ("family bert", "3 layers of 32", "at most 64 tokens", "embeddings", "layer 3", "head"):
        assert word in outcome.out
    result = json.loads(run("inspect", workplace / "encoder", "--json").out)
    assert result["kind"] == "encoder"
    assert result["layers"] == 3
    assert result["rates"]["head_lr_factor"] > 1
    assert result["notices"] == []
