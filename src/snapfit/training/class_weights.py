"""Weights of classes in the loss, from how many rows the classes have.

For one label a text each class has a weight. For many, each label is a question of two classes, yes and no, and has a
weight for either; what is said below of classes holds for these two. Weights are scaled so that their mean over the
training rows is 1: the loss is as large as without, and so clipping, R-Drop's share, and the rate of an optimizer that
goes by the size of gradients, mean what they meant.

- balanced: in inverse proportion to the rows of a class, as scikit-learn has it.
- effective: in inverse proportion to the effective number of rows, (1 - beta ** n) / (1 - beta) of n rows (Cui et al.
  2019): of N = 1 / (1 - beta) different texts that a class could have, so many are expected among n. While classes have
  far fewer than N rows they weigh as if balanced; beyond some N, more rows change little.
- given: by label; a label that is not named has 1.

Of balanced and effective weights none is more than MOST_WEIGHT.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput, nearest
from snapfit.core.labels import LabelSet

MOST_WEIGHT = 10.0
"""What a row counts at most, the mean row counting 1. Of a label with three rows in ten thousand each would count
thousands: one row would be all of its step, and be clipped, or taken for numbers gone wrong."""


def class_weights(
    setting: Any, label_set: LabelSet, counts: np.ndarray, n_rows: int, *, beta: float | None = None
) -> np.ndarray:
    """What `loss_sum` takes: float32 [n_outputs] for one label a text, float32 [2, n_outputs] (no, yes) for many.

    setting: "balanced", "effective", or name -> weight. counts: training rows that carry each label, int
    [n_outputs]; n_rows: of all. beta: of effective; None takes `natural_beta`.
    Raises BadInput for a regression, and for a name that is no label.
    """
    check_class_weights(setting, label_set)
    seen = np.maximum(np.asarray(counts, dtype=np.float64), 1.0)  # a label may be in the validation rows alone
    single = label_set.task == "single"
    rows = seen[None] if single else np.stack([np.maximum(n_rows - seen, 1.0), seen]).T
    if isinstance(setting, Mapping):
        given = np.array([float(setting.get(name, 1.0)) for name in label_set.names])
        raw, most = (given[None] if single else np.stack([np.ones_like(given), given]).T), np.inf
    else:
        beta = natural_beta(counts) if beta is None else beta
        raw, most = 1.0 / (rows if setting == "balanced" else effective_numbers(rows, beta)), MOST_WEIGHT
    scaled = np.stack([_scaled(*problem, most=most) for problem in zip(raw, rows, strict=True)])
    return np.asarray(scaled[0] if single else scaled.T, np.float32)


def check_class_weights(setting: Any, label_set: LabelSet) -> None:
    """Raise BadInput for weights of a regression, and for a name that is no label. setting: as above."""
    if label_set.task == "regression":
        raise BadInput("loss.class_weights for a regression", "a task with classes", "--set loss.class_weights=null")
    unknown = sorted(set(setting) - set(label_set.names)) if isinstance(setting, Mapping) else []
    if unknown:
        likely = nearest(unknown[0], label_set.names)
        raise BadInput(
            f"loss.class_weights names the label {unknown[0]!r}",
            f"labels of the training table, such as {label_set.names[0]!r}",
            f"did you mean {likely!r}?" if likely else "correct the name",
        )


def natural_beta(counts: np.ndarray) -> float:
    """1 - 1 / N, with N the mean rows of a label: a class is taken to have as many different texts as the mean class
    has rows. Cui et al. choose N = 10 to 10,000 by validation, the same for all classes of a set.
    """
    return float(1.0 - 1.0 / max(float(np.mean(counts)), 1.0))


def effective_numbers(rows: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta ** n) / (1 - beta) of n rows, float64; n itself as beta nears 1."""
    powers = np.power(beta, np.asarray(rows, dtype=np.float64))
    return np.asarray((1.0 - powers) / (1.0 - beta))


def told_weights(weights: np.ndarray, label_set: LabelSet, counts: np.ndarray) -> str:
    """The lightest and the heaviest class in words, with their rows; of many labels, where they hold."""
    each = weights if weights.ndim == 1 else weights[1]
    ends = (
        f"{each[i]:.3g} ({label_set.names[i]!r}, {int(counts[i]):,} rows)"
        for i in (int(each.argmin()), int(each.argmax()))
    )
    what = "rows weigh" if weights.ndim == 1 else "labels that hold weigh"
    return f"{what} {' to '.join(ends)}, the mean row 1"


def _scaled(raw: np.ndarray, rows: np.ndarray, *, most: float) -> np.ndarray:
    """Weights in proportion to `raw`, none above `most`, whose mean over rows is 1. rows: of each class, above 0."""
    capped = np.zeros(len(raw), dtype=bool)
    while True:
        scale = (rows.sum() - most * rows[capped].sum() if capped.any() else rows.sum()) / (raw * rows)[~capped].sum()
        weights = np.where(capped, most, raw * scale)
        above = ~capped & (weights > most)
        if not above.any():
            return weights
        capped |= above
