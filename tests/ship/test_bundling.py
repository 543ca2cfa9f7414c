"""The bundle: whole or absent, self-sufficient, free of pickles, and the same model that was measured."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import snapfit
import tiny
import toys
from snapfit.core.errors import WorkFailed
from snapfit.core.files import sha256_file
from snapfit.core.folders import verify_manifest
from snapfit.core.metrics import compute_metrics
from snapfit.core.recipe import Recipe
from snapfit.core.recipe_sections import DataSection
from snapfit.runtime.bundle import Bundle
from snapfit.ship.bundling import N_PROBES, probe_texts, write_bundle
from snapfit.training.fit import Fitted, fit
from snapfit.training.plan import make_plan
from snapfit.training.prepare import Tables, read_tables

FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "snapfit.json",
    "probes.json",
    "README.md",
    "MANIFEST.json",
}
KINDS = [(kind, pooling) for kind in toys.ROWS for pooling in ("native", "mean")]


def examples_of(kind: str, rows: list[dict[str, Any]]) -> list[Any]:
    return [(row["sentence1"], row["sentence2"]) if kind == "pair" else row["text"] for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Tables]:
    encoder = toys.encoder_folder(tmp_path_factory.mktemp("encoder"))
    values = toys.QUICK | {"model__encoder": str(encoder), "model__pooling": "mean", "train__epochs": 1}
    recipe = Recipe().with_values({key.replace("__", "."): value for key, value in values.items()})
    tables = read_tables(toys.single_rows(60), None, None, recipe.data)
    plan = make_plan(tables, recipe, notify=lambda kind, **fields: None)
    return fit(plan, notify=lambda kind, **fields: None), tables


# ---------------------------------------------------------------- what is in it


@pytest.mark.parametrize(("kind", "pooling"), KINDS)
def test_holds_what_prediction_needs_and_nothing_else(kind: str, pooling: str) -> None:
    folder = toys.trained(kind, pooling).result.bundle
    assert {path.name for path in folder.iterdir()} == FILES
    verify_manifest(folder)
    assert snapfit.load(folder).replay_probes(tolerance=1e-6) <= 1e-6
    texts, scores = Bundle.open(folder).probes()
    assert len(texts) == len(scores) == N_PROBES
    config = json.loads((folder / "config.json").read_text())
    names = {"pair": ["no", "yes"], "regression": ["score"]}.get(kind, ["animals", "food", "tools"])
    assert list(config["id2label"].values()) == names
    assert config["architectures"] == ["BertForSequenceClassification" if pooling == "native" else "Classifier"]
    assert "_name_or_path" not in config
    assert str(toys.trained(kind, pooling).encoder) not in (folder / "config.json").read_text()
    info = Bundle.open(folder).info
    assert (info.task, info.pair, info.head) == (
        "single" if kind == "pair" else kind,
        kind == "pair",
        "native" if pooling == "native" else "snapfit",
    )
    assert info.pooling == pooling
    assert info.recipe["train"]["epochs"] == 6
    assert set(info.versions) == {"snapfit", "python", "torch", "transformers", "numpy"}


@pytest.mark.parametrize(("kind", "pooling"), KINDS)
def test_the_reported_metrics_are_the_bundles(kind: str, pooling: str) -> None:
    run = toys.trained(kind, pooling)
    tables = read_tables(run.rows, None, None, DataSection())
    valid = tables.splits["valid"]
    texts = valid.texts.to_pylist()
    if tables.pair:
        texts = list(zip(texts, valid.pairs.to_pylist(), strict=True))
    predictor = snapfit.load(run.result.bundle)
    targets = tables.label_set.encode(valid.labels)
    measured = compute_metrics(tables.label_set.task, predictor.scores(texts), targets)
    assert measured == pytest.approx(run.result.metrics["valid"], abs=1e-6)
    assert predictor.bundle.info.metrics == run.result.metrics


def test_a_regression_bundle_answers_in_units(tmp_path: Path) -> None:
    rows = toys.regression_rows(120, offset=1e5, scale=6_000.0)
    result = snapfit.train(
        rows,
        out=tmp_path / "run",
        encoder=str(toys.trained("regression").encoder),
        **(toys.QUICK | {"optim__layer_ratio": 1.0, "optim__lr": 5e-3}),
    )
    predicted = snapfit.load(result.bundle).predict([row["text"] for row in rows])
    assert min(predicted) + 2_000 > 1e5
    assert max(predicted) < 1.08e5
    assert np.corrcoef(predicted, [row["score"] for row in rows])[0, 1] > 0.8
    texts, stored = Bundle.open(result.bundle).probes()
    assert len(texts) == N_PROBES
    assert stored.min() > 9e4


def test_probes_never_hold_training_texts() -> None:
    texts = probe_texts()
    assert len(texts) == N_PROBES
    assert texts == probe_texts()
    assert not {row["text"] for row in toys.trained().rows} & set(texts)


# ---------------------------------------------------------------- plain transformers


@pytest.mark.parametrize("family", tiny.KNOWN)
def test_transformers_gives_the_same_logits_on_texts(family: str) -> None:
    run = toys.trained("single", "native", family)
    rows = [*(row["text"] for row in run.rows[:10]), " ".join(["honey", "saw", "the"] * 40)]
    tokenizer = AutoTokenizer.from_pretrained(run.result.bundle)
    model = AutoModelForSequenceClassification.from_pretrained(run.result.bundle).eval()
    inputs = tokenizer(rows, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs).logits.numpy()
    np.testing.assert_allclose(snapfit.load(run.result.bundle).logits(rows), theirs, atol=1e-5)
    assert model.config.id2label == {0: "animals", 1: "food", 2: "tools"}


@pytest.mark.parametrize("kind", ["multi", "regression", "pair"])
def test_transformers_opens_every_task(kind: str) -> None:
    run = toys.trained(kind, "native")
    examples = examples_of(kind, run.rows[:10])
    columns = list(zip(*examples, strict=True)) if kind == "pair" else [examples]
    tokenizer = AutoTokenizer.from_pretrained(run.result.bundle)
    model = AutoModelForSequenceClassification.from_pretrained(run.result.bundle).eval()
    inputs = tokenizer(*map(list, columns), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(**inputs).logits.numpy()
    np.testing.assert_allclose(snapfit.load(run.result.bundle).logits(examples), theirs, atol=1e-5)


@pytest.mark.parametrize("family", tiny.UNKNOWN)
def test_unknown_families_make_bundles_too(family: str) -> None:
    run = toys.trained("single", "mean", family)
    predictor = snapfit.load(run.result.bundle)
    assert predictor.replay_probes(tolerance=1e-6) <= 1e-6
    texts = [row["text"] for row in run.rows[:20]]
    np.testing.assert_allclose(
        predictor.scores(texts), np.concatenate([predictor.scores([text]) for text in texts]), atol=1e-5
    )


# ---------------------------------------------------------------- it needs nothing else

MOVED = [("single", "mean"), ("multi", "native"), ("regression", "native"), ("pair", "mean")]
ELSEWHERE = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("no network here")

import snapfit
from snapfit.nn import backend
socket.socket = socket.create_connection = refuse
jobs = json.load(sys.stdin)
print(json.dumps([snapfit.load(folder).scores([tuple(t) if isinstance(t, list) else t for t in texts]).tolist()
                  for folder, texts in jobs]))
"""


def test_a_moved_bundle_answers_the_same_on_a_bare_machine(tmp_path: Path) -> None:
    """Another process, user, home and folder; no network; the encoder and the run are gone."""
    jobs, expected = [], []
    for number, (kind, pooling) in enumerate(
        [("single", "mean"), ("multi", "native"), ("regression", "native"), ("pair", "mean")]
    ):
        run = toys.trained(kind, pooling)
        made = tmp_path / f"made {number}"
        shutil.copytree(run.result.run, made / "run")
        examples = examples_of(kind, run.rows[:8])
        expected.append(snapfit.load(made / "run" / "bundle").scores(examples))
        shutil.move(made / "run" / "bundle", tmp_path / f"moved {number}")
        shutil.rmtree(made)
        jobs.append([str(tmp_path / f"moved {number}"), examples])
    own = toys.new_run(tmp_path / "own", n_rows=40, train__epochs=1)
    examples = examples_of("single", own.rows)
    expected.append(snapfit.load(own.result.bundle).scores(examples))
    shutil.move(own.result.bundle, tmp_path / "moved own")
    shutil.rmtree(tmp_path / "own")
    jobs.append([str(tmp_path / "moved own"), examples])

    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "USER": "somebody-else",
        "LOGNAME": "somebody-else",
        "PYTHONPATH": str(Path(snapfit.__file__).parents[1]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", ELSEWHERE],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path / "cwd",
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for got, wanted in zip(json.loads(done.stdout), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert list((tmp_path / "cwd").iterdir()) == []


# ---------------------------------------------------------------- the same bytes, or none


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    settings = {"n_rows": 40, "train__epochs": 1, "model__dropout": 0.1}
    bundles = [
        toys.new_run(tmp_path / name, train__seed=seed, **settings).result.bundle
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    hashes = [{name: sha256_file(bundle / name) for name in FILES - {"MANIFEST.json"}} for bundle in bundles]
    same = {name for name in hashes[0] if hashes[0][name] == hashes[1][name]}
    assert same >= {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "probes.json",
    }
    assert hashes[0]["model.safetensors"] != hashes[2]["model.safetensors"]


def test_weights_are_float32_and_contiguous(finished: tuple[Fitted, Tables], tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle", *finished)
    with safe_open(tmp_path / "bundle" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118


def broken(fitted: Fitted) -> Fitted:
    """A model whose probes cannot be scored: the failure comes after the weights were written."""
    model = tiny.classifier("bert", "mean")
    with torch.no_grad():
        model.output.bias.fill_(float("nan"))
    return dataclasses.replace(fitted, model=model)


def test_a_write_that_fails_leaves_nothing(finished: tuple[Fitted, Tables], tmp_path: Path) -> None:
    fitted, tables = finished
    with pytest.raises(WorkFailed, match="not finite"):
        write_bundle(tmp_path / "bundle", broken(fitted), tables)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_what_was_there(finished: tuple[Fitted, Tables], tmp_path: Path) -> None:
    fitted, tables = finished
    write_bundle(tmp_path / "bundle", fitted, tables)
    before = sha256_file(tmp_path / "bundle" / "MANIFEST.json")
    with pytest.raises(WorkFailed, match="not finite"):
        write_bundle(tmp_path / "bundle", broken(fitted), tables)
    assert sha256_file(tmp_path / "bundle" / "MANIFEST.json") == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    verify_manifest(tmp_path / "bundle")


def test_what_is_written_is_what_is_returned(finished: tuple[Fitted, Tables], tmp_path: Path) -> None:
    info = write_bundle(tmp_path / "bundle", *finished)
    assert Bundle.open(tmp_path / "bundle").info == info
    assert info.data == finished[1].identity
    assert info.max_tokens == finished[0].recipe.length.max_tokens
