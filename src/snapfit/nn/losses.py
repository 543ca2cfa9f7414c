"""Losses as sums over examples, so that the loop alone decides what to divide by.

A step's loss is (sum over its examples) / (number of its examples): the same however the step is cut into
micro-batches. The formulas equal torch's `CrossEntropyLoss`, `BCEWithLogitsLoss` and `MSELoss` with
reduction "mean" when nothing is weighted.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from snapfit.core.labels import Task, check_targets


def loss_sum(
    logits: Tensor,
    targets: Tensor,
    *,
    task: Task,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss summed over the rows of a batch, a scalar tensor.

    logits: float [batch, n_outputs], computed in float32 whatever comes in.
    targets: int64 [batch], or shares of the labels float32 [batch, n_outputs] (single); float32 [batch, n_outputs] in
        0..1 (multi); float32 [batch, 1] (regression).
    class_weights: float [n_outputs]; weight of each class (single) or of each label's positives (multi).
    label_smoothing: share of the target that is spread evenly (single), or drawn towards 0.5 (multi).
    A multi-label row's loss is the mean over its labels, so rows weigh the same whatever the number of labels.
    Raises WorkFailed when the targets are not of the loss's dtype and shape.
    """
    check_targets(task, targets, logits.shape)
    logits = logits.float()
    if task == "single":
        return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing, reduction="sum")
    if task == "multi":
        smooth = targets * (1.0 - label_smoothing) + 0.5 * label_smoothing
        per_label = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=class_weights, reduction="none")
        return per_label.mean(-1).sum()
    return F.mse_loss(logits, targets, reduction="sum")


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
