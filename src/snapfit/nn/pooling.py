"""From the encoder's token states to one vector a text, on real tokens only.

Every function takes the hidden states of all layers, `states[i]: float [batch, length, width]` (embeddings first),
and `mask: bool [batch, length]` (True on real tokens), and returns float [batch, width of the pooling].
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

POOLINGS = ("cls", "mean", "max", "attention", "last4_mean", "last4_concat")
"""Poolings of snapfit's own head, besides "native": the head that transformers gives the family.

    cls           the first token's last state
    mean          the mean of the last states
    max           the largest value of each feature
    attention     a mean weighted by a learnt score of each token
    last4_mean    the mean over tokens of the mean of the last four layers
    last4_concat  the means over tokens of each of the last four layers, side by side
"""


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """The mean of the real tokens' states; a row without tokens gives zeros."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


class Pooling(nn.Module):
    """One of POOLINGS for states that are `width` wide; only "attention" has parameters.

    needs_all_layers: whether the encoder must return the states of every layer.
    output_width: width of the pooled vector.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.needs_all_layers = kind.startswith("last4")
        self.output_width = width * 4 if kind == "last4_concat" else width
        if kind == "attention":
            self.score = nn.Linear(width, 1)

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        last = states[-1]
        if self.kind == "cls":
            return last[:, 0]
        if self.kind == "mean":
            return mean_over_tokens(last, mask)
        if self.kind == "max":
            return last.masked_fill(~mask.unsqueeze(-1), torch.finfo(last.dtype).min).amax(1)
        if self.kind == "attention":
            scores = self.score(last).squeeze(-1).float().masked_fill(~mask, float("-inf"))
            weights: Tensor = scores.softmax(-1).unsqueeze(-1).to(last.dtype)
            return (last * weights).sum(1)
        four = [mean_over_tokens(layer, mask) for layer in states[-4:]]
        return torch.stack(four).mean(0) if self.kind == "last4_mean" else torch.cat(four, -1)
