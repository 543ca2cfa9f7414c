"""What a model answers on a batch: every torch backend, and every evaluation, goes through here."""

import numpy as np
import torch

from snapfit.core.windows import combine_windows
from snapfit.data.batches import Batch
from snapfit.nn.classifier import Classifier


def batch_logits(model: Classifier, batch: Batch, device: torch.device) -> np.ndarray:
    """Logits float32 [rows, n_outputs] of a padded batch, the windows of a row combined as `core/windows.py` says.

    model: on the device, in evaluation mode; whoever calls this sees to inference mode and locks.
    """
    ids, mask, types = (
        torch.from_numpy(a).to(device) for a in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    )
    columns = model(input_ids=ids, attention_mask=mask, token_type_ids=types, combine=False).logits
    if model.window_pooling is None:
        return _array(columns)
    first_windows = np.arange(len(columns) + 1) if batch.first_windows is None else batch.first_windows
    rows = combine_windows(_array(columns), first_windows, model.window_pooling)
    return _array(model.finish(torch.from_numpy(rows).to(device)))


def differentiable_logits(model: Classifier, batch: Batch, device: torch.device) -> torch.Tensor:
    """The same logits, as the model computes them in training: with gradients where they are enabled."""
    ids, mask, types = (
        torch.from_numpy(a).to(device) for a in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    )
    logits: torch.Tensor = model(
        input_ids=ids, attention_mask=mask, token_type_ids=types, first_windows=batch.first_windows
    ).logits
    return logits


def _array(values: torch.Tensor) -> np.ndarray:
    array: np.ndarray = values.float().cpu().numpy()
    return array
