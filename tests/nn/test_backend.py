"""The torch backend and bundles opened with it: the same answers from every side, and damaged folders refused."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import snapfit
import tiny
import toys
from snapfit.core.errors import BadInput
from snapfit.data.batches import Batch
from snapfit.nn.backend import TorchBackend, load_classifier, load_predictor
from snapfit.runtime.bundle import Bundle


def batch_of(model: torch.nn.Module, lengths: list[int], seed: int = 0) -> Batch:
    arrays = {name: tensor.numpy() for name, tensor in tiny.inputs(model.config, lengths, seed=seed).items()}
    return Batch(**arrays, rows=np.arange(len(lengths)))


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_gives_the_models_logits_as_float32(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    expected = model(**tiny.inputs(model.config, [6, 3])).logits.detach().numpy()
    backend = TorchBackend(model.train(), device="cpu")
    logits = backend.logits(batch_of(model, [6, 3]))
    assert not model.training
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_is_thread_safe() -> None:
    model = tiny.classifier("bert", "mean")
    backend = TorchBackend(model, device="cpu")
    batches = [batch_of(model, [5 + i % 7, 3], seed=i) for i in range(40)]
    alone = [backend.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backend.logits, batches))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_leaves_no_gradients_behind() -> None:
    model = tiny.classifier("bert", "mean")
    TorchBackend(model, device="cpu").logits(batch_of(model, [4]))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------- bundles


def test_a_bundle_is_built_from_its_own_files() -> None:
    bundle = Bundle.open(toys.trained().result.bundle)
    model = load_classifier(bundle)
    assert (model.pooling, model.architecture) == ("native", "BertForSequenceClassification")
    assert model.config.id2label == {0: "animals", 1: "food", 2: "tools"}


def test_the_first_format_still_loads() -> None:
    """A bundle that was written before there were others, with the answers that it gave then."""
    folder = Path(__file__).resolve().parents[1] / "golden" / "bundle-1"
    predictor = load_predictor(folder, device="cpu")
    assert predictor.replay_probes(tolerance=1e-5) <= 1e-5
    assert predictor.bundle.info.format_version == 1
    assert predictor.names == ("animals", "food", "tools")


@pytest.mark.parametrize(("kind", "pooling"), [("single", "native"), ("multi", "mean"), ("pair", "mean")])
def test_one_text_answers_as_many_do(kind: str, pooling: str) -> None:
    run = toys.trained(kind, pooling)
    predictor = load_predictor(run.result.bundle, device="cpu")
    rows = run.rows[:30]
    texts = [(row["sentence1"], row["sentence2"]) if kind == "pair" else row["text"] for row in rows]
    together = predictor.scores(texts)
    alone = np.concatenate([predictor.scores([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(predictor.scores(texts[::-1]), together[::-1], atol=1e-5)
    assert predictor.predict(texts[0]) == predictor.predict(texts)[0]


def test_damage_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(toys.trained().result.bundle, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        load_predictor(folder)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        snapfit.load(folder)
    assert snapfit.load(folder, verify=False).predict("the cat") in ("animals", "food", "tools")


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(toys.trained().result.bundle, folder)
    shutil.copy(toys.trained("single", "mean").result.bundle / "model.safetensors", folder)
    (folder / "MANIFEST.json").unlink()
    from snapfit.core.folders import write_manifest

    write_manifest(folder)
    with pytest.raises(BadInput, match="does not fit the model"):
        load_predictor(folder)


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_vectors_are_what_the_last_layer_takes(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    backend, batch = TorchBackend(model, device="cpu"), batch_of(model, [6, 3, 9])
    logits, vectors = backend.logits_and_vectors(batch)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, model.output.in_features)
    with torch.no_grad():
        again = model.output(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(again, logits, atol=1e-5)
    np.testing.assert_array_equal(backend.logits(batch), logits)
    assert not model.output._forward_pre_hooks


def test_vectors_are_those_of_their_own_thread() -> None:
    model = tiny.classifier("bert", "mean")
    backend = TorchBackend(model, device="cpu")
    batches = [batch_of(model, [5 + i % 7, 3], seed=i) for i in range(40)]
    alone = [backend.logits_and_vectors(batch)[1] for batch in batches]
    calls = [lambda b=batch: backend.logits_and_vectors(b)[1] for batch in batches]  # type: ignore[misc]
    calls += [lambda b=batch: backend.logits(b) for batch in batches]  # type: ignore[misc]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda call: call(), calls))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together[:40], strict=True))
