"""The learning-rate range test on a model: a short training whose rate rises at every step, and which is thrown away.

It runs what a training runs: the same plan, groups, optimizer, loss and order of rows. The rate that rises is the
encoder's top layer's, `optim.lr`; every other group keeps its proportion to it.
"""

from collections.abc import Callable, Iterator

from snapfit.core.errors import Interrupted, WorkFailed
from snapfit.core.interrupts import Stop
from snapfit.core.recipe import settled
from snapfit.training.driver import Training
from snapfit.training.loop import Step, optimizer_steps
from snapfit.training.plan import Plan
from snapfit.training.prepare import Notify
from snapfit.training.rate_curve import RateCurve, exponential_rates
from snapfit.training.regularise import step_loss, step_settings


def run_range_test(
    plan: Plan, *, lowest: float, highest: float, steps: int, notify: Notify, stop: Stop | None = None
) -> RateCurve:
    """Train for `steps` steps while `optim.lr` rises from `lowest` to `highest`; returns what was seen.

    It ends early where the loss diverges, or the loss or the weights are no longer finite. notify: hears of it as of a
    training. stop: asked after every step; what was seen until then is returned. Nothing is written, and the model is
    let go. Call it within `assemble.torch_as_wanted`.
    Raises BadInput for rates and steps that make no test, Interrupted when stopped in a hurry, and WorkFailed when the
    first step's loss is not finite.
    """
    rate_of = exponential_rates(lowest, highest, steps)
    stop = stop or Stop()
    training = Training(plan, notify=notify, stop=stop)
    curve, tokens, parts = RateCurve(), 0, plan.recipe.train.accumulate
    notify("start", total_steps=steps, step=0, rows=len(plan.examples["train"].tokens))
    with stop.deferred():
        for step in _steps(plan, training, rate_of, steps):
            tokens += step.tokens
            curve.take(rate_of(step.number - 1), step.loss)
            if step.fault is not None:
                curve.over = "not finite"
            if step.micro_batches > parts:
                parts = step.micro_batches
                notify("memory", step=step.number, micro_batches=parts, rows=step.rows)
            notify("step", **vars(step), tokens_seen=tokens, total_steps=steps)
            if curve.over or stop():
                break
    if stop() and stop.hurry:
        raise Interrupted(f"stopped after step {len(curve):,} of {steps:,}")
    if not len(curve):
        raise WorkFailed("the loss of the first step is not finite; look for damaged weights")
    return curve


def _steps(plan: Plan, training: Training, rate_of: Callable[[int], float], steps: int) -> Iterator[Step]:
    """The steps of the test: those of a training whose rates are multiplied by what makes `optim.lr` the rate."""
    recipe, assembly = plan.recipe, training.assembly
    rate = settled(recipe.optim.lr)
    return optimizer_steps(
        assembly.model,
        plan.examples["train"],
        assembly.optimizer,
        lambda number: rate_of(number) / rate,
        order=plan.order,
        loss_sum=step_loss(plan, assembly.model.device),
        settings=step_settings(recipe, assembly, micro_batches=recipe.train.accumulate),
        last_step=steps,
    )
