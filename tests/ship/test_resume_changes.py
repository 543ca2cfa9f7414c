"""What differs when a run is gone on with: refused, to be accepted, or free; and what of its folder cannot be read."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import snapfit
import toys
import trained
from resuming import STOPPED_AT, Event, refused, told_to_end
from scene import Scene
from snapfit.core.errors import Interrupted
from snapfit.core.files import sha256_file


def with_other_text(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"text": "honey"}, *rows[1:]]


def with_other_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0] | {"label": "food"}, *rows[1:]]


def with_new_label(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*rows[:-3], *({"text": f"text {i}", "label": "new"} for i in range(3))]


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_other_text, "the SHA-256 of the texts in the (train|valid) table was"),
        (with_other_label, "the SHA-256 of the (texts and )?labels in the train table was"),
        (with_new_label, r"labels was \['animals', 'food', 'tools'\], is \['animals', 'food', 'new', 'tools'\]"),
        (lambda rows: rows[:40], "the train table was '43 rows', is '36 rows'"),
    ],
)
def test_another_table_is_refused(run: Path, tmp_path: Path, change: Any, words: str, accept: bool) -> None:
    table = trained.write_csv(tmp_path / "changed.csv", change(toys.single_rows(48)))
    error = refused(run, words, table, accept_changes=accept)
    assert f"{run}, from step 5, cannot be continued" in error.found
    assert "--continue-from" in error.fix


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 3}, r"train\.seed was 0, is 3"),
        ({"batch": 16}, r"train\.batch was 8, is 16"),
        ({"model__pooling": "max"}, r"model\.pooling was 'mean', is 'max'"),
        ({"optim__name": "sgd", "train__accumulate": 2}, r"optim\.name was 'adamw', is 'sgd'; train\.accumulate was 1"),
        ({"data__valid_fraction": 0.2}, r"data\.valid_fraction was .* is 0\.2"),
        ({"recipe": {"train": {"sampling": "balanced"}}}, r"train\.sampling was 'all', is 'balanced'"),
    ],
)
def test_another_training_is_refused(run: Path, settings: dict[str, Any], words: str, accept: bool) -> None:
    refused(run, words, accept_changes=accept, **settings)


def test_another_encoder_is_refused(run: Path, tmp_path: Path) -> None:
    other = toys.encoder_folder(tmp_path / "encoder", intermediate_size=48)
    refused(run, "encoder was '.*', is '", encoder=str(other))


def test_the_same_encoder_may_lie_elsewhere(scene: Scene, run: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    moved = shutil.copytree(scene.folder / "encoder", tmp_path / "encoder")
    assert snapfit.train(resume=run, encoder=str(moved)).resumed_from == STOPPED_AT
    assert sha256_file(run / "bundle" / "model.safetensors") == whole["bundle"]


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 3}, {"optim__lr": 1e-3}, {"schedule__shape": "cosine"}, {"loss__label_smoothing": 0.1}],
)
def test_changes_that_make_sense_must_be_accepted(run: Path, settings: dict[str, Any]) -> None:
    error = refused(run, "would be continued with changes", **settings)
    assert "--accept-changes" in error.fix
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        told_to_end(8)(event)

    with pytest.raises(Interrupted):
        snapfit.train(resume=run, accept_changes=True, listener=listen, **settings)
    assert len(heard[0]["changes"]) == 1
    saved = [event["step"] for event in heard if event["kind"] == "checkpoint"]
    assert saved[0] == STOPPED_AT  # at once, so that from now on nothing has changed
    again: list[Event] = []
    assert snapfit.train(resume=run, listener=again.append).resumed_from == 8
    assert again[0]["changes"] == []


def test_what_changes_no_weights_is_free(run: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    test = trained.write_csv(tmp_path / "test.csv", toys.single_rows(9, seed=6))
    free = {"checkpoint__every_steps": 3, "checkpoint__keep": 5, "log__interval_steps": 2, "train__max_recoveries": 1}
    heard: list[Event] = []
    result = snapfit.train(test=test, resume=run, listener=heard.append, **free)
    assert result.resumed_from == STOPPED_AT
    assert sha256_file(run / "bundle" / "model.safetensors") == whole["bundle"]
    assert [event["step"] for event in heard if event["kind"] == "checkpoint"] == [5, 6, 9, 12]
    assert len(heard[0]["changes"]) == 5


def test_the_environment_counts_as_it_does_for_a_new_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFIT_TRAIN_EPOCHS", "3")
    refused(run, r"train\.epochs was 2\.0, is 3\.0")
    assert snapfit.train(resume=run, accept_changes=True).steps == 18
    monkeypatch.setenv("SNAPFIT_TRAIN_SEED", "9")
    refused(run, r"train\.seed was 0, is 9")


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("request.json", "{", r"request\.json"),
        ("request.json", '{"kind": "snapfit run", "format": 9}', r"request\.json is not that of a run"),
        ("recipe.yaml", "train: [", "not YAML"),
        ("recipe.yaml", "train: {speed: 3}", r"train\.speed"),
        ("journal.jsonl", "[]\n[]\n", "not an event"),
    ],
)
def test_a_damaged_run_folder_is_refused(run: Path, name: str, content: str, words: str) -> None:
    (run / name).write_text(content)
    refused(run, words)
