"""snapfit's own head: what it computes, how it starts, and what trains."""

from functools import partial

import pytest
import torch

from snapfit.nn.head import INITIAL_STD, Head
from snapfit.nn.losses import loss_sum
from snapfit.nn.pooling import POOLINGS, Pooling
from snapfit.training.regularise import several_outputs


def head(pooling: str = "mean", *, dropout: float = 0.0, width: int = 8, n_outputs: int = 3) -> Head:
    torch.manual_seed(0)
    return Head(pooling, width=width, n_outputs=n_outputs, dropout=dropout)


def states_and_mask() -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    return [torch.randn(2, 5, 8, generator=generator) for _ in range(4)], mask


@pytest.mark.parametrize("pooling", POOLINGS)
def test_is_one_linear_layer_over_the_pooled_vector(pooling: str) -> None:
    module = head(pooling).eval()
    states, mask = states_and_mask()
    pooled = module.pooling(states, mask)
    torch.testing.assert_close(module(states, mask), pooled @ module.output.weight.T + module.output.bias)
    assert module(states, mask).shape == (2, 3)


def test_starts_small_and_unbiased() -> None:
    module = head(width=400, n_outputs=50)
    assert torch.equal(module.output.bias, torch.zeros(50))
    assert module.output.weight.std().item() == pytest.approx(INITIAL_STD, rel=0.05)


def test_dropout_acts_in_training_only_and_before_the_output() -> None:
    module = head(dropout=0.5)
    states, mask = states_and_mask()
    assert torch.equal(module.eval()(states, mask), module(states, mask))
    module.train()
    torch.manual_seed(4)
    dropped = module(states, mask)
    torch.manual_seed(4)
    pooled = torch.nn.functional.dropout(Pooling("mean", 8)(states, mask), 0.5)
    torch.testing.assert_close(dropped, module.output(pooled))


def test_several_samples_are_outputs_under_masks_of_their_own() -> None:
    module = head(dropout=0.5)
    states, mask = states_and_mask()
    module.samples = 3
    plain = module.eval()(states, mask)
    assert plain.shape == (2, 3)  # nothing is drawn in evaluation
    torch.manual_seed(4)
    found = module.train()(states, mask)
    torch.manual_seed(4)
    masks = torch.nn.functional.dropout(torch.ones(3, 2, 8), 0.5)
    pooled = Pooling("mean", 8)(states, mask)
    targets = torch.tensor([2, 0])
    losses = []
    for number, dropped in enumerate(masks):
        expected = module.output(pooled * dropped)
        torch.testing.assert_close(found[2 * number : 2 * number + 2], expected)
        losses.append(torch.nn.functional.cross_entropy(expected, targets, reduction="sum"))
    total = several_outputs(partial(loss_sum, task="single"), task="single", samples=3)
    torch.testing.assert_close(total(found, targets), torch.stack(losses).mean())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_gets_a_gradient(pooling: str) -> None:
    module = head(pooling)
    module(*states_and_mask()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
