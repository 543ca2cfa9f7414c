"""Labels that a model disagrees with, as a finding of a check: the out-of-fold scores of `snapfit train --folds`.

The folds' run is made where it is not there yet, on the rows that can be used; one that is there is taken as it is, if
it was trained on these very texts and labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from snapfit.checks.findings import EXAMPLES, Finding, examples_of, percent, quantity, rows_at, shown
from snapfit.checks.reading import CheckedSplit
from snapfit.core.errors import BadInput
from snapfit.core.files import read_json
from snapfit.core.recipe import Recipe
from snapfit.ship.fold_report import REPORT_FILE
from snapfit.ship.label_errors import SUSPECTS_FILE, require_cleanlab
from snapfit.ship.run_folder import RunFolder

FOLDS = 5
"""Folds of a run that a check begins."""
WARNING = 0.01
"""From this share of suspected labels on it is a warning."""
_FOLDS_RUN = "the run of `snapfit train --folds`, or a folder that does not exist yet"


def check_run(path: Path) -> None:
    """Raise BadInput, before any work, where a folder is there and is no run of folds."""
    run = RunFolder(path)
    if not path.exists():
        return
    if not run.is_run:
        raise BadInput(f"{path} is no run", _FOLDS_RUN, "name another folder with --with-model")
    if run.recipe().train.folds is None:
        raise BadInput(
            f"{path} is the run of one training, whose model has seen the rows", _FOLDS_RUN, "name another folder"
        )


def suspected_labels(
    path: Path, split: CheckedSplit, source: Any, recipe: Recipe, listener: Callable[[dict[str, Any]], None]
) -> list[Finding]:
    """What a cross-validation in a folder says of the labels of the training table; trained first where it is missing.

    source: the table as it was given. recipe: of the training. Raises BadInput for a run on another table, MissingExtra
    without cleanlab, Interrupted by a signal: the run goes on when it is asked for again.
    """
    from snapfit.ship.pipeline import train

    require_cleanlab(split.records.columns.task)
    run, columns = RunFolder(path), split.records.columns
    if run.is_run:
        _check_same_rows(run, split)
    if not (path / REPORT_FILE).exists():
        whole = split.is_file and len(split) == split.n_read and not split.unreadable
        folds = {"train.folds": recipe.train.folds or FOLDS, "train.fold_bundle": "none"}
        named = {"data.text": columns.text, "data.pair": columns.pair, "data.label": columns.label}
        settings = {} if run.is_run else {**named, "data.task": columns.task, **folds}
        table = source if whole else split.table
        train(table, resume=path, recipe=recipe.with_values(settings), listener=listener)
    return list(_findings(path, split))


def _check_same_rows(run: RunFolder, split: CheckedSplit) -> None:
    """Raise BadInput where a run was trained on other texts or labels than the split's."""
    kept = run.path / "data.json"
    if not kept.exists():
        return  # it was interrupted before a step, and holds its table against its own request
    identity = read_json(kept)["splits"]["train"]
    now = {"rows": len(split), "texts": split.records.content_hash(), "labels": split.records.label_hash()}
    differing = [name for name, value in now.items() if identity.get(name) != value]
    if differing:
        raise BadInput(
            f"{run.path} was trained on another table ({', '.join(differing)} differ)",
            "out-of-fold scores of the rows that are checked",
            "name a folder that does not exist yet with --with-model",
        )


def _findings(path: Path, split: CheckedSplit) -> list[Finding]:
    counts = read_json(path / REPORT_FILE)["label_errors"]
    if not counts:
        raise BadInput(
            f"{path} has no ranking of label errors: it was made without cleanlab",
            "a run that ranked them",
            "name a folder that does not exist yet with --with-model",
        )
    n, total = int(counts["suspected"]), int(counts["labels"])
    if not n:
        return []
    file = path / SUSPECTS_FILE
    as_text = dict.fromkeys(("label", "given", "suggested"), pa.string())
    table = pa.csv.read_csv(file, convert_options=pa.csv.ConvertOptions(column_types=as_text))
    rows = table.column("row").to_numpy() - 1
    words = quantity(n, "label")
    text = f"{words} of {split.name} ({percent(n / total)}) look wrong to models that had not seen the rows"
    return [
        Finding(
            "suspected_label",
            "warning" if n / total >= WARNING else "note",
            split.name,
            n,
            total,
            text,
            "labels",
            rows_at(split, np.unique(rows)),
            examples_of(split, rows, [_note(one) for one in table.slice(0, EXAMPLES).to_pylist()]),
            details={"run": str(path), "file": str(file)},
            fix=f"look at them, the likeliest first, in {file}, and correct those that are wrong",
        )
    ]


def _note(suspect: dict[str, Any]) -> str:
    """What is given and what is suggested, in words."""
    about = f"{shown(suspect['label'])} is " if "label" in suspect else ""
    return f"{about}{shown(suspect['given'])}, perhaps {shown(suspect['suggested'])}"
