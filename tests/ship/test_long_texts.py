"""Length policies from a table to a bundle's answers: each is one rule, in training, in evaluation and in prediction.

The toy texts begin alike and end with what tells their topic: who reads their heads alone learns nothing.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import snapfit
import toys
from snapfit.cli.app import main
from snapfit.core.errors import BadInput
from snapfit.core.folders import write_manifest
from snapfit.data.records import read_records
from snapfit.nn.backend import load_classifier
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import evaluate_bundle
from snapfit.runtime.predictor import Predictor
from snapfit.ship.bundling import N_PROBES
from snapfit.ship.inspecting import describe_bundle
from snapfit.ship.selfproof import prove_self_contained

LIMIT = 8
SETTINGS = toys.QUICK | {"train__epochs": 8, "length__max_tokens": LIMIT, "log__interval_steps": 1}
HEAD = {"length__policy": "head"}
POLICIES: dict[str, dict[str, Any]] = {
    "head": HEAD,
    "tail": {"length__policy": "tail", "model__pooling": "native"},
    "head+tail": {"length__policy": "head+tail", "length__head_share": 0.2},
    "mean": {"length__policy": "windows", "model__pooling": "native"},
    "max": {"length__policy": "windows", "length__window_pooling": "max", "length__overlap": 0.5},
    "attention": {"length__policy": "windows", "length__window_pooling": "attention"},
    "max_states": {"length__policy": "windows", "length__window_pooling": "max_states", "length__max_windows": 2},
}
OTHERS = [name for name in POLICIES if name != "head"]
Made = Callable[[str], snapfit.TrainResult]


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    made = toys.single_rows(n, seed=seed)
    return [{"text": f"the a of in we they {row['text']}", "label": row["label"]} for row in made]


TEST = rows(30, 5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.encoder_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Made:
    """made(policy): a finished run; read it, never write to it."""
    kept: dict[str, snapfit.TrainResult] = {}
    folder = tmp_path_factory.mktemp("made")

    def make(name: str) -> snapfit.TrainResult:
        if name not in kept:
            settings = {"model__pooling": "mean"} | SETTINGS | POLICIES[name]
            kept[name] = snapfit.train(rows(150, 0), test=TEST, out=folder / name, encoder=str(encoder), **settings)
        return kept[name]

    return make


def texts() -> list[str]:
    return [row["text"] for row in TEST] + ["", "the cat", "bread " * 400]


# ---------------------------------------------------------------- one rule


@pytest.mark.parametrize("name", OTHERS)
def test_what_lies_beyond_the_head_is_learnt(made: Made, name: str) -> None:
    head = made("head").metrics["valid"]["accuracy"]
    assert head < 0.5
    assert made(name).metrics["valid"]["accuracy"] > head + 0.25


@pytest.mark.parametrize("name", POLICIES)
def test_a_bundle_measures_what_its_training_measured(made: Made, name: str) -> None:
    result = made(name)
    predictor = snapfit.load(result.bundle, device="cpu")
    assert predictor.replay_probes(tolerance=1e-6) <= 1e-6
    found = evaluate_bundle(predictor, read_records(TEST))["metrics"]
    assert found == pytest.approx(result.metrics["test"], abs=1e-6)


@pytest.mark.parametrize("name", POLICIES)
def test_what_else_is_asked_changes_no_answer(made: Made, name: str) -> None:
    predictor = snapfit.load(made(name).bundle, device="cpu")
    together = predictor.scores(texts())
    alone = np.concatenate([predictor.scores(text) for text in texts()])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    narrow = Predictor(predictor.bundle, predictor.backend, token_budget=20, max_rows=2)
    np.testing.assert_allclose(narrow.scores(texts()[::-1])[::-1], together, atol=1e-5)


@pytest.mark.parametrize("name", ["head+tail", "attention"])
def test_a_bundle_needs_nothing_but_itself(made: Made, name: str) -> None:
    assert prove_self_contained(made(name).bundle, texts()) <= 1e-6


# ---------------------------------------------------------------- what is written


def test_head_leaves_files_as_they_were(made: Made) -> None:
    folder = made("head").bundle
    assert "length_policy" not in json.loads((folder / "snapfit.json").read_text())
    assert "snapfit_window_pooling" not in json.loads((folder / "config.json").read_text())
    assert "truncation_side" not in json.loads((folder / "tokenizer_config.json").read_text())
    assert len(Bundle.open(folder).probes()[0]) == N_PROBES  # type: ignore[index]


@pytest.mark.parametrize("name", OTHERS)
def test_the_policy_is_in_the_bundle(made: Made, name: str) -> None:
    bundle = Bundle.open(made(name).bundle)
    asked = {key.removeprefix("length__"): value for key, value in POLICIES[name].items() if "length" in key}
    assert bundle.info.length_policy is not None
    assert asked.items() <= bundle.info.length_policy.items()
    assert bundle.info.lengths == bundle.tokenizer().policy
    assert bundle.info.lengths.to_dict() == made(name).recipe.length.chosen.to_dict()
    assert bundle.info.format_version == 1
    probes = bundle.probes()
    assert probes is not None
    assert len(probes[0]) == N_PROBES + 2
    assert min(bundle.tokenizer().count(probes[0][-2:])[:, 0]) > 2 * LIMIT


def test_transformers_cuts_the_tail_as_snapfit_does(made: Made) -> None:
    folder = made("tail").bundle
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    batch = tokenizer(texts()[:30], truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**batch).logits.numpy()
    np.testing.assert_allclose(logits, snapfit.load(folder).logits(texts()[:30]), atol=1e-5)
    assert "it reads their first tokens alone" not in (folder / "README.md").read_text()


def test_the_card_and_inspect_say_what_transformers_does_not(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made("mean").bundle
    card = (folder / "README.md").read_text()
    assert f"Of texts of more than {LIMIT} tokens it gives others: it reads their first tokens alone" in card
    assert f"length: at most {LIMIT} tokens; longer texts are read in up to 8 windows of {LIMIT} tokens" in card
    described = describe_bundle(folder)
    assert described["transformers"]["opens"] is True
    assert "of longer texts it reads the first tokens alone" in described["transformers"]["why"]
    assert described["length_policy"]["window_pooling"] == "mean"
    assert main(["inspect", str(folder)]) == 0
    assert f"at most {LIMIT} tokens; longer texts are read in up to 8 windows" in capsys.readouterr().out
    assert describe_bundle(made("head").bundle)["length_policy"] == {"policy": "head"}


def test_files_that_disagree_about_windows_are_refused(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made("mean").bundle, tmp_path / "bundle"))
    info = json.loads((folder / "snapfit.json").read_text())
    info["length_policy"]["window_pooling"] = "max"
    (folder / "snapfit.json").write_text(json.dumps(info))
    (folder / "MANIFEST.json").unlink()
    write_manifest(folder)
    with pytest.raises(BadInput, match=r"config\.json pools windows by mean, snapfit\.json by max"):
        snapfit.load(folder)


# ---------------------------------------------------------------- with the rest


def test_several_models_and_their_student_read_windows(tmp_path: Path, encoder: Path) -> None:
    """A team's answer is of each model's rows, not of its windows; and a student is taught by it."""
    settings = SETTINGS | {"model__pooling": "mean", "length__policy": "windows", "length__window_pooling": "attention"}
    settings |= {"ensemble__members": 3, "ensemble__rounds": 2, "ensemble__student_epochs": 1.0}
    run = snapfit.train(rows(150, 0), test=TEST, out=tmp_path / "run", encoder=str(encoder), **settings)
    assert run.verdict is not None
    assert "student" in [row["name"] for row in run.verdict["rows"]]
    predictor = snapfit.load(run.bundle, device="cpu")
    found = evaluate_bundle(predictor, read_records(TEST))["metrics"]
    assert found == pytest.approx(run.metrics["test"], abs=1e-6)
    more = snapfit.ensemble(
        run.run, table=rows(150, 0), test=TEST, unlabelled=[{"text": row["text"]} for row in rows(20, 9)]
    )
    assert snapfit.load(more.bundle).replay_probes(tolerance=1e-6) <= 1e-6


def test_a_bundle_is_trained_further_by_its_own_policy(made: Made, tmp_path: Path) -> None:
    bundle = made("attention").bundle
    near_zero = {"optim__lr": 1e-12, "train__epochs": 0.2, "train__batch": 8, "length__max_tokens": LIMIT}
    result = snapfit.train(rows(60, 3), out=tmp_path / "same", continue_from=bundle, **near_zero)
    assert result.recipe.length.chosen == Bundle.open(bundle).info.lengths
    one, other = (snapfit.load(folder).scores(texts()) for folder in (bundle, result.bundle))
    np.testing.assert_allclose(one, other, atol=1e-5)  # its score of windows too


@pytest.mark.parametrize(("start", "to"), [("head", "attention"), ("attention", "max"), ("max_states", "head")])
def test_a_bundle_is_trained_further_by_another_policy(made: Made, tmp_path: Path, start: str, to: str) -> None:
    settings = {"train__epochs": 0.2, "train__batch": 8, "length__max_tokens": LIMIT} | POLICIES[to]
    result = snapfit.train(rows(60, 3), out=tmp_path / "run", continue_from=made(start).bundle, **settings)
    assert result.recipe.length.policy == POLICIES[to]["length__policy"]
    model = load_classifier(Bundle.open(result.bundle))
    assert model.window_pooling == result.recipe.length.chosen.pools_windows_by
    assert hasattr(model.head, "window_score") == (to == "attention")


def test_a_run_does_not_go_on_by_another_policy(made: Made, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made("tail").run, tmp_path / "run"))
    with pytest.raises(BadInput, match=r"length\.policy was 'tail', is 'head'"):
        snapfit.train(rows(150, 0), resume=run, test=TEST, **HEAD)


def test_a_native_head_cannot_pool_by_attention(tmp_path: Path, encoder: Path) -> None:
    for pooling in ("attention", "max_states"):
        settings = SETTINGS | {"length__policy": "windows", "length__window_pooling": pooling}
        with pytest.raises(BadInput, match=rf"length\.window_pooling is '{pooling}', model\.pooling is 'native'"):
            snapfit.train(rows(30, 0), out=tmp_path / "run", encoder=str(encoder), model__pooling="native", **settings)
    assert not (tmp_path / "run").exists()


def test_pairs_other_tasks_and_the_range_test(tmp_path: Path, encoder: Path) -> None:
    settings = {"encoder": str(encoder), "model__pooling": "mean", "train__epochs": 0.3, "train__batch": 8}
    settings |= {"length__policy": "windows", "length__max_tokens": 9, "length__window_pooling": "attention"}
    for kind in ("pair", "multi", "regression"):
        test = toys.ROWS[kind](20, seed=4)
        result = snapfit.train(toys.ROWS[kind](60), test=test, out=tmp_path / kind, **settings)
        found = evaluate_bundle(snapfit.load(result.bundle), read_records(test))["metrics"]
        assert found == pytest.approx(result.metrics["test"], rel=1e-5, abs=1e-6, nan_ok=True)
    assert snapfit.find_lr(toys.single_rows(60), steps=10, **settings).steps <= 10
