"""Packed = padded: logits, states and gradients of every family that packs, whatever the pooling and the lengths."""

import copy

import pytest
import torch
from torch import Tensor

import tiny
from snapfit.nn.attention import NAME, _variable_length
from snapfit.nn.classifier import Classifier
from snapfit.nn.packed_encoder import PackedEncoder, use_packing, use_padding
from snapfit.nn.packing import ROUNDED, Packing

PACKS = tuple(name for name in tiny.KNOWN if name not in ("mpnet", "deberta-v2"))
CASES = [(name, pooling) for name in PACKS for pooling in tiny.poolings(name)]
LENGTHS = [9, 3, 12, 3, 1, 7, 12, 5, 2, 8]


def difference(left: Tensor, right: Tensor, scale: float = 1.0) -> float:
    """The largest difference, relative to the larger of `scale` and the largest number."""
    left, right = left.detach(), right.detach()
    return float((left - right).abs().max() / max(scale, float(right.abs().max())))


def gradients(model: Classifier, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    model(**batch).logits.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "pooling"), CASES)
def test_logits_and_gradients_are_those_of_padded_rows(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    batch = tiny.inputs(model.config, LENGTHS, width=15)
    expected, expected_gradients = model(**batch).logits, gradients(model, batch)
    assert use_packing(model)
    assert difference(model(**batch).logits, expected) < 1e-5
    found = gradients(model, batch)
    assert found.keys() == expected_gradients.keys()
    # Some are zero but for rounding, such as that of a bias before a softmax: all are measured by the model's largest.
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in found.items():
        assert difference(gradient, expected_gradients[name], largest) < 1e-5, name


@pytest.mark.parametrize("family", PACKS)
def test_rows_do_not_see_each_other(family: str) -> None:
    model = tiny.classifier(family, "mean")
    use_packing(model)
    batch = tiny.inputs(model.config, LENGTHS)
    together = model(**batch).logits
    for row in range(len(LENGTHS)):
        alone = model(**tiny.one_row(batch, row)).logits
        assert difference(together[row : row + 1], alone) < 1e-5


@pytest.mark.parametrize("family", PACKS)
def test_a_real_token_that_is_the_padding_token(family: str) -> None:
    model = tiny.classifier(family, "mean")
    batch = tiny.inputs(model.config, [6, 4, 1])
    batch["input_ids"][0, 2] = batch["input_ids"][2, 0] = model.config.pad_token_id
    expected = model(**batch).logits
    use_packing(model)
    assert difference(model(**batch).logits, expected) < 1e-5


@pytest.mark.parametrize("family", PACKS)
def test_linear_layers_run_on_real_tokens_only(family: str) -> None:
    model = tiny.classifier(family, "mean")
    seen: list[int] = []
    for module in model.encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    use_packing(model)
    model(**tiny.inputs(model.config, LENGTHS))
    assert set(seen) == {sum(LENGTHS)}
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**tiny.inputs(model.config, LENGTHS))
    assert set(seen) == {-(-sum(LENGTHS) // ROUNDED) * ROUNDED}


@pytest.mark.parametrize("family", PACKS)
def test_what_fills_up_the_tokens_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.classifier(family, "mean")
    use_packing(model)
    batch = tiny.inputs(model.config, LENGTHS)
    answers = []
    for multiple in (1, ROUNDED):
        monkeypatch.setattr("snapfit.nn.packed_encoder.ROUNDED", multiple)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answers.append((model(**batch).logits, gradients(model, batch)))
    (plain, expected), (filled, found) = answers
    assert difference(filled, plain) < 2e-2
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in found.items():
        assert difference(gradient, expected[name], largest) < 2e-2, name


@pytest.mark.parametrize("family", ["mpnet", "deberta-v2", *tiny.UNKNOWN])
def test_families_that_cannot_pack_stay_padded(family: str) -> None:
    model = tiny.classifier(family, "mean")
    batch = tiny.inputs(model.config, LENGTHS)
    expected = model(**batch).logits
    assert not use_packing(model)
    assert not isinstance(model.encoder.forward, PackedEncoder)
    assert difference(model(**batch).logits, expected) < 1e-5


def test_without_a_mask_nothing_is_packed() -> None:
    model = tiny.classifier("bert", "mean")
    ids = tiny.inputs(model.config, [6, 6])["input_ids"]
    expected = model.encoder(input_ids=ids).last_hidden_state
    use_packing(model)
    assert difference(model.encoder(input_ids=ids).last_hidden_state, expected) < 1e-5


@pytest.mark.parametrize("side", ["left", "hole"])
def test_other_padding_goes_through_as_it_is(side: str) -> None:
    model = tiny.classifier("bert", "mean")
    batch = tiny.inputs(model.config, [5, 5])
    batch["attention_mask"][1, 0 if side == "left" else 2] = 0
    expected = model(**batch).logits
    use_packing(model)
    assert difference(model(**batch).logits, expected) < 1e-5


def test_twice_is_once_and_undone_is_undone() -> None:
    model = tiny.classifier("bert", "mean")
    batch = tiny.inputs(model.config, LENGTHS)
    expected = model(**batch).logits
    assert use_packing(model)
    assert use_packing(model)
    use_padding(model)
    use_padding(model)
    assert "forward" not in vars(model.encoder)
    assert torch.equal(model(**batch).logits, expected)
    assert NAME not in model.config.to_json_string(use_diff=False)


def test_a_copy_of_a_packed_model_is_one_of_its_own() -> None:
    model = tiny.classifier("bert", "mean")
    use_packing(model)
    twin = copy.deepcopy(model)
    batch = tiny.inputs(model.config, LENGTHS)
    before = twin(**batch).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(**batch).logits, before)


def test_dropout_of_attention_is_applied_while_training() -> None:
    model = tiny.classifier("bert", "mean", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    use_packing(model)
    batch = tiny.inputs(model.config, LENGTHS)
    calm = model(**batch).logits
    model.train()
    torch.manual_seed(1)
    first = model(**batch).logits
    torch.manual_seed(1)
    assert torch.equal(model(**batch).logits, first)
    assert difference(first, calm) > 1e-3


# ---------------------------------------------------------------- the way taken on CUDA


def varlen(query, key, value, begins, begins_k, longest, longest_k, *, scale, window_size):
    """What torch's kernel computes, row by row."""
    assert begins.dtype == torch.int32
    assert torch.equal(begins, begins_k)
    parts = []
    for start, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        assert end - start <= longest == longest_k
        q, k, v = (states[start:end].transpose(0, 1) for states in (query, key, value))
        scores = q @ k.transpose(1, 2) * scale
        if window_size != (-1, -1):
            places = torch.arange(end - start)
            far = (places - places[:, None]).abs() > window_size[0]
            scores = scores.masked_fill(far, float("-inf"))
        parts.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("window", [None, 4])
def test_the_arguments_of_the_variable_length_kernel(window: int | None) -> None:
    torch.manual_seed(0)
    lengths = [2, 7, 7, 9]
    packing = Packing.of((torch.arange(9) < torch.tensor(lengths)[:, None]).long())
    assert packing is not None
    tokens = [torch.randn(sum(lengths), 2, 4) for _ in range(3)]
    from snapfit.nn.attention import _packed

    found = _variable_length(tokens, packing, 0.5, window, kernel=varlen)
    expected = _packed(tokens, packing, scaling=0.5, sliding_window=window)[0]
    assert difference(found, expected) < 1e-5
