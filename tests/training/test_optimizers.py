"""Optimizers: the classes asked for, their settings, and AdamW's step worked out by hand."""

import math

import pytest
import torch
from torch import nn

from snapfit.core.errors import BadInput
from snapfit.training.optimizers import build_optimizer, optimizer_class
from snapfit.training.param_groups import plan_groups, to_torch


def group(parameter, lr=0.1, weight_decay=0.0, name="all"):
    return {"params": [parameter], "lr": lr, "base_lr": lr, "weight_decay": weight_decay, "name": name}


def parameter(*numbers):
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def test_adamw_by_hand():
    """Three steps with bias correction and decoupled decay, in plain Python."""
    weight, gradients = parameter(1.0, -2.0), [[0.5, -1.0], [0.25, 3.0], [-4.0, 0.125]]
    optimizer = build_optimizer("AdamW", [group(weight, 0.1, 0.01)], betas=(0.8, 0.95), eps=1e-6)
    expected, first, second = [1.0, -2.0], [0.0, 0.0], [0.0, 0.0]
    for t, gradient in enumerate(gradients, start=1):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i, g in enumerate(gradient):
            first[i] = 0.8 * first[i] + 0.2 * g
            second[i] = 0.95 * second[i] + 0.05 * g * g
            step = first[i] / (1 - 0.8**t) / (math.sqrt(second[i] / (1 - 0.95**t)) + 1e-6)
            expected[i] = expected[i] * (1 - 0.1 * 0.01) - 0.1 * step
    assert weight.tolist() == pytest.approx(expected, abs=1e-12)


def test_the_first_step_of_adamw_is_as_long_as_the_rate():
    """Which holds with bias correction alone; without it the step would be 3.2 times as long."""
    weight = parameter(0.0)
    optimizer = build_optimizer("adamw", [group(weight, 0.1)])
    weight.grad = torch.full_like(weight, 0.003)
    optimizer.step()
    assert weight.item() == pytest.approx(-0.1, rel=1e-5)


def test_fused_and_plain_take_the_same_steps():
    torch.manual_seed(0)
    start, gradients = torch.randn(33), torch.randn(5, 33)
    ends = []
    for optimizer_of in (
        lambda p: build_optimizer("adamw", [group(p, 1e-3, 0.01)]),
        lambda p: torch.optim.AdamW([p], lr=1e-3, weight_decay=0.01, foreach=False),
    ):
        weight = nn.Parameter(start.clone())
        optimizer = optimizer_of(weight)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)
    assert build_optimizer("adamw", [group(parameter(0.0))]).defaults["fused"]


def test_without_a_fused_kernel_the_plain_one_is_used():
    weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))  # a type that no fused kernel takes
    optimizer = build_optimizer("adamw", [group(weight, 0.25, name="only")])
    assert not optimizer.defaults["fused"]
    assert optimizer.param_groups[0]["name"] == "only"
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert weight[0].item() == pytest.approx(-0.25, rel=1e-6)


def test_sgd_by_hand():
    weight = parameter(1.0)
    optimizer = build_optimizer("SGD", [group(weight, 0.1)], momentum=0.5)
    for gradient in (1.0, 2.0):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(1.0 - 0.1 * 1.0 - 0.1 * (0.5 * 1.0 + 2.0))


USABLE = [
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SGD",
]


@pytest.mark.parametrize("name", USABLE)
def test_every_usable_class_learns(name):
    """A least-squares line gets better under each, with groups that differ in rate and decay."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    plan = plan_groups(
        model, lambda n: "head" if n.startswith("2") else 1, lr=0.01, head_lr_factor=2.0, layer_ratio=1.0,
        weight_decay=0.01,
    )  # fmt: skip
    optimizer = build_optimizer(name.upper(), to_torch(plan, model), betas=(0.8, 0.9), eps=1e-7, momentum=0.8)
    assert type(optimizer).__name__ == name
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.01, 0.02, 0.02]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.01, 0.0, 0.01, 0.0]
    for settings in optimizer.param_groups:
        assert settings.get("betas", (0.8, 0.9)) == (0.8, 0.9)
        assert settings["eps"] == 1e-7 if isinstance(settings.get("eps"), float) else True
        assert settings.get("momentum", 0) == (0.8 if name == "SGD" else 0)
    inputs = torch.randn(64, 3)
    targets = inputs.sum(dim=1, keepdim=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_rprop_has_no_weight_decay():
    assert isinstance(build_optimizer("rprop", [group(parameter(1.0))]), torch.optim.Rprop)
    with pytest.raises(BadInput, match=r"--set optim\.weight_decay=0"):
        build_optimizer("rprop", [group(parameter(1.0), weight_decay=0.1)])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adamv", r"--set optim\.name=adam"),
        ("xyz", r"--set optim\.name=adamw"),
        ("optimizer", "one of adadelta"),
        ("LBFGS", "several times"),
        ("sparseadam", "sparse gradients"),
        ("muon", "matrices alone"),
    ],
)
def test_refused(name, words):
    with pytest.raises(BadInput, match=words):
        optimizer_class(name)


def test_the_groups_given_are_not_changed():
    given = [group(parameter(1.0))]
    before = set(given[0])
    build_optimizer("adamw", given)
    assert set(given[0]) == before
