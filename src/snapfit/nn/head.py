"""snapfit's own classification head: pooling, dropout, one linear layer.

The head is small on purpose: with a learning rate of its own a single layer learns within an epoch, and nothing
stands between the encoder's geometry and the labels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from snapfit.core.lengths import WindowPooling
from snapfit.nn.pooling import Pooling

INITIAL_STD = 0.02
"""Standard deviation of the fresh output layer's weights (BERT's own initialisation)."""


class Head(nn.Module):
    """Logits from token states: `forward(states, mask) -> float [batch, n_outputs]`.

    pooling: one of pooling.POOLINGS. width: of the encoder's states. dropout: probability before the output layer.
    window_pooling: how a text's windows become one row (see `core/windows.py`), None where there are none. `forward`
    then gives the columns of each window, and `finish` logits of the rows that they are combined to: with "attention"
    there is one more column, a window's score; with "max_states" they are the pooled vectors.
    samples: an attribute, 1 unless it is set: how often that dropout is drawn while training (multi-sample dropout,
    Inoue 2019). With more, the rows come so many times one after another: float [samples * batch, n_outputs].
    """

    def __init__(
        self,
        pooling: str,
        *,
        width: int,
        n_outputs: int,
        dropout: float,
        window_pooling: WindowPooling | None = None,
    ) -> None:
        super().__init__()
        self.pooling = Pooling(pooling, width)
        self.window_pooling = window_pooling
        self.dropout = nn.Dropout(dropout)
        self.samples = 1
        self.output = nn.Linear(self.pooling.output_width, n_outputs)
        if window_pooling == "attention":
            self.window_score = nn.Linear(self.pooling.output_width, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        pooled: Tensor = self.pooling(states, mask)
        return pooled if self.window_pooling == "max_states" else self._columns(pooled)

    def finish(self, rows: Tensor) -> Tensor:
        """Logits float [rows, n_outputs] of what the columns of each text's windows were combined to."""
        return self._columns(rows) if self.window_pooling == "max_states" else rows

    def _columns(self, pooled: Tensor) -> Tensor:
        if self.training and self.samples > 1:
            pooled = pooled.repeat(self.samples, 1)
        dropped = self.dropout(pooled.to(self.output.weight.dtype))
        logits: Tensor = self.output(dropped)
        return torch.cat((logits, self.window_score(dropped)), -1) if self.window_pooling == "attention" else logits
