"""Cross-validation: each fold is a training on the other rows, every row is scored by a model that has not seen it,
and it goes on after an interruption anywhere to the same bits.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import snapfit
import toys
import trained
from resuming import listing, refused
from scene import SETTINGS, Scene, fork, make_scene, wait
from snapfit.core.calibration import doubt_of, fit_temperature
from snapfit.core.combining import combine
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.files import read_json, sha256_file
from snapfit.core.interrupts import StopRequest
from snapfit.core.metrics import compute_metrics, label_tally
from snapfit.core.recipe import Recipe, load_recipe
from snapfit.data.batches import PoolSizes
from snapfit.data.large_records import LargeRecords
from snapfit.data.records import read_records
from snapfit.runtime.bundle import Bundle
from snapfit.ship import label_errors, out_of_fold
from snapfit.ship.fold_ensemble import NAME
from snapfit.ship.folding import CrossValidation
from snapfit.ship.inspecting import describe_run
from snapfit.ship.pipeline import carry_out
from snapfit.ship.run_folder import new_run, old_run
from snapfit.training.fold_tables import undivided
from snapfit.training.journal import read_journal, settled_events
from snapfit.training.prepare import read_tables

FOLDS, ROWS = 3, 60
ALIKE = SETTINGS | {"train__epochs": 2, "train__patience": None}
OF_FOLDS = ALIKE | {"train__folds": FOLDS}
Event = dict[str, Any]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), ROWS, **OF_FOLDS)


@pytest.fixture(scope="module")
def complete(scene: Scene) -> Path:
    """A cross-validation that nobody interrupted; read it, copy it, never write to it."""
    return scene.train(scene.folder / "complete").run


@pytest.fixture(scope="module")
def ensemble(scene: Scene, complete: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, asked for the mean of the folds' models afterwards."""
    run = Path(shutil.copytree(complete, tmp_path_factory.mktemp("ensemble") / "run"))
    return snapfit.train(resume=run, fold_bundle="ensemble").run


@pytest.fixture
def done(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / "moved" / "done"))


def scored(run: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(run / "out_of_fold.parquet")
    return {name: np.array(table.column(name).to_pylist()) for name in table.column_names}


def scores_in(found: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    return np.stack([found[f"score_{name}"] for name in names], axis=1)


def outcome(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions."""
    report = read_json(run / "folds.json")
    for one in report["folds"]:
        one.pop("seconds")
    names = ["out_of_fold.parquet", "label_errors.csv", "bundle/model.safetensors", "bundle/probes.json"]
    names += [
        f"folds/{fold}/{name}" for fold in range(1, FOLDS + 1) for name in ("held_out.parquet", "bundle/probes.json")
    ]
    events = settled_events(read_journal(run / "journal.jsonl"))
    return {
        **{name: sha256_file(run / name) for name in names},
        "report": report,
        "metrics": read_json(run / "result.json")["metrics"],
        "losses": [(e["number"], e["loss"]) for e in events if e["kind"] == "step"],
    }


# ---------------------------------------------------------------- what each fold is


def test_each_row_is_scored_by_the_one_model_that_has_not_seen_it(scene: Scene, complete: Path) -> None:
    records, found = read_records(scene.folder / "train.csv"), scored(complete)
    assert found["row"].tolist() == list(range(1, ROWS + 1))
    assert found["target"].tolist() == records.labels
    for fold in range(1, FOLDS + 1):
        predictor = snapfit.load(complete / "folds" / str(fold) / "bundle")
        rows = np.flatnonzero(found["fold"] == fold)
        texts = [records.texts[int(row)].as_py() for row in rows]
        assert np.array_equal(scores_in(found, predictor.names)[rows], predictor.scores(texts))
        assert found["predicted"][rows].tolist() == predictor.predict(texts)
        seen = read_json(complete / "folds" / str(fold) / "data.json")["splits"]["train"]
        others = records.take(np.flatnonzero(found["fold"] != fold))
        assert (seen["rows"], seen["texts"]) == (ROWS - len(rows), others.content_hash())


def test_a_fold_is_an_ordinary_training_on_the_other_rows(scene: Scene, complete: Path, tmp_path: Path) -> None:
    """Weights are those of a run that was given these rows alone: what is held out had no way in."""
    found, rows = scored(complete), toys.single_rows(ROWS)
    settled = load_recipe(complete / "recipe.yaml", environment={}).with_values({"train.folds": None})
    others = [row for row, fold in zip(rows, found["fold"].tolist(), strict=True) if fold != 2]
    alone = snapfit.train(others, out=tmp_path / "alone", recipe=settled)
    name = "bundle/model.safetensors"
    assert sha256_file(alone.run / name) == sha256_file(complete / "folds" / "2" / name)
    whole = snapfit.train(rows, out=tmp_path / "whole", recipe=settled)
    assert sha256_file(whole.run / name) == sha256_file(complete / name)


def test_the_run_folder_holds_it_all(complete: Path) -> None:
    assert {path.name for path in complete.iterdir()} == {
        *("request.json", "recipe.yaml", "data.json", "journal.jsonl", "checkpoints", "bundle", "result.json"),
        *("folds", "folds.json", "out_of_fold.parquet", "label_errors.csv"),
    }
    assert {path.name for path in (complete / "folds" / "1").iterdir()} == {
        *("request.json", "recipe.yaml", "data.json", "journal.jsonl", "bundle", "result.json", "held_out.parquet"),
    }
    alone = load_recipe(complete / "folds" / "1" / "recipe.yaml", environment={})
    assert alone.train.folds is None
    assert load_recipe(complete / "recipe.yaml", environment={}).train.folds == FOLDS
    kinds = [event["kind"] for event in read_journal(complete / "journal.jsonl")]
    assert kinds[:3] == ["data", "recipe", "folds"]
    assert kinds.count("fold") == FOLDS
    assert kinds.index("out_of_fold") < kinds.index("start")
    assert kinds[-1] == "end"


def test_a_listener_hears_which_fold_an_event_is_of(scene: Scene, tmp_path: Path) -> None:
    heard: list[Event] = []
    scene.train(tmp_path / "run", listener=heard.append, fold_bundle="none", train__epochs=1)
    steps = [(event["fold"], event["folds"]) for event in heard if event["kind"] == "step"]
    assert sorted(set(steps)) == [(1, FOLDS), (2, FOLDS), (3, FOLDS)]
    assert [event["kind"] for event in heard].count("groups") == 1
    assert [event["kind"] for event in heard].count("recipe") == 1
    finals = [event["fold"] for event in heard if event["kind"] == "final"]
    assert finals == [1, 2, 3]


# ---------------------------------------------------------------- what it comes to


def test_metrics_are_those_of_the_scores(scene: Scene, complete: Path) -> None:
    found, report = scored(complete), read_json(complete / "folds.json")
    names = ("animals", "food", "tools")
    targets = np.array([names.index(label) for label in found["target"]])
    scores = scores_in(found, names)
    by_fold = [compute_metrics("single", scores[found["fold"] == f], targets[found["fold"] == f]) for f in (1, 2, 3)]
    for one, expected in zip(report["folds"], by_fold, strict=True):
        assert one["metrics"] == pytest.approx(expected)
        assert one["rows"] == (found["fold"] == one["fold"]).sum()
    assert report["out_of_fold"] == pytest.approx(compute_metrics("single", scores, targets))
    for name, value in report["mean"].items():
        values = [one[name] for one in by_fold]
        assert value == pytest.approx(np.mean(values))
        assert report["sd"][name] == pytest.approx(np.std(values, ddof=1))
    tests = [read_json(complete / "folds" / str(f) / "result.json")["metrics"]["test"] for f in (1, 2, 3)]
    assert [one["test"] for one in report["folds"]] == tests
    accuracies = [one["accuracy"] for one in tests]
    assert report["test"]["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert report["test"]["sd"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (report["count"], report["bundle"], report["left_out"]) == (FOLDS, "refit", 0)


def test_the_training_on_all_rows_is_decided_by_them(done: Path) -> None:
    """Asked for afterwards: nothing is trained again, and folds are reported as they were."""
    found, weights = scored(done), sha256_file(done / "bundle/model.safetensors")
    kept = [sha256_file(done / "folds" / str(fold) / "held_out.parquet") for fold in (1, 2, 3)]
    report = read_json(done / "folds.json")
    settings = {"decision__calibrate": "temperature", "decision__abstain_coverage": 0.6}
    result = snapfit.train(resume=done, **settings)
    assert not result.already_complete
    assert (sha256_file(done / "bundle/model.safetensors"), read_json(done / "folds.json")) == (weights, report)
    assert [sha256_file(done / "folds" / str(fold) / "held_out.parquet") for fold in (1, 2, 3)] == kept
    predictor = snapfit.load(result.bundle)
    info, names = predictor.bundle.info, predictor.names
    targets = np.array([names.index(label) for label in found["target"]])
    logits = np.log(scores_in(found, names))
    expected = fit_temperature(logits, targets, "single", doubt=doubt_of(targets))
    assert info.temperature == pytest.approx(expected, rel=1e-4)
    assert info.decided["rows"] == ROWS
    assert info.decided["fitted"]["coverage"] == pytest.approx(0.6, abs=0.02)
    assert info.metrics["out_of_fold"] == report["out_of_fold"]
    rows = toys.single_rows(24, seed=1)
    counted = label_tally("single", 3, rule=predictor.rule)
    truth = np.array([names.index(row["label"]) for row in rows])
    counted.add_answers(predictor.answers([row["text"] for row in rows]), truth)
    assert info.metrics["test"] == pytest.approx(counted.metrics(), rel=1e-5)
    assert predictor.replay_probes() < 1e-5
    assert snapfit.train(resume=done, **settings).already_complete


def test_thresholds_are_tuned_on_what_all_folds_held_out(scene: Scene, tmp_path: Path) -> None:
    settings = OF_FOLDS | {"train__folds": 2, "encoder": str(scene.folder / "encoder")}
    result = snapfit.train(toys.ROWS["multi"](60), out=tmp_path / "run", decision__thresholds="tuned", **settings)
    info = Bundle.open(result.bundle).info
    assert info.decided["thresholds"] == "tuned"
    assert info.thresholds is not None
    table = pq.read_table(result.run / "out_of_fold.parquet")
    names = snapfit.load(result.bundle).names
    scores = np.stack([table[f"score_{name}"].to_numpy() for name in names], axis=1)
    plainly = DecisionRule("multi").decide(scores).decisions(names)
    assert table["predicted"].to_pylist() == plainly
    alone = load_recipe(result.run / "folds/1/recipe.yaml", environment={})
    assert (alone.decision.thresholds, alone.decision.calibrate) == (0.5, None)


@pytest.mark.parametrize(
    "settings", [{"out_of_scope": "energy"}, {"abstain_coverage": 0.9}, {"thresholds": "tuned"}, {"calibrate": "platt"}]
)
def test_nothing_is_fitted_to_rows_that_some_model_has_seen(done: Path, settings: dict[str, Any]) -> None:
    ((name, _),) = settings.items()
    asked = {f"decision__{key}": value for key, value in settings.items()}
    refused(done, rf"decision\.{name} is .* while train\.fold_bundle is 'ensemble'", fold_bundle="ensemble", **asked)


def test_the_mean_of_the_folds_models(scene: Scene, ensemble: Path) -> None:
    found = scored(ensemble)
    predictor = snapfit.load(ensemble / "bundle")
    info = predictor.bundle.info
    assert info.members is not None
    assert (info.format_version, len(info.members), info.temperature) == (2, FOLDS, 1.0)
    assert info.made_of["name"] == NAME
    rows = toys.single_rows(24, seed=1)
    texts = [row["text"] for row in rows]
    alone = [snapfit.load(ensemble / "folds" / str(f) / "bundle").logits(texts) for f in (1, 2, 3)]
    heat = []
    for fold in (1, 2, 3):
        own = found["fold"] == fold
        targets = np.array([predictor.names.index(label) for label in found["target"][own]])
        heat.append(fit_temperature(np.log(scores_in(found, predictor.names)[own]), targets, "single"))
    assert [one["temperature"] for one in info.members] == pytest.approx(heat, rel=1e-4)
    expected = combine(alone, heat, "single", 1.0)
    np.testing.assert_allclose(predictor.scores(texts), expected, atol=1e-5)
    truth = np.array([predictor.names.index(row["label"]) for row in rows])
    assert info.metrics["test"] == pytest.approx(compute_metrics("single", expected, truth), rel=1e-4)
    assert snapfit.train(resume=ensemble).already_complete


@pytest.mark.parametrize("kind", ["multi", "regression", "pair"])
def test_every_task(kind: str, scene: Scene, tmp_path: Path) -> None:
    rows, more = toys.ROWS[kind](60), toys.ROWS[kind](20, seed=3)
    settings = OF_FOLDS | {"train__folds": 2, "fold_bundle": "ensemble", "encoder": str(scene.folder / "encoder")}
    result = snapfit.train(rows, test=more, out=tmp_path / "run", **settings)
    table, predictor = pq.read_table(result.run / "out_of_fold.parquet"), snapfit.load(result.bundle)
    target, predicted = table["target"].to_pylist(), table["predicted"].to_pylist()
    measured = result.metrics["out_of_fold"]
    if kind == "regression":
        truth, wanted = (np.array([row["score"] for row in part]) for part in (rows, more))
        assert target == pytest.approx(truth.tolist())
        assert measured["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)), rel=1e-4)
        answers = predictor.scores([row["text"] for row in more])[:, 0]
        assert result.metrics["test"]["rmse"] == pytest.approx(np.sqrt(np.mean((answers - wanted) ** 2)), rel=1e-4)
    else:
        right = np.mean([a == b for a, b in zip(target, predicted, strict=True)])
        assert measured["subset_accuracy" if kind == "multi" else "accuracy"] == pytest.approx(right)
    assert (result.run / "label_errors.csv").is_file()
    assert predictor.replay_probes() < 1e-4


def test_weights_are_chosen_by_rows_of_the_other_folds(scene: Scene, tmp_path: Path) -> None:
    result = scene.train(tmp_path / "run", data__valid_fraction=0.25, train__epochs=1)
    assert set(result.metrics) == {"out_of_fold", "valid", "test"}
    for fold in range(1, FOLDS + 1):
        splits = read_json(result.run / "folds" / str(fold) / "data.json")["splits"]
        held = pq.read_metadata(result.run / "folds" / str(fold) / "held_out.parquet").num_rows
        assert splits["train"]["rows"] + splits["valid"]["rows"] + held == ROWS
        assert "valid" in read_json(result.run / "folds" / str(fold) / "result.json")["metrics"]


def test_a_row_whose_label_has_no_other_text_is_in_no_fold(scene: Scene, tmp_path: Path) -> None:
    rows = [*toys.single_rows(40), {"text": "the only one", "label": "rare"}]
    settings = OF_FOLDS | {"train__epochs": 1, "fold_bundle": "none", "encoder": str(scene.folder / "encoder")}
    result = snapfit.train(rows, out=tmp_path / "run", **settings)
    assert result.folds is not None
    assert result.folds["left_out"] == 1
    assert scored(result.run)["row"].tolist() == list(range(1, 41))
    assert all(one["rows"] in (13, 14) for one in result.folds["folds"])


def test_with_no_bundle_asked_for(scene: Scene, tmp_path: Path) -> None:
    result = scene.train(tmp_path / "run", fold_bundle="none", train__epochs=1)
    assert not result.has_bundle
    assert not result.bundle.exists()
    assert result.to_dict()["bundle"] is None
    again = snapfit.train(resume=result.run)
    assert again.already_complete
    assert again.folds == json.loads(json.dumps(result.folds))
    assert describe_run(result.run)["complete"]
    made = snapfit.train(resume=result.run, fold_bundle="refit")
    assert made.has_bundle
    assert made.bundle.is_dir()
    assert snapfit.train(resume=result.run, fold_bundle="none").already_complete  # it is there, and may stay


def test_suspects_are_ranked_as_soon_as_the_library_is_there(
    scene: Scene, complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heard = tmp_path / "run", []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cleanlab", None)  # as if it were not installed
        result = scene.train(run, listener=heard.append)
        assert snapfit.train(resume=run).already_complete
    kinds = [event["kind"] for event in heard]
    notice = next(event["text"] for event in heard if event["kind"] == "notice")
    assert "pip install 'snapfit[labels]'" in notice
    assert kinds.index("notice") < kinds.index("fold")
    assert result.folds is not None
    assert result.folds["label_errors"] is None
    assert not (run / "label_errors.csv").exists()
    later: list[Event] = []
    again = snapfit.train(resume=run, listener=later.append)
    assert not [event for event in later if event["kind"] == "step"]
    assert again.folds == read_json(run / "folds.json")
    assert again.folds["label_errors"]["labels"] == ROWS
    assert outcome(run) == outcome(complete)


# ---------------------------------------------------------------- going on


def end(wanted: Callable[[Event], bool], number: int = signal.SIGTERM) -> Callable[[Event], None]:
    """A listener that sends this process a signal at the first event that is wanted."""
    told = False

    def listen(event: Event) -> None:
        nonlocal told
        if not told and wanted(event):
            told = True
            os.kill(os.getpid(), number)

    return listen


def at_step(fold: int | None, step: int) -> Callable[[Event], bool]:
    return lambda event: event["kind"] == "step" and event.get("fold") == fold and event["number"] == step


PLACES: dict[str, Callable[[Event], bool]] = {
    "in the first fold": at_step(1, 3),
    "in a later fold": at_step(2, 5),
    "while rows are scored": lambda event: event["kind"] == "working" and "fold 2 of 3: scoring" in event["text"],
    "between folds": lambda event: event["kind"] == "fold" and event["fold"] == 3,
    "after the folds": lambda event: event["kind"] == "out_of_fold",
    "in the training on all rows": at_step(None, 6),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_goes_on_from_wherever_it_was_stopped(scene: Scene, complete: Path, tmp_path: Path, place: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=f"go on with: snapfit train --resume {run}$") as caught:
        scene.train(run, listener=end(PLACES[place]))
    assert caught.value.exit_code == 143
    assert not (run / "result.json").exists()
    trained_before = {fold for fold in (1, 2, 3) if (run / "folds" / str(fold) / "held_out.parquet").exists()}
    heard: list[Event] = []
    result = snapfit.train(resume=run, listener=heard.append)
    assert outcome(run) == outcome(complete)
    assert not {event["fold"] for event in heard if event["kind"] == "step" and "fold" in event} & trained_before
    assert result.folds is not None
    assert [path for path in run.rglob(".*")] == []


def test_a_ctrl_c_in_a_fold_leaves_no_bundle_and_it_goes_on(scene: Scene, complete: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as caught:
        scene.train(tmp_path / "run", listener=end(at_step(2, 4), signal.SIGINT))
    assert caught.value.exit_code == 130
    assert not (tmp_path / "run" / "bundle").exists()
    described = describe_run(tmp_path / "run")
    assert described["folds"]["finished"] == 1
    assert "1 of 3 folds are finished" in described["resume"]["text"]
    assert scene.train(tmp_path / "run", resume=True).metrics == read_json(complete / "result.json")["metrics"]
    assert outcome(tmp_path / "run") == outcome(complete)


@pytest.mark.parametrize(("fold", "step"), [(1, 2), (2, 6), (None, 7)])
def test_a_run_that_was_killed_goes_on(
    scene: Scene, complete: Path, tmp_path: Path, fold: int | None, step: int
) -> None:
    run = tmp_path / "run"

    def killed() -> None:
        scene.train(run, resume=True, listener=end(at_step(fold, step), signal.SIGKILL))

    assert wait(fork(killed), 300.0) == -signal.SIGKILL
    scene.train(run, resume=True)
    assert outcome(run) == outcome(complete)


def test_what_is_interrupted_before_any_step_leaves_nothing(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="nothing was trained"):
        scene.train(tmp_path / "run", listener=end(lambda event: event["kind"] == "fold"))
    assert list(tmp_path.iterdir()) == []


def test_a_complete_one_says_so_and_does_nothing(done: Path) -> None:
    before, heard = listing(done), []
    result = snapfit.train(resume=done, listener=heard.append)
    assert result.already_complete
    assert result.folds == read_json(done / "folds.json")
    assert [event["kind"] for event in heard] == ["complete"]
    assert listing(done) == before


def test_a_fold_whose_bundle_is_damaged_is_trained_again_for_the_mean(ensemble: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(ensemble, tmp_path / "run"))
    (run / "folds" / "2" / "bundle" / "config.json").write_text("{}")
    (run / "bundle" / "config.json").write_text("{}")
    heard: list[Event] = []
    snapfit.train(resume=run, listener=heard.append)
    assert {event["fold"] for event in heard if event["kind"] == "step"} == {2}
    assert sha256_file(run / "bundle" / "MANIFEST.json")
    for name in ("model.safetensors", "members/1.safetensors", "members/2.safetensors"):
        assert sha256_file(run / "bundle" / name) == sha256_file(ensemble / "bundle" / name)


# ---------------------------------------------------------------- large tables


def validated(run: Path, recipe: Recipe, *, resumed: bool = False, listener: Any = None) -> dict[str, np.ndarray]:
    """A cross-validation of a table that counts as large: its folds are of several pools."""
    sizes = PoolSizes(pool_rows=32, block_rows=8)
    whole = read_tables(toys.single_rows(150), None, None, undivided(recipe.data), sizes=sizes)
    assert isinstance(whole.splits["train"], LargeRecords)
    with (old_run if resumed else new_run)(run) as folder, StopRequest() as stop:
        if not resumed:
            folder.write_request({"train": None}, recipe)
        how = {"carry_out": carry_out, "stop": stop, "listener": listener, "resumed": resumed}
        CrossValidation(folder, whole, recipe, **how).result()
    return scored(run)


@pytest.mark.parametrize("fraction", ["auto", 0.2])
def test_a_table_that_is_read_piece_by_piece(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: Any
) -> None:
    monkeypatch.setenv("SNAPFIT_CACHE", str(tmp_path / "cache"))
    for module in (out_of_fold, label_errors):
        monkeypatch.setattr(module, "SLAB_ROWS", 30)  # fewer than a pool's rows, as they are of large tables
    values = OF_FOLDS | {"model__encoder": str(scene.folder / "encoder"), "train__epochs": 1}
    values |= {"data__valid_fraction": fraction}
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    found = validated(tmp_path / "run", recipe)
    assert found["row"].tolist() == list(range(1, 151))
    assert sorted(set(found["fold"].tolist())) == [1, 2, 3]
    for fold in (1, 2, 3):
        splits = read_json(tmp_path / "run" / "folds" / str(fold) / "data.json")["splits"]
        seen = sum(splits[name]["rows"] for name in ("train", "valid") if name in splits)
        assert seen == 150 - (found["fold"] == fold).sum()
        assert ("valid" in splits) == (fraction != "auto")
        assert "pools" in splits["train"]
        predictor = snapfit.load(tmp_path / "run" / "folds" / str(fold) / "bundle")
        rows = np.flatnonzero(found["fold"] == fold)
        texts = [toys.single_rows(150)[row]["text"] for row in rows.tolist()]
        np.testing.assert_allclose(scores_in(found, predictor.names)[rows], predictor.scores(texts), atol=1e-5)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        validated(tmp_path / "stopped", recipe, listener=end(at_step(2, 3)))
    again = validated(tmp_path / "stopped", recipe, resumed=True)
    for name, column in found.items():
        assert again[name].tolist() == column.tolist()
    for name in ("out_of_fold.parquet", "bundle/model.safetensors"):
        assert sha256_file(tmp_path / "stopped" / name) == sha256_file(tmp_path / "run" / name)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train__folds": 4}, r"train\.folds was 3, is 4"),
        ({"train__epochs": 5}, r"train\.epochs was 2\.0, is 5\.0"),
        ({"optim__lr": 1e-3}, r"optim\.lr was 0\.002, is 0\.001"),
        ({"data__split_seed": 1}, r"data\.split_seed was 0, is 1"),
    ],
)
def test_folds_are_all_trained_alike(done: Path, settings: dict[str, Any], words: str, accept: bool) -> None:
    error = refused(done, words, accept_changes=accept, **settings)
    assert "whose folds are all to be trained and measured alike" in error.found


def test_another_table_is_refused(done: Path, tmp_path: Path) -> None:
    (done / "result.json").unlink()
    other = trained.write_csv(tmp_path / "other.csv", toys.single_rows(ROWS, seed=4))
    refused(done, "the SHA-256 of the texts and labels in the train table|SHA-256 of the texts in the train", other)


def test_folds_are_all_measured_on_one_test_table(done: Path, tmp_path: Path) -> None:
    (done / "result.json").unlink()
    other = trained.write_csv(tmp_path / "other.csv", toys.single_rows(24, seed=8))
    refused(done, "in the test table was", test=other)


def test_a_single_run_does_not_become_one_of_folds(scene: Scene, tmp_path: Path) -> None:
    single = scene.train(tmp_path / "single", train__folds="none", train__epochs=1).run
    refused(single, r"train\.folds was empty, is 3", train__folds=3)
    refused(single, r"train\.fold_bundle is 'ensemble', train\.folds is none", fold_bundle="ensemble")
    with pytest.raises(BadInput, match="folds of which something ships"):
        snapfit.train(toys.single_rows(20), out=tmp_path / "other", fold_bundle="none")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("rows", "words"), [(toys.single_rows(3), "would hold out none"), ([], "no")])
def test_tables_that_are_too_small_leave_no_folder(rows: list[Event], words: str, scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        snapfit.train(rows, out=tmp_path / "run", folds=3, encoder=str(scene.folder / "encoder"))
    assert list(tmp_path.iterdir()) == []


def test_members_of_one_training_are_something_else(done: Path) -> None:
    with pytest.raises(BadInput, match="is a cross-validation"):
        snapfit.ensemble(done)


def test_a_damaged_report_is_named(done: Path) -> None:
    (done / "folds.json").write_text("{}")
    with pytest.raises(BadInput, match="holds no report"):
        describe_run(done)


def test_bundles_open_without_the_folds(complete: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(complete / "bundle", tmp_path / "bundle")
    assert Bundle.open(moved).info.made_of["name"] == "a training on all rows"
