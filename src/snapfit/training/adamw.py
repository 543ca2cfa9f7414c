"""AdamW in one pass over memory: decay, moments, update, clipping and the check for finite weights together.

torch's own class, with its states and its arithmetic; only the step is exchanged. Gradients of large matrices may be
bf16, as the products of bf16 numbers are, and are widened as they are read.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from snapfit.nn.kernels import Kernels
from snapfit.nn.number_copies import NumberCopy


class KernelAdamW(torch.optim.AdamW):
    """torch.optim.AdamW for float32 parameters on the CPU, stepped by kernels.c.

    Attributes: factor: what the next step multiplies gradients by. finite: whether the last step left all its weights
    finite. copies: of weights, which a step keeps up to date.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], kernels: Kernels, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.kernels = kernels
        self.factor = 1.0
        self.finite = True
        self.copies: list[NumberCopy] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. Parameters that began at different steps are told apart."""
        assert closure is None  # the loop has none
        members = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, parameter in members:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        counts = [self.state[parameter]["step"] for _, parameter in members]
        torch._foreach_add_(counts, 1)
        steps = torch.stack(counts).tolist() if counts else []
        found = [(copy, copy.places()) for copy in self.copies]
        places = {id(weight): place for _, parts in found for weight, place in parts}
        self.finite = True
        for step in sorted(set(steps)):
            same = [member for member, count in zip(members, steps, strict=True) if count == step]
            self.finite &= self._update(step, same, places)
        for copy, parts in found:
            if parts:
                copy.written()
        self.factor = 1.0

    def _update(self, step: float, members: list[tuple[dict[str, Any], Tensor]], places: Mapping[int, Tensor]) -> bool:
        (beta1, beta2), eps = members[0][0]["betas"], members[0][0]["eps"]
        states = [self.state[parameter] for _, parameter in members]
        finite = self.kernels.adamw(
            (
                [parameter for _, parameter in members],
                [parameter.grad.contiguous() for _, parameter in members if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
            ),
            [places.get(id(parameter)) for _, parameter in members],
            [float(group["lr"]) for group, _ in members],
            [group["weight_decay"] for group, _ in members],
            (beta1, beta2, eps, 1.0 - beta1**step, 1.0 - beta2**step),
            self.factor,
        )
        torch.autograd.graph.increment_version([parameter for _, parameter in members])  # written behind torch's back
        return finite

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> list[float]:
        """Of each tensor, which is contiguous and on the CPU."""
        return self.kernels.sums_of_squares(tensors)


def can_step(parameters: Iterable[Tensor]) -> bool:
    """Whether the kernels can step these parameters: float32, contiguous, on the CPU."""
    return all(
        parameter.dtype == torch.float32 and parameter.device.type == "cpu" and parameter.is_contiguous()
        for parameter in parameters
    )
