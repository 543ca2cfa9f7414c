"""Soups: averages are exactly those of the stored weights, members behind a barrier stay out, greedy never harms."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from snapfit.core.combining import measure
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores
from snapfit.training.averaging import average, make_soups

ROWS = 200


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": torch.randn(3, 4, generator=generator),
        "ids": torch.arange(4),
        "b": torch.randn(2, generator=generator),
    }


# ---------------------------------------------------------------- averages


def test_an_average_is_that_of_its_parts_and_of_nothing_else() -> None:
    parts = [weights(seed) for seed in range(3)]
    before = [{name: tensor.clone() for name, tensor in part.items()} for part in parts]
    mean = average(parts)
    for name in ("w", "b"):
        exact = np.mean([part[name].numpy().astype(np.float64) for part in parts], axis=0)
        assert np.array_equal(mean[name].numpy(), exact.astype(np.float32))
    assert torch.equal(mean["ids"], parts[0]["ids"])
    assert mean["ids"].dtype == torch.int64
    for part, untouched in zip(parts, before, strict=True):
        assert all(torch.equal(part[name], untouched[name]) for name in part)
    mean["w"].zero_()
    assert parts[0]["w"].any()


def test_shares_count_by_their_ratio() -> None:
    one, other = weights(0), weights(1)
    mixed = average([one, other], [3.0, 1.0])
    assert torch.allclose(mixed["w"], 0.75 * one["w"] + 0.25 * other["w"], atol=1e-7)
    assert torch.equal(average([one, other], [6.0, 2.0])["w"], mixed["w"])
    assert torch.equal(average([one, one, other], [2.0, 1.0, 1.0])["w"], mixed["w"])


def test_the_average_of_one_is_itself_and_order_changes_nothing() -> None:
    parts = [weights(seed) for seed in range(4)]
    assert torch.equal(average(parts[:1])["w"], parts[0]["w"])
    assert torch.equal(average(parts)["w"], average(parts[::-1])["w"])


def test_small_floats_keep_their_dtype() -> None:
    half = [
        {"w": torch.tensor([1.0, 3.0], dtype=torch.bfloat16)},
        {"w": torch.tensor([2.0, 5.0], dtype=torch.bfloat16)},
    ]
    assert average(half)["w"].dtype == torch.bfloat16
    assert average(half)["w"].tolist() == [1.5, 4.0]


def test_what_cannot_be_averaged() -> None:
    with pytest.raises(BadInput, match="no weights"):
        average([])
    for other in (
        {"w": torch.zeros(3, 4)},
        weights(0) | {"ids": torch.arange(5)},
        weights(0) | {"w": torch.zeros(4, 3)},
        weights(0) | {"more": torch.zeros(1)},
    ):
        with pytest.raises(BadInput, match="different models"):
            average([weights(0), other])


# ---------------------------------------------------------------- soups of a linear model

FEATURES = np.random.default_rng(0).normal(size=(ROWS, 6))
TRUE = np.random.default_rng(99).normal(size=(6, 3)) * 2
TARGETS = (FEATURES @ TRUE).argmax(axis=1)


def linear(noise: float, seed: int) -> dict[str, Tensor]:
    """Weights near those that made the targets."""
    return {"w": torch.from_numpy(TRUE + np.random.default_rng(seed).normal(size=TRUE.shape) * noise).float()}


def logits_of(found: object) -> np.ndarray:
    return FEATURES @ found["w"].numpy().astype(np.float64)  # type: ignore[index]


def soups_of(members: list[dict[str, Tensor]]) -> tuple[list[object], list[object]]:
    soups, barriers = make_soups(members, [logits_of(m) for m in members], logits_of, TARGETS, "single", "accuracy")
    return list(soups), list(barriers)


def accuracy(logits: np.ndarray) -> float:
    return measure(logits_to_scores(logits, "single"), TARGETS, "single", "accuracy").metric


def test_a_uniform_soup_of_one_basin_is_better_than_its_parts() -> None:
    members = [linear(0.8, seed) for seed in range(6)]
    soups, barriers = make_soups(members, [logits_of(m) for m in members], logits_of, TARGETS, "single", "accuracy")
    assert barriers == []
    assert soups[0].name == "uniform soup"
    assert soups[0].ingredients == tuple(range(6))
    assert torch.equal(soups[0].weights["w"], average(members)["w"])
    assert np.array_equal(soups[0].logits, logits_of(soups[0].weights))
    assert accuracy(soups[0].logits) > max(accuracy(logits_of(member)) for member in members)


def test_a_greedy_soup_leaves_out_what_harms_and_is_no_worse_than_the_best() -> None:
    members = [linear(0.3, 0), linear(0.3, 1), linear(1.8, 2), linear(1.8, 3)]
    soups, _ = make_soups(members, [logits_of(m) for m in members], logits_of, TARGETS, "single", "accuracy")
    best = max(accuracy(logits_of(member)) for member in members)
    for soup in soups:
        assert torch.equal(soup.weights["w"], average([members[i] for i in soup.ingredients])["w"])
        if soup.name == "greedy soup":
            assert accuracy(soup.logits) >= best
    assert len({soup.ingredients for soup in soups}) == len(soups)


def test_a_member_behind_a_barrier_is_in_no_soup() -> None:
    """A permuted copy of hidden units computes the same, and half way to it nothing is left of either."""
    near = [linear(0.1, 0), linear(0.1, 1)]

    def hidden(member: dict[str, Tensor], *, turned: bool) -> dict[str, Tensor]:
        sign = -1.0 if turned else 1.0  # two layers whose signs cancel
        return {"a": sign * torch.eye(6), "b": sign * member["w"]}

    def through(found: object) -> np.ndarray:
        first, second = found["a"].double().numpy(), found["b"].double().numpy()  # type: ignore[index]
        return FEATURES @ first @ second

    members = [hidden(near[0], turned=False), hidden(near[1], turned=False), hidden(near[0], turned=True)]
    soups, barriers = make_soups(members, [through(m) for m in members], through, TARGETS, "single", "accuracy")
    behind = {barrier.member for barrier in barriers}
    found = [accuracy(through(member)) for member in members]
    assert found[0] == found[2]
    assert behind in ({2}, {0, 1})  # whichever side the best one is on
    assert all("half way to the best member accuracy is" in barrier.why for barrier in barriers)
    for soup in soups:
        assert not behind & set(soup.ingredients)


def test_a_regressions_barrier_is_one_of_error() -> None:
    targets = FEATURES[:, :1] * 2
    members = [{"w": torch.tensor([[value]])} for value in (2.0, 2.01, -40.0)]

    def logits(found: object) -> np.ndarray:
        weight = float(found["w"])  # type: ignore[index]
        return FEATURES[:, :1] * (weight if abs(weight) < 30 else 2.02)

    soups, barriers = make_soups(members, [logits(m) for m in members], logits, targets, "regression", "rmse")
    assert [barrier.member for barrier in barriers] == [2]
    assert "the error is" in barriers[0].why
    assert [soup.ingredients for soup in soups] == [(0, 1)]


def test_one_member_makes_no_soup() -> None:
    member = linear(0.1, 0)
    assert soups_of([member]) == ([], [])
    soups, _ = soups_of([member, linear(0.1, 1)])
    assert 1 <= len(soups) <= 2
    assert math.isfinite(accuracy(soups[0].logits))  # type: ignore[attr-defined]
