"""Losses as sums over examples, so that the loop alone decides what to divide by.

A step's loss is (sum over its examples) / (number of its examples): the same however the step is cut into
micro-batches. The formulas equal torch's `CrossEntropyLoss`, `BCEWithLogitsLoss` and `MSELoss` with
reduction "mean" when nothing is weighted and nothing focused.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from snapfit.core.labels import Task, check_targets
from snapfit.nn.focal import Focus, focal_cells, focal_rows


def loss_sum(
    logits: Tensor,
    targets: Tensor,
    *,
    task: Task,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focus: Focus | None = None,
) -> Tensor:
    """The loss summed over the rows of a batch, a scalar tensor.

    logits: float [batch, n_outputs], computed in float32 whatever comes in.
    targets: int64 [batch], or shares of the labels float32 [batch, n_outputs] (single); float32 [batch, n_outputs] in
        0..1 (multi); float32 [batch, 1] (regression).
    class_weights: single: float [n_outputs], what the rows of each class weigh, their smoothing included (torch weighs
        each class of a smoothed target for itself, which draws the rows of common classes to rare ones). multi: float
        [2, n_outputs], what each label weighs where it does not hold, and where it does.
    label_smoothing: share of the target that is spread evenly (single), or drawn towards 0.5 (multi).
    focus: counts less what is answered right already; None counts all alike. A single-label task takes `held` of it.
    A multi-label row's loss is the mean over its labels, so rows weigh the same whatever the number of labels.
    Raises WorkFailed when the targets are not of the loss's dtype and shape.
    """
    check_targets(task, targets, logits.shape)
    logits = logits.float()
    if task == "single":
        return _single_sum(logits, targets, class_weights, label_smoothing, focus)
    if task == "multi":
        return _multi_sum(logits, targets, class_weights, label_smoothing, focus)
    return F.mse_loss(logits, targets, reduction="sum")


def _single_sum(
    logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, focus: Focus | None
) -> Tensor:
    if focus is not None:
        rows = focal_rows(logits, _shares(targets, logits, smoothing), focus.held)
    elif weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    else:
        rows = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    if weights is None:
        return rows.sum()
    return rows @ (targets @ weights if targets.is_floating_point() else weights[targets])


def _shares(targets: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Targets as shares of the labels, smoothed."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return targets * (1.0 - smoothing) + smoothing / logits.shape[-1]


def _multi_sum(
    logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, focus: Focus | None
) -> Tensor:
    smooth = targets * (1.0 - smoothing) + 0.5 * smoothing
    absent, held = (None, None) if weights is None else weights.unbind(0)
    if focus is not None:
        if_held, if_absent = focal_cells(logits, focus)
        cells = smooth * if_held * (1.0 if held is None else held)
        cells = cells + (1.0 - smooth) * if_absent * (1.0 if absent is None else absent)
    elif held is None or absent is None:
        cells = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    else:
        cells = absent * F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=held / absent, reduction="none")
    return cells.mean(-1).sum()


def divergence_sum(one: Tensor, other: Tensor, *, task: Task) -> Tensor:
    """How far two outputs for the same rows are apart, summed over the rows, a scalar tensor; 0 where they agree.

    one, other: logits, float [batch, n_outputs], computed in float32. With p and q what they say:
        single       (KL(p, q) + KL(q, p)) / 2 of the two distributions over the classes
        multi        the same of each label's yes and no, the mean over labels, as the loss is
        regression   the squared difference, as the loss is
    """
    one, other = one.float(), other.float()
    if task == "single":
        shares = one.softmax(-1) - other.softmax(-1)
        return 0.5 * (shares * (one.log_softmax(-1) - other.log_softmax(-1))).sum()
    if task == "multi":  # log(p / (1 - p)) is the logit, and what is left of both divergences
        return 0.5 * ((torch.sigmoid(one) - torch.sigmoid(other)) * (one - other)).mean(-1).sum()
    return (one - other).square().sum()
