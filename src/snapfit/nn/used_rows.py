"""The table of word embeddings while training: only the rows that the training texts use are trained.

A table has tens to hundreds of thousands of rows and a data set uses a few thousand. The others never get a gradient,
yet dense training writes a gradient for them, takes its norm and updates two moments, every step. Under AdamW all
that a row without gradients and moments does is decay: by the same factor as every other one, which is one number.
So a compact table of the used rows is trained as any parameter, exactly as it would be inside the whole one, and the
whole one is put together where it is looked at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier

WORTHWHILE_SHARE = 0.9
"""Up to this share of used rows a compact table is worth having."""
_CHUNK = 1 << 24


class UsedRows:
    """Puts a compact table into a classifier's encoder, under the name of the whole one.

    model: on its device, weights in, its optimizer not yet built. used: ids that occur, int64, ascending.
    Attributes: name (of the parameter), used, decay (of the rows that are not: what they are to be multiplied by).
    """

    def __init__(self, model: Classifier, used: np.ndarray) -> None:
        embedding = word_embedding(model)
        assert embedding is not None  # asked by whoever builds this
        self._embedding: Any = embedding  # whose weight and forward are exchanged
        whole = embedding.weight
        self.name = next(name for name, parameter in model.named_parameters() if parameter is whole)
        pad = embedding.padding_idx
        self.used = torch.from_numpy(used if pad is None else np.union1d(used, [pad])).to(whole.device)
        self.decay = 1.0
        self._table = whole.detach()
        self._lookup = torch.full((len(whole),), -1, dtype=torch.int64, device=whole.device)
        self._lookup[self.used] = torch.arange(len(self.used), device=whole.device)
        self._pad = None if pad is None else int(self._lookup[pad])
        self._compact = nn.Parameter(self._table[self.used], requires_grad=whole.requires_grad)
        self._put_in()

    @property
    def trained(self) -> int:
        """How many rows are trained."""
        return len(self.used)

    @property
    def all(self) -> int:
        """How many there are."""
        return len(self._table)

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the rows that are not used decay with each of the optimizer's steps, as AdamW decays the others.

        A step in which the table got no gradient leaves the others as they are, and so these.
        """
        groups = optimizer.param_groups
        index = next(i for i, group in enumerate(groups) if any(p is self._compact for p in group["params"]))

        def decay(*_: Any) -> None:
            if self._compact.grad is None:
                return
            group = optimizer.param_groups[index]  # looked up anew: loading a state replaces the groups
            self.decay *= 1.0 - float(group["lr"]) * group["weight_decay"]

        optimizer.register_step_post_hook(decay)

    def raw(self) -> Tensor:
        """The whole table, its unused rows before decay: with `decay`, all there is to save. Not to be kept."""
        self._table[self.used] = self._compact.detach()
        return self._table

    def whole_table(self) -> Tensor:
        """The whole table as dense training would have it."""
        table = self._table * self.decay
        table[self.used] = self._compact.detach()
        return table

    def fits(self, table: Tensor) -> bool:
        """Whether a table has the whole one's shape."""
        return table.shape == self._table.shape

    def restore(self, table: Tensor, decay: float) -> None:
        """Take over what `raw` and `decay` were, but for the used rows, which are the model's own to load."""
        self._table.copy_(table)
        self.decay = decay

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The model with its whole table, to be looked at; whatever is changed in the table is lost."""
        self.undo()
        try:
            yield
        finally:
            self._put_in()

    def undo(self) -> None:
        """Put the whole table back into the model."""
        self._embedding.weight = nn.Parameter(self.whole_table(), requires_grad=self._compact.requires_grad)
        del self._embedding.forward

    def _put_in(self) -> None:
        self._embedding.weight = self._compact
        self._embedding.forward = self._look_up

    def _look_up(self, ids: Tensor) -> Tensor:
        return F.embedding(self._lookup[ids], self._compact, self._pad)


def word_embedding(model: Classifier) -> nn.Embedding | None:
    """The encoder's word embedding when it is a plain one that trains, else None."""
    find: Any = model.encoder.get_input_embeddings
    try:
        found = find()
    except (AttributeError, NotImplementedError):
        return None
    if type(found) is not nn.Embedding or found.max_norm is not None or found.scale_grad_by_freq or found.sparse:
        return None
    return found if found.weight.requires_grad else None


def used_ids(tokens: TokenIds) -> np.ndarray:
    """The token ids that occur, int64, ascending; read piece by piece, for the ids may be memory-mapped."""
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(tokens.ids), _CHUNK):
        more = np.bincount(tokens.ids[start : start + _CHUNK])
        if len(more) > len(counts):
            counts, more = more, counts
        counts[: len(more)] += more
    return np.flatnonzero(counts)
