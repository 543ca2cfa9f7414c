"""snapfit: fine-tune a BERT-family encoder into a text classifier you can ship.

    import snapfit

    result = snapfit.train("train.csv", out="runs/first")
    snapfit.load(result.bundle).predict(["a new text"])

Names are loaded on first use: importing snapfit imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snapfit.version import __version__

if TYPE_CHECKING:
    from snapfit.core.errors import BadInput, SnapfitError
    from snapfit.core.recipe import Recipe, load_recipe
    from snapfit.loading import load
    from snapfit.runtime.explanations import Explanation
    from snapfit.runtime.predictor import Predictor
    from snapfit.ship.check_report import CheckReport
    from snapfit.ship.checking import check
    from snapfit.ship.ensembling import ensemble
    from snapfit.ship.measuring import evaluate
    from snapfit.ship.pipeline import train
    from snapfit.ship.rate_finding import RangeTest, find_lr
    from snapfit.ship.redeciding import DecideResult, decide
    from snapfit.ship.result import TrainResult

__all__ = [
    "BadInput",
    "CheckReport",
    "DecideResult",
    "Explanation",
    "Predictor",
    "RangeTest",
    "Recipe",
    "SnapfitError",
    "TrainResult",
    "__version__",
    "check",
    "decide",
    "ensemble",
    "evaluate",
    "find_lr",
    "load",
    "load_recipe",
    "train",
]

_HOMES = {
    "BadInput": "snapfit.core.errors",
    "CheckReport": "snapfit.ship.check_report",
    "DecideResult": "snapfit.ship.redeciding",
    "Explanation": "snapfit.runtime.explanations",
    "Predictor": "snapfit.runtime.predictor",
    "RangeTest": "snapfit.ship.rate_finding",
    "Recipe": "snapfit.core.recipe",
    "SnapfitError": "snapfit.core.errors",
    "TrainResult": "snapfit.ship.result",
    "check": "snapfit.ship.checking",
    "decide": "snapfit.ship.redeciding",
    "ensemble": "snapfit.ship.ensembling",
    "evaluate": "snapfit.ship.measuring",
    "find_lr": "snapfit.ship.rate_finding",
    "load": "snapfit.loading",
    "load_recipe": "snapfit.core.recipe",
    "train": "snapfit.ship.pipeline",
}
_NEEDS_TRAIN = {"RangeTest", "ensemble", "find_lr", "train"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'snapfit' has no attribute {name!r}")
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if name in _NEEDS_TRAIN and error.name in ("torch", "transformers"):
            from snapfit.core.errors import MissingExtra

            raise MissingExtra("train", error.name) from error
        raise


def __dir__() -> list[str]:
    return __all__
