"""Which layers learn in which step: the head first, then one layer after the other, from the top down.

A fresh head sends gradients of no meaning into a pretrained encoder, and what they spoil it does not get back. So the
head may learn alone for a while (LP-FT: Kumar et al. 2022), and layers may begin one by one, the most general ones last
(gradual unfreezing: Howard and Ruder 2018). When a layer begins is a function of the number of the step alone.

A layer that does not learn yet takes no gradient: the backward pass ends above it, and no optimizer touches it.
"""

import math
from dataclasses import dataclass

from torch import nn

from snapfit.nn.families import Depth
from snapfit.training.param_groups import DepthOf, GroupingPlan


@dataclass(frozen=True)
class Phases:
    """When each depth of an encoder begins to learn.

    head_first, unfreeze_share: shares of `total_steps`, below 1 together. The head learns from the first step, the top
    layer after the first share, the lowest depth after both, and those between at even distances; all of them learn in
    the last step at the latest.
    n_depths: the depth of the top layer. lowest: the lowest depth that learns at all, 0 for the embeddings.
    """

    head_first: float
    unfreeze_share: float
    total_steps: int
    n_depths: int
    lowest: int = 0

    def begins(self, depth: Depth) -> int:
        """The first step (from 0) in which a depth learns; the number of steps before it, that is."""
        if depth == "head":
            return 0
        top, bottom = self._steps(self.head_first), self._steps(self.head_first + self.unfreeze_share)
        way = (self.n_depths - depth) / max(self.n_depths - self.lowest, 1)
        return top + math.floor((bottom - top) * way + 0.5)

    def learns(self, step: int, depth: Depth) -> bool:
        """Whether a depth learns in a step (from 0)."""
        return step >= self.begins(depth)

    def __str__(self) -> str:
        top, bottom = self.begins(self.n_depths), self.begins(self.lowest)
        text = f"the head learns alone for {top:,} steps" if top else "the head and the top layer learn from the start"
        return text if top == bottom else f"{text}; layers follow from the top down, the last after {bottom:,} steps"

    def _steps(self, share: float) -> int:
        return min(math.floor(share * self.total_steps + 0.5), self.total_steps - 1)


class Unfreezing:
    """Lets the parameters of a model learn, or not, as the phases say.

    plan: which of them learn at all; the others are left alone. depth_of: of a parameter, by its name.
    head_first, unfreeze_share, total_steps: see `Phases`.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: GroupingPlan,
        depth_of: DepthOf,
        *,
        head_first: float,
        unfreeze_share: float,
        total_steps: int,
    ) -> None:
        tensors = dict(model.named_parameters())
        self._parameters: dict[Depth, list[nn.Parameter]] = {}
        for group in plan.groups:
            for name in group.parameters:
                self._parameters.setdefault(depth_of(name), []).append(tensors[name])
        layers = [depth for depth in self._parameters if depth != "head"] or [plan.n_layers]
        self.phases = Phases(head_first, unfreeze_share, total_steps, max(layers), min(layers))
        self._learning: list[Depth] | None = None  # as it is; not known before the first step

    def begin(self, step: int) -> None:
        """Let learn what learns in a step (from 0), and nothing else."""
        learning = [depth for depth in self._parameters if self.phases.learns(step, depth)]
        if learning == self._learning:
            return
        for depth, parameters in self._parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(depth in learning)
        self._learning = learning
