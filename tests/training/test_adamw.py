"""AdamW by kernels: torch's, step for step."""

import pytest
import torch
from torch import Tensor, nn

from snapfit.nn.kernels import Kernels
from snapfit.nn.number_copies import NumberCopy
from snapfit.training.adamw import KernelAdamW, can_step
from snapfit.training.loop import clip_gradients, group_norms

SHAPES = [(3,), (40, 50), (300, 100), (1,)]


def parameters(seed: int = 0) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def groups(tensors: list[nn.Parameter]) -> list[dict[str, object]]:
    return [
        {"params": tensors[:2], "lr": 0.1, "weight_decay": 0.1, "name": "first"},
        {"params": tensors[2:], "lr": 0.01, "weight_decay": 0.0, "name": "second"},
    ]


def set_gradients(tensors: list[nn.Parameter], step: int, *, dtype: torch.dtype = torch.float32) -> None:
    generator = torch.Generator().manual_seed(step)
    for tensor in tensors:
        gradient = torch.randn(tensor.shape, generator=generator).to(dtype)
        tensor.grad_dtype = dtype
        tensor.grad = gradient


def settings() -> dict[str, object]:
    return {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
def test_it_is_torchs(kernels: Kernels, max_norm: float) -> None:
    mine, theirs = parameters(), parameters()
    own = KernelAdamW(groups(mine), kernels, **settings())
    reference = torch.optim.AdamW(groups(theirs), **settings())
    for step in range(6):
        set_gradients(mine, step)
        set_gradients(theirs, step)
        for optimizer in (own, reference):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        norm = sum(value**2 for value in group_norms(own).values()) ** 0.5
        assert norm == pytest.approx(float(nn.utils.get_total_norm([p.grad for p in theirs])), rel=1e-5)
        assert group_norms(own) == pytest.approx(group_norms(reference), rel=1e-5)
        for optimizer in (own, reference):
            clip_gradients(optimizer, max_norm, norm)
            optimizer.step()
        assert own.finite
        assert own.factor == 1.0
        for left, right in zip(mine, theirs, strict=True):
            torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-5)
    states = own.state_dict()["state"], reference.state_dict()["state"]
    for number in states[1]:
        for key in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(states[0][number][key], states[1][number][key], atol=1e-6, rtol=1e-5)


def test_narrow_gradients_are_widened(kernels: Kernels) -> None:
    mine, theirs = parameters(), parameters()
    own, wide = (KernelAdamW(groups(tensors), kernels, **settings()) for tensors in (mine, theirs))
    for step in range(3):
        set_gradients(mine, step, dtype=torch.bfloat16)
        for left, right in zip(mine, theirs, strict=True):
            right.grad = left.grad.float()
        own.step()
        wide.step()
    for left, right in zip(mine, theirs, strict=True):
        assert torch.equal(left, right)


def test_what_has_no_gradient_stays(kernels: Kernels) -> None:
    tensors = parameters()
    before = [tensor.detach().clone() for tensor in tensors]
    optimizer = KernelAdamW(groups(tensors), kernels, **settings())
    set_gradients(tensors, 0)
    tensors[1].grad = None
    optimizer.step()
    assert [torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True)] == [
        False,
        True,
        False,
        False,
    ]
    set_gradients(tensors, 1)
    optimizer.step()
    assert [float(optimizer.state[tensor]["step"]) for tensor in tensors] == [2, 1, 2, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_weights_that_are_not_finite_are_noticed(kernels: Kernels, value: float) -> None:
    tensors = parameters()
    optimizer = KernelAdamW(groups(tensors), kernels, **settings())
    set_gradients(tensors, 0)
    if value == 1e30:  # whose square is not finite, so that the update is zero or not a number
        optimizer.param_groups[0]["lr"] = float("inf")
    else:
        tensors[1].grad[3, 4] = value
    optimizer.step()
    assert not optimizer.finite
    assert any(not tensor.isfinite().all() for tensor in tensors)


def test_a_state_is_saved_and_loaded(kernels: Kernels) -> None:
    straight, stopped, fresh = parameters(), parameters(), parameters()
    one, two, three = (KernelAdamW(groups(tensors), kernels, **settings()) for tensors in (straight, stopped, fresh))

    def walk(tensors: list[nn.Parameter], optimizer: KernelAdamW, steps: range) -> None:
        for step in steps:
            set_gradients(tensors, step)
            optimizer.step()

    walk(straight, one, range(5))
    walk(stopped, two, range(2))
    for left, right in zip(fresh, stopped, strict=True):
        left.data.copy_(right)
    three.load_state_dict(two.state_dict())
    walk(fresh, three, range(2, 5))
    assert all(torch.equal(left, right) for left, right in zip(straight, fresh, strict=True))


def test_autograd_knows_that_weights_were_written(kernels: Kernels) -> None:
    tensors = parameters()
    optimizer = KernelAdamW(groups(tensors), kernels, **settings())
    set_gradients(tensors, 0)
    versions = [tensor._version for tensor in tensors]
    optimizer.step()
    assert all(tensor._version > version for tensor, version in zip(tensors, versions, strict=True))


def test_what_the_kernels_can_step() -> None:
    def ask(tensor: Tensor) -> bool:
        return can_step([tensor])

    assert ask(torch.zeros(3, 4))
    assert not ask(torch.zeros(3, 4).t())
    assert not ask(torch.zeros(3, dtype=torch.float64))
    assert not ask(torch.zeros(3, device="meta"))


def test_copies_follow_the_weights(kernels: Kernels) -> None:
    tensors = [nn.Parameter(torch.randn(rows, 33)) for rows in (4, 8, 100)]
    optimizer = KernelAdamW(groups(tensors), kernels, **settings())
    copy = NumberCopy(tensors, counted=True)
    optimizer.copies = [copy]
    for step in range(4):
        if step != 2:  # one step without anybody having looked at the weights
            before = copy.current(torch.bfloat16, changing=True)
        set_gradients(tensors, step)
        if step == 3:
            tensors[1].grad = None
        optimizer.step()
        assert copy.places(), "the step left the copy stale"
        with torch.no_grad():
            assert torch.equal(before, torch.cat(list(tensors)).to(torch.bfloat16))
    with torch.no_grad():
        tensors[0].mul_(2.0)  # as loading a checkpoint does
    set_gradients(tensors, 4)
    optimizer.step()
    assert not copy.places()
    with torch.no_grad():
        assert torch.equal(copy.current(torch.bfloat16, changing=True), torch.cat(list(tensors)).to(torch.bfloat16))
