"""Word embeddings that are moved against the model for part of a step: FGM (Miyato, Dai and Goodfellow 2017).

They are moved a little to where the step's loss grows fastest, and what the model that is moved so would learn is
learnt too. One direction for all of a step's rows, so that micro-batches change nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from snapfit.core.errors import BadInput
from snapfit.nn.classifier import Classifier
from snapfit.nn.used_rows import word_embedding


class Adversary:
    """Moves a classifier's word embeddings by `size` against it, in the direction of their gradient.

    Called between two passes over a step's rows, after the first one's backward pass, it makes a context in which they
    are moved; behind it the table is what it was, bit for bit. It says whether there is anything to learn there: not
    where the embeddings got no gradient, as those that do not learn yet, or one that is not finite, with which the step
    is lost anyway. A gradient of zeros has no direction, and moves nothing.

    size: the length of the move, all of the table taken as one vector. Raises BadInput where there is no plain table of
    word embeddings that learns.
    """

    def __init__(self, model: Classifier, size: float) -> None:
        embedding = word_embedding(model)
        if embedding is None:
            raise BadInput(
                f"regularise.adversarial with {model.config.model_type}, whose word embeddings do not learn",
                "an encoder with a plain table of word embeddings that learns",
                "--set regularise.adversarial=0",
            )
        self._embedding: nn.Embedding = embedding  # asked for its weight each time, for it may be exchanged
        self._size = size

    @contextmanager
    def __call__(self) -> Iterator[bool]:
        table: Any = self._embedding.weight
        largest = 0.0 if table.grad is None else float(table.grad.abs().max())
        if table.grad is None or not largest < float("inf"):
            yield False
            return
        kept = table.detach().clone()
        try:
            if largest > 0.0:
                direction = table.grad / largest  # so that squares neither overflow nor vanish
                with torch.no_grad():
                    table.add_(direction, alpha=self._size / float(direction.norm()))
            yield True
        finally:
            with torch.no_grad():
                table.copy_(kept)
