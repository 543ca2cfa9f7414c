"""`snapfit.train(resume=...)`: a run goes on, from wherever it was stopped, to what it would have been."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import snapfit
import toys
import trained
from resuming import STOPPED_AT, TOTAL, Event, flip, listing, refused, told_to_end
from scene import Scene, fingerprint
from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.files import sha256_file
from snapfit.ship.run_folder import old_run
from snapfit.training.checkpoint import find_checkpoints, newest_valid
from snapfit.training.journal import read_journal

# ---------------------------------------------------------------- going on


def test_a_run_goes_on_elsewhere_without_being_told_anything(run: Path, whole: dict[str, Any]) -> None:
    heard: list[Event] = []
    result = snapfit.train(resume=run, listener=heard.append)
    assert fingerprint(run) == whole
    assert (result.resumed_from, result.steps, result.already_complete) == (STOPPED_AT, TOTAL, False)
    assert (result.run, result.bundle, result.stopped_by) == (run, run / "bundle", None)
    assert result.to_dict()["resumed_from"] == STOPPED_AT
    assert result.train_seconds > 0
    assert set(result.metrics) == {"valid", "test"}
    kinds = [event["kind"] for event in heard]
    assert kinds[:4] == ["resume", "data", "recipe", "groups"]
    assert kinds[-1] == "end"
    assert heard[0] | {"time": 0} == {
        "kind": "resume",
        "time": 0,
        "run": str(run),
        "step": STOPPED_AT,
        "checkpoint": f"step-{STOPPED_AT:06d}",
        "skipped": [],
        "changes": [],
    }
    assert read_journal(run / "journal.jsonl")[-len(heard) :] == json.loads(json.dumps(heard))
    assert json.loads((run / "result.json").read_text())["steps"] == TOTAL


def test_the_same_command_again_goes_on(scene: Scene, run: Path, whole: dict[str, Any]) -> None:
    assert scene.train(run, resume=True).resumed_from == STOPPED_AT
    assert fingerprint(run) == whole


def test_reasons_of_settings_are_kept(scene: Scene, run: Path) -> None:
    heard: list[Event] = []
    snapfit.train(resume=run, listener=heard.append)
    (before,) = [
        event for event in read_journal(scene.folder / "stopped" / "journal.jsonl") if event["kind"] == "recipe"
    ]
    (now,) = [event for event in heard if event["kind"] == "recipe"]
    assert now["reasons"] == before["reasons"]
    assert now["recipe"] | {"model": {}} == before["recipe"] | {"model": {}}


def test_a_ctrl_c_leaves_a_bundle_and_the_run_goes_on(scene: Scene, tmp_path: Path, whole: dict[str, Any]) -> None:
    result = scene.train(tmp_path / "run", listener=told_to_end(7, signal.SIGINT))
    assert (result.stopped_by, result.steps) == (signal.SIGINT, 7)
    assert not (tmp_path / "run" / "result.json").exists()
    again = snapfit.train(resume=str(tmp_path / "run"))
    assert again.resumed_from == 7
    assert fingerprint(tmp_path / "run") == whole


def test_a_run_that_got_no_further_than_its_request_begins(scene: Scene, run: Path, whole: dict[str, Any]) -> None:
    for entry in run.iterdir():
        if entry.name != "request.json":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    heard: list[Event] = []
    result = snapfit.train(resume=run, listener=heard.append)
    assert result.resumed_from is None
    assert (heard[0]["kind"], heard[0]["step"], heard[0]["checkpoint"]) == ("resume", 0, None)
    assert fingerprint(run) == whole


def test_where_no_run_is_one_begins_when_there_is_a_table(scene: Scene, tmp_path: Path, whole: dict[str, Any]) -> None:
    path = tmp_path / "runs" / "new"
    with pytest.raises(BadInput, match="is missing"):
        snapfit.train(resume=path)
    assert not path.parent.exists()
    result = scene.train(path, resume=True)
    assert (result.resumed_from, result.already_complete) == (None, False)
    assert fingerprint(path) == whole
    assert scene.train(path, resume=True).already_complete


def test_leftovers_of_a_crash_are_cleared(run: Path) -> None:
    for left in ("checkpoints/.step-000009.0123456789ab.staging", ".bundle.0123456789ab.staging"):
        (run / left).mkdir()
        (run / left / "model.safetensors").write_bytes(b"half")
    snapfit.train(resume=run)
    assert [path for path in run.rglob(".*")] == []


# ---------------------------------------------------------------- a complete run


def test_a_complete_run_says_so_and_does_nothing(scene: Scene, done: Path, complete: Path) -> None:
    before, heard = listing(done), []
    for call in (snapfit.train, lambda **options: scene.train(done, resume=True, listener=options["listener"])):
        result = call(resume=done, listener=heard.append)
        assert result.already_complete
        assert (result.run, result.bundle) == (done, done / "bundle")
        assert (result.steps, result.resumed_from, result.seconds < 60) == (TOTAL, None, True)
        stored = json.loads((complete / "result.json").read_text())
        assert result.metrics == stored["metrics"]
        assert result.recipe.to_dict() == stored["recipe"]
        assert result.to_dict()["already_complete"] is True
    assert [event["kind"] for event in heard] == ["complete"] * 2
    assert heard[0]["steps"] == TOTAL
    assert listing(done) == before


def test_settings_that_change_nothing_about_the_weights_leave_it_complete(done: Path) -> None:
    before = listing(done)
    assert snapfit.train(resume=done, log__level="warning", checkpoint__keep=5, max_recoveries=0).already_complete
    assert listing(done) == before


def test_a_damaged_bundle_is_written_again(done: Path, complete: Path, whole: dict[str, Any]) -> None:
    for damage in (lambda: flip(done / "bundle" / "model.safetensors"), lambda: shutil.rmtree(done / "bundle")):
        damage()
        heard: list[Event] = []
        result = snapfit.train(resume=done, listener=heard.append)
        assert not result.already_complete
        assert result.resumed_from == TOTAL
        assert [event["kind"] for event in heard if event["kind"] == "step"] == []
        assert fingerprint(done) == whole
        assert snapfit.train(resume=done).already_complete


def test_a_complete_run_can_be_made_longer(done: Path) -> None:
    longer = {"train__epochs": 3}
    refused(done, r"train\.epochs was 2\.0, is 3\.0", **longer)
    result = snapfit.train(resume=done, accept_changes=True, **longer)
    assert (result.resumed_from, result.steps) == (TOTAL, 18)
    assert snapfit.train(resume=done).already_complete


# ---------------------------------------------------------------- damaged checkpoints


def test_a_damaged_checkpoint_is_passed_over_with_the_reason(run: Path, whole: dict[str, Any]) -> None:
    newest, _ = newest_valid(run / "checkpoints")
    assert newest is not None
    flip(newest.folder / "optimizer.safetensors")
    heard: list[Event] = []
    result = snapfit.train(resume=run, listener=heard.append)
    assert result.resumed_from == 4
    (skipped,) = heard[0]["skipped"]
    assert skipped["checkpoint"] == newest.folder.name
    assert "'optimizer.safetensors'" in skipped["why"]
    assert fingerprint(run)["bundle"] == whole["bundle"]


def damage_all(run: Path) -> None:
    for checkpoint in find_checkpoints(run / "checkpoints")[0]:
        flip(checkpoint.folder / "model.safetensors")


def test_without_a_valid_checkpoint_the_run_begins_again(run: Path, whole: dict[str, Any]) -> None:
    damage_all(run)
    result = snapfit.train(resume=run)
    assert result.resumed_from is None
    assert result.steps == TOTAL
    assert sha256_file(run / "bundle" / "model.safetensors") == whole["bundle"]


def test_it_does_not_begin_again_as_another_training(scene: Scene, run: Path, tmp_path: Path) -> None:
    damage_all(run)
    other = trained.write_csv(tmp_path / "other.csv", toys.single_rows(48, seed=4))
    refused(run, "the SHA-256 of the texts in the train table was", other, encoder=str(scene.folder / "encoder"))
    refused(run, r"train\.seed was 0, is 1", seed=1)


# ---------------------------------------------------------------- where things are


def test_tables_in_memory_must_be_given_again(scene: Scene, tmp_path: Path, whole: dict[str, Any]) -> None:
    run, rows, test = tmp_path / "run", toys.single_rows(48), toys.single_rows(24, seed=1)
    settings = scene.settings | {"encoder": str(scene.folder / "encoder")}
    with pytest.raises(Interrupted):
        snapfit.train(rows, test=test, out=run, listener=told_to_end(4), **settings)
    assert f"the train table of {run} was not a file" in refused(run, "the same train table").found
    refused(run, "the test table of .* was not a file", rows)
    assert snapfit.train(rows, test=test, resume=run).resumed_from == 4
    assert fingerprint(run) == whole
    assert snapfit.train(resume=run).already_complete


def test_a_table_that_is_gone_is_named(run: Path, scene: Scene) -> None:
    request = json.loads((run / "request.json").read_text())
    request["tables"]["train"] = str(scene.folder / "gone.csv")
    (run / "request.json").write_text(json.dumps(request))
    refused(run, r"gone\.csv does not exist")
    assert snapfit.train(scene.folder / "train.csv", resume=run).resumed_from == STOPPED_AT


def test_relative_paths_are_found_from_another_folder(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Any]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(scene.folder)
    tables = {"table": "train.csv", "test": "test.csv", "encoder": "encoder"}
    with pytest.raises(Interrupted):
        snapfit.train(**tables, out=tmp_path / "run", listener=told_to_end(STOPPED_AT), **scene.settings)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(tmp_path / "run" / "request.json", bare)  # as if it had been killed before all else
    monkeypatch.chdir(tmp_path / "elsewhere")
    for run, step in ((Path("..") / "run", STOPPED_AT), (bare, None)):
        assert snapfit.train(resume=run).resumed_from == step
        assert fingerprint(run) == whole
    monkeypatch.chdir(scene.folder)
    assert snapfit.train(**tables, resume=bare, **scene.settings).already_complete


def test_a_folder_that_another_process_holds_is_refused(scene: Scene, run: Path) -> None:
    with old_run(run):
        refused(run, "is being written by another process")
        with pytest.raises(BadInput, match="is being written by another process"):
            scene.train(run, resume=True)
    assert snapfit.train(resume=run).resumed_from == STOPPED_AT


def test_out_and_resume_are_one_too_many(run: Path, tmp_path: Path) -> None:
    refused(run, "both out and resume", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_a_table_and_a_run_there_is_nothing_to_do() -> None:
    with pytest.raises(BadInput, match="no table to train on"):
        snapfit.train()
