"""Pooling functions against numpy written from their definitions."""

import numpy as np
import pytest
import torch

from snapfit.nn.pooling import POOLINGS, Pooling, mean_over_tokens

WIDTH = 6
LENGTHS = (7, 1, 4)


@pytest.fixture
def states() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(len(LENGTHS), max(LENGTHS), WIDTH, generator=generator) for _ in range(5)]


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]


def expected(kind: str, states: list[torch.Tensor], pooling: Pooling) -> np.ndarray:
    layers = [layer.double().numpy() for layer in states]
    rows = []
    for row, length in enumerate(LENGTHS):
        last = layers[-1][row, :length]
        means = [layer[row, :length].mean(0) for layer in layers[-4:]]
        if kind == "attention":
            scores = last @ pooling.score.weight.detach().double().numpy()[0] + pooling.score.bias.item()
            weights = np.exp(scores - scores.max())
            rows.append((last * (weights / weights.sum())[:, None]).sum(0))
            continue
        vectors = {
            "cls": last[0],
            "mean": last.mean(0),
            "max": last.max(0),
            "last4_mean": np.mean(means, 0),
            "last4_concat": np.concatenate(means),
        }
        rows.append(vectors[kind])
    return np.stack(rows)


@pytest.mark.parametrize("kind", POOLINGS)
def test_equals_its_definition(kind: str, states: list[torch.Tensor], mask: torch.Tensor) -> None:
    torch.manual_seed(0)
    pooling = Pooling(kind, WIDTH)
    result = pooling(states, mask)
    assert result.shape == (len(LENGTHS), pooling.output_width)
    np.testing.assert_allclose(result.detach().numpy(), expected(kind, states, pooling), atol=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
def test_padding_is_never_read(kind: str, states: list[torch.Tensor], mask: torch.Tensor) -> None:
    torch.manual_seed(0)
    pooling = Pooling(kind, WIDTH)
    before = pooling(states, mask)
    changed = [torch.where(mask.unsqueeze(-1), layer, torch.full_like(layer, 1e4)) for layer in states]
    assert torch.equal(pooling(changed, mask), before)


def test_attention_with_equal_scores_is_the_mean(states: list[torch.Tensor], mask: torch.Tensor) -> None:
    pooling = Pooling("attention", WIDTH)
    torch.nn.init.zeros_(pooling.score.weight)
    torch.testing.assert_close(pooling(states, mask), mean_over_tokens(states[-1], mask))


def test_only_attention_has_parameters() -> None:
    assert {kind for kind in POOLINGS if list(Pooling(kind, WIDTH).parameters())} == {"attention"}


def test_only_the_last_four_ask_for_all_layers() -> None:
    assert {kind for kind in POOLINGS if Pooling(kind, WIDTH).needs_all_layers} == {
        "last4_mean",
        "last4_concat",
    }


def test_mean_of_a_row_without_tokens_is_zero(states: list[torch.Tensor]) -> None:
    nothing = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.bool)
    assert torch.equal(mean_over_tokens(states[-1], nothing), torch.zeros(len(LENGTHS), WIDTH))


@pytest.mark.parametrize("kind", ["mean", "max", "attention"])
def test_half_precision_stays_half_and_finite(kind: str, states: list[torch.Tensor], mask: torch.Tensor) -> None:
    pooling = Pooling(kind, WIDTH).to(torch.bfloat16)
    result = pooling([layer.to(torch.bfloat16) for layer in states], mask)
    assert result.dtype == torch.bfloat16
    assert torch.isfinite(result).all()
