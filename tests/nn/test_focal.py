"""Focal and asymmetric loss against the formulas of their papers in float64, at ordinary logits and at huge ones."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snapfit.nn.focal import Focus, focal_cells, focal_rows

ROWS = 60
GAMMAS = [0.0, 0.5, 1.0, 2.0, 5.0]
HUGE = torch.tensor([[1e4, -1e4, 0.0], [3e4, 3e4, -1e30], [0.0, 0.0, 1e30], [88.0, -88.0, 0.0], [-1e30, -1e30, -1e30]])


def logits_of(labels: int, *, seed: int = 0) -> Tensor:
    values = torch.randn(ROWS, labels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (4 * values).requires_grad_()


def check_same(found: Tensor, expected: Tensor, logits: Tensor) -> None:
    """Values and gradients agree."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-12)


# ---------------------------------------------------------------- one label


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("classes", [2, 5])
def test_one_label_is_the_papers_formula(gamma: float, classes: int) -> None:
    logits = logits_of(classes)
    right = torch.arange(ROWS) % classes
    p = logits.softmax(-1)[torch.arange(ROWS), right]
    expected = -((1 - p) ** gamma) * p.log()
    check_same(focal_rows(logits, F.one_hot(right, classes).double(), gamma), expected, logits)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_shares_of_labels_are_shares_of_the_loss(gamma: float) -> None:
    logits = logits_of(4)
    shares = torch.rand(ROWS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = logits.softmax(-1)
    check_same(focal_rows(logits, shares, gamma), -(shares * (1 - p) ** gamma * p.log()).sum(-1), logits)


def test_without_an_exponent_it_is_cross_entropy() -> None:
    logits = logits_of(5)
    right = torch.arange(ROWS) % 5
    expected = F.cross_entropy(logits, right, reduction="none")
    check_same(focal_rows(logits, F.one_hot(right, 5).double(), 0.0), expected, logits)


# ---------------------------------------------------------------- many labels


@pytest.mark.parametrize("gamma", GAMMAS)
def test_many_labels_are_the_papers_formula(gamma: float) -> None:
    logits = logits_of(4)
    p = torch.sigmoid(logits)
    held, absent = focal_cells(logits, Focus(gamma, gamma))
    check_same(held, -((1 - p) ** gamma) * p.log(), logits)
    check_same(absent, -(p**gamma) * (1 - p).log(), logits)


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("absent", [0.5, 1.0, 4.0])
def test_asymmetric_is_the_papers_formula(margin: float, absent: float) -> None:
    logits = logits_of(4)
    p = torch.sigmoid(logits)
    shifted = (p - margin).clamp(min=0.0)
    of_held, of_absent = focal_cells(logits, Focus(1.0, absent, margin))
    check_same(of_held, -(1 - p) * p.log(), logits)
    check_same(of_absent, -((shifted + 1e-300) ** absent) * (1 - shifted).log(), logits)
    assert (shifted == 0).any()
    assert (of_absent[shifted == 0] == 0).all()


def test_without_exponents_and_margin_it_is_binary_cross_entropy() -> None:
    logits = logits_of(4)
    for found, wanted in zip(focal_cells(logits, Focus(0.0, 0.0)), (1.0, 0.0), strict=True):
        targets = torch.full_like(logits, wanted)
        check_same(found, F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), logits)


# ---------------------------------------------------------------- numbers that are huge


@pytest.mark.parametrize("gamma", GAMMAS)
def test_huge_logits_have_finite_losses_and_gradients(gamma: float) -> None:
    logits = HUGE.clone().requires_grad_()
    found = [focal_rows(logits, F.one_hot(torch.full((len(HUGE),), label), 3).float(), gamma) for label in range(3)]
    found += [part for margin in (0.0, 1e-9, 0.05) for part in focal_cells(logits, Focus(gamma, gamma, margin))]
    for one in found:
        (gradient,) = torch.autograd.grad(one.mean(), logits, retain_graph=True)
        assert torch.isfinite(one).all()
        assert torch.isfinite(gradient).all()
        assert (one >= 0).all()


def test_what_is_certain_and_right_costs_nothing_and_what_is_wrong_its_logits() -> None:
    logits = torch.tensor([[200.0, 0.0]])
    right, wrong = (focal_rows(logits, torch.tensor([shares]), 2.0).item() for shares in ([1.0, 0.0], [0.0, 1.0]))
    assert right == 0.0
    assert wrong == pytest.approx(200.0)
    held, absent = focal_cells(torch.tensor([200.0]), Focus(2.0, 2.0))
    assert (held.item(), absent.item()) == (0.0, pytest.approx(200.0))
