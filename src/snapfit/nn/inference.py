"""What a model answers on a batch: every torch backend, and every evaluation, goes through here."""

import numpy as np
import torch

from snapfit.core.windows import combine_windows
from snapfit.data.batches import Batch
from snapfit.nn.classifier import Classifier
from snapfit.nn.vectors import hearing


def batch_outputs(
    model: Classifier, batch: Batch, device: torch.device, *, vectors: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits float32 [rows, n_outputs] of a padded batch, the windows of a row combined as `core/windows.py` says; and,
    where they are wanted, vectors float32 [rows, width]: what the last linear layer makes the logits of.

    Of windows pooled by attention the vector of a row is that mean of the windows' vectors which the logits are; of
    those pooled by max, whose logits come from several windows, it is the plain mean.
    model: on the device, in evaluation mode; whoever calls this sees to inference mode and locks.
    """
    if not vectors:
        return _logits(model, batch, device)[0], None
    with hearing(model) as heard:
        logits, columns = _logits(model, batch, device)
        found = heard.array()
    pooled_by = model.window_pooling
    if pooled_by is None or pooled_by == "max_states":  # which the last layer takes as they are combined already
        return logits, found
    if pooled_by == "attention":
        return logits, combine_windows(np.concatenate([found, columns[:, -1:]], axis=1), _starts(batch), "attention")
    return logits, combine_windows(found, _starts(batch), "mean")


def _logits(model: Classifier, batch: Batch, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Logits of rows, and the columns of every sequence that they were combined from."""
    ids, mask, types = (
        torch.from_numpy(a).to(device) for a in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
    )
    columns = _array(model(input_ids=ids, attention_mask=mask, token_type_ids=types, combine=False).logits)
    if model.window_pooling is None:
        return columns, columns
    rows = combine_windows(columns, _starts(batch), model.window_pooling)
    return _array(model.finish(torch.from_numpy(rows).to(device))), columns


def _starts(batch: Batch) -> np.ndarray:
    """Where the windows of each row begin, and their number."""
    return np.arange(len(batch.input_ids) + 1) if batch.first_windows is None else batch.first_windows


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
