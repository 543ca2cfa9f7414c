"""The table `options`: what each training option that is off by default does to accuracy, one at a time."""

from regime_training import Cell, TrainingTable
from subsets import BANKING_10_SHOT, BANKING_QUICK, CLINC_HALF

ABOUT = """One option at a time on top of the default recipe, at equal steps: R-Drop goes through each row twice and FGM
through each step twice, so they cost about twice the time. Compared as in the table of schedules. An option is on by
default only where it earns that here: by more than the interval's width on both sets."""


def cells() -> list[Cell]:
    """The default recipe, and one option each."""
    return [
        Cell("none", default=True),
        Cell("R-Drop 0.5", {"regularise.r_drop": 0.5}),
        Cell("R-Drop 2", {"regularise.r_drop": 2.0}),
        Cell("FGM 0.5", {"regularise.adversarial": 0.5}),
        Cell("dropout drawn 5 times", {"regularise.dropout_samples": 5}),
        Cell("head first, a tenth", {"schedule.head_first": 0.1}),
        Cell("unfreezing over a third", {"schedule.unfreeze_share": 0.33}),
        Cell("top layer anew", {"model.reinit_layers": 1}),
    ]


TABLE = TrainingTable(
    "options",
    title="Training options",
    about=ABOUT,
    kind="option",
    cells=cells,
    sets=(BANKING_10_SHOT, CLINC_HALF),
    quick_sets=(BANKING_QUICK,),
    quick_cells=("R-Drop 0.5",),
)
