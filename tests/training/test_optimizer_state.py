"""The optimizer's memory by names: after a round trip through a file, the next steps are the same, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snapfit.core.errors import BadInput
from snapfit.training.optimizer_state import optimizer_state, restore_optimizer_state
from snapfit.training.optimizers import build_optimizer, optimizer_class
from snapfit.training.tensor_files import read_tensors, write_tensors


def usable() -> list[str]:
    """Every name that snapfit's optimizers offer."""
    names = []
    for name, kind in vars(torch.optim).items():
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer:
            try:
                optimizer_class(name)
            except BadInput:
                continue
            names.append(name)
    return sorted(names)


class Net(nn.Module):
    """Parameters of several shapes, one of them frozen and one that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 3, bias=False)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))


def groups(net: Net, *, turned: bool = False) -> list[dict[str, Any]]:
    """Two groups; turned: the same parameters in another order, so that numbers mean others."""
    parts = [[net.first.weight, net.unused], [net.first.bias, net.second.weight]]
    if turned:
        parts = [list(reversed(part)) for part in reversed(parts)]
    return [{"params": part, "lr": 0.01, "weight_decay": 0.0} for part in parts]


def take_steps(net: Net, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        torch.manual_seed(step)
        net.second(torch.tanh(net.first(torch.randn(8, 4)))).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def through_a_file(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    write_tensors(path, {name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    return read_tensors(path)


@pytest.mark.parametrize("name", usable())
def test_the_next_steps_are_bit_identical(tmp_path: Path, name: str) -> None:
    whole = Net()
    optimizer = build_optimizer(name, groups(whole))
    take_steps(whole, optimizer, 0, 4)
    tensors, values = optimizer_state(whole, optimizer)
    weights = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    stored = through_a_file(tensors, tmp_path / "optimizer.safetensors")

    again = Net()
    again.load_state_dict(weights)
    resumed = build_optimizer(name, groups(again))
    restore_optimizer_state(again, resumed, stored, values)
    for optimizer_now, net in ((optimizer, whole), (resumed, again)):
        take_steps(net, optimizer_now, 4, 9)
    assert any(not torch.equal(weights[key], tensor) for key, tensor in whole.state_dict().items())
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key
    first, second = optimizer_state(whole, optimizer), optimizer_state(again, resumed)
    assert first[1] == second[1]
    assert first[0].keys() == second[0].keys()
    assert all(torch.equal(tensor, second[0][key]) for key, tensor in first[0].items())


def test_names_count_and_numbers_do_not() -> None:
    net, other = Net(), Net()
    optimizer = build_optimizer("adamw", groups(net))
    take_steps(net, optimizer, 0, 3)
    tensors, values = optimizer_state(net, optimizer)
    turned = build_optimizer("adamw", groups(other, turned=True))
    restore_optimizer_state(other, turned, tensors, values)
    for one, two in ((net.first.weight, other.first.weight), (net.second.weight, other.second.weight)):
        for key, value in optimizer.state[one].items():
            assert torch.equal(turned.state[two][key], value), key
    assert other.unused not in turned.state


def test_what_is_given_back_are_copies() -> None:
    net = Net()
    optimizer = build_optimizer("adamw", groups(net))
    take_steps(net, optimizer, 0, 2)
    tensors, values = optimizer_state(net, optimizer)
    assert tensors["first.weight/exp_avg"].data_ptr() == optimizer.state[net.first.weight]["exp_avg"].data_ptr()
    kept = {key: tensor.clone() for key, tensor in tensors.items()}
    other = Net()
    resumed = build_optimizer("adamw", groups(other))
    restore_optimizer_state(other, resumed, kept, values)
    take_steps(other, resumed, 2, 4)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in kept.items())


def test_values_that_are_no_tensors_come_back() -> None:
    net, other = Net(), Net()
    optimizer, resumed = build_optimizer("sgd", groups(net)), build_optimizer("sgd", groups(other))
    optimizer.state[net.first.bias] = {"note": 3, "momentum_buffer": torch.ones(5)}
    tensors, values = optimizer_state(net, optimizer)
    assert values == {"first.bias": {"note": 3}}
    restore_optimizer_state(other, resumed, tensors, values)
    assert resumed.state[other.first.bias]["note"] == 3
    assert torch.equal(resumed.state[other.first.bias]["momentum_buffer"], torch.ones(5))


def test_rates_and_the_like_are_those_of_the_new_optimizer() -> None:
    net, other = Net(), Net()
    optimizer = build_optimizer("adamw", groups(net))
    take_steps(net, optimizer, 0, 1)
    resumed = build_optimizer("adamw", [group | {"lr": 0.5, "base_lr": 0.5} for group in groups(other)])
    restore_optimizer_state(other, resumed, *optimizer_state(net, optimizer))
    assert [(group["lr"], group["base_lr"]) for group in resumed.param_groups] == [(0.5, 0.5)] * 2


def test_an_empty_memory_is_one_too() -> None:
    net = Net()
    optimizer = build_optimizer("adamw", groups(net))
    assert optimizer_state(net, optimizer) == ({}, {})
    restore_optimizer_state(net, optimizer, {}, {})
    take_steps(net, optimizer, 0, 1)


@pytest.mark.parametrize("name", ["nobody", "frozen"])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_parameter_that_is_not_trained_is_refused(name: str, as_tensor: bool) -> None:
    net = Net()
    optimizer = build_optimizer("adamw", groups(net))
    tensors = {f"{name}/exp_avg": torch.zeros(2)} if as_tensor else {}
    values = {} if as_tensor else {name: {"note": 1}}
    with pytest.raises(BadInput, match=f"remembers the parameter '{name}', which is not trained"):
        restore_optimizer_state(net, optimizer, tensors, values)
