"""The table `schedules`: every shape of schedule at equal steps, against the default recipe's."""

from regime_training import Cell, TrainingTable
from subsets import BANKING, BANKING_10_SHOT, BANKING_QUICK, CLINC_HALF

SHAPES: dict[str, tuple[str, int]] = {
    "constant": ("constant", 1),
    "linear": ("linear", 1),
    "cosine": ("cosine", 1),
    "cosine_restarts, 3 cycles": ("cosine_restarts", 3),
    "cosine_restarts, 5 cycles": ("cosine_restarts", 5),
    "one_cycle": ("one_cycle", 1),
    "wsd": ("wsd", 1),
}
"""Name of the cell -> schedule.shape and schedule.cycles."""
ABOUT = """The shapes of `schedule.shape` with everything else as the default recipe has it: equal steps, the default
warm-up, no early stop, and the weights that the development split chose. The test split is scored once, with these.
A shape is compared with the default on the same seeds and test rows: the difference of mean accuracies with a bootstrap
over rows (2,000 resamples, seed 20), and McNemar's exact test on the answers that only one of the two has right, pooled
over seeds. A row that is hard is so for every seed, so McNemar's p is too small with several seeds; the interval is
not. The best of several means is the luckiest one, too: the mark says no more than what was largest."""


def cells() -> list[Cell]:
    """One for each shape; the one that a recipe without settings has is the default."""
    from snapfit.core.recipe_sections import ScheduleSection

    default = ScheduleSection()
    return [
        Cell(
            name,
            {"schedule.shape": shape, "schedule.cycles": cycles},
            default=(shape, cycles) == (default.shape, default.cycles),
        )
        for name, (shape, cycles) in SHAPES.items()
    ]


TABLE = TrainingTable(
    "schedules",
    title="Schedules",
    about=ABOUT,
    kind="schedule",
    cells=cells,
    sets=(BANKING_10_SHOT, BANKING, CLINC_HALF),
    quick_sets=(BANKING_QUICK,),
    quick_cells=("cosine_restarts, 3 cycles",),
)
