"""Several models at once: the mean of what each gives alone, with the layers that they share run once."""

import gc
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from ensembles import PICKS, SHARES, TEMPERATURES, changed_above, logits_apart, whole
from snapfit.core.combining import combine
from snapfit.core.errors import BadInput
from snapfit.core.scope import energy
from snapfit.core.scores import logits_to_scores
from snapfit.data.batches import Batch
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier, encoder_layers
from snapfit.nn.ensemble import EnsembleBackend, shared_layers
from snapfit.nn.families import depth_reader
from snapfit.nn.member_weights import changed_tensors, with_changes
from snapfit.nn.packed_encoder import use_packing

LAYERS = 3
"""Of a tiny encoder."""
SPECIAL = ("albert", *tiny.UNKNOWN)
"""Families that run whole: their layers share weights, or are not known."""


def batch_of(model: Classifier, lengths: list[int], seed: int = 0) -> Batch:
    arrays = {name: tensor.numpy() for name, tensor in tiny.inputs(model.config, lengths, seed=seed).items()}
    return Batch(**arrays, rows=np.arange(len(lengths)))


def three(
    family: str,
    pooling: str = "mean",
    *,
    trunks: tuple[int, int] = (2, 1),
    packed: bool = True,
    task: Any = "single",
    copies: bool = False,
) -> tuple[EnsembleBackend, list[Classifier]]:
    """A backend of three models, and the same models by themselves.

    trunks: the layers that the second and the third share with the first. copies: without sharing tensors with it.
    """
    first = tiny.classifier(family, pooling, task=task)
    states = [changed_above(first, trunk, seed=i) for i, trunk in enumerate(trunks)]
    apart = [whole(first, state) for state in (first.state_dict(), *states)]
    if copies:
        models = [first, *(whole(first, state) for state in states)]
    else:
        changed = [changed_tensors(first.state_dict(), state, source="other") for state in states]
        models = [first, *(with_changes(first, tensors) for tensors in changed)]
    for model in models if packed else ():
        use_packing(model)
    backend = EnsembleBackend(models, shares=SHARES, temperatures=TEMPERATURES, task=task, device="cpu")
    return backend, apart


def of_picks(parts: list[np.ndarray], task: Any) -> np.ndarray:
    return combine([parts[i] for i in PICKS], [TEMPERATURES[i] for i in PICKS], task, 1.0)


def layer_runs(backend: EnsembleBackend) -> Counter[tuple[int, int]]:
    """Counts, from now on, which modules inside which layers run, by (model, layer); what is exchanged runs none."""
    runs: Counter[tuple[int, int]] = Counter()
    for m, model in enumerate(backend.models):
        for n, layer in enumerate(encoder_layers(model) or ()):
            part = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
            part.register_forward_hook(lambda *_, key=(m, n): runs.update([key]))
    return runs


# ---------------------------------------------------------------- the same as apart


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_gives_the_mean_of_what_each_gives_alone(family: str, pooling: str, packed: bool) -> None:
    trunks = (-1, -1) if family in tiny.UNKNOWN else (2, 1)
    backend, apart = three(family, pooling, packed=packed, trunks=trunks)
    batch = batch_of(apart[0], [6, 3, 1, 6])
    got = backend.logits(batch)
    assert got.dtype == np.float32
    wanted = of_picks(logits_apart(apart, batch), "single")
    np.testing.assert_allclose(logits_to_scores(got, "single"), wanted, atol=1e-6)
    assert backend.trunks == ((0, 0) if family in SPECIAL else (2, 1))
    assert backend.forward_passes == pytest.approx(3.0 if family in SPECIAL else 1 + 1 / 3 + 2 / 3)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_trunk_runs_once(family: str, packed: bool, copies: bool) -> None:
    backend, apart = three(family, packed=packed, copies=copies)
    runs = layer_runs(backend)
    for _ in range(2):
        backend.logits(batch_of(apart[0], [6, 3]))
    once = {(0, 0), (0, 1), (0, 2), (1, 2), (2, 1), (2, 2)}
    assert runs == Counter(dict.fromkeys(once, 2))
    assert backend.forward_passes == len(once) / LAYERS


@pytest.mark.parametrize("trunks", [(3, 3), (3, 0), (-1, 1), (-1, -1), (0, 0)])
def test_any_trunks(trunks: tuple[int, int]) -> None:
    """From heads alone to embeddings of their own."""
    backend, apart = three("bert", "native", trunks=trunks)
    assert backend.trunks == tuple(max(trunk, 0) for trunk in trunks)
    batch = batch_of(apart[0], [5, 2, 4])
    wanted = of_picks(logits_apart(apart, batch), "single")
    np.testing.assert_allclose(logits_to_scores(backend.logits(batch), "single"), wanted, atol=1e-6)


@pytest.mark.parametrize("task", ["multi", "regression"])
def test_other_tasks(task: Any) -> None:
    backend, apart = three("bert", task=task)
    batch = batch_of(apart[0], [5, 2, 4])
    parts = logits_apart(apart, batch)
    got = backend.logits(batch)
    np.testing.assert_allclose(logits_to_scores(got, task), of_picks(parts, task), atol=1e-6)
    if task == "regression":
        np.testing.assert_allclose(got, np.average(parts, axis=0, weights=SHARES), rtol=1e-6)


@pytest.mark.parametrize(("layers", "shared"), [(3, 0), (5, 2)])
@pytest.mark.parametrize("pooling", ["last4_mean", "last4_concat"])
def test_states_that_a_pooling_reads_are_computed(pooling: str, layers: int, shared: int) -> None:
    first = tiny.classifier("bert", pooling, num_hidden_layers=layers)
    state = changed_above(first, layers - 1, seed=1)
    second = with_changes(first, changed_tensors(first.state_dict(), state, source="other"))
    batch = batch_of(first, [6, 3])
    parts = logits_apart([whole(first, first.state_dict()), whole(first, state)], batch)
    for model in (first, second):
        use_packing(model)
    backend = EnsembleBackend([first, second], shares=[1, 1], temperatures=[1, 1], task="single", device="cpu")
    assert backend.trunks == (shared,)
    wanted = combine(parts, [1, 1], "single", 1.0)
    np.testing.assert_allclose(logits_to_scores(backend.logits(batch), "single"), wanted, atol=1e-6)


def test_one_model_is_itself() -> None:
    model = tiny.classifier("bert")
    batch = batch_of(model, [6, 3])
    (alone,) = logits_apart([model], batch)
    backend = EnsembleBackend([model], shares=[1.0], temperatures=[2.0], task="single", device="cpu")
    assert (backend.forward_passes, backend.trunks) == (1.0, ())
    np.testing.assert_allclose(
        logits_to_scores(backend.logits(batch), "single"), logits_to_scores(alone, "single", 2.0), atol=1e-6
    )


# ---------------------------------------------------------------- what is a trunk


def test_models_that_are_not_alike_share_nothing() -> None:
    first, other = tiny.classifier("bert"), tiny.classifier("bert")
    assert shared_layers(first, other) == LAYERS
    use_packing(first)
    assert shared_layers(first, other) == 0
    assert shared_layers(other, tiny.classifier("bert", layer_norm_eps=1e-3)) == 0


def test_every_tensor_below_counts() -> None:
    """Whichever tensor of the encoder differs, no layer that it acts on is shared."""
    first = tiny.classifier("bert", "mean")
    depth_of = depth_reader(first.config, first.encoder_prefix)
    for name, tensor in first.state_dict().items():
        other = with_changes(first, {name: tensor + 1})
        depth = depth_of(name)
        assert shared_layers(first, other) == (LAYERS if depth == "head" else max(depth - 1, 0))


# ---------------------------------------------------------------- how it behaves


def test_is_thread_safe() -> None:
    backend, apart = three("bert")
    batches = [batch_of(apart[0], [5 + i % 7, 3], seed=i) for i in range(40)]
    alone = [backend.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(backend.logits, batches))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_the_energy_is_the_mean_of_the_models() -> None:
    backend, apart = three("bert")
    batch = batch_of(apart[0], [6, 3, 9])
    found = [energy(one, t) for one, t in zip(logits_apart(apart, batch), TEMPERATURES, strict=True)]
    expected = np.average(found, axis=0, weights=SHARES)
    np.testing.assert_allclose(energy(backend.logits(batch), 1.0), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3


def test_vectors_are_the_first_models() -> None:
    backend, apart = three("bert")
    batch = batch_of(apart[0], [6, 3, 9])
    logits, vectors = backend.logits_and_vectors(batch)
    expected = TorchBackend(apart[0], device="cpu").logits_and_vectors(batch)[1]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_array_equal(logits, backend.logits(batch))


def test_states_are_let_go_of_and_the_first_model_is_as_it_was() -> None:
    backend, apart = three("bert")
    first, layers = backend.models[0], encoder_layers(backend.models[0])
    states: list[weakref.ref[torch.Tensor]] = []
    handle = layers[1].register_forward_hook(lambda module, inputs, output: states.append(weakref.ref(output)))
    batch = batch_of(apart[0], [6, 3])
    backend.logits(batch)
    handle.remove()
    gc.collect()
    assert [state() for state in states] == [None]
    assert not any(layer._forward_hooks for layer in layers)
    assert not any("forward" in vars(layer) for layer in layers)
    np.testing.assert_allclose(logits_apart([first], batch)[0], logits_apart(apart[:1], batch)[0], atol=1e-6)


def test_a_failing_model_leaves_nothing_behind() -> None:
    backend, apart = three("bert")
    batch = batch_of(apart[0], [6, 3])
    wanted = backend.logits(batch)
    handle = backend.models[2].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backend.logits(batch)
    handle.remove()
    assert not any(layer._forward_hooks for layer in encoder_layers(backend.models[0]))
    assert np.array_equal(backend.logits(batch), wanted)


def test_a_row_that_is_not_finite_is_left_to_the_asker() -> None:
    backend, apart = three("bert", trunks=(-1, -1))
    batch = batch_of(apart[0], [6, 3, 4])
    wanted = backend.logits(batch)
    table = backend.models[1].get_submodule(f"{apart[0].encoder_prefix}.embeddings.word_embeddings").weight
    with torch.no_grad():
        table[batch.input_ids[1, 1]] = float("inf")
    hit = (batch.input_ids == batch.input_ids[1, 1]).any(axis=1)
    got = backend.logits(batch)
    assert np.isnan(got[hit]).all()
    np.testing.assert_allclose(got[~hit], wanted[~hit], atol=1e-6)


def test_lists_that_do_not_fit_are_refused() -> None:
    model = tiny.classifier("bert")
    with pytest.raises(BadInput, match="1 models, 2 shares and 1 temperatures"):
        EnsembleBackend([model], shares=[0.5, 0.5], temperatures=[1.0], task="single")
    with pytest.raises(BadInput, match="0 models"):
        EnsembleBackend([], shares=[], temperatures=[], task="single")
    with pytest.raises(BadInput, match="one model twice"):
        EnsembleBackend([model, model], shares=[0.5, 0.5], temperatures=[1.0, 1.0], task="single")
