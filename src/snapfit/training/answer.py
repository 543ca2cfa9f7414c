"""What a finished training answers with, where that is not its model alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from snapfit.core.errors import BadInput


@dataclass(frozen=True)
class Answer:
    """The logits that ship: those of one model, or of the mean of several models' scores, each at its temperature.

    The first model is `Fitted.model`; this is `combining.combine` with shares. What is made of the logits is in
    `Fitted.rule`.

    name: of the candidate, for people. others: whole state dicts of the further models, on the CPU, of the first one's
    architecture; a regression's in the table's units, as the first model is. shares: of each model in the mean, > 0,
    together 1. temperatures: of each model's logits in it. made_of: plain values that say what the answer is and what
    to expect of it.
    Raises BadInput for shares and temperatures that do not fit.
    """

    name: str
    others: tuple[Mapping[str, Tensor], ...] = ()
    shares: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = (1.0,)
    made_of: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_models = 1 + len(self.others)
        if not len(self.shares) == len(self.temperatures) == n_models:
            found = f"{len(self.shares)} shares and {len(self.temperatures)} temperatures for {n_models} models"
            raise BadInput(found, "one of each for every model", "correct the lists")
        if not all(share > 0 for share in self.shares) or not math.isclose(sum(self.shares), 1.0, abs_tol=1e-6):
            raise BadInput(f"the shares {self.shares}", "shares above 0 that make 1", "divide them by their sum")
        if not all(0 < heat < math.inf for heat in self.temperatures):
            raise BadInput(f"the temperatures {self.temperatures}", "finite numbers above 0", "correct them")

    @property
    def is_mean(self) -> bool:
        """Whether several models answer."""
        return bool(self.others)
