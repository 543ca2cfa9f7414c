"""Another rule for a bundle, and for a finished run: whole, of the same weights, and doing what it says."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

import snapfit
import toys
import trained
from ensembles import TEMPERATURE, answer_of_three, fitted_on, with_answer
from snapfit.core.errors import BadInput
from snapfit.core.files import sha256_file
from snapfit.core.folders import verify_manifest
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import evaluate_bundle
from snapfit.runtime.inputs import parts_for_bundle
from snapfit.ship.bundling import write_bundle

QUICK = toys.QUICK | {"model__pooling": "mean", "train__epochs": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """single/ and multi/ with a run and tables: train.jsonl, more.jsonl, and odd.jsonl with rows out of scope."""
    folder = tmp_path_factory.mktemp("place")
    encoder = toys.encoder_folder(folder / "encoder")
    for kind in ("single", "multi"):
        (folder / kind).mkdir()
        rows = toys.ROWS[kind]
        trained.write_jsonl(folder / kind / "train.jsonl", rows(90))
        trained.write_jsonl(folder / kind / "more.jsonl", rows(150, seed=5))
        snapfit.train(folder / kind / "train.jsonl", out=folder / kind / "run", encoder=str(encoder), **QUICK)
    odd = [{"text": "honey now " * (1 + i % 4), "label": "oos"} for i in range(20)]
    trained.write_jsonl(folder / "single" / "odd.jsonl", toys.single_rows(150, seed=5) + odd)
    return folder


def decide(place: Path, kind: str, out: Path, table: str = "more.jsonl", **options: Any) -> Any:
    return snapfit.decide(place / kind / "run" / "bundle", place / kind / table, out=out, **options)


def test_thresholds_for_a_bundle(place: Path, tmp_path: Path) -> None:
    result = decide(place, "multi", tmp_path / "new", thresholds="tuned", threshold_metric="macro_f1", min_labels=1)
    old, new = Bundle.open(place / "multi/run/bundle"), Bundle.open(tmp_path / "new")
    verify_manifest(tmp_path / "new")
    assert result.rows == 150
    assert new.rule().to_dict() == result.rule
    assert new.info.thresholds is not None
    assert new.info.decision == {k: v for k, v in result.rule.items() if k not in ("temperature", "thresholds")}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert sha256_file(new.folder / name) == sha256_file(old.folder / name)
    predictor = snapfit.load(tmp_path / "new", device="cpu")
    assert predictor.replay_probes() < 1e-6
    rows = toys.multi_rows(150, seed=5)
    given = predictor.predict([row["text"] for row in rows])
    names = list(predictor.names)
    truth = np.array([[name in row["labels"] for name in names] for row in rows])
    chosen = np.array([[name in labels for name in names] for labels in given])
    assert f1_score(truth, chosen, average="macro") == pytest.approx(result.report["fitted"]["macro_f1"])
    assert (chosen.sum(axis=1) >= 1).all()
    assert new.info.recipe["decision"]["thresholds"] == "tuned"
    assert new.info.recipe["train"] == old.info.recipe["train"]
    assert new.info.metrics == {"decided": result.report["fitted"]}
    assert "reliability" not in new.info.decided
    card = (new.folder / "README.md").read_text("utf-8")
    assert "tuned for macro_f1" in card
    assert "| decided |" in card
    assert "## How it was made" in card
    assert card.count("## ") == (old.folder / "README.md").read_text("utf-8").count("## ")
    json.dumps(result.to_dict())


@pytest.mark.parametrize("method", ["max_probability", "energy", "centroids"])
def test_a_scope_for_a_bundle(place: Path, tmp_path: Path, method: str) -> None:
    train = {"train": place / "single/train.jsonl"} if method == "centroids" else {}
    options = {"out_of_scope": method, "in_scope_share": 0.9, "out_of_scope_label": "oos", **train}
    result = decide(place, "single", tmp_path / "new", "odd.jsonl", **options)
    assert (result.report["rows"], result.report["out_of_scope_rows"]) == (150, 20)
    assert result.report["fitted"]["coverage"] == pytest.approx(0.9, abs=0.01)
    predictor = snapfit.load(tmp_path / "new", device="cpu")
    parts = parts_for_bundle(predictor.bundle.info, place / "single/odd.jsonl", out_of_scope="oos")
    measured = evaluate_bundle(predictor, parts, out_of_scope="oos")
    assert measured["metrics"] == pytest.approx(result.report["fitted"], abs=1e-6)
    assert (tmp_path / "new/centroids.safetensors").exists() is (method == "centroids")
    if method == "centroids":  # those that it has now are taken again
        again = snapfit.decide(
            tmp_path / "new", place / "single/more.jsonl", out=tmp_path / "again", abstain_coverage=0.5
        )
        assert again.rule["scope"]["least"] == pytest.approx(result.rule["scope"]["least"])
        assert (tmp_path / "again/centroids.safetensors").exists()
        none = snapfit.decide(tmp_path / "again", place / "single/more.jsonl", out=tmp_path / "none", out_of_scope=None)
        assert "scope" not in none.rule
        assert not (tmp_path / "none/centroids.safetensors").exists()


def test_what_is_not_set_stays(place: Path, tmp_path: Path) -> None:
    decide(place, "single", tmp_path / "one", out_of_scope="energy", calibrate="temperature")
    result = snapfit.decide(tmp_path / "one", place / "single/more.jsonl", out=tmp_path / "two", abstain_coverage=0.5)
    assert result.rule["scope"]["method"] == "energy"
    assert result.report["why"]["calibration"] == "as asked for"
    assert len(result.report["refusals"]) == 2


def test_several_models_keep_their_mean(place: Path, tmp_path: Path) -> None:
    fitted, tables = fitted_on(str(place / "encoder"), "single")
    write_bundle(tmp_path / "old", with_answer(fitted, answer_of_three(fitted.model), TEMPERATURE), tables)
    for calibrate, out in (("none", "plain"), ("temperature", "fitted")):
        snapfit.decide(tmp_path / "old", place / "single/more.jsonl", out=tmp_path / out, calibrate=calibrate)
        made = snapfit.load(tmp_path / out, device="cpu")
        assert made.replay_probes() < 1e-6
        assert made.bundle.info.members == Bundle.open(tmp_path / "old").info.members
        assert (made.rule.temperature == TEMPERATURE) is (calibrate == "none")
        assert made.bundle.info.format_version == 2


def test_a_finished_run_is_decided_anew_without_a_step(place: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(place / "multi/run", tmp_path / "run"))
    before = sha256_file(run / "bundle/model.safetensors")
    events: list[dict[str, Any]] = []
    result = snapfit.train(resume=run, listener=events.append, decision__thresholds=0.2, decision__max_labels=1)
    assert not result.already_complete
    assert not [event for event in events if event["kind"] == "step"]
    bundle = Bundle.open(result.bundle)
    assert bundle.info.thresholds == [0.2] * 3
    assert bundle.info.decision == {"max_labels": 1}
    assert sha256_file(run / "bundle/model.safetensors") == before
    assert snapfit.train(resume=run).already_complete
    assert snapfit.train(resume=run, decision__max_labels=1).already_complete
    again = snapfit.train(resume=run, decision__max_labels="none", decision__thresholds="auto")
    assert not again.already_complete
    before = Bundle.open(place / "multi/run/bundle").info
    info = Bundle.open(again.bundle).info
    assert (info.temperature, info.thresholds, info.decision) == (
        before.temperature,
        before.thresholds,
        before.decision,
    )


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("single", {"min_labels": 1}, r"decision\.min_labels is 1"),
        ("single", {"out_of_scope": "centroids"}, "the bundle has none"),
        ("single", {"calibrate": "tempertaure"}, "did you mean temperature"),
        ("single", {"treshold": 1}, "no setting 'decision.treshold'"),
        ("single", {"train.epochs": 3}, "settings of decisions"),
        ("single", {"out_of_scope_label": "food"}, "was not trained to give"),
        ("multi", {"out_of_scope_label": "oos"}, "one label a row"),
        ("single", {"table": "odd.jsonl"}, "labels that are not among"),
        ("single", {"table": "gone.jsonl"}, r"gone\.jsonl"),
    ],
)
def test_what_cannot_be_decided(place: Path, tmp_path: Path, kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        decide(place, kind, tmp_path / "new", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_precision_out_of_reach_writes_nothing(place: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": "food"} for row in toys.single_rows(150, seed=5)]
    table = trained.write_jsonl(tmp_path / "wrong.jsonl", rows)
    with pytest.raises(BadInput, match="a precision of 0.99"):
        snapfit.decide(place / "single/run/bundle", table, out=tmp_path / "new", abstain_precision=0.99)
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.jsonl"]


def test_an_existing_folder_is_left_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        decide(place, "single", tmp_path / "new")


def test_a_bundle_for_numbers_has_nothing_to_decide(place: Path, tmp_path: Path) -> None:
    bundle = toys.trained("regression").result.bundle
    with pytest.raises(BadInput, match="a bundle for numbers"):
        snapfit.decide(bundle, place / "single/more.jsonl", out=tmp_path / "new")
