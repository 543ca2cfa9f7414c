"""Attention in float32 inside a bf16 forward pass: the same numbers, the right kernel, and undone before saving."""

from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from snapfit.nn.attention import NAME, use_attention, use_standard_attention
from snapfit.nn.classifier import Classifier

WITH_SDPA = [name for name in tiny.ALL if name not in ("mpnet", "deberta-v2", "rembert")]


class AttentionDtypes(TorchDispatchMode):
    """While entered, notes the dtypes in which torch's fused attention kernel runs, below autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in str(func):
            self.seen.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def attention_dtypes(model: Classifier) -> set[torch.dtype]:
    with AttentionDtypes() as spy, torch.autocast("cpu", dtype=torch.bfloat16):
        model(**tiny.inputs(model.config, [9, 4]))
    assert len(spy.seen) == 3
    return set(spy.seen)


@pytest.fixture
def models() -> Iterator[Classifier]:
    return (tiny.classifier(name, pooling) for name, pooling in tiny.FAMILY_AND_POOLING if name in WITH_SDPA)


def test_attention_and_only_attention_runs_in_float32(models: Iterator[Classifier]) -> None:
    for model in models:
        assert attention_dtypes(model) == {torch.bfloat16}
        assert use_attention(model)
        assert attention_dtypes(model) == {torch.float32}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model(**tiny.inputs(model.config, [9, 4])).logits.dtype == torch.bfloat16
        use_standard_attention(model)
        assert attention_dtypes(model) == {torch.bfloat16}


def test_in_float32_nothing_changes(models: Iterator[Classifier]) -> None:
    for model in models:
        batch = tiny.inputs(model.config, [9, 4])
        before = model(**batch).logits
        use_attention(model)
        torch.testing.assert_close(model(**batch).logits, before, atol=1e-6, rtol=1e-6)


def test_gradients_pass_through(models: Iterator[Classifier]) -> None:
    for model in models:
        use_attention(model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**tiny.inputs(model.config, [9, 4])).logits.float().square().sum()
        loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_other_attentions_stay_as_they_are() -> None:
    model = tiny.classifier("deberta-v2")
    assert not use_attention(model)
    assert model.config._attn_implementation == "eager"
    use_standard_attention(model)
    assert model.config._attn_implementation == "eager"


def test_the_name_never_reaches_a_config_file() -> None:
    model = tiny.classifier("bert")
    use_attention(model)
    use_standard_attention(model)
    assert NAME not in model.config.to_json_string(use_diff=False)
