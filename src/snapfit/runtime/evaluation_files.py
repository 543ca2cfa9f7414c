"""Writes an evaluation into a folder: all of it as JSON, its tables as CSV, and every row with its scores.

    evaluation.json       what `evaluate_bundle` gave
    per_label.csv         a line a label: precision, recall, F1 with their intervals, counts
    confusions.csv        a line a kind of mistake, all of them
    slices.csv            a line a slice
    changed_labels.csv    a line a label, where two bundles were compared
    rows.csv              the table's own columns, and what was expected and predicted (or rows.jsonl, rows.parquet)

In rows stand, behind the table's columns: expected (the truth as the bundle reads it), right (or, of a regression,
error: predicted less expected), of a second bundle other_predicted, other_score, other_refused where it may refuse, and
other_right or other_error, and then what `snapfit predict` writes, by the same code. A row out of scope is right where
it has no answer. The folder appears whole or not at all.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from snapfit.core.decisions import Answers, DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.files import write_json_atomic, write_text_atomic
from snapfit.core.folders import staged_folder
from snapfit.core.labels import LabelSet
from snapfit.core.outcomes import Outcomes
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import TOP_MISTAKES, Piece
from snapfit.runtime.tables import check_apart, check_output, prediction_columns, prediction_writer

RESULT_FILE = "evaluation.json"
ROW_FORMATS = ("csv", "jsonl", "parquet", "none")
_FILES = {RESULT_FILE, "per_label.csv", "confusions.csv", "slices.csv", "changed_labels.csv"}
_FILES |= {f"rows.{kind}" for kind in ROW_FORMATS}
_INTERVALS = ("precision", "recall", "f1")

Write = Callable[[Piece], object]
Finish = Callable[[Mapping[str, Any]], object]


def check_folder(
    out: str | Path,
    columns: Sequence[str],
    bundle: Bundle,
    *,
    read: Sequence[str | Path],
    against: Bundle | None = None,
    rows_format: str = "csv",
    all_scores: bool = False,
) -> None:
    """Raise BadInput, before any work, where an evaluation cannot be written to `out`.

    columns: of the table. read: what is read meanwhile, into which nothing may be written. The folder must be new,
    empty, or hold an earlier evaluation and nothing else, which is then replaced.
    """
    folder = Path(out)
    if rows_format not in ROW_FORMATS:
        raise BadInput(f"the format {rows_format!r} of rows", f"one of {', '.join(ROW_FORMATS)}", "--rows csv")
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{out} is a file", "the name of a folder to write", "choose another with --out")
    if folder.is_dir():
        held = {path.name for path in folder.iterdir()}
        if held and (RESULT_FILE not in held or held - _FILES):
            found = f"{out} exists already, and holds {sorted(held - _FILES or held)[0]!r}"
            raise BadInput(found, "a new folder, or one with an earlier evaluation", "choose another with --out")
    check_apart(folder, read)
    if rows_format == "none":
        return
    for name in _row_columns(bundle.label_set, against):
        if name in columns:
            found = f"the table has a column {name!r} already"
            fix = f"rename or drop the table's column {name!r}, or leave the rows out with --rows none"
            raise BadInput(found, "a table without the names of the columns to be added", fix)
    check_output(columns, folder / f"rows.{rows_format}", **_of_predictions(bundle, all_scores))


@contextmanager
def evaluation_folder(
    out: str | Path,
    columns: Sequence[str],
    bundle: Bundle,
    *,
    against: Bundle | None = None,
    out_of_scope: str | None = None,
    rows_format: str = "csv",
    all_scores: bool = False,
) -> Iterator[tuple[Write, Finish]]:
    """A folder that takes the name `out` when the block ends without an error: gives two functions.

    The first writes a piece of rows, all in order; the second, called once after the last, writes the result.
    out_of_scope: how rows out of scope are labelled. Other arguments are those of `check_folder`, which is to be called
    before. Raises WorkFailed when the disk refuses.
    """
    with staged_folder(out) as folder:
        if rows_format == "none":
            yield lambda piece: None, lambda result: _write_result(folder, result)
            return
        added = _row_columns(bundle.label_set, against)
        with prediction_writer(
            [*columns, *added],
            folder / f"rows.{rows_format}",
            **_of_predictions(bundle, all_scores),
        ) as write_rows:

            def write(piece: Piece) -> None:
                rows = piece.records.table
                for name, column in _cells(piece, bundle, against, out_of_scope).items():
                    rows = rows.append_column(name, column)
                write_rows(rows, piece.outcomes.answers)

            yield write, lambda result: _write_result(folder, result)


def _of_predictions(bundle: Bundle, all_scores: bool) -> dict[str, Any]:
    return {"label_set": bundle.label_set, "refuses": bundle.rule().refuses, "all_scores": all_scores}


def _row_columns(label_set: LabelSet, against: Bundle | None) -> list[str]:
    """What is put between the table's columns and those of a prediction."""
    verdict = "error" if label_set.task == "regression" else "right"
    others: list[str] = []
    if against is not None:
        nothing = DecisionRule(label_set.task).decide(np.zeros((0, label_set.n_outputs)))
        others = [*_other_cells(nothing, against), f"other_{verdict}"]
    return ["expected", verdict, *others]


def _other_cells(answers: Answers, against: Bundle) -> dict[str, pa.Array]:
    cells = prediction_columns(answers, label_set=against.label_set, refuses=against.rule().refuses)
    return {f"other_{name}": column for name, column in cells.items()}


def _cells(piece: Piece, bundle: Bundle, against: Bundle | None, out_of_scope: str | None) -> dict[str, pa.Array]:
    label_set, targets = bundle.label_set, piece.outcomes.targets
    expected: pa.Array
    if label_set.task == "single":
        names = [*label_set.names, out_of_scope]  # whose number, -1, is the last one
        expected = pa.array([names[i] for i in targets], pa.string())
    elif label_set.task == "multi":
        rows = [[label_set.names[i] for i in np.flatnonzero(row)] for row in piece.outcomes.truth]
        expected = pa.array(rows, pa.list_(pa.string()))
    else:
        expected = pa.array(targets[:, 0].astype(np.float64), pa.float64())
    cells = {"expected": expected, **_verdict(piece.outcomes, "")}
    if against is not None and piece.other_outcomes is not None and piece.other_answers is not None:
        cells |= {**_other_cells(piece.other_answers, against), **_verdict(piece.other_outcomes, "other_")}
    return cells


def _verdict(outcomes: Outcomes, prefix: str) -> dict[str, pa.Array]:
    if outcomes.task == "regression":
        return {f"{prefix}error": pa.array(outcomes.errors, pa.float64())}
    return {f"{prefix}right": pa.array(outcomes.right, pa.bool_())}


# ---------------------------------------------------------------- tables of a result


def _write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Every file but the rows; the JSON holds the TOP_MISTAKES most frequent mistakes, the table all."""
    write_json_atomic(folder / RESULT_FILE, {**result, "mistakes": result["mistakes"][:TOP_MISTAKES]})
    if result["per_label"]:
        _write_csv(folder / "per_label.csv", [_label_line(one) for one in result["per_label"]])
        lines = [
            {
                "true": one["true"],
                "predicted": one["predicted"],
                "rows": one["rows"],
                "example_rows": " ".join(str(example["row"]) for example in one["examples"]),
            }
            for one in result["mistakes"]
        ]
        _write_csv(folder / "confusions.csv", lines, header=("true", "predicted", "rows", "example_rows"))
    slices = [{**one, **_ends("", one["interval"])} for one in result["slices"]]
    _write_csv(folder / "slices.csv", [{k: v for k, v in one.items() if k != "interval"} for one in slices])
    comparison = result["comparison"]
    if comparison is not None and comparison["labels"]:
        lines = [{**one, **_ends("difference_", one["interval"])} for one in comparison["labels"]]
        lines = [{k: v for k, v in one.items() if k != "interval"} for one in lines]
        _write_csv(folder / "changed_labels.csv", lines)


def _label_line(one: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"label": one["label"]}
    for name in _INTERVALS:
        line |= {name: one[name], **_ends(f"{name}_", one["intervals"][name])}
    return {**line, "support": one["support"], "given": one["given"], "hits": one["hits"]}


def _ends(prefix: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{prefix}interval_low": low, f"{prefix}interval_high": high}


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> None:
    """Lines as CSV; nothing for None, true and false as in JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(header or lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({k: str(cell).lower() if isinstance(cell, bool) else cell for k, cell in line.items()})
    write_text_atomic(path, text.getvalue())
