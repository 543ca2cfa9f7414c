"""What a training has come to: everything that decides how it goes on, beside the weights and the optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from snapfit.training.evaluation import BestWeights
from snapfit.training.guard import Guard
from snapfit.training.members import Members
from snapfit.training.trajectory import Trajectory

_NUMBERS = ("step", "epoch", "position", "tokens", "micro_batches")


@dataclass
class Progress:
    """The state of a training between two steps.

    best: of the validation split. guard: what went wrong so far. micro_batches: parts that a step is cut into.
    step: optimizer steps done. epoch, position: the place of the next step in the data order. tokens: seen so far.
    seconds: spent in training. evaluated: whether the evaluation that is due after `step` was made.
    restart_factor: what the rates of rounds are multiplied by, see cycling.py. members: see members.py.
    trajectory: averages of the weights, see trajectory.py.
    """

    best: BestWeights
    guard: Guard
    micro_batches: int
    step: int = 0
    epoch: int = 0
    position: int = 0
    tokens: int = 0
    seconds: float = 0.0
    evaluated: bool = True
    restart_factor: float = 1.0
    members: Members | None = None
    trajectory: Trajectory = field(default_factory=Trajectory)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint; the best weights and the averages are stored beside them."""
        averages = self.trajectory.to_dict()
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "seconds": round(self.seconds, 3),
            "evaluated": self.evaluated,
            "best": self.best.to_dict(),
            "guard": self.guard.to_dict(),
            "restart_factor": self.restart_factor,
            "members": [] if self.members is None else self.members.to_dict(),
            **({"averages": averages} if averages else {}),
        }

    def restore(
        self,
        values: Mapping[str, Any],
        best_weights: Mapping[str, Tensor],
        averages: Mapping[str, Tensor] | None = None,
    ) -> list[str]:
        """Take over what `to_dict` gave, and the weights that belong to it; returns what begins anew, in words."""
        for name in _NUMBERS:
            setattr(self, name, int(values[name]))
        self.seconds = float(values["seconds"])
        self.evaluated = bool(values["evaluated"])
        self.best.restore(values["best"], best_weights)
        self.guard.restore(values["guard"])
        self.restart_factor = float(values.get("restart_factor", 1.0))  # checkpoints were made before there were rounds
        if self.members is not None:
            self.members.restore(values.get("members", []))
        return self.trajectory.restore(values.get("averages", {}), averages or {}, step=self.step)
