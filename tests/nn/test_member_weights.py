"""Weights of several models: what is the same is stored once and held once, and what does not fit is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from ensembles import changed_above, whole
from snapfit.core.errors import BadInput
from snapfit.nn.member_weights import changed_tensors, read_changed, same_bits, with_changes


def test_bits_are_compared_not_numbers() -> None:
    zero, nan = torch.zeros(2), torch.full((2,), float("nan"))
    assert same_bits(zero, zero.clone())
    assert same_bits(nan, nan.clone())
    assert not same_bits(zero, -zero)
    assert not same_bits(zero, zero.double())
    assert not same_bits(zero, zero.view(1, 2))
    assert same_bits(torch.ones(3, 2).t(), torch.ones(2, 3))
    assert same_bits(torch.tensor(3), torch.tensor(3))
    square = torch.arange(4.0).view(2, 2)
    assert not same_bits(square, square.t())


@pytest.mark.parametrize(("family", "pooling"), [("bert", "native"), ("roberta", "mean"), ("modernbert", "native")])
def test_a_second_model_is_its_changes_over_the_first(family: str, pooling: str, tmp_path: Path) -> None:
    first = tiny.classifier(family, pooling)
    state = changed_above(first, 1, seed=3)
    changed = changed_tensors(first.state_dict(), state, source="other")
    assert 0 < len(changed) < len(state)
    assert not any("embeddings" in name or ".0." in name for name in changed if "encoder" in name)
    save_file(changed, tmp_path / "1.safetensors")
    read = read_changed(tmp_path / "1.safetensors", first.state_dict())
    assert read.keys() == changed.keys()
    inputs = tiny.inputs(first.config, [6, 3])
    before, second = first(**inputs).logits, with_changes(first, read)
    assert all(same_bits(tensor, state[name]) for name, tensor in second.state_dict().items())
    assert torch.equal(second(**inputs).logits, whole(first, state)(**inputs).logits)
    assert torch.equal(first(**inputs).logits, before)
    own, theirs = (dict(model.state_dict(keep_vars=True)) for model in (first, second))
    assert {name for name in own if own[name] is not theirs[name]} == set(changed)


def test_equal_models_differ_in_nothing() -> None:
    state = tiny.classifier("bert").state_dict()
    assert changed_tensors(state, {name: tensor.clone() for name, tensor in state.items()}, source="other") == {}


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = tiny.classifier("bert").state_dict()
    name = next(iter(state))
    fewer = {key: value for key, value in state.items() if key != name}
    with pytest.raises(BadInput, match=f"other lacks 1 of .* such as '{name}'"):
        changed_tensors(state, fewer, source="other")
    with pytest.raises(BadInput, match="other has a weight 'more', which the first model does not have"):
        changed_tensors(state, {**state, "more": torch.zeros(1)}, source="other")
    for wrong in (state[name][:1], state[name].half()):
        with pytest.raises(BadInput, match=f"other: {name} is torch"):
            changed_tensors(state, {**state, name: wrong}, source="other")
    path = tmp_path / "1.safetensors"
    save_file({"more": torch.zeros(1)}, path)
    with pytest.raises(BadInput, match=r"1\.safetensors has a weight 'more'"):
        read_changed(path, state)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"1\.safetensors cannot be read"):
        read_changed(path, state)
    with pytest.raises(BadInput, match="cannot be read"):
        read_changed(tmp_path / "2.safetensors", state)
