"""What models answer on texts of several windows: the rule over each window alone, in every backend and any batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from snapfit.core.combining import combine
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.lengths import WindowPooling
from snapfit.core.scores import logits_to_scores
from snapfit.core.windows import combine_windows
from snapfit.data.batches import Batch, pad
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier, classifier_config
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.nn.packed_encoder import use_packing
from snapfit.training.loop import Examples
from snapfit.training.pooling_probe import _features

POOLINGS: tuple[WindowPooling, ...] = ("mean", "max", "attention", "max_states")
WINDOW, LENGTHS = 6, (18, 5, 6, 30, 12, 1)
"""Tokens of a full window, and of rows of 3, 1, 1, 5, 2 and 1 windows."""


def tokens() -> TokenIds:
    rng = np.random.default_rng(2)
    ids = rng.integers(tiny.FIRST_WORD, tiny.VOCABULARY, sum(LENGTHS)).astype(np.uint16)
    widths = np.minimum(LENGTHS, WINDOW).astype(np.uint16)
    return TokenIds(ids, np.cumsum([0, *LENGTHS]), widths, WINDOW)


def batch_of(rows: list[int]) -> Batch:
    return pad(tokens(), np.array(rows), pad_id=0)


def made(pooling: WindowPooling | None, family: str = "bert", head: str = "mean", *, seed: int = 0) -> Classifier:
    return tiny.classifier(family, head, seed=seed, window_pooling=pooling)


def one_by_one(model: Classifier, row: int) -> torch.Tensor:
    """The columns of each window of a row, each computed by itself."""
    ids = tokens().take(np.array([row])).ids.astype(np.int64)
    with torch.no_grad():
        parts = [model(torch.from_numpy(part)[None], combine=False).logits for part in _windows(ids)]
    return torch.cat(parts)


def _windows(ids: np.ndarray) -> list[np.ndarray]:
    return [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]


def by_hand(model: Classifier, row: int) -> np.ndarray:
    columns = one_by_one(model, row)
    if model.window_pooling == "mean":
        found = columns.mean(0)
    elif model.window_pooling == "max":
        found = columns.max(0).values
    elif model.window_pooling == "attention":
        found = columns[:, -1].softmax(0) @ columns[:, :-1]
    else:
        found = model.output(columns.max(0).values)
    return found.detach().numpy()


def test_a_batch_brings_all_windows_of_its_rows() -> None:
    batch = batch_of([3, 1])
    assert batch.input_ids.shape == (6, WINDOW)
    assert batch.first_windows is not None
    assert batch.first_windows.tolist() == [0, 5, 6]
    assert batch.attention_mask.sum(1).tolist() == [6, 6, 6, 6, 6, 5]
    assert batch.input_ids[:5].ravel().tolist() == tokens().take(np.array([3])).ids.tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_row_is_the_rule_over_its_windows(pooling: WindowPooling, packed: bool) -> None:
    model = made(pooling)
    expected = np.stack([by_hand(model, row) for row in range(len(LENGTHS))])
    if packed:
        assert use_packing(model)
    backend = TorchBackend(model, device="cpu")
    together = backend.logits(batch_of([0, 1, 2, 3, 4, 5]))
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, expected, atol=2e-6)
    for rows in ([4], [5, 3], [3, 3, 0]):
        np.testing.assert_allclose(backend.logits(batch_of(rows)), expected[rows], atol=2e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("pooling", "head"), [*((p, "mean") for p in POOLINGS), ("mean", "native"), ("max", "native")])
def test_a_row_has_one_vector_which_its_logits_are_made_of(pooling: WindowPooling, head: str, packed: bool) -> None:
    """But for max, whose logits are of several windows: there it is the mean of the windows' vectors."""
    model = made(pooling, "bert", head)
    if packed:
        assert use_packing(model)
    backend = TorchBackend(model, device="cpu")
    logits, vectors = backend.logits_and_vectors(batch_of([0, 1, 2, 3, 4, 5]))
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, model.output.in_features)
    np.testing.assert_array_equal(logits, backend.logits(batch_of([0, 1, 2, 3, 4, 5])))
    if pooling == "max":
        again = np.stack([one_by_one(model, row).mean(0).detach().numpy() for row in range(6)])
    else:
        again = logits
    np.testing.assert_allclose(model.output(torch.from_numpy(vectors)).detach(), again, atol=2e-6)
    for rows in ([4], [5, 3], [3, 3, 0]):
        np.testing.assert_allclose(backend.logits_and_vectors(batch_of(rows))[1], vectors[rows], atol=2e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_training_computes_what_prediction_does(pooling: WindowPooling) -> None:
    model, batch = made(pooling), batch_of([0, 1, 2, 3, 4, 5])
    arrays = {name: torch.from_numpy(getattr(batch, name)) for name in ("input_ids", "attention_mask")}
    trained = model(**arrays, first_windows=batch.first_windows).logits
    np.testing.assert_allclose(trained.detach(), TorchBackend(model, device="cpu").logits(batch), atol=2e-6)


@pytest.mark.parametrize(("family", "head"), tiny.FAMILY_AND_POOLING)
def test_every_family_reads_windows(family: str, head: str) -> None:
    model = made("max", family, head)
    pad_id = model.config.pad_token_id
    batch = pad(tokens(), np.arange(len(LENGTHS)), pad_id=pad_id)
    expected = np.stack([by_hand(model, row) for row in range(len(LENGTHS))])
    use_packing(model)
    np.testing.assert_allclose(TorchBackend(model, device="cpu").logits(batch), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_behind_one_linear_layer_logits_and_states_are_pooled_alike(pooling: WindowPooling) -> None:
    """Why mean and attention need no variant over states: snapfit's head is linear, and their weights sum to 1."""
    model, states = made(pooling), made("max_states")
    states.load_state_dict({name: value for name, value in model.state_dict().items() if "window_score" not in name})
    pooled = one_by_one(states, 3)
    weights = torch.full((5,), 0.2) if pooling == "mean" else model.head.window_score(pooled)[:, 0].softmax(0)
    expected = model.output(weights @ pooled)
    np.testing.assert_allclose(by_hand(model, 3), expected.detach(), atol=1e-6)


def test_a_sequence_by_itself_is_a_row() -> None:
    for pooling in POOLINGS:
        model = made(pooling)
        batch = tiny.inputs(model.config, [6, 3])
        both = Batch(**{name: tensor.numpy() for name, tensor in batch.items()}, rows=np.arange(2))
        first = both.__class__(**{**vars(both), "first_windows": np.arange(3)})
        np.testing.assert_array_equal(
            TorchBackend(model, device="cpu").logits(both), TorchBackend(model, device="cpu").logits(first)
        )
        assert model(**batch).logits.shape == (2, 3)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_several_models_answer_by_the_mean_of_what_each_answers(pooling: WindowPooling) -> None:
    models = [made(pooling, seed=seed) for seed in (0, 1)]
    batch = batch_of([0, 3, 5])
    alone = [TorchBackend(model, device="cpu").logits(batch) for model in models]
    backend = EnsembleBackend(models, shares=[0.25, 0.75], temperatures=[1.0, 2.0], task="single", device="cpu")
    expected = combine(alone, [1.0, 2.0], "single", 1.0, shares=[0.25, 0.75])
    np.testing.assert_allclose(logits_to_scores(backend.logits(batch), "single"), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_several_samples_of_dropout_are_so_many_outputs(pooling: WindowPooling) -> None:
    model, batch = made(pooling), batch_of([0, 3])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.head.samples, model.head.dropout.p = 3, 0.5
    ids = torch.from_numpy(batch.input_ids)
    logits = model.train()(ids, first_windows=batch.first_windows).logits
    assert logits.shape == (6, 3)
    assert not torch.equal(logits[:2], logits[2:4])
    model.head.dropout.p = 0.0
    same = model(ids, first_windows=batch.first_windows).logits
    torch.testing.assert_close(same, model.eval()(ids, first_windows=batch.first_windows).logits.repeat(3, 1))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_classifier_still_knows_its_windows(pooling: WindowPooling, tmp_path: Path) -> None:
    model = made(pooling)
    model.save_pretrained(tmp_path)
    again = Classifier.from_pretrained(tmp_path)
    assert again.window_pooling == pooling
    batch = batch_of([0, 3])
    found, expected = (TorchBackend(one, device="cpu").logits(batch) for one in (again, model))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pooling", ["attention", "max_states"])
def test_a_native_head_gives_logits_and_nothing_else(pooling: WindowPooling) -> None:
    with pytest.raises(BadInput, match=f"windows pooled by '{pooling}' under a native head"):
        classifier_config(
            tiny.encoder_config("bert"), task="single", label_names=["a"], pooling="native", window_pooling=pooling
        )


def test_a_model_without_windows_refuses_them() -> None:
    model, batch = made(None), batch_of([0, 3])
    with pytest.raises(WorkFailed, match="not made for them"):
        model(torch.from_numpy(batch.input_ids), first_windows=batch.first_windows)


def test_the_pooling_probe_takes_the_mean_over_windows() -> None:
    model = made(None)
    examples = Examples(tokens(), np.zeros(len(LENGTHS), np.int64), pad_id=0)
    with torch.inference_mode():
        mean, first = _features(model, examples, np.array([3, 1]))
    ids = tokens().take(np.array([3])).ids.astype(np.int64)
    with torch.no_grad():
        states = [model.encoder(torch.from_numpy(part)[None]).last_hidden_state[0] for part in _windows(ids)]
    np.testing.assert_allclose(mean[0], torch.stack([one.mean(0) for one in states]).mean(0), atol=1e-5)
    np.testing.assert_allclose(first[0], torch.stack([one[0] for one in states]).mean(0), atol=1e-5)


def test_the_rule_of_core_is_what_backends_use() -> None:
    """Whoever computes windows elsewhere, such as an ONNX graph, gets the same answer from it."""
    model, batch = made("attention"), batch_of([0, 3])
    ids, mask = torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)
    with torch.no_grad():
        columns: Any = model(ids, mask, combine=False).logits.numpy()
    assert columns.shape == (8, 4)
    assert batch.first_windows is not None
    np.testing.assert_array_equal(
        combine_windows(columns, batch.first_windows, "attention"), TorchBackend(model, device="cpu").logits(batch)
    )
