"""What an optimizer remembers, by the names of the parameters: to plain tensors and values, and back.

torch's own `state_dict` goes by numbers, which mean other parameters as soon as the groups change.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snapfit.core.errors import BadInput

Values = dict[str, dict[str, Any]]
"""Parameter name -> key -> what is not a tensor."""
_MOMENTUM = ("exp_avg", "momentum_buffer")


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Values]:
    """The optimizer's own tensors by "parameter/key", not copied, and the rest of what it remembers."""
    tensors: dict[str, Tensor] = {}
    values: Values = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value
            else:
                values.setdefault(name, {})[key] = value
    return tensors, values


def restore_optimizer_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Mapping[str, Any]],
) -> None:
    """Put back what `optimizer_state` gave, as copies on the devices of the parameters.

    Raises BadInput for a parameter that the optimizer does not train.
    """
    remembered: dict[str, dict[str, Any]] = {name: dict(rest) for name, rest in values.items()}
    for full_name, tensor in tensors.items():
        name, _, key = full_name.rpartition("/")
        remembered.setdefault(name, {})[key] = tensor.clone()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    if unknown := sorted(set(remembered) - set(trained)):
        raise BadInput(
            f"a checkpoint remembers the parameter {unknown[0]!r}, which is not trained",
            "the parameters of the same recipe",
            "continue with the recipe that the run began with",
        )
    state = {number: remembered[name] for number, name in enumerate(trained) if name in remembered}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def forget_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Let the optimizer forget where the weights were heading; how large their gradients are it still knows."""
    for remembered in optimizer.state.values():
        for key in _MOMENTUM:
            if isinstance(remembered.get(key), Tensor):
                remembered[key].zero_()
