"""What `import snapfit` offers: every public name, none of its weight, and one clear error for a missing extra."""

import subprocess
import sys
from pathlib import Path

import pytest

import snapfit
from snapfit.core.errors import BadInput, SnapfitError
from snapfit.core.recipe import Recipe, load_recipe
from snapfit.loading import load
from snapfit.runtime.explanations import Explanation
from snapfit.runtime.predictor import Predictor
from snapfit.ship.check_report import CheckReport
from snapfit.ship.checking import check
from snapfit.ship.ensembling import ensemble
from snapfit.ship.measuring import evaluate
from snapfit.ship.pipeline import TrainResult, train
from snapfit.ship.rate_finding import RangeTest, find_lr
from snapfit.ship.redeciding import DecideResult, decide
from snapfit.version import __version__

PUBLIC = {
    "BadInput": BadInput,
    "CheckReport": CheckReport,
    "DecideResult": DecideResult,
    "Explanation": Explanation,
    "Predictor": Predictor,
    "RangeTest": RangeTest,
    "Recipe": Recipe,
    "SnapfitError": SnapfitError,
    "TrainResult": TrainResult,
    "__version__": __version__,
    "check": check,
    "decide": decide,
    "ensemble": ensemble,
    "evaluate": evaluate,
    "find_lr": find_lr,
    "load": load,
    "load_recipe": load_recipe,
    "train": train,
}


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(Path(snapfit.__file__).parents[1]), "PATH": "", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these() -> None:
    assert snapfit.__all__ == sorted(PUBLIC)
    assert dir(snapfit) == snapfit.__all__
    assert {name: getattr(snapfit, name) for name in snapfit.__all__} == PUBLIC
    assert all(value.__doc__ for value in PUBLIC.values())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'snapfit' has no attribute 'trian'"):
        snapfit.trian  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, snapfit; snapfit.Predictor, snapfit.Recipe, snapfit.load, snapfit.BadInput; print(*sys.modules)"
    loaded = set(python(code).split())
    assert {"snapfit", "snapfit.runtime.predictor"} <= loaded
    assert loaded.isdisjoint({"torch", "transformers", "safetensors.torch", "sklearn", "pandas"})
    only_the_package = set(python("import sys, snapfit; print(*sys.modules)").split())
    assert only_the_package.isdisjoint({"numpy", "pyarrow", "pydantic", "tokenizers", "yaml"})


WITHOUT = """
import sys
sys.modules[{hidden!r}] = None  # as if it were not installed
import snapfit
names = ("train", "RangeTest", "find_lr")
for use in (*(lambda name=name: getattr(snapfit, name) for name in names), lambda: snapfit.load({folder!r})):
    try:
        use()
    except snapfit.BadInput as error:
        print(type(error).__name__, "|", error.found, "|", error.fix)
print(snapfit.Recipe().train.seed, snapfit.load.__name__)
"""


@pytest.mark.parametrize("hidden", ["torch", "transformers"])
def test_without_torch_or_transformers_one_error_names_the_extra(hidden: str, tmp_path: Path) -> None:
    lines = python(WITHOUT.format(hidden=hidden, folder=str(tmp_path))).splitlines()
    expected = f"MissingExtra | the package '{hidden}' is not installed | pip install 'snapfit[train]'"
    assert lines == [expected] * 4 + ["0 load"]


def test_errors_of_other_kinds_pass_through() -> None:
    """A defect inside a module must not be reported as a missing extra."""
    code = """
import sys
sys.modules["yaml"] = None
import snapfit
try:
    snapfit.train
except ModuleNotFoundError as error:
    print(type(error).__name__, error.name)
"""
    assert python(code) == "ModuleNotFoundError yaml\n"
