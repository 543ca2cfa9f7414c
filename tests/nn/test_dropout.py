"""Cheap dropout: torch's in expectation, in its gradient and in evaluation; a function of the generator's seed."""

import pytest
import torch
from torch import nn

import tiny
from snapfit.nn.dropout import Dropout, keep_mask, use_cheap_dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_share_of_what_is_dropped(p: float) -> None:
    torch.manual_seed(0)
    n = 400_000
    out = Dropout(p)(torch.ones(n))
    kept = out != 0
    assert abs(1 - kept.double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    torch.testing.assert_close(out[kept], torch.full((int(kept.sum()),), 1 / (1 - p)), atol=1e-4, rtol=1e-4)


def test_every_lane_of_a_word_is_as_random() -> None:
    torch.manual_seed(0)
    kept = keep_mask(400_000, 6554).view(-1, 4).double().mean(0)
    assert (kept - 0.9).abs().max() < 0.005


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    dropped = (~keep_mask(400_000, 2**15)).double() - 0.5
    for distance in (1, 2, 3, 4, 8):
        assert (dropped[distance:] * dropped[:-distance]).mean().abs() < 0.005


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (5, 7), (2, 3, 5), (0, 4)])
def test_the_gradient_passes_where_the_value_did(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    source = torch.ones(shape, dtype=dtype, requires_grad=True)
    out = Dropout(0.5)(source)
    assert out.dtype == dtype
    assert out.shape == shape
    out.sum().backward()
    assert torch.equal(source.grad, out.detach())


def test_it_is_a_function_of_the_seed() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Dropout(0.3)(torch.ones(1000))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_torchs(p: float) -> None:
    assert torch.equal(Dropout(p)(torch.ones(8)), nn.Dropout(p)(torch.ones(8)))


def test_in_evaluation_nothing_happens() -> None:
    source = torch.randn(10)
    assert torch.equal(Dropout(0.5).eval()(source), source)


def test_a_model_keeps_its_names_modes_and_probabilities() -> None:
    model = tiny.classifier("bert", "mean", hidden_dropout_prob=0.3)
    names = list(model.state_dict())
    before = {name: (m.p, m.training) for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert use_cheap_dropout(model) == len(before) > 0
    after = {name: (m.p, m.training) for name, m in model.named_modules() if isinstance(m, Dropout)}
    assert after == before
    assert list(model.state_dict()) == names
    assert use_cheap_dropout(model) == 0
