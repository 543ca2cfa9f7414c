"""Windows of a text become one row while training: `core/windows.py` in torch, with gradients.

The sums go over places that are written once, so that neither pass depends on an order of threads.
"""

import numpy as np
import torch
from torch import Tensor

from snapfit.core.lengths import WindowPooling
from snapfit.nn.packing import spread


def combine_windows(columns: Tensor, first_windows: np.ndarray, pooling: WindowPooling) -> Tensor:
    """One row for each text, float32 [texts, k]; the rule, and the arguments, are those of `core.windows`.

    columns: float [windows, k], with attention [windows, k + 1]; whole numbers of times as many where each window has
    several outputs, one output of all windows after the other, and then as many rows: float32 [times * texts, k].
    """
    counts = np.tile(np.diff(first_windows), len(columns) // max(int(first_windows[-1]), 1))
    texts, most = len(counts), int(counts.max(initial=1))
    number = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = torch.from_numpy(np.repeat(np.arange(texts) * most, counts) + number).to(columns.device)
    real = torch.from_numpy(np.arange(most) < counts[:, None]).to(columns.device).unsqueeze(-1)
    values = spread(columns.float(), places, texts * most).view(texts, most, -1)
    if pooling in ("max", "max_states"):
        return values.masked_fill(~real, float("-inf")).amax(1)
    if pooling == "mean":
        return values.sum(1) / real.sum(1)
    weights = values[..., -1:].masked_fill(~real, float("-inf")).softmax(1)
    return (values[..., :-1] * weights).sum(1)
