"""Averages of the weights along a training: an exponential one, and the plain mean over its tail.

Both cost one copy of the weights and no validation rows, and both take out what is left of the steps' noise: the
exponential moving average as Polyak and Juditsky (1992) and Tarvainen and Valpola (2017) use it, the mean over the last
share of a run as in SWA (Izmailov et al. 2018) and LAWA (Kaddour 2022).

The weights are looked at after every `max(1, steps // 100)`-th step, and after the last one. With the weights w_i of
these steps and the gaps g_i between them (steps since the one before) the averages are

    ema    sum(c_i w_i) / sum(c_i),   c_i = (1 - d_i) d_(i+1) ... d_n,   d_i = exp(-g_i / (ema_share * steps))
    tail   sum(w_i) / n               over those i that lie in the last `tail_share * steps` steps

Division by the sum of the c_i is Adam's correction of the bias (Kingma and Ba 2015): an average of few weights does not
lean towards what it began with, which is the first of them. The means are brought up to date one by one, as
mean += (w - mean) * c / sum(c), in float32 on the CPU; what is no floating-point number is the last one's.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from snapfit.core.recipe import Recipe
from snapfit.training.assemble import Assembly

AVERAGES: tuple[Literal["ema"], Literal["tail"]] = ("ema", "tail")
UPDATES = 100
"""About so many times in a run the weights are looked at."""


class Trajectory:
    """The averages of one training; none where both shares are 0.

    ema_share: the time constant of the exponential average as a share of `steps`. tail_share: of `steps`, the last ones
    that the plain mean is over. steps: all there are or, where short rounds follow the run proper, those before the
    first round; what comes after them is in no average.
    """

    def __init__(self, *, ema_share: float = 0.0, tail_share: float = 0.0, steps: int = 0) -> None:
        self._steps, self._interval = steps, max(1, steps // UPDATES)
        shares = zip(AVERAGES, (ema_share, tail_share), strict=True)
        self._shares = {name: share for name, share in shares if share > 0}
        self._first_of_tail = steps - max(1, round(tail_share * steps)) + 1
        self._begin()

    @classmethod
    def of(cls, recipe: Recipe, assembly: Assembly) -> "Trajectory":
        """The averages that a recipe asks for."""
        wanted = recipe.ensemble
        return cls(ema_share=wanted.ema_share, tail_share=wanted.tail_share, steps=assembly.cycles.run_proper)

    @property
    def count(self) -> int:
        """How many averages are made: 0, 1 or 2."""
        return len(self._shares)

    def due(self, step: int) -> list[str]:
        """The averages that take in the weights after the step (from 1)."""
        if not 1 <= step <= self._steps or (step % self._interval and step != self._steps):
            return []
        return [name for name in self._shares if name != "tail" or step >= self._first_of_tail]

    def after(self, step: int, assembly: Assembly) -> None:
        """Take in the weights of a training after the step, where that is due."""
        if self.due(step):
            with torch.no_grad(), assembly.whole():
                self.add(step, assembly.model.state_dict())

    def add(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Take in the weights after the step, in the averages that are due; they are not kept."""
        held = {name: _on_cpu(tensor) for name, tensor in weights.items()}
        for name in self.due(step):
            kept, own = 1.0, 1.0
            if name == "ema":
                gap = step - (step - 1) // self._interval * self._interval
                passed = gap / (self._shares[name] * self._steps)
                kept, own = math.exp(-passed), -math.expm1(-passed)
            whole = kept * self._whole[name] + own
            self._means[name] = _moved(self._means[name], held, own / whole)
            self._whole[name], self._last[name] = whole, step

    def averages(self) -> dict[str, dict[str, Tensor]]:
        """{"ema": weights, "tail": weights}, those of which there are some yet.

        Names are those of the classifier's state; a tensor never changes once it is here.
        """
        return {name: dict(mean) for name, mean in self._means.items() if mean}

    def last_step(self, name: str) -> int:
        """The step whose weights an average took in last; 0 before any."""
        return self._last[name]

    # ---------------------------------------------------------------- for checkpoints

    def tensors(self) -> dict[str, Tensor]:
        """All averages by "ema/NAME" and "tail/NAME", not copied; they never change."""
        return {f"{name}/{key}": tensor for name, mean in self._means.items() for key, tensor in mean.items()}

    def to_dict(self) -> dict[str, Any]:
        """All but the tensors, as plain values; empty where no average is made."""
        return {
            name: {"share": share, "of": self._steps, "whole": self._whole[name], "step": self._last[name]}
            for name, share in self._shares.items()
        }

    def restore(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor], *, step: int) -> list[str]:
        """Be what `to_dict` and `tensors` gave after the step; copies are made.

        An average that was made otherwise then, or not at all, begins anew. Returns which do, in words.
        Raises ValueError when tensors are missing.
        """
        self._begin()
        anew = []
        for name, share in self._shares.items():
            then = values.get(name)
            if then is None or (float(then["share"]), int(then["of"])) != (share, self._steps):
                was = "there was none" if then is None else f"it was of {then['share']:g} of {int(then['of']):,} steps"
                if step > 0:
                    anew.append(f"the average {name!r} of the weights begins anew after step {step:,}: {was} before")
                continue
            mean = {key[len(name) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
            self._whole[name], self._last[name] = float(then["whole"]), int(then["step"])
            if (self._last[name] > 0) != bool(mean):
                raise ValueError(f"the average {name!r} without its weights")
            self._means[name] = {key: tensor.clone() for key, tensor in mean.items()}
        return anew

    def _begin(self) -> None:
        self._means: dict[str, dict[str, Tensor]] = {name: {} for name in self._shares}
        self._whole = dict.fromkeys(self._shares, 0.0)  # the sum of the c_i, or how many there are
        self._last = dict.fromkeys(self._shares, 0)


def _on_cpu(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, in float32 if it is of floating-point numbers; not copied where it is so already."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype)


def _moved(mean: Mapping[str, Tensor], weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The mean, moved towards weights by a share of the way, in new tensors; a copy of the weights before the first."""
    return {
        name: torch.lerp(mean[name], tensor, share).contiguous()
        if mean and tensor.is_floating_point()
        else tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.items()
    }
