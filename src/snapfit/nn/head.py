"""snapfit's own classification head: pooling, dropout, one linear layer.

The head is small on purpose: with a learning rate of its own a single layer learns within an epoch, and nothing
stands between the encoder's geometry and the labels.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from snapfit.nn.pooling import Pooling

INITIAL_STD = 0.02
"""Standard deviation of the fresh output layer's weights (BERT's own initialisation)."""


class Head(nn.Module):
    """Logits from token states: `forward(states, mask) -> float [batch, n_outputs]`.

    pooling: one of pooling.POOLINGS. width: of the encoder's states. dropout: probability before the output layer.
    samples: an attribute, 1 unless it is set: how often that dropout is drawn while training (multi-sample dropout,
    Inoue 2019). With more, the rows come so many times one after another: float [samples * batch, n_outputs].
    """

    def __init__(self, pooling: str, *, width: int, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.pooling = Pooling(pooling, width)
        self.dropout = nn.Dropout(dropout)
        self.samples = 1
        self.output = nn.Linear(self.pooling.output_width, n_outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        pooled = self.pooling(states, mask)
        if self.training and self.samples > 1:
            pooled = pooled.repeat(self.samples, 1)
        logits: Tensor = self.output(self.dropout(pooled.to(self.output.weight.dtype)))
        return logits
