"""What logits are made of: the vector of each text that a classifier's last linear layer takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from snapfit.nn.classifier import Classifier


class Heard:
    """The vectors of the pass that was made last."""

    def __init__(self) -> None:
        self._last: Tensor | None = None

    def hear(self, layer: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        self._last = arguments[0]

    def array(self) -> np.ndarray:
        """float32 [rows, width]."""
        assert self._last is not None  # a pass was made: the last layer is part of every one
        found: np.ndarray = self._last.detach().float().cpu().numpy()
        return found


@contextmanager
def hearing(model: Classifier) -> Iterator[Heard]:
    """Within it, what goes into the model's last linear layer is heard; one thread at a time may run the model."""
    heard = Heard()
    hook = model.output.register_forward_pre_hook(heard.hear)
    try:
        yield heard
    finally:
        hook.remove()
