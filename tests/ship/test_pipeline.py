"""`snapfit.train` from table to run folder: what is written, what is refused, and where settings come from."""

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import snapfit
import toys
from snapfit.core.errors import BadInput, Interrupted, WorkFailed
from snapfit.core.files import sha256_file
from snapfit.core.recipe import Recipe, load_recipe
from snapfit.ship.pipeline import TrainResult
from snapfit.training.checkpoint import newest_valid
from snapfit.training.journal import read_journal
from snapfit.training.members import read_member

SHORT = toys.QUICK | {"train__epochs": 1, "model__pooling": "mean"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.encoder_folder(tmp_path_factory.mktemp("encoder")))


def weights_hash(result: TrainResult) -> str:
    return sha256_file(result.bundle / "model.safetensors")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---------------------------------------------------------------- what is written


def test_what_a_complete_run_told_is_safe_before_it_is_called_complete(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves a run that says that it is complete and lacks its final metrics."""
    out, told = tmp_path / "run", []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        journal = out / "journal.jsonl"
        told.append((name, read_journal(journal)[-1]["kind"] if journal.exists() else ""))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    snapfit.train(toys.single_rows(40), out=out, encoder=encoder, **SHORT)
    names = [name for name, _ in told]
    result = max(i for i, name in enumerate(names) if "result.json" in name)
    before = [kind for name, kind in told[:result] if name == "journal.jsonl"]
    assert before[-1] == "final"


def test_a_run_folder_tells_the_whole_story(capfd: pytest.CaptureFixture[str]) -> None:
    run = toys.trained()
    folder, result = run.result.run, run.result
    assert {path.name for path in folder.iterdir()} == {
        *("request.json", "recipe.yaml", "data.json", "journal.jsonl"),
        *("checkpoints", "bundle", "result.json"),
    }
    assert load_recipe(folder / "recipe.yaml", environment={}) == result.recipe
    settings = result.recipe.to_dict()
    assert {section for section, values in settings.items() if "auto" in values.values()} <= {"data", "decision"}
    events = read_journal(folder / "journal.jsonl")
    assert events == json.loads(json.dumps(run.events))
    assert [events[0]["kind"], events[-1]["kind"]] == ["data", "end"]
    assert events[-1]["metrics"] == result.metrics
    data = json.loads((folder / "data.json").read_text())
    assert set(data) == {"hash", "splits", "labels"}
    assert data["labels"]["names"] == ["animals", "food", "tools"]
    assert data["splits"]["train"]["rows"] + data["splits"]["valid"]["rows"] == len(run.rows)
    assert capfd.readouterr() == ("", "")


def test_the_library_never_prints(encoder: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = snapfit.train(toys.single_rows(30), out=tmp_path / "run", encoder=encoder, **SHORT)
    snapfit.load(result.bundle).predict("the honey")
    assert capfd.readouterr() == ("", "")


def test_the_result_is_plain_values(encoder: str, tmp_path: Path) -> None:
    result = snapfit.train(toys.single_rows(30), out=tmp_path / "run", encoder=encoder, **SHORT)
    values = json.loads(json.dumps(result.to_dict()))
    assert values["bundle"] == str(tmp_path / "run" / "bundle")
    assert values["stopped_by"] is None
    assert values["metrics"] == result.metrics
    assert Recipe.from_dict(values["recipe"]) == result.recipe
    assert 0 < result.train_seconds < result.seconds


def test_a_written_recipe_repeats_the_run(tmp_path: Path) -> None:
    run = toys.trained()
    again = snapfit.train(run.rows, out=tmp_path / "again", recipe=run.result.run / "recipe.yaml")
    assert weights_hash(again) == weights_hash(run.result)
    assert again.metrics == run.result.metrics


@pytest.mark.parametrize("kind", ["list", "pandas", "csv", "jsonl"])
def test_every_kind_of_table_gives_the_same_weights(encoder: str, tmp_path: Path, kind: str) -> None:
    rows = toys.single_rows(40)
    makers: dict[str, Callable[[], Any]] = {
        "list": lambda: rows,
        "pandas": lambda: pd.DataFrame(rows),
        "csv": lambda: write_csv(tmp_path / "table.csv", rows),
        "jsonl": lambda: tmp_path / "table.jsonl",
    }
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"encoder": encoder, **SHORT}
    result = snapfit.train(makers[kind](), out=tmp_path / "run", **settings)
    reference = snapfit.train(rows, out=tmp_path / "reference", **settings)
    assert weights_hash(result) == weights_hash(reference)


# ---------------------------------------------------------------- where it is written


def test_runs_get_free_names(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_csv(tmp_path / "reviews.csv", toys.single_rows(30))
    names = [snapfit.train(table, encoder=encoder, **SHORT).run for _ in range(2)]
    names.append(snapfit.train(toys.single_rows(30), encoder=encoder, **SHORT).run)
    assert names == [Path("runs/reviews"), Path("runs/reviews-2"), Path("runs/table")]


def test_a_folder_with_content_is_never_written_to(encoder: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for out in (tmp_path / "run", tmp_path / "file"):
        with pytest.raises(BadInput, match="exists already"):
            snapfit.train(toys.single_rows(30), out=out, encoder=encoder, **SHORT)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert snapfit.train(toys.single_rows(30), out=tmp_path / "empty", encoder=encoder, **SHORT).bundle.is_dir()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"encoder": "./no-such-encoder"}, "there is no folder"),
        ({"train__metric": "rmse"}, r"train\.metric is 'rmse'"),
        ({"length__max_tokens": 9_000}, r"length\.max_tokens is 9000"),
        ({"optim__freeze_layers": 9}, r"optim\.freeze_layers is 9"),
        ({"loss__class_weights": {"zebra": 2.0}}, "'zebra'"),
        ({"table": [{"text": "only one row", "label": "a"}]}, "one label only"),
        ({"table": "no-such-table.csv"}, r"no-such-table\.csv"),
        ({"valid": [{"text": "x", "label": "unheard"}]}, "'unheard'"),
        ({"bacth": 3}, "bacth"),
    ],
)
def test_what_is_refused_leaves_no_folder(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = {"table": toys.single_rows(30), "encoder": encoder, **SHORT} | change
    with pytest.raises(BadInput, match=found) as caught:
        snapfit.train(arguments.pop("table"), **arguments)
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_work_that_fails_keeps_its_journal(encoder: str, tmp_path: Path) -> None:
    settings = SHORT | {"optim__lr": 1e30, "schedule__warmup_fraction": 0.0}
    with pytest.raises(WorkFailed):
        snapfit.train(toys.single_rows(60), out=tmp_path / "run", encoder=encoder, **settings)
    assert not (tmp_path / "run" / "bundle").exists()
    assert read_journal(tmp_path / "run" / "journal.jsonl")[-1]["kind"] in ("rollback", "step")


def signal_at_step(number: signal.Signals, step: int) -> Callable[[dict[str, Any]], None]:
    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["number"] == step:
            os.kill(os.getpid(), number)

    return listen


def test_ctrl_c_ends_the_run_with_a_bundle(encoder: str, tmp_path: Path) -> None:
    settings = SHORT | {"train__epochs": 20, "log__interval_steps": 1}
    result = snapfit.train(
        toys.single_rows(60),
        out=tmp_path / "run",
        encoder=encoder,
        listener=signal_at_step(signal.SIGINT, 9),
        **settings,
    )
    assert (result.stopped_by, result.steps) == (signal.SIGINT, 9)
    assert snapfit.load(result.bundle).replay_probes() < 1e-4
    assert any(event["kind"] == "interrupted" for event in read_journal(result.run / "journal.jsonl"))
    assert not (result.run / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_is_told_to_end_saves_its_state(encoder: str, tmp_path: Path, number: signal.Signals) -> None:
    settings = SHORT | {"train__epochs": 20, "log__interval_steps": 1}
    with pytest.raises(Interrupted, match="after step 9 of 140; go on with: snapfit train --resume") as caught:
        snapfit.train(
            toys.single_rows(60),
            out=tmp_path / "run",
            encoder=encoder,
            listener=signal_at_step(number, 9),
            **settings,
        )
    assert caught.value.exit_code == 143
    assert not (tmp_path / "run" / "bundle").exists()
    newest, skipped = newest_valid(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert (newest.step, skipped) == (9, [])


@pytest.mark.parametrize(
    ("kind", "message"), [("recipe", "nothing was trained"), ("final", "go on with: snapfit train --resume")]
)
def test_a_signal_outside_the_steps_says_what_is_left(encoder: str, tmp_path: Path, kind: str, message: str) -> None:
    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == kind:
            os.kill(os.getpid(), signal.SIGTERM)

    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=message) as caught:
        snapfit.train(toys.single_rows(60), out=run, encoder=encoder, listener=listen, **SHORT)
    assert caught.value.exit_code == 143
    if kind == "recipe":
        assert list(tmp_path.iterdir()) == []
    else:
        assert not (run / "result.json").exists()
        assert snapfit.train(toys.single_rows(60), resume=run).bundle.is_dir()


# ---------------------------------------------------------------- where settings come from


def test_settings_win_over_the_recipe_in_each_of_its_forms(encoder: str, tmp_path: Path) -> None:
    values = {
        "train": {"epochs": 1, "batch": 8, "seed": 5, "precision": "fp32"},
        "model": {"encoder": encoder, "pooling": "mean"},
    }
    written = tmp_path / "recipe.yaml"
    written.write_text(Recipe.from_dict(values).to_yaml())
    forms = [values, Recipe.from_dict(values), written, str(written)]
    for number, recipe in enumerate(forms):
        out = tmp_path / f"run {number}"
        result = snapfit.train(toys.single_rows(30), out=out, recipe=recipe, batch=4, data__valid_fraction=0.2)
        assert (result.recipe.train.batch, result.recipe.train.seed) == (4, 5)
        assert result.recipe.data.valid_fraction == 0.2
        assert result.recipe.model.pooling == "mean"


def test_the_environment_wins_over_a_file_and_loses_to_settings(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "recipe.yaml"
    written.write_text("train: {epochs: 3, batch: 8, seed: 3, precision: fp32}\n")
    monkeypatch.setenv("SNAPFIT_TRAIN_SEED", "7")
    monkeypatch.setenv("SNAPFIT_TRAIN_EPOCHS", "2")
    result = snapfit.train(
        toys.single_rows(30),
        out=tmp_path / "run",
        recipe=written,
        encoder=encoder,
        model__pooling="mean",
        epochs=1,
    )
    train = result.recipe.train
    assert (train.seed, train.epochs, train.batch) == (7, 1, 8)


def test_averages_and_frozen_layers_are_in_the_snapshots(tmp_path: Path, encoder: str) -> None:
    out = tmp_path / "run"
    settings = SHORT | {"ensemble__ema_share": 0.2, "ensemble__tail_share": 0.5, "optim__freeze_layers": 1}
    result = snapfit.train(toys.single_rows(40), out=out, encoder=encoder, **settings)
    assert {path.name for path in (out / "snapshots").iterdir()} == {"ema", "shared.safetensors", "tail"}
    checkpoint, _ = newest_valid(out / "checkpoints")
    assert checkpoint is not None
    averages = checkpoint.tensors("averages")
    for name in ("ema", "tail"):
        member, weights = read_member(out / "snapshots" / name)
        assert (member.why, member.step, member.metrics) == (name, result.steps, {})
        assert all(torch.equal(tensor, averages[f"{name}/{key}"]) for key, tensor in weights.items())
        assert {f"{name}/{key}" for key in weights} == {key for key in averages if key.startswith(name)}
    plain = snapfit.train(toys.single_rows(40), out=tmp_path / "plain", encoder=encoder, **SHORT, freeze_layers=1)
    assert weights_hash(plain) == weights_hash(result)
    assert not (tmp_path / "plain" / "snapshots").exists()
    again = snapfit.train(toys.single_rows(40), resume=out, accept_changes=True, ema_share=0.0)
    assert again.metrics == result.metrics
    assert {path.name for path in (out / "snapshots").iterdir()} == {"shared.safetensors", "tail"}
