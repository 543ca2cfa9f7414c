"""The rule for windows in torch: equal to the one in numpy, and its gradients to those of a loop over texts."""

import numpy as np
import pytest
import torch

from snapfit.core.lengths import WindowPooling
from snapfit.core.windows import combine_windows as in_numpy
from snapfit.nn.windows import combine_windows

POOLINGS: tuple[WindowPooling, ...] = ("mean", "max", "attention", "max_states")
COUNTS = np.array([3, 1, 8, 1, 2])
FIRST = np.concatenate([[0], np.cumsum(COUNTS)])


def columns(times: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(times * int(FIRST[-1]), 5, generator=generator).requires_grad_()


def looped(values: torch.Tensor, first: np.ndarray, pooling: WindowPooling) -> torch.Tensor:
    rows = []
    for start, end in zip(first[:-1], first[1:], strict=True):
        part = values[start:end]
        if pooling == "mean":
            rows.append(part.mean(0))
        elif pooling == "attention":
            rows.append(part[:, -1].softmax(0) @ part[:, :-1])
        else:
            rows.append(part.max(0).values)
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_is_the_rule_of_prediction(pooling: WindowPooling) -> None:
    values = columns()
    found = combine_windows(values, FIRST, pooling)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.detach(), in_numpy(values.detach().numpy(), FIRST, pooling), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_are_those_of_a_loop(pooling: WindowPooling) -> None:
    ours, theirs = columns(), columns()
    combine_windows(ours, FIRST, pooling).square().sum().backward()
    looped(theirs, FIRST, pooling).square().sum().backward()
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_one_window_is_its_own_answer_bit_for_bit(pooling: WindowPooling) -> None:
    values = columns()
    alone = combine_windows(values, np.arange(len(values) + 1), pooling)
    assert torch.equal(alone, values[:, :-1] if pooling == "attention" else values)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_several_outputs_of_each_window_stay_apart(pooling: WindowPooling) -> None:
    values = columns(times=3)
    together = combine_windows(values, FIRST, pooling)
    alone = [combine_windows(part, FIRST, pooling) for part in values.chunk(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_what_comes_in_bf16_is_combined_in_float32() -> None:
    values = columns().detach().bfloat16()
    torch.testing.assert_close(combine_windows(values, FIRST, "mean"), combine_windows(values.float(), FIRST, "mean"))


def test_gradients_are_the_same_every_time() -> None:
    """No sum over windows depends on an order of threads."""
    found = []
    for _ in range(3):
        values = columns(times=40)
        combine_windows(values, FIRST, "attention").square().sum().backward()
        found.append(values.grad)
    assert all(torch.equal(one, found[0]) for one in found)
