"""Weighing a finished run again: what ships answers as the verdict says, and nothing is half done when stopped."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snapfit
import toys
from resuming import listing
from scene import Scene, make_scene
from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.files import read_json
from snapfit.runtime.bundle import Bundle
from snapfit.ship.ensembling import CONTROL
from snapfit.ship.inspecting import describe_run
from snapfit.training.journal import read_journal, settled_events

ROUNDS = {"ensemble__members": 5, "ensemble__rounds": 2, "train__epochs": 3, "train__patience": None}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), 96, **ROUNDS)


@pytest.fixture(scope="module")
def finished(scene: Scene) -> Path:
    """A finished run; copy it, never write to it."""
    return scene.train(scene.folder / "finished").run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def names(result: snapfit.TrainResult) -> list[str]:
    assert result.verdict is not None
    return [row["name"] for row in result.verdict["rows"]]


def test_a_run_with_members_ends_with_a_verdict(finished: Path) -> None:
    verdict = read_json(finished / "verdict.json")
    info = Bundle.open(finished / "bundle").info
    chosen = verdict["rows"][verdict["chosen"]]
    assert info.made_of["name"] == chosen["name"]
    assert info.made_of["rule"] == verdict["rule"]
    assert info.temperature != 1.0
    assert (info.members is not None) == (len(verdict["shares"]) > 1)
    assert [event["kind"] for event in read_journal(finished / "journal.jsonl")].count("verdict") == 1
    assert snapfit.load(finished / "bundle").replay_probes() < 1e-5


def test_inspecting_a_run_tells_its_verdict_or_that_it_cannot(run: Path) -> None:
    assert describe_run(run)["verdict"] == read_json(run / "verdict.json")
    (run / "verdict.json").write_text('{"rows": []}')
    with pytest.raises(BadInput, match="holds no table"):
        describe_run(run)
    (run / "verdict.json").unlink()
    assert describe_run(run)["verdict"] is None


def test_weighing_again_comes_to_the_same(run: Path, finished: Path) -> None:
    before = read_json(run / "verdict.json")
    result = snapfit.ensemble(run)
    assert result.verdict == before
    texts = [row["text"] for row in toys.single_rows(20, seed=5)]
    one, other = (snapfit.load(folder / "bundle").scores(texts) for folder in (run, finished))
    assert np.array_equal(one, other)
    assert read_json(run / "result.json")["metrics"] == read_json(finished / "result.json")["metrics"]


def test_a_student_and_a_control_join_the_table(run: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in toys.single_rows(30, seed=8)))
    events: list[dict[str, Any]] = []
    result = snapfit.ensemble(run, unlabelled=more, with_control=True, listener=events.append)
    assert names(result)[-1] == CONTROL
    assert "student" in names(result)
    assert result.verdict is not None
    assert not result.verdict["rows"][-1]["contends"]
    told = next(event for event in events if event["kind"] == "student")
    rows = next(event for event in events if event["kind"] == "data")["rows"]["train"]
    assert told["rows"] == rows + 30
    (control_folder,) = (run / "control").iterdir()
    control = read_json(control_folder / "result.json")
    assert control["steps"] > read_json(run / "result.json")["steps"]
    assert control["recipe"]["ensemble"]["members"] == 0
    # Once more: nothing is trained again.
    again: list[dict[str, Any]] = []
    second = snapfit.ensemble(run, unlabelled=more, with_control=True, listener=again.append)
    assert second.verdict == result.verdict
    assert not [event for event in again if event["kind"] == "step"]
    assert snapfit.train(resume=run).already_complete


def test_a_control_of_another_length_is_another_run(run: Path) -> None:
    plain = snapfit.ensemble(run, with_control=True)
    taught = snapfit.ensemble(run, student=True, with_control=True)
    steps = sorted(read_json(folder / "result.json")["steps"] for folder in (run / "control").iterdir())
    assert steps[0] == plain.steps
    assert steps[1] > taught.steps
    for folder in (run / "control").iterdir():
        assert "resume" not in {event["kind"] for event in read_journal(folder / "journal.jsonl")}


def test_what_is_told_of_the_end_stands_once_however_often_it_is_weighed(run: Path) -> None:
    snapfit.ensemble(run)
    events = settled_events(read_journal(run / "journal.jsonl"))
    told = [(event["kind"], event.get("split")) for event in events if event["kind"] in ("final", "verdict")]
    assert sorted(told, key=str) == [("final", "test"), ("final", "valid"), ("verdict", None)]


def test_a_student_that_is_interrupted_goes_on(run: Path, finished: Path, tmp_path: Path) -> None:
    whole = snapfit.ensemble(shutil.copytree(finished, tmp_path / "whole"), student=True)
    result, bundle = read_json(run / "result.json"), listing(run / "bundle")

    def end(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["number"] == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="is as it was") as caught:
        snapfit.ensemble(run, student=True, listener=end)
    assert caught.value.exit_code == 130
    assert read_json(run / "result.json") == result
    assert listing(run / "bundle") == bundle
    steps: list[int] = []
    again = snapfit.ensemble(
        run, student=True, listener=lambda e: steps.append(e["number"]) if e["kind"] == "step" else None
    )
    assert steps[0] == 6
    assert again.verdict == whole.verdict


def test_a_run_with_a_student_in_its_recipe_trains_one(scene: Scene, tmp_path: Path) -> None:
    result = scene.train(tmp_path / "run", ensemble__student_epochs=1)
    assert "student" in names(result)
    assert [e["kind"] for e in read_journal(result.run / "student" / "journal.jsonl")].count("start") == 1
    steps = [e["number"] for e in read_journal(result.run / "journal.jsonl") if e["kind"] == "step"]
    assert steps == sorted(set(steps))


def test_a_run_that_is_interrupted_in_its_student_goes_on(scene: Scene, tmp_path: Path) -> None:
    whole = scene.train(tmp_path / "whole", ensemble__student_epochs=1)
    taught: list[str] = []

    def end(event: dict[str, Any]) -> None:
        taught.append(event["kind"])
        if event["kind"] == "step" and event["number"] == 5 and "student" in taught:
            os.kill(os.getpid(), signal.SIGINT)

    first = scene.train(tmp_path / "run", listener=end, ensemble__student_epochs=1)
    assert first.stopped_by == signal.SIGINT
    assert first.verdict is None
    assert Bundle.open(first.bundle).info.made_of == {}
    assert not (first.run / "result.json").exists()
    steps: list[int] = []
    again = snapfit.train(
        resume=first.run, listener=lambda e: steps.append(e["number"]) if e["kind"] == "step" else None
    )
    assert steps[0] == 6
    assert again.verdict == whole.verdict
    assert snapfit.train(resume=first.run).already_complete


def test_bundles_of_several_models_answer_as_the_verdict_measured(scene: Scene, tmp_path: Path) -> None:
    """Every task; the choice is the rule's, so only what holds for each choice is asked."""
    for name, rows, column in (("multi", toys.multi_rows, "labels"), ("regression", toys.regression_rows, "score")):
        settings = scene.settings | {"encoder": str(scene.folder / "encoder"), "train__epochs": 4}
        result = snapfit.train(
            rows(96, seed=1), valid=rows(60, seed=2), test=rows(40, seed=3), out=tmp_path / name, **settings
        )
        predictor = snapfit.load(result.bundle)
        texts = [row["text"] for row in rows(40, seed=3)]
        if name == "regression":
            wanted = np.array([row[column] for row in rows(40, seed=3)])
            found = np.sqrt(np.mean((predictor.scores(texts)[:, 0] - wanted) ** 2))
            assert found == pytest.approx(result.metrics["test"]["rmse"], rel=1e-3)
        else:
            right = [
                set(a) == set(row[column]) for a, row in zip(predictor.predict(texts), rows(40, seed=3), strict=True)
            ]
            assert np.mean(right) == pytest.approx(result.metrics["test"]["subset_accuracy"])
        assert predictor.replay_probes() < 1e-4


def test_tables_that_were_no_files_are_given_again(scene: Scene, tmp_path: Path) -> None:
    settings = scene.settings | {"encoder": str(scene.folder / "encoder")}
    rows, held = toys.single_rows(60, seed=1), toys.single_rows(30, seed=2)
    done = snapfit.train(rows, valid=held, out=tmp_path / "run", **settings)
    with pytest.raises(BadInput, match="was not a file"):
        snapfit.ensemble(done.run)
    with pytest.raises(BadInput, match="train table"):
        snapfit.ensemble(done.run, table=toys.single_rows(60, seed=3), valid=held)
    assert snapfit.ensemble(done.run, table=rows, valid=held, with_control=True).verdict is not None


# ---------------------------------------------------------------- what cannot be weighed


def test_a_run_without_members_is_refused(scene: Scene, tmp_path: Path) -> None:
    plain = scene.train(tmp_path / "plain", ensemble__members=0, ensemble__rounds=0, train__epochs=1).run
    before = listing(plain)
    with pytest.raises(BadInput, match="kept no members"):
        snapfit.ensemble(plain)
    assert listing(plain) == before


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is missing"):
        snapfit.ensemble(tmp_path / "nowhere")
    (run / "result.json").unlink()
    with pytest.raises(BadInput, match="is not finished"):
        snapfit.ensemble(run)


def test_a_run_without_its_checkpoint_or_its_table_is_refused(run: Path, scene: Scene) -> None:
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(BadInput, match="no valid checkpoint"):
        snapfit.ensemble(run)


def test_a_student_needs_members() -> None:
    with pytest.raises(BadInput, match="student_epochs is 1, ensemble.members is 0"):
        snapfit.Recipe().with_values({"ensemble.student_epochs": 1})
