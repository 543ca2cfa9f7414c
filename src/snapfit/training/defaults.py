"""What `auto` means: the default recipe, as functions of the data and the encoder.

Each rule gives a plain number and the reason in words; both are printed at the start of a run and stored with it.
Where the numbers come from is in docs/defaults.md.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput, nearest
from snapfit.core.labels import LabelSet, Task
from snapfit.core.metrics import default_metric, metrics_of
from snapfit.core.recipe import Recipe
from snapfit.training.class_weights import check_class_weights

Resolved = tuple[Any, str]
"""A value and the reason for it."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    n_rows: training rows. n_outputs: labels. lengths: tokens of each training row, uncut; of a large
    table of a sample.
    layer_parameters: numbers in the encoder without its embedding tables. max_positions: its limit in tokens, if any.
    precision: "fp32" or "bf16" as measured, with the reason. pooling: as measured, with the reason.
    threads: of torch. largest: of one label a text, the label with the most training rows, and its share of them.
    """

    task: Task
    n_rows: int
    n_outputs: int
    lengths: np.ndarray
    layer_parameters: int
    max_positions: int | None
    precision: Resolved
    pooling: Resolved
    threads: int
    largest: tuple[str, float] | None = None


def encoder_rate(layer_parameters: int) -> float:
    """Peak learning rate of the encoder's top layer, by its size without embeddings.

    A power law through 2e-4 at 10.6 million (six layers of 384) and 4e-5 at 85 million (BERT base), kept within
    1e-5 and 5e-4, to two significant digits.
    """
    exponent = math.log(5.0) / math.log(85.0 / 10.6)
    rate = 2e-4 * (10.6e6 / max(layer_parameters, 1)) ** exponent
    return float(f"{min(max(rate, 1e-5), 5e-4):.1e}")


MANY_ROWS = 50_000
"""Beyond these a training set counts as large: it is read twice, and lower layers can afford to learn as fast."""


def batch_size(n_rows: int) -> int:
    """Rows of an optimizer step: small sets need steps, large ones can afford quieter gradients."""
    return 16 if n_rows < 5_000 else 32 if n_rows <= MANY_ROWS else 64


MANY_CLASSES = 50
"""From here on a label set counts as one of many classes."""

WANTED_STEPS = 1_000
MAX_EPOCHS = 20


def least_epochs(n_rows: int) -> int:
    """Epochs that every run has at least: 3, or 2 over a large set."""
    return 2 if n_rows > MANY_ROWS else 3


def epoch_count(n_rows: int, step_size: int) -> int:
    """Epochs that give about WANTED_STEPS steps, at least `least_epochs` and at most 20."""
    return min(max(math.ceil(WANTED_STEPS * step_size / n_rows), least_epochs(n_rows)), MAX_EPOCHS)


def layer_ratio(n_rows: int) -> float:
    """Rate of the bottom layer over the top layer's: 0.5, for lower layers hold what is general; 1 for large sets."""
    return 1.0 if n_rows > MANY_ROWS else 0.5


def head_factor(n_outputs: int, total_steps: int) -> float:
    """The head's rate over the encoder's: 10, or 20 when there are many classes or few steps to learn them in."""
    return 20.0 if n_outputs >= MANY_CLASSES or total_steps < 500 else 10.0


def token_limit(lengths: np.ndarray, max_positions: int | None) -> int:
    """Tokens that a row is cut to: the 99.5th percentile of training rows, to a multiple of 8, at most 512."""
    wanted = math.ceil(float(np.percentile(lengths, 99.5)) / 8) * 8
    return max(8, min(wanted, max_positions or 512, 512))


def label_smoothing(task: Task, n_outputs: int) -> float:
    """0.1 where one of many classes is right, so that the many wrong ones are not pushed away without end."""
    return 0.1 if task == "single" and n_outputs >= MANY_CLASSES else 0.0


MAJORITY = 0.6
"""A class with a larger share of the rows makes accuracy blind to the others: whoever always names it has as much."""


def metric_of(task: Task, largest: tuple[str, float] | None) -> Resolved:
    """The task's usual metric; macro-F1, in which all classes count alike, where one class has most of the rows."""
    if task == "single" and largest is not None and largest[1] > MAJORITY:
        name, share = largest
        return "macro_f1", (
            f"{name!r} has {share:.1%} of the training rows, more than {MAJORITY:.0%}: always to answer it would be "
            "as accurate; in macro-F1 all classes count alike"
        )
    return default_metric(task), f"the usual one for task {task!r}"


def evaluations_per_epoch(epochs: float) -> int:
    """Two where epochs are few, else one."""
    return 2 if epochs <= 5 else 1


def checkpoint_interval(total_steps: int) -> int:
    """A twentieth of the run, within 100 and 1,000 steps: what a kill can cost at most."""
    return min(max(total_steps // 20, 100), 1_000)


Rules = list[tuple[str, Callable[[dict[str, Any]], Resolved]]]
"""(key, rule): a rule sees the values resolved before it."""


def _data_rules(recipe: Recipe, facts: Facts) -> Rules:
    """What follows from measurements and from the rows themselves."""
    n_rows, longest = facts.n_rows, int(facts.lengths.max())
    limit = token_limit(facts.lengths, facts.max_positions)
    fit = "99.5 %" if limit < min(facts.max_positions or 512, 512) else f"{(facts.lengths <= limit).mean():.1%}"
    sampled = len(facts.lengths) < n_rows
    looked_at = f"a sample of {len(facts.lengths):,} training rows" if sampled else "the training rows"
    epochs_why = f"about {WANTED_STEPS:,} steps, at least {least_epochs(n_rows)} and at most {MAX_EPOCHS} epochs"

    def epochs(known: dict[str, Any]) -> Resolved:
        return epoch_count(n_rows, known["train.batch"] * recipe.train.accumulate), epochs_why

    return [
        ("model.pooling", lambda known: facts.pooling),
        ("train.precision", lambda known: facts.precision),
        ("train.threads", lambda known: (facts.threads, "torch's own choice on this machine")),
        (
            "length.max_tokens",
            lambda known: (limit, f"{fit} of {looked_at} fit; the longest has {longest:,} tokens"),
        ),
        ("train.batch", lambda known: (batch_size(n_rows), f"for {n_rows:,} training rows")),
        ("train.epochs", epochs),
    ]


def _run_rules(recipe: Recipe, facts: Facts) -> Rules:
    """What follows from the size of the run; after `_data_rules`."""
    million = facts.layer_parameters / 1e6

    def steps(known: dict[str, Any]) -> int:
        rows = int(known["train.batch"]) * recipe.train.accumulate
        return max(1, round(float(known["train.epochs"]) * math.ceil(facts.n_rows / rows)))

    def factor(known: dict[str, Any]) -> Resolved:
        total = steps(known)
        return head_factor(facts.n_outputs, total), f"{facts.n_outputs} outputs, {total:,} steps"

    return [
        (
            "train.evaluations_per_epoch",
            lambda known: (evaluations_per_epoch(known["train.epochs"]), "two while epochs are few"),
        ),
        ("train.patience", lambda known: (None, "a rate that falls to zero gains most at its end; the best is kept")),
        ("train.metric", lambda known: metric_of(facts.task, facts.largest)),
        (
            "optim.lr",
            lambda known: (
                encoder_rate(facts.layer_parameters),
                f"for {million:.1f} million parameters in the encoder's layers",
            ),
        ),
        ("optim.head_lr_factor", factor),
        ("optim.layer_ratio", lambda known: (layer_ratio(facts.n_rows), f"for {facts.n_rows:,} training rows")),
        (
            "loss.label_smoothing",
            lambda known: (label_smoothing(facts.task, facts.n_outputs), f"{facts.n_outputs} outputs"),
        ),
        ("checkpoint.every_steps", lambda known: (checkpoint_interval(steps(known)), f"{steps(known):,} steps")),
        ("log.interval_steps", lambda known: (max(1, steps(known) // 50), "about fifty lines a run")),
    ]


SETTLED_KEYS = (
    *("model.pooling", "train.precision", "train.threads", "length.max_tokens", "train.batch", "train.epochs"),
    *("train.evaluations_per_epoch", "train.patience", "train.metric", "optim.lr", "optim.head_lr_factor"),
    *("optim.layer_ratio", "loss.label_smoothing", "checkpoint.every_steps", "log.interval_steps"),
)
"""The keys that `resolve` settles where they are `auto`."""


def is_resolved(recipe: Recipe) -> bool:
    """Whether `resolve` would have nothing to settle."""
    values = recipe.to_dict()
    return not any(values[section][field] == "auto" for section, field in (key.split(".") for key in SETTLED_KEYS))


def resolve(recipe: Recipe, facts: Facts) -> tuple[Recipe, dict[str, str]]:
    """The recipe with every `auto` replaced by a value, and the reason for each by key.

    What the recipe states stays as it is and has no reason here. `data.*` is resolved where the data are read.
    """
    stated = recipe.to_dict()
    known: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for key, rule in _data_rules(recipe, facts) + _run_rules(recipe, facts):
        section, field = key.split(".")
        value = stated[section][field]
        if value == "auto":
            value, reasons[key] = rule(known)
        known[key] = value
    check_metric(known["train.metric"], facts.task)
    return recipe.with_values({key: known[key] for key in reasons}), reasons


def check_metric(metric: str, task: Task) -> None:
    """Raises BadInput for a metric that the task does not have."""
    usable = metrics_of(task)
    if metric not in usable:
        raise BadInput(
            f"train.metric is {metric!r}",
            f"a metric of task {task!r}: {', '.join(usable)}",
            f"--set train.metric={nearest(metric, usable) or usable[0]}",
        )


def check_loss(recipe: Recipe, label_set: LabelSet) -> None:
    """Raise BadInput for a loss, or weights of classes, that mean nothing for the task."""
    function, task = recipe.loss.function, label_set.task
    if function != "plain" and task == "regression":
        raise BadInput(
            f"loss.function is {function!r} for a regression",
            "plain, which is squared error: there are no classes of which some are easy",
            "--set loss.function=plain",
        )
    if function == "asymmetric" and task == "single":
        raise BadInput(
            "loss.function is 'asymmetric' for one label a text",
            "many labels a text, of which most do not hold; or focal, or plain",
            "--set loss.function=focal; many labels in a cell are told by --delimiter",
        )
    if recipe.loss.class_weights is not None:
        check_class_weights(recipe.loss.class_weights, label_set)
