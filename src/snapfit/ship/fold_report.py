"""What a cross-validation came to, as values: metrics of each fold, their mean and spread, and those of all rows.

It is kept as RUN/folds.json, beside RUN/folds/1, 2, ..., which are runs of their own.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snapfit.core.errors import BadInput
from snapfit.core.files import read_json, write_json_atomic
from snapfit.ship.run_folder import RunFolder

REPORT_FILE, FOLDS_FOLDER, HELD_OUT_FILE = "folds.json", "folds", "held_out.parquet"
Metrics = dict[str, float]


@dataclass(frozen=True)
class Fold:
    """One fold.

    rows: held out. metrics: of these; test: of the test table, where there is one. seconds: of the training.
    """

    fold: int
    rows: int
    metrics: Metrics
    test: Metrics | None
    seconds: float


@dataclass(frozen=True)
class FoldReport:
    """What the folds of a run came to.

    bundle: what ships (`train.fold_bundle`). folds: in their order. left_out: rows that no fold holds out, for their
    label has no other text. out_of_fold: metrics of all rows held out together. label_errors: {"suspected", "labels"}
    of the ranking, or None where none was made.
    """

    bundle: str
    folds: tuple[Fold, ...]
    left_out: int
    out_of_fold: Metrics
    label_errors: dict[str, Any] | None = None

    @property
    def mean(self) -> Metrics:
        """Each metric's mean over the folds, on the rows that each holds out."""
        return _over([one.metrics for one in self.folds], statistics.fmean)

    @property
    def sd(self) -> Metrics:
        """Each metric's sample standard deviation over the folds. No standard error of the mean: the folds' models were
        trained on rows in common (Bengio and Grandvalet 2004).
        """
        return _over([one.metrics for one in self.folds], statistics.stdev)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; mean and spread of the test metrics too, where there are some."""
        tests = [one.test for one in self.folds if one.test is not None]
        test = {"mean": _over(tests, statistics.fmean), "sd": _over(tests, statistics.stdev)} if tests else None
        return {
            "count": len(self.folds),
            "bundle": self.bundle,
            "folds": [asdict(one) for one in self.folds],
            "mean": self.mean,
            "sd": self.sd,
            "out_of_fold": self.out_of_fold,
            "test": test,
            "left_out": self.left_out,
            "label_errors": self.label_errors,
        }


def fold_folder(run: Path, fold: int) -> Path:
    """Where a fold's own run is. fold: from 1."""
    return run / FOLDS_FOLDER / str(fold)


def finished_folds(run: Path, count: int) -> list[int]:
    """The folds of a run that are trained and have scored the rows that they hold out."""
    return [fold for fold in range(1, count + 1) if is_finished(RunFolder(fold_folder(run, fold)))]


def is_finished(fold: RunFolder) -> bool:
    """Whether a fold's run is complete and has scored the rows that it holds out."""
    return (fold.path / HELD_OUT_FILE).exists() and fold.result() is not None


def write_report(run: Path, report: FoldReport) -> None:
    """Write RUN/folds.json. Raises WorkFailed when it cannot be written."""
    write_json_atomic(run / REPORT_FILE, report.to_dict())


def read_report(run: Path) -> dict[str, Any] | None:
    """What RUN/folds.json holds; None where there is none. Raises BadInput when it cannot be read."""
    path = run / REPORT_FILE
    if not path.exists():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or not values.keys() >= {"count", "bundle", "folds", "mean", "sd", "out_of_fold"}:
        raise BadInput(f"{path} holds no report", "what a run with folds writes", "remove it: --resume writes it again")
    return values


def _over(metrics: Sequence[Mapping[str, float]], what: Any) -> Metrics:
    return {name: float(what([one[name] for one in metrics])) for name in metrics[0]} if metrics else {}
