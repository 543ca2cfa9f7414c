"""The report of folds: mean and spread as numpy has them, and a file that is whole or named."""

from pathlib import Path

import numpy as np
import pytest

from snapfit.core.errors import BadInput
from snapfit.ship.fold_report import Fold, FoldReport, read_report, write_report

VALUES = [0.91, 0.875, 0.93]


def report(test: bool = True) -> FoldReport:
    folds = [
        Fold(i, 10, {"accuracy": v, "nll": 1 - v}, {"accuracy": v / 2} if test else None, 1.5)
        for i, v in enumerate(VALUES, 1)
    ]
    return FoldReport("refit", tuple(folds), 1, {"accuracy": 0.9}, {"suspected": 2, "labels": 30})


def test_mean_and_spread_are_numpys(tmp_path: Path) -> None:
    one = report()
    assert one.mean["accuracy"] == pytest.approx(np.mean(VALUES))
    assert one.sd["nll"] == pytest.approx(np.std(VALUES, ddof=1))
    write_report(tmp_path, one)
    values = read_report(tmp_path)
    assert values == one.to_dict()
    assert values["test"]["mean"]["accuracy"] == pytest.approx(np.mean(VALUES) / 2)
    assert values["test"]["sd"]["accuracy"] == pytest.approx(np.std(VALUES, ddof=1) / 2)
    assert report(test=False).to_dict()["test"] is None


def test_a_report_that_is_none(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    (tmp_path / "folds.json").write_text("[]")
    with pytest.raises(BadInput, match="holds no report"):
        read_report(tmp_path)
