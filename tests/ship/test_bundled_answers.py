"""Bundles whose answer is more than one model at temperature 1: written, loaded, replayed, damaged, and told about."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import snapfit
import toys
from ensembles import (
    PICKS,
    TEMPERATURE,
    TEMPERATURES,
    answer_of_three,
    changed_above,
    fitted_on,
    logits_apart,
    whole,
    with_answer,
)
from snapfit.cli.app import main
from snapfit.core.combining import combine
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.folders import verify_manifest, write_manifest
from snapfit.core.metrics import compute_metrics
from snapfit.data.batches import pad
from snapfit.nn.backend import TorchBackend, load_backend, load_classifier, load_classifiers
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.runtime.bundle import Bundle
from snapfit.ship.bundling import write_bundle
from snapfit.ship.inspecting import describe_bundle
from snapfit.ship.selfproof import TOLERANCE, prove_self_contained
from snapfit.training.answer import Answer
from snapfit.training.fit import Fitted
from snapfit.training.prepare import Tables
from stage import SETTINGS

KINDS = ["single", "multi", "regression", "pair"]
Made = tuple[Path, Fitted, Tables]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """made(kind, pooling): a bundle of three models and what it was written from; read it, never write to it."""
    encoder = toys.encoder_folder(tmp_path_factory.mktemp("encoder"))
    kept: dict[tuple[str, str], Made] = {}

    def make(kind: str = "single", pooling: str = "mean") -> Made:
        if (kind, pooling) not in kept:
            fitted, tables = fitted_on(str(encoder), kind, pooling=pooling)
            fitted = with_answer(fitted, answer_of_three(fitted.model), TEMPERATURE)
            folder = tmp_path_factory.mktemp("made") / "bundle"
            write_bundle(folder, fitted, tables)
            kept[kind, pooling] = folder, fitted, tables
        return kept[kind, pooling]

    return make


@pytest.fixture
def copied(made: Callable[..., Made], tmp_path: Path) -> Path:
    """A copy of a bundle of three models, to be damaged."""
    return Path(shutil.copytree(made()[0], tmp_path / "bundle"))


def texts_of(kind: str, n: int = 20) -> list[Any]:
    rows = toys.ROWS[kind](n, seed=5)
    return [(row["sentence1"], row["sentence2"]) if kind == "pair" else row["text"] for row in rows]


def scores_by_hand(fitted: Fitted, tables: Tables, texts: list[Any]) -> np.ndarray:
    """`combining.combine` on the logits of each model by itself, in one padded batch."""
    assert fitted.answer is not None
    columns = list(zip(*texts, strict=True)) if tables.pair else [texts]
    tokens = fitted.tokenizer.encode(*map(list, columns))
    batch = pad(tokens, np.arange(len(texts)), pad_id=0)
    models = [whole(fitted.model, dict(state)) for state in (fitted.model.state_dict(), *fitted.answer.others)]
    logits = logits_apart(models, batch)
    heat = [TEMPERATURES[i] for i in PICKS]
    return combine([logits[i] for i in PICKS], heat, tables.label_set.task, TEMPERATURE)


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize(("kind", "pooling"), [*((kind, "mean") for kind in KINDS), ("single", "native")])
def test_the_answer_is_what_was_combined(made: Callable[..., Made], kind: str, pooling: str) -> None:
    folder, fitted, tables = made(kind, pooling)
    verify_manifest(folder)
    predictor = snapfit.load(folder, device="cpu")
    texts = texts_of(kind)
    wanted = scores_by_hand(fitted, tables, texts)
    np.testing.assert_allclose(predictor.scores(texts), wanted, atol=2e-6)
    assert predictor.replay_probes(tolerance=1e-6) <= 1e-6
    assert isinstance(predictor.backend, EnsembleBackend)
    assert predictor.backend.trunks == (1, 2)
    decisions = predictor.predict(texts)
    assert decisions == [predictor.predict(text) for text in texts] or kind == "regression"


def test_what_is_the_same_is_stored_once(made: Callable[..., Made]) -> None:
    folder, fitted, _ = made()
    assert fitted.answer is not None
    first = load_file(folder / "model.safetensors")
    for number, other in enumerate(fitted.answer.others, 1):
        stored = load_file(folder / f"members/{number}.safetensors")
        assert {name for name in other if not (other[name] == first[name]).all()} == set(stored)
        assert not any("embeddings" in name or "layer.0." in name for name in stored)
    models = load_classifiers(Bundle.open(folder))
    tables = [dict(model.named_parameters())["bert.embeddings.word_embeddings.weight"] for model in models]
    assert len({id(table) for table in tables}) == 1


def test_the_model_is_left_as_it_was(made: Callable[..., Made]) -> None:
    _, fitted, _ = made()
    assert not any("forward" in vars(module) or module._forward_hooks for module in fitted.model.modules())


def test_snapfit_json_says_what_answers(made: Callable[..., Made]) -> None:
    info = Bundle.open(made()[0]).info
    assert (info.format_version, info.temperature) == (2, TEMPERATURE)
    assert info.members is not None
    assert [one["file"] for one in info.members] == [
        "model.safetensors",
        "members/1.safetensors",
        "members/2.safetensors",
    ]
    assert info.made_of == {"name": "greedy selection", "rule": "the least error", "expected": {"accuracy": 0.9}}


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_one_model_at_a_temperature_is_of_format_1(
    made: Callable[..., Made], tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, fitted, tables = made(kind)
    fitted = with_answer(fitted, Answer("step 40", temperatures=(1.6,)), 1.6)
    info = write_bundle(tmp_path / "bundle", fitted, tables)
    assert (info.format_version, info.members, info.temperature) == (1, None, 1.6)
    assert info.made_of == {"name": "step 40"}
    predictor = snapfit.load(tmp_path / "bundle", device="cpu")
    assert isinstance(predictor.backend, TorchBackend)
    assert predictor.replay_probes(tolerance=1e-6) <= 1e-6
    texts = texts_of(kind)
    wanted = combine([predictor.logits(texts)], [1.6], tables.label_set.task, 1.0)
    np.testing.assert_allclose(predictor.scores(texts), wanted, atol=1e-9)
    assert "- the answer is `step 40`, the scores of one model, at temperature 1.6" in card_of(tmp_path / "bundle")
    assert main(["inspect", str(tmp_path / "bundle")]) == 0
    assert "answer     step 40: one model, temperature 1.6\n" in capsys.readouterr().out


def test_a_plain_answer_writes_what_was_always_written(made: Callable[..., Made], tmp_path: Path) -> None:
    _, fitted, tables = made()
    write_bundle(tmp_path / "bundle", with_answer(fitted, None), tables)
    values = json.loads((tmp_path / "bundle/snapfit.json").read_text("utf-8"))
    assert values["format_version"] == 1
    assert not {"members", "made_of"} & values.keys()
    assert not (tmp_path / "bundle/members").exists()
    assert "the answer is" not in card_of(tmp_path / "bundle")


# ---------------------------------------------------------------- what goes wrong


def test_a_model_of_another_shape_is_not_written(made: Callable[..., Made], tmp_path: Path) -> None:
    _, fitted, tables = made()
    state = changed_above(fitted.model, 1, seed=1)
    state.pop("head.output.weight")
    answer = Answer("two", (state,), (0.5, 0.5), (1.0, 1.0))
    with pytest.raises(BadInput, match="model 2 of the answer lacks 1 .* 'head.output.weight'"):
        write_bundle(tmp_path / "bundle", with_answer(fitted, answer), tables)
    state["head.output.weight"] = fitted.model.state_dict()["head.output.weight"] + float("nan")
    with pytest.raises(WorkFailed, match="not finite for row 0"):
        write_bundle(tmp_path / "bundle", with_answer(fitted, answer), tables)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_member_is_found(copied: Path) -> None:
    path = copied / "members/1.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"'members/1\.safetensors' .* was changed"):
        snapfit.load(copied)
    path.write_bytes(data[:-1])
    with pytest.raises(BadInput, match="bytes where"):
        snapfit.load(copied, verify=False)
    write_manifest(copied)
    with pytest.raises(BadInput, match=r"members/1\.safetensors cannot be read"):
        snapfit.load(copied)
    path.unlink()
    with pytest.raises(BadInput, match="is missing"):
        snapfit.load(copied)
    write_manifest(copied)
    with pytest.raises(BadInput, match=r"has no members/1\.safetensors"):
        snapfit.load(copied)


def test_a_member_that_does_not_fit_is_refused(copied: Path) -> None:
    path = copied / "members/2.safetensors"
    tensors = load_file(path)
    for changed, found in (
        ({"head.more": tensors["head.output.bias"].clone()}, r"2\.safetensors has a weight 'head\.more'"),
        ({"head.output.bias": tensors["head.output.bias"][:1].clone()}, r"head\.output\.bias is .* of shape \(1,\)"),
    ):
        save_file({**tensors, **changed}, path)
        write_manifest(copied)
        with pytest.raises(BadInput, match=found):
            snapfit.load(copied)


def test_a_first_model_that_lacks_a_weight_is_refused(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    tensors.pop("head.output.bias")
    save_file(tensors, copied / "model.safetensors")
    write_manifest(copied)
    with pytest.raises(BadInput, match=r"1 weights missing \(head\.output\.bias\)"):
        snapfit.load(copied)


def test_a_file_out_of_the_bundle_is_not_read(copied: Path) -> None:
    values = json.loads((copied / "snapfit.json").read_text("utf-8"))
    shutil.copy(copied / "members/1.safetensors", copied.parent / "1.safetensors")
    values["members"][1]["file"] = "../1.safetensors"
    (copied / "snapfit.json").write_text(json.dumps(values), "utf-8")
    write_manifest(copied)
    with pytest.raises(BadInput, match="members: "):
        snapfit.load(copied)


def test_no_single_model_stands_for_all(made: Callable[..., Made]) -> None:
    bundle = Bundle.open(made()[0])
    with pytest.raises(BadInput, match="in which 3 models answer together"):
        load_classifier(bundle)
    assert len(load_classifiers(bundle)) == 3
    assert isinstance(load_backend(bundle, device="cpu"), EnsembleBackend)


# ---------------------------------------------------------------- whatever opens a bundle


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_it_stands_alone(made: Callable[..., Made], kind: str) -> None:
    assert prove_self_contained(made(kind)[0], texts_of(kind)) <= TOLERANCE


def test_the_commands_answer_with_the_mean(
    made: Callable[..., Made], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> Any:
        """The JSON that a command ends with."""
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    folder, fitted, tables = made()
    rows = toys.single_rows(20, seed=5)
    scores = scores_by_hand(fitted, tables, [row["text"] for row in rows])
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    metrics = run("evaluate", folder, table)["metrics"]
    targets = np.array([tables.label_set.names.index(row["label"]) for row in rows])
    assert metrics == pytest.approx(compute_metrics("single", scores, targets), abs=1e-5)
    answers = run("predict", folder, table)["answers"]
    assert [one["score"] for one in answers] == pytest.approx(scores.max(axis=1), abs=1e-5)
    assert [one["predicted"] for one in answers] == [tables.label_set.names[i] for i in scores.argmax(axis=1)]


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_the_card_says_what_the_answer_is(made: Callable[..., Made], pooling: str) -> None:
    card = card_of(made("single", pooling)[0])
    assert (
        "- the answer is `greedy selection`, the mean of the scores of 3 models (shares and temperatures: 0.5 at 1.5, "
        "0.25 at 0.75, 0.25 at 2), at temperature 1.25: the least error\n"
    ) in card
    assert ("only the first of them" in card) is (pooling == "native")
    assert "gives the same logits" not in card
    assert ("this bundle needs snapfit" in card) is (pooling == "mean")


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_inspect_says_what_answers(made: Callable[..., Made], pooling: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, _ = made("single", pooling)
    told = describe_bundle(folder)
    assert [one["share"] for one in told["members"]] == [0.5, 0.25, 0.25]
    assert [one["bytes"] for one in told["members"]] == [
        (folder / one["file"]).stat().st_size for one in told["members"]
    ]
    assert told["forward_passes"] == pytest.approx(2.0)
    assert told["probes"]["same"] is True
    assert told["transformers"]["opens"] is (pooling == "native")
    assert ("the first model alone" in told["transformers"]["why"]) is (pooling == "native")
    assert main(["inspect", str(folder)]) == 0
    shown = capsys.readouterr().out
    for words in (
        "greedy selection: the mean of the scores of 3 models, temperature 1.25, 2 forward passes",
        "share 0.25",
    ):
        assert words in shown


def test_inspect_of_one_model_says_nothing_of_members(capsys: pytest.CaptureFixture[str]) -> None:
    folder = toys.trained("single", "mean").result.bundle
    told = describe_bundle(folder)
    assert (told["members"], told["made_of"], told["forward_passes"]) == (None, {}, 1.0)
    assert main(["inspect", str(folder)]) == 0
    assert "forward passes" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["continue_from", "encoder"])
def test_training_further_takes_the_first_model_and_says_so(
    made: Callable[..., Made], tmp_path: Path, option: str
) -> None:
    folder, fitted, tables = made()
    heard: list[dict[str, Any]] = []
    fixed = {key: value for key, value in SETTINGS.items() if option == "encoder" or key != "model__pooling"}
    result = snapfit.train(
        toys.single_rows(48, seed=7),
        out=tmp_path / "run",
        listener=heard.append,
        **{option: str(folder)},
        **(fixed | {"train__epochs": 0.2, "optim__lr": 1e-12}),
    )
    notices = [event["text"] for event in heard if event["kind"] == "notice"]
    assert f"{folder} is a bundle in which 3 models answer: the first of them is taken" in notices
    assert Bundle.open(result.bundle).info.format_version == 1
    if option == "continue_from":
        texts = texts_of("single")
        batch = pad(fitted.tokenizer.encode(texts), np.arange(len(texts)), pad_id=0)
        (wanted,) = logits_apart([fitted.model], batch)
        np.testing.assert_allclose(snapfit.load(result.bundle, device="cpu").logits(texts), wanted, atol=1e-4)
