"""Optimizers by name: torch's own classes, given the settings that they know and refused where they cannot
run.

AdamW is torch's, with bias correction: without it the first steps are far too long, and on small data a good
part of the runs never recovers (Mosbach et al. 2021, Zhang et al. 2021).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from snapfit.core.errors import BadInput, nearest
from snapfit.nn.kernels import Kernels
from snapfit.training.adamw import KernelAdamW, can_step

_CANNOT = {
    "LBFGS": "it evaluates the loss several times in a step and keeps no parameter groups",
    "SparseAdam": "it takes sparse gradients alone, and an encoder's are dense",
    "Muon": "it takes matrices alone, and an encoder also has biases and normalisation weights",
}
"""Classes of torch.optim that cannot run a step of forward, backward, clip, update over an encoder's
parameters.
"""


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """The class of torch.optim of that name, in any case.

    Raises BadInput for a name that torch.optim does not have, and for one whose class cannot run the loop.
    """
    known = {
        found.__name__.lower(): found
        for found in vars(torch.optim).values()
        if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
    }
    usable = sorted(found.__name__.lower() for found in known.values() if found.__name__ not in _CANNOT)
    wanted = name.strip().lower()
    if wanted not in known:
        raise BadInput(
            f"optim.name is {name!r}",
            f"one of {', '.join(usable)}",
            f"--set optim.name={nearest(wanted, usable) or 'adamw'}",
        )
    if (reason := _CANNOT.get(known[wanted].__name__)) is not None:
        raise BadInput(f"optim.name is {name!r}: {reason}", f"one of {', '.join(usable)}", "--set optim.name=adamw")
    return known[wanted]


def build_optimizer(
    name: str,
    groups: Sequence[dict[str, Any]],
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.9,
    kernels: Kernels | None = None,
) -> torch.optim.Optimizer:
    """An optimizer over the groups of `param_groups.to_torch`, whose parameters are on their device by now.

    betas, eps: given to every class that has them in this form. momentum: of SGD. kernels: step AdamW with them.
    What a class does not know stays at its default. The fused implementation is used where this torch has one
    for the parameters' device and type; it computes the same step with fewer passes over memory.

    Raises BadInput for an unusable name, and for a weight decay that the class would ignore.
    """
    kind: Callable[..., torch.optim.Optimizer] = optimizer_class(name)
    known = inspect.signature(kind).parameters
    decays = any(group["weight_decay"] > 0 for group in groups)
    if decays and "weight_decay" not in known:
        raise BadInput(
            f"optim.weight_decay above 0 with optim.name {name!r}, which has no weight decay",
            "a weight decay of 0 with this optimizer",
            "--set optim.weight_decay=0",
        )
    settings: dict[str, Any] = {"lr": groups[0]["lr"]}
    if "betas" in known:
        settings["betas"] = betas
    if isinstance(getattr(known.get("eps"), "default", None), float):  # Adafactor's is a pair
        settings["eps"] = eps
    if kind is torch.optim.SGD:
        settings["momentum"] = momentum
    if kind is torch.optim.AdamW and kernels is not None and can_step(p for group in groups for p in group["params"]):
        return KernelAdamW([dict(group) for group in groups], kernels, **settings)
    if "fused" in known and _runs_fused(kind, groups, settings):
        settings["fused"] = True
    return kind([dict(group) for group in groups], **settings)  # copies, since torch writes into them


def _runs_fused(
    kind: Callable[..., torch.optim.Optimizer], groups: Sequence[dict[str, Any]], settings: dict[str, Any]
) -> bool:
    """Whether the fused step runs on parameters like these: tried on one number of each device and type.

    Torch names no public list of what it supports, and finds out at the first step rather than before.
    """
    for device, dtype in {(p.device, p.dtype) for group in groups for p in group["params"]}:
        probe = torch.nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        probe.grad = torch.zeros_like(probe)
        try:
            kind([probe], **settings, fused=True).step()
        except RuntimeError:
            return False
    return True
