"""Which classes rows are drawn by, where not every row is taken once an epoch: `train.sampling`.

- balanced: every class comes up as often as any other.
- weighted: each row in proportion to (rows of its class) ** -sampling_power, so that with 1/2 a class of n rows comes
  up in proportion to sqrt(n). Rows come up as evenly as whole numbers can (see `batches.weighted_draw`).

A row with several labels goes by the rarest of them, as in the repeat factors of Gupta et al. 2019; rows without any
label are a class of their own.
"""

from dataclasses import dataclass

import numpy as np

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.training.loop import Targets
from snapfit.training.order import ByRow
from snapfit.training.prepare import label_counts

WEIGHT_SCALE = 2**20
"""The weight of the rarest class's rows: whole numbers, so that the draw is the same on every machine."""
_PART_ROWS = 65_536


@dataclass(frozen=True)
class RarestLabel:
    """The rarest label of each row; n_outputs for a row without any. counts: rows with each label."""

    targets: Targets
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        targets = self.targets[rows]
        ranked = np.where(targets > 0, self.counts, len(self) + 1)
        return np.where(targets.any(axis=1), ranked.argmin(axis=1), len(self.counts))


@dataclass(frozen=True)
class OfClass:
    """A number for each row by its class. by_class: int64, of each class."""

    classes: ByRow
    by_class: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.by_class[self.classes[rows]]
        return found


def check_sampling(recipe: Recipe, label_set: LabelSet) -> None:
    """Raise BadInput where rows have no classes to be drawn by."""
    if recipe.train.sampling != "all" and label_set.task == "regression":
        raise BadInput(
            f"train.sampling is {recipe.train.sampling!r} for a regression",
            "a task with classes",
            "--set train.sampling=all",
        )


def drawn_by(recipe: Recipe, targets: Targets, label_set: LabelSet) -> tuple[ByRow | None, ByRow | None]:
    """(classes, weights) of the training rows, as `DataOrder` takes them; None where rows are not drawn by them.

    Of a small table they are arrays; of a large one they are found as they are asked for, but that its labels are
    counted now. Raises BadInput as `check_sampling`.
    """
    check_sampling(recipe, label_set)
    if recipe.train.sampling == "all":
        return None, None
    balanced = recipe.train.sampling == "balanced"
    if label_set.task == "single" and balanced:
        return targets, None
    counts = label_counts(targets, label_set)
    classes: ByRow = targets if label_set.task == "single" else _held(RarestLabel(targets, counts))
    if balanced:
        return classes, None
    if label_set.task == "multi":
        counts = np.append(counts, _n_without(targets))
    return None, _held(OfClass(classes, row_weights(counts, recipe.train.sampling_power)))


def row_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """What a row of each class weighs in the draw: int64, at least 1, WEIGHT_SCALE for the rarest class that has rows.

    counts: rows of each class, int [classes].
    """
    wanted = np.maximum(counts, 1).astype(np.float64) ** -power
    largest = wanted[np.asarray(counts) > 0].max()
    return np.asarray(np.maximum(np.rint(wanted / largest * WEIGHT_SCALE), 1), dtype=np.int64)


def _held(numbers: RarestLabel | OfClass) -> ByRow:
    """All numbers at once, where what they come from is held anyway."""
    source = numbers.targets if isinstance(numbers, RarestLabel) else numbers.classes
    return numbers[np.arange(len(numbers))] if isinstance(source, np.ndarray) else numbers


def _n_without(targets: Targets) -> int:
    """Rows without any label."""
    n = len(targets)
    parts = (targets[np.arange(start, min(start + _PART_ROWS, n))] for start in range(0, n, _PART_ROWS))
    return sum(int(np.count_nonzero(~part.any(axis=1))) for part in parts)
