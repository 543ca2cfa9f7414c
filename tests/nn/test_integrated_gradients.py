"""Integrated gradients against a naive integral by torch's autograd, against captum, and against what they promise."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from ensembles import changed_above, whole
from snapfit.core.combining import as_logits, combine
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import WorkFailed
from snapfit.core.log_odds import Explained
from snapfit.core.log_odds import log_odds as log_odds_of
from snapfit.data.batches import pad
from snapfit.data.tokenizer import TokenIds
from snapfit.nn import integrated_gradients as module
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.nn.integrated_gradients import log_odds, mean_logits
from snapfit.nn.member_weights import changed_tensors, with_changes
from snapfit.nn.packed_encoder import use_packing
from snapfit.runtime.explaining import PathBackend, PathIntegral

SPECIAL, MASK = 3, 4
FINE = {"tolerance": 1e-3, "most_steps": 256}


def row_of(ids: Sequence[int], second: int | None = None) -> TokenIds:
    """One row. second: where its second text begins."""
    start = len(ids) if second is None else second
    return TokenIds(np.array(ids, dtype=np.uint16), np.array([0, len(ids)]), np.array([start], dtype=np.uint16))


def example(length: int = 9, *, pair: bool = False, seed: int = 0) -> tuple[TokenIds, TokenIds]:
    """A row of random words between special tokens, and the same with its words masked."""
    words = np.random.default_rng(seed).integers(tiny.FIRST_WORD, tiny.VOCABULARY, length - 2)
    ids = [SPECIAL, *words, SPECIAL]
    masked = [SPECIAL, *[MASK] * len(words), SPECIAL]
    second = length // 2 if pair else None
    return row_of(ids, second), row_of(masked, second)


def embedded_logits(model: Classifier, embeddings: Tensor, types: Tensor) -> Tensor:
    """Logits from word embeddings, by transformers' own way to hand them over."""
    inputs: dict[str, Any] = {"inputs_embeds": embeddings, "attention_mask": torch.ones_like(types)}
    if model.accepts_types:
        inputs["token_type_ids"] = types
    if model.pooling == "native":
        return model.__dict__["_native"](**inputs).logits
    states = model.encoder(**inputs, output_hidden_states=True).hidden_states
    return model.head(states, inputs["attention_mask"].bool())


def naive(
    models: Sequence[Classifier], row: TokenIds, baseline: TokenIds, output: int, combined: Any
) -> tuple[np.ndarray, float]:
    """The integral by Gauss's rule of 64 points, and the difference between both ends.

    combined: from the models' logits to the logits float [rows, k] of a single-label task.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    shares = torch.from_numpy(np.concatenate([(nodes + 1.0) / 2.0, [0.0, 1.0]])).float()[:, None, None]
    types = torch.from_numpy(pad(row, np.arange(1), pad_id=0).token_type_ids).expand(len(shares), -1)
    ends, inputs = [], []
    for model in models:
        table = model.encoder.get_input_embeddings()
        start, end = (table(torch.from_numpy(one.ids.astype(np.int64)))[None].detach() for one in (baseline, row))
        ends.append((start, end))
        inputs.append((start + shares * (end - start)).requires_grad_())
    parts = [embedded_logits(model, one, types) for model, one in zip(models, inputs, strict=True)]
    logits = combined(parts)
    others = torch.cat((logits[:, :output], logits[:, output + 1 :]), 1)
    odds = logits[:, output] - others.logsumexp(1)
    total = np.zeros(len(row.ids))
    for gradient, (start, end) in zip(torch.autograd.grad(odds.sum(), inputs), ends, strict=True):
        total += weights / 2.0 @ (gradient * (end - start)).sum(-1)[:-2].double().numpy()
    return total, float(odds[-1].detach() - odds[-2].detach())


def integral(
    model: Classifier, row: TokenIds, baseline: TokenIds, outputs: tuple[int, ...] = (1,), **options: Any
) -> PathIntegral:
    backend = TorchBackend(model, device="cpu")
    assert isinstance(backend, PathBackend)
    return backend.integrated_gradients(row, baseline, Explained("single", outputs), **(FINE | options))


# ---------------------------------------------------------------- the values


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_every_family_is_as_a_naive_integral_has_it(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    row, baseline = example(pair=True)
    expected, difference = naive([model], row, baseline, 1, lambda parts: parts[0])
    use_packing(model)
    found = integral(model, row, baseline)
    kinks = 5.0 if (family, pooling) == ("distilbert", "native") else 1.0  # a ReLU in its head
    np.testing.assert_allclose(found.values[0], expected, atol=kinks * 2e-3 * np.abs(expected).sum())
    assert found.end[0] - found.start[0] == pytest.approx(difference, abs=1e-4)
    assert found.error[0] <= kinks * 1e-3
    assert not found.values[0, [0, -1]].any()  # special tokens are the baseline's own
    assert np.abs(found.values[0, 1:-1]).min() > 0.0


@pytest.mark.parametrize("pooling", tiny.poolings("bert"))
def test_every_pooling(pooling: str) -> None:
    model = tiny.classifier("bert", pooling)
    row, baseline = example(seed=3)
    expected, _ = naive([model], row, baseline, 0, lambda parts: parts[0])
    found = integral(model, row, baseline, (0,))
    kinks = 10.0 if pooling == "max" else 1.0  # the largest of many numbers has no slope where it changes hands
    np.testing.assert_allclose(found.values[0], expected, atol=kinks * 2e-3 * np.abs(expected).sum())


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_captum_comes_to_the_same(family: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model = tiny.classifier(family, "native")
    row, baseline = example(12, seed=5)
    ids, masked = (torch.from_numpy(one.ids.astype(np.int64))[None] for one in (row, baseline))

    def odds(input_ids: Tensor) -> Tensor:
        return log_odds(model(input_ids=input_ids).logits, Explained("single", (2,)))[:, 0]

    layer = captum.LayerIntegratedGradients(odds, model.encoder.get_input_embeddings())
    expected = layer.attribute(ids, masked, n_steps=64, method="gausslegendre").sum(-1)[0].detach().numpy()
    found = integral(model, row, baseline, (2,))
    np.testing.assert_allclose(found.values[0], expected, atol=1e-3 * np.abs(expected).sum())


SLOPES = torch.randn(9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 10.0


def closed_form(curve: Any, **options: Any) -> tuple[PathIntegral, np.ndarray]:
    """The integral of a curve over how far a sum of the embeddings has come on the line, 0 to 1, and each token's share
    of that way.
    """
    table: Any = tiny.encoder("bert").get_input_embeddings()
    row, baseline = example()

    def sums(ids: Tensor) -> Tensor:
        return (table(ids).double() * SLOPES).sum(-1)

    start, end = (sums(torch.from_numpy(one.ids.astype(np.int64))).detach() for one in (baseline, row))

    def run(batch: Any) -> Tensor:
        come = (sums(torch.from_numpy(batch.input_ids)).sum(1) - start.sum()) / (end.sum() - start.sum())
        return curve(come)[:, None]

    found = module.integrated_gradients(
        run, [table], row, baseline, Explained("regression", (0,)), lock=threading.Lock(), **(FINE | options)
    )
    return found, ((end - start) / (end - start).sum()).numpy()


def test_what_is_linear_needs_the_fewest_points() -> None:
    found, shares = closed_form(lambda come: 3.0 * come)
    np.testing.assert_allclose(found.values[0], 3.0 * shares, atol=1e-5)
    assert found.passes == module.FIRST_ORDER + 1


def test_a_sudden_change_of_mind_takes_more_points_or_tells_its_error() -> None:
    def curve(come: Tensor) -> Tensor:
        return torch.tanh(20.0 * (come - 0.3))

    found, shares = closed_form(curve)
    assert found.passes > module.FIRST_ORDER + 1
    assert found.error[0] <= FINE["tolerance"]
    expected = shares * (found.end[0] - found.start[0])
    np.testing.assert_allclose(found.values[0], expected, atol=2e-3 * np.abs(expected).sum())
    few, _ = closed_form(curve, most_steps=16)
    assert few.passes == module.FIRST_ORDER + 1
    due = few.end[0] - few.start[0]
    assert few.error[0] > FINE["tolerance"]
    assert few.error[0] == pytest.approx(abs(few.values.sum() - due) / due, rel=1e-6)


@pytest.mark.parametrize("length", [3, 9, 40])
def test_values_add_up_within_the_tolerance(length: int) -> None:
    for seed in range(3):
        model = tiny.classifier("bert", "native", seed=seed)
        row, baseline = example(length, seed=seed)
        found = integral(model, row, baseline, (0, 1, 2), tolerance=0.01)
        due = found.end - found.start
        least = np.maximum(np.abs(due), np.abs(found.values).sum(axis=1) / module.CANCELLED)
        np.testing.assert_allclose(found.error, np.abs(found.values.sum(axis=1) - due) / least, rtol=1e-9)
        assert (found.error <= 0.01).all()


def test_both_ends_are_what_the_model_predicts() -> None:
    model = tiny.classifier("roberta", "native")
    backend = TorchBackend(model, device="cpu")
    row, baseline = example(10)
    explained = Explained("single", (0, 2), 1.7)
    found = backend.integrated_gradients(row, baseline, explained, **FINE)
    for one, value in ((row, found.end), (baseline, found.start)):
        logits = backend.logits(pad(one, np.arange(1), pad_id=1))
        np.testing.assert_allclose(value, explained.of(logits)[0], atol=1e-5)


def test_a_row_that_is_its_baseline_has_no_values() -> None:
    _, baseline = example()
    found = integral(tiny.classifier("bert"), baseline, baseline)
    assert not found.values.any()
    assert not found.error.any()


# ---------------------------------------------------------------- what must not matter


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.classifier("bert")
    row, baseline = example(11)
    expected = integral(model, row, baseline)
    monkeypatch.setattr(module, "CHUNK_TOKENS", 1)
    found = integral(model, row, baseline)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    assert found.passes == expected.passes


def test_packing_does_not_matter() -> None:
    row, baseline = example(11, pair=True)
    for family in ("bert", "roberta", "modernbert"):
        model = tiny.classifier(family, "mean")
        expected = integral(model, row, baseline)
        assert use_packing(model)
        np.testing.assert_allclose(integral(model, row, baseline).values, expected.values, atol=1e-5)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny.classifier("bert")
    backend = TorchBackend(model, device="cpu")
    frozen = model.get_submodule("bert.encoder.layer.0")
    for parameter in frozen.parameters():
        parameter.requires_grad_(False)
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    row, baseline = example()
    batch = pad(row, np.arange(1), pad_id=0)
    logits = backend.logits(batch)
    backend.integrated_gradients(row, baseline, Explained("single", (0,)), **FINE)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert parameter.grad is None
        assert torch.equal(parameter, before[name][1])
    assert not model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert np.array_equal(backend.logits(batch), logits)


def test_a_model_without_anything_that_learns() -> None:
    model = tiny.classifier("bert")
    row, baseline = example()
    expected = integral(model, row, baseline)
    model.requires_grad_(False)
    np.testing.assert_allclose(integral(model, row, baseline).values, expected.values, atol=1e-6)


def test_predictions_and_explanations_do_not_disturb_each_other() -> None:
    backend = TorchBackend(tiny.classifier("bert"), device="cpu")
    rows = [example(5 + i, seed=i) for i in range(6)]
    batches = [pad(row, np.arange(1), pad_id=0) for row, _ in rows]

    def explained(i: int) -> np.ndarray:
        return backend.integrated_gradients(*rows[i], Explained("single", (1,)), **FINE).values

    logits, values = [backend.logits(one) for one in batches], [explained(i) for i in range(6)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(explained, i % 6) if i % 2 else pool.submit(backend.logits, batches[i % 6]) for i in range(24)
        ]
        found = [job.result() for job in jobs]
    for i, one in enumerate(found):
        assert np.array_equal(one, values[i % 6] if i % 2 else logits[i % 6])


def test_a_failing_model_leaves_no_hook_and_no_lock() -> None:
    model = tiny.classifier("bert")
    backend = TorchBackend(model, device="cpu")
    row, baseline = example()
    handle = model.get_submodule("bert.encoder").register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.integrated_gradients(row, baseline, Explained("single", (0,)), **FINE)
    handle.remove()
    assert not any(part._forward_hooks for part in model.modules())
    assert np.isfinite(backend.logits(pad(row, np.arange(1), pad_id=0))).all()


# ---------------------------------------------------------------- several models


SHARES, TEMPERATURES = (0.5, 0.25, 0.25), (1.5, 0.75, 2.0)


@pytest.mark.parametrize("trunks", [(-1, -1), (1, 2), (0, 3)])
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_the_mean_of_several_models(family: str, trunks: tuple[int, int]) -> None:
    first = tiny.classifier(family, "native")
    states = [changed_above(first, trunk, seed=7 + i) for i, trunk in enumerate(trunks)]
    apart = [whole(first, state) for state in (first.state_dict(), *states)]
    row, baseline = example(8)

    def combined(parts: list[Tensor]) -> Tensor:
        scores = [(part / t).softmax(1) * share for part, t, share in zip(parts, TEMPERATURES, SHARES, strict=True)]
        return torch.stack(scores).sum(0).log()

    expected, difference = naive(apart, row, baseline, 1, combined)
    others = [with_changes(first, changed_tensors(first.state_dict(), state, source="other")) for state in states]
    for model in (first, *others):
        use_packing(model)
    backend = EnsembleBackend([first, *others], shares=SHARES, temperatures=TEMPERATURES, task="single", device="cpu")
    assert isinstance(backend, PathBackend)
    assert backend.differentiable
    batch = pad(row, np.arange(1), pad_id=0)
    logits = backend.logits(batch)
    found = backend.integrated_gradients(row, baseline, Explained("single", (1,)), **FINE)
    np.testing.assert_allclose(found.values[0], expected, atol=3e-3 * np.abs(expected).sum())
    assert found.end[0] - found.start[0] == pytest.approx(difference, abs=1e-4)
    assert np.array_equal(backend.logits(batch), logits)


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_the_mean_with_gradients_is_the_mean_without(task: Any) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(scale=4.0, size=(20, 3)).astype(np.float32) for _ in SHARES]
    expected = as_logits(combine(parts, TEMPERATURES, task, 1.0, shares=SHARES), task)
    found = mean_logits([torch.from_numpy(part) for part in parts], SHARES, TEMPERATURES, task)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    for explained in (Explained(task, (0, 2)), Explained(task, (1,), 1.7)):
        odds = log_odds(found.double(), explained).numpy()
        np.testing.assert_allclose(odds, explained.of(found.double().numpy()), atol=1e-9)
    assert np.isfinite(mean_logits([torch.full((1, 3), 1e4)] * 3, SHARES, TEMPERATURES, task).numpy()).all()


def test_calibrated_labels_have_the_odds_of_their_scores() -> None:
    logits = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    rule = DecisionRule("multi", 1.3, slopes=(0.5, 1.0, 2.0), shifts=(0.1, -1.0, 0.0))
    explained = Explained("multi", (0, 2), rule.temperature, rule.slopes, rule.shifts)
    scores = rule.scores(logits)[:, [0, 2]]
    np.testing.assert_allclose(explained.of(logits), np.log(scores / (1 - scores)), atol=1e-9)
    found = log_odds(torch.from_numpy(logits).double(), explained).numpy()
    np.testing.assert_allclose(found, explained.of(logits), atol=1e-6)


def test_odds_of_sure_models_are_finite() -> None:
    logits = np.array([[500.0, -500.0, 0.0]], dtype=np.float32)
    found = log_odds(torch.from_numpy(logits), Explained("single", (0, 1, 2))).numpy()
    np.testing.assert_allclose(found, log_odds_of(logits, "single"))


# ---------------------------------------------------------------- encoders that do not say where their words are


class Silent(torch.nn.Module):
    """An encoder's stand-in for one question."""

    def get_input_embeddings(self) -> Any:
        raise NotImplementedError


def test_an_encoder_without_a_table_is_not_differentiable(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.classifier("bert", "mean")
    backend = TorchBackend(model, device="cpu")
    assert backend.differentiable
    monkeypatch.setattr(type(model), "encoder", Silent())
    assert not backend.differentiable
    with pytest.raises(WorkFailed, match="--method occlusion"):
        backend.integrated_gradients(*example(), Explained("single", (0,)), **FINE)


def test_an_encoder_that_looks_words_up_in_another_way_is_refused() -> None:
    model = tiny.classifier("bert", "mean")
    table: Any = model.encoder.get_input_embeddings()
    with pytest.raises(WorkFailed, match="at a time"):
        module.integrated_gradients(
            lambda batch: table(torch.zeros(3, dtype=torch.int64)),
            [table],
            *example(),
            Explained("regression", (0,)),
            lock=threading.Lock(),
            tolerance=0.01,
            most_steps=16,
        )


@pytest.mark.parametrize("pooling", ["mean", "max", "attention", "max_states"])
def test_windows_of_a_text_have_a_value_for_each_of_their_tokens(pooling: Any) -> None:
    model = tiny.classifier("bert", "mean", window_pooling=pooling)
    flat, masked = (np.concatenate([one.ids for one in parts]) for parts in zip(*map(_of_six, (5, 6, 7)), strict=True))
    row, baseline = (
        TokenIds(ids, np.array([0, 18]), np.array([6], dtype=np.uint16), window_tokens=6) for ids in (flat, masked)
    )
    found = integral(model, row, baseline)
    backend = TorchBackend(model, device="cpu")
    ends = [log_odds_of(backend.logits(pad(one, np.arange(1), pad_id=0)), "single")[0, 1] for one in (baseline, row)]
    np.testing.assert_allclose([found.start[0], found.end[0]], ends, atol=1e-5)
    kinks = 20.0 if pooling.startswith("max") else 1.0
    assert found.values[0].sum() == pytest.approx(ends[1] - ends[0], abs=kinks * 1e-3 * np.abs(found.values).sum())
    words = flat != masked
    assert not found.values[0, ~words].any()
    assert np.abs(found.values[0, words]).max() > 0.0


def _of_six(seed: int) -> tuple[TokenIds, TokenIds]:
    return example(6, seed=seed)
