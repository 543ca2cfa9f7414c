"""`snapfit.evaluate`: a bundle and a labelled table in, everything that can be said of its answers out."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from snapfit.loading import load
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.comparing import check_comparable
from snapfit.runtime.evaluating import (
    CONFIDENCE,
    TOP_MISTAKES,
    Questions,
    check_out_of_scope,
    encoded,
    evaluate_bundle,
)
from snapfit.runtime.evaluation_files import Finish, Write, check_folder, evaluation_folder
from snapfit.runtime.inputs import parts_for_bundle, read_for_bundle
from snapfit.runtime.parts import RecordParts

_NOWHERE: tuple[Write, Finish] = (lambda piece: None, lambda result: None)


def evaluate(
    bundle: str | Path,
    table: object,
    *,
    against: str | Path | None = None,
    slices: Sequence[str] = (),
    length_edges: Sequence[int] = (),
    confidence: float = CONFIDENCE,
    out_of_scope_label: str | None = None,
    out: str | Path | None = None,
    rows: str = "csv",
    all_scores: bool = False,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    format: str = "auto",
    device: str | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure a bundle on a labelled table, and compare it with another one on the same rows.

    bundle: its folder. table: a file, a folder of files, a data frame or a list of dicts, as for `train`; large files
    are read in parts. against: the folder of a second bundle of the same task and labels.
    slices: columns of the table to slice by. length_edges: in tokens, see `Questions`. confidence: of intervals,
    0.5..0.999. out_of_scope_label: of a bundle of one label a row, how rows are labelled that none of its labels is
    right for: no answer is right for them.
    out: a folder to write to, see `evaluation_files`. rows: the format of the rows with their scores that it holds:
    csv, jsonl, parquet, or none. all_scores: the score of every label in there.
    text, pair, label: columns that are called otherwise than in training. delimiter, encoding, format: of the table.
    device: as for `load`. progress: hears how many rows are done, of how many.

    Returns what `evaluate_bundle` does, and besides bundle, against and out (paths or None), and seconds (of loading,
    scoring and counting). Raises BadInput, before anything is scored, for whatever cannot be used; WorkFailed when
    `out` cannot be written.
    """
    mistakes = TOP_MISTAKES if out is None else None
    questions = Questions(slices=slices, length_edges=length_edges, confidence=confidence, mistakes=mistakes)
    opened, other = _bundles(bundle, against, out_of_scope_label)
    reading = {"text": text, "pair": pair, "label": label, "delimiter": delimiter}
    parts = _parts(opened, table, {**reading, "encoding": encoding, "format": format}, out_of_scope_label)
    questions.check_columns(names := parts.column_names)
    outside: dict[str, Any] = {"out_of_scope": out_of_scope_label}
    told: dict[str, Any] = {"against": other, "rows_format": rows, "all_scores": all_scores}
    if out is not None:
        read = [one for one in (bundle, against, table) if isinstance(one, str | Path)]
        check_folder(out, names, opened, read=read, **told)
    start = time.monotonic()
    predictor = load(bundle, device=device, verify=False)
    second = None if against is None else load(against, device=device, verify=False)
    folder = nullcontext(_NOWHERE) if out is None else evaluation_folder(out, names, opened, **told, **outside)
    with folder as (write, finish):
        found = evaluate_bundle(
            predictor, parts, against=second, questions=questions, on_piece=write, progress=progress, **outside
        )
        result = _paths(bundle=bundle, against=against, out=out) | found
        finish(result)
    seconds = round(time.monotonic() - start, 2)
    return {**result, "mistakes": result["mistakes"][:TOP_MISTAKES], "seconds": seconds}


def _paths(**paths: str | Path | None) -> dict[str, Any]:
    return {name: None if path is None else str(path) for name, path in paths.items()}


def _bundles(bundle: str | Path, against: str | Path | None, out_of_scope: str | None) -> tuple[Bundle, Bundle | None]:
    """The bundle and the one that it is held against, checked."""
    opened, other = Bundle.open(bundle), None if against is None else Bundle.open(against)
    if other is not None:
        check_comparable(opened, other)
    if out_of_scope is not None:
        check_out_of_scope(opened.label_set, out_of_scope)
    return opened, other


def _parts(bundle: Bundle, table: object, options: dict[str, Any], out_of_scope: str | None) -> RecordParts:
    """The table's records, checked; a file's in parts where it is large."""
    if isinstance(table, str | Path):
        return parts_for_bundle(bundle.info, table, out_of_scope=out_of_scope, **options)
    records = read_for_bundle(bundle.info, table, **options)
    return RecordParts.of(records, lambda part: encoded(part, bundle.label_set, out_of_scope=out_of_scope))
