"""Windows of a text become one answer: the rule that evaluation and prediction share, whatever computed the windows.

What a model gives for each window is a row of *columns*; those of a text are combined to one row.

    mean        the mean of the windows' logits. Behind one linear layer, as snapfit's head is, this is the same as
                the logits of their mean state
    max         the largest logit of each label
    attention   a mean of the logits whose weights are a softmax of the last column over the text's windows, which the
                head learns and which is not a label. Behind one linear layer again that of the states (Sun et al. 2019)
    max_states  the columns are pooled states; the largest of each feature, of which the output layer then makes logits

A text of one window has that window's answer. `nn/windows.py` is the same for training, in torch.
"""

import numpy as np

from snapfit.core.lengths import WindowPooling


def combine_windows(columns: np.ndarray, first_windows: np.ndarray, pooling: WindowPooling) -> np.ndarray:
    """One row for each text, float32 [texts, k]; what else is in the batch changes none.

    columns: float [windows, k], with attention [windows, k + 1]. first_windows: int [texts + 1], ascending without
    repetition, where each text's windows begin, and their number. pooling: see above. NaN in a window stays NaN.
    """
    starts = np.asarray(first_windows[:-1], dtype=np.int64)
    values = columns.astype(np.float64)
    if pooling in ("max", "max_states"):
        return np.asarray(np.maximum.reduceat(values, starts, axis=0), np.float32)
    if pooling == "mean":
        return np.asarray(np.add.reduceat(values, starts, axis=0) / np.diff(first_windows)[:, None], np.float32)
    values, scores = values[:, :-1], values[:, -1:]
    counts = np.diff(first_windows)
    weights = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts, axis=0), counts, axis=0))
    weighted = np.add.reduceat(values * weights, starts, axis=0)
    return np.asarray(weighted / np.add.reduceat(weights, starts, axis=0), np.float32)
