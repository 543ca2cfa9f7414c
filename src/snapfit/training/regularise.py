"""The loss of a training step: the task's, and what the recipe adds to it against learning by heart.

- R-Drop (Liang et al. 2021): each row is twice in its micro-batch, with different dropout, and the loss also says how
  far the two outputs are apart.
- Multi-sample dropout (Inoue 2019): the dropout before the output layer is drawn several times, and the loss is the
  mean over the outputs. Only the last layer is computed more than once.

Either way a row has several outputs, and so one wrapper of the task's loss does both.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from snapfit.core.labels import Task
from snapfit.core.recipe import Recipe, settled
from snapfit.nn.focal import Focus
from snapfit.nn.losses import divergence_sum, loss_sum
from snapfit.training.assemble import Assembly
from snapfit.training.loop import LossSum, StepSettings
from snapfit.training.plan import Plan


def step_settings(
    recipe: Recipe,
    assembly: Assembly,
    *,
    micro_batches: int,
    accepts: Callable[[float], bool] = lambda loss: True,
    begin: Callable[[int], None] = lambda step: None,
) -> StepSettings:
    """What the loop needs besides data, with what the recipe adds to a step. See `StepSettings`."""
    return StepSettings(
        micro_batches,
        recipe.optim.max_grad_norm,
        recipe.train.seed,
        assembly.autocast,
        accepts,
        begin,
        copies=2 if recipe.regularise.r_drop else 1,
        adversary=assembly.adversary,
    )


def step_loss(plan: Plan, device: torch.device) -> LossSum:
    """The task's loss with the recipe's function, weights and smoothing, and what the recipe adds to it."""
    recipe, task, weights = plan.recipe, plan.label_set.task, plan.weights
    plain = partial(
        loss_sum,
        task=task,
        class_weights=None if weights is None else torch.from_numpy(weights).to(device),
        label_smoothing=settled(recipe.loss.label_smoothing),
        focus=_focus(recipe),
    )
    section = recipe.regularise
    if not section.r_drop and section.dropout_samples == 1:
        return plain
    return several_outputs(plain, task=task, samples=section.dropout_samples, r_drop=section.r_drop)


def _focus(recipe: Recipe) -> Focus | None:
    """What the loss looks away from."""
    loss = recipe.loss
    if loss.function == "focal":
        return Focus(loss.gamma, loss.gamma)
    return Focus(loss.gamma_pos, loss.gamma_neg, loss.margin) if loss.function == "asymmetric" else None


def several_outputs(plain: LossSum, *, task: Task, samples: int = 1, r_drop: float = 0.0) -> LossSum:
    """A loss for rows that have several outputs each: its mean over them, and with R-Drop how far they are apart.

    samples: outputs of each pass. r_drop: with more than 0 each row went through twice, and so many times
    `divergence_sum` of the two passes, the mean over samples, is added.
    The loss takes logits float [samples * passes * rows, n_outputs]: sample by sample, in each of them pass by pass, in
    each of those row by row. Its targets are those of the rows.
    """
    passes = 2 if r_drop else 1
    outputs = samples * passes

    def total(logits: Tensor, targets: Tensor) -> Tensor:
        repeated = targets.repeat(outputs, *(1 for _ in targets.shape[1:]))
        loss = plain(logits, repeated) / outputs
        if not r_drop:
            return loss
        one, other = logits.view(samples, passes, len(targets), -1).unbind(1)
        return loss + r_drop / samples * divergence_sum(one.flatten(0, 1), other.flatten(0, 1), task=task)

    return total
