"""AdamW in one pass over memory: decay, moments, update, clipping and the check for finite weights together.

torch's own class, with its states and its arithmetic; only the step is exchanged. Gradients of large matrices may be
bf16, as the products of bf16 numbers are, and are widened as they are read.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from snapfit.nn.kernels import Kernels


class KernelAdamW(torch.optim.AdamW):
    """torch.optim.AdamW for float32 parameters on the CPU, stepped by kernels.c.

    Attributes: factor: what the next step multiplies gradients by. finite: whether the last step left all its weights
    finite.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], kernels: Kernels, **settings: Any) -> None:
        super().__init__(groups, **settings)
        self.kernels = kernels
        self.factor = 1.0
        self.finite = True

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. Parameters that began at different steps are told apart."""
        assert closure is None  # the loop has none
        by_step: dict[float, list[tuple[dict[str, Any], Tensor, dict[str, Any]]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                by_step.setdefault(float(state["step"]), []).append((group, parameter, state))
        self.finite = all([self._update(step, members) for step, members in by_step.items()])
        self.factor = 1.0

    def _update(self, step: float, members: list[tuple[dict[str, Any], Tensor, dict[str, Any]]]) -> bool:
        (beta1, beta2), eps = members[0][0]["betas"], members[0][0]["eps"]
        finite = self.kernels.adamw(
            (
                [parameter for _, parameter, _ in members],
                [parameter.grad.contiguous() for _, parameter, _ in members if parameter.grad is not None],
                [state["exp_avg"] for _, _, state in members],
                [state["exp_avg_sq"] for _, _, state in members],
            ),
            [float(group["lr"]) for group, _, _ in members],
            [group["weight_decay"] for group, _, _ in members],
            (beta1, beta2, eps, 1.0 - beta1**step, 1.0 - beta2**step),
            self.factor,
        )
        for _, parameter, _ in members:
            torch.autograd.graph.increment_version(parameter)  # written to behind torch's back
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
