"""A cleaned copy of checked tables, and a log of every row that it lacks.

Rows are left out, and nothing is changed: what stays, stays byte for byte. Which rows is decided here, kind by kind:

- in every split, rows that training refuses (see `unusable`);
- in the training table empty texts, texts that are in another split too, and repeated rows with the same label;
- where asked for, also training rows whose text has other labels too, and near-duplicates of rows of other splits.

A training row stays, and the log says so, when its label would be lost with it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from snapfit.checks.duplicates import conflicting_groups
from snapfit.checks.index import Index
from snapfit.checks.lines import rows_as_written, write_without
from snapfit.checks.near_rows import NearRows
from snapfit.checks.places import FileRows
from snapfit.checks.reading import CheckedSplit
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.files import cannot_write
from snapfit.core.folders import staged_folder
from snapfit.data.formats import table_files

LOG = "changes.jsonl"
ON_REQUEST = ("conflicting_labels", "near_leak")
"""Kinds of findings whose rows are left out only when they are named."""
Splits = Mapping[str, CheckedSplit]
Dropped = Mapping[str, Mapping[str, np.ndarray]]
"""By split and kind, numbers of the records to leave out, int64 ascending; no row is twice in a split."""


@dataclass(frozen=True)
class Cleaned:
    """What was written.

    folder: of it. tables: by split. log: one JSON object a change. left_out: rows, by split and kind.
    kept: training rows that would have been left out, but for their label.
    """

    folder: Path
    tables: dict[str, Path]
    log: Path
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        tables = {name: str(path) for name, path in self.tables.items()}
        return {
            "folder": str(self.folder),
            "tables": tables,
            "log": str(self.log),
            "left_out": self.left_out,
            "kept": self.kept,
        }


def check_target(folder: Path, sources: Mapping[str, object], drop: Sequence[str]) -> None:
    """Raise BadInput for what cannot be cleaned, or not to there."""
    for kind in drop:
        if kind not in ON_REQUEST:
            raise BadInput(f"--drop {kind}", f"one of {', '.join(ON_REQUEST)}", f"--drop {ON_REQUEST[0]}")
    for name, source in sources.items():
        if not isinstance(source, str | Path):
            found = f"a cleaned copy of the {name} table, which is no file but a {type(source).__name__}"
            raise BadInput(found, "tables that are files", "write it to a file first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already", "a folder that does not exist yet", "choose another for --fix")


def rows_to_drop(
    splits: Splits, index: Index, empty: np.ndarray, near: NearRows | None, drop: Sequence[str]
) -> tuple[Dropped, np.ndarray]:
    """(records to leave out of each split beside those that cannot be used; training rows that stay for their label).

    empty: training rows without a text. near: near-duplicates, where they were searched for.
    """
    train, groups = splits["train"], index.groups["train"]
    gone = np.zeros(len(train), dtype=bool)
    dropped: dict[str, np.ndarray] = {}

    def take(kind: str, mask: np.ndarray) -> None:
        rows = np.flatnonzero(mask & ~gone)
        if len(rows):
            dropped[kind] = rows
            gone[rows] = True

    take("empty_text", _mask(empty, len(train)))
    others = [index.groups[name] for name in splits if name != "train"]
    if others:
        take("leak", np.isin(groups, np.concatenate(others)))
    labels = index.labels["train"]
    if "conflicting_labels" in drop and labels is not None:
        take("conflicting_labels", np.isin(groups, conflicting_groups(groups, labels, index.tolerance)))
    if "near_leak" in drop and near is not None:
        found = [near.rows("train", name)[0] for name in splits if name != "train"]
        take("near_leak", np.isin(groups, groups[np.concatenate([np.zeros(0, dtype=np.int64), *found])]))
    take("duplicate_text", _repeated(groups, labels, gone))
    kept = _kept_for_labels(index, gone)
    if len(kept):
        dropped = {kind: np.setdiff1d(rows, kept) for kind, rows in dropped.items()}
    return {"train": {kind: rows for kind, rows in dropped.items() if len(rows)}}, kept


def write_cleaned(
    folder: Path,
    splits: Splits,
    sources: Mapping[str, object],
    dropped: Dropped,
    kept: np.ndarray,
    *,
    encoding: str,
    format: str,
) -> Cleaned:
    """Write copies of all tables, and the log, into a new folder, which appears whole or not at all.

    Raises WorkFailed when it cannot be written.
    """
    names = _names(sources)
    counts: dict[str, dict[str, int]] = {name: {} for name in splits}
    try:
        with (
            staged_folder(folder) as staged,
            open(staged / LOG, "w", encoding="utf-8", errors="backslashreplace") as log,
        ):
            for name, split in splits.items():
                target = staged / names[name]
                is_folder = Path(str(sources[name])).is_dir()
                if is_folder:
                    target.mkdir(parents=True)
                for i, one in enumerate(_files(split, sources[name], format)):
                    why, staying = _reasons(split, i, dropped.get(name, {}), kept if name == "train" else kept[:0])
                    unreadable = Counter({"unreadable_row": len(one.unreadable)})
                    counts[name] = dict(Counter(counts[name]) + Counter(why.values()) + unreadable)
                    _copy(one, why, staying, target / one.path.name if is_folder else target, encoding, name, log)
    except OSError as error:
        raise cannot_write(folder, error) from error
    tables = {name: folder / part for name, part in names.items()}
    return Cleaned(folder, tables, folder / LOG, {name: one for name, one in counts.items() if one}, len(kept))


# ---------------------------------------------------------------- which rows


def _mask(rows: np.ndarray, n: int) -> np.ndarray:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return mask


def _repeated(groups: np.ndarray, labels: np.ndarray | None, gone: np.ndarray) -> np.ndarray:
    """Which rows have both text and label of an earlier row that stays, bool [n]."""
    again = np.zeros(len(groups), dtype=bool)
    rows = np.flatnonzero(~gone)
    codes = groups if labels is None else np.unique(labels, return_inverse=True)[1]
    both = np.stack([groups[rows], codes[rows]])
    again[rows] = True
    again[rows[np.unique(both, axis=1, return_index=True)[1]]] = False
    return again


def _kept_for_labels(index: Index, gone: np.ndarray) -> np.ndarray:
    """Rows that have to stay: of each label that would be lost all rows that have it, int64 ascending."""
    codes = index.labels["train"]
    if codes is None or codes.dtype.kind == "f":
        return np.zeros(0, dtype=np.int64)
    before, after = (
        np.bincount(codes, minlength=len(index.names)),
        np.bincount(codes[~gone], minlength=len(index.names)),
    )
    left = {name for code in np.flatnonzero(after).tolist() for name in index.names[code]}
    lost = [code for code in np.flatnonzero(before > after).tolist() if not left.issuperset(index.names[code])]
    return np.flatnonzero(np.isin(codes, lost) & gone)


# ---------------------------------------------------------------- copies


def _names(sources: Mapping[str, object]) -> dict[str, str]:
    """What each copy is called: as its source, with the split before it where that is taken."""
    names: dict[str, str] = {}
    for split, source in sources.items():
        name = Path(str(source)).resolve().name
        names[split] = name if name not in (*names.values(), LOG) else f"{split}-{name}"
    return names


def _files(split: CheckedSplit, source: object, format: str) -> Iterator[FileRows]:
    for path, one in zip(table_files(Path(str(source)), format), split.places.files, strict=True):
        if path != one.path:
            raise WorkFailed(f"{path} was read as {one.path}")
        yield one


def _reasons(
    split: CheckedSplit, file: int, dropped: Mapping[str, np.ndarray], kept: np.ndarray
) -> tuple[dict[int, str], list[int]]:
    """(kind by place in the file's rows, of those that are left out; places of those that stay for their label)."""
    start = sum(map(len, split.places.files[:file]))
    end = start + len(split.places.files[file])
    why: dict[int, str] = {}
    for kind, places in split.unusable.items():
        why.update((int(row) - start, kind) for row in places.rows if start <= row < end)
    for kind, rows in dropped.items():
        why.update((int(row) - start, kind) for row in split.places.rows[rows] if start <= row < end)
    return why, [int(row) - start for row in split.places.rows[kept] if start <= row < end]


def _copy(
    rows: FileRows, why: Mapping[int, str], staying: list[int], target: Path, encoding: str, split: str, log: IO[str]
) -> None:
    """Copy one file without some of its rows, and log them in their order."""
    gone = _mask(np.array(sorted(why), dtype=np.int64), len(rows))
    if rows.kind == "parquet":
        before = _copy_parquet(rows.path, gone, target)
    else:
        write_without(rows, encoding, gone, target)
        before = _before(rows, encoding, gone)
    changes = [
        (int(rows.first[row]), kind, "left out", before.get(int(rows.first[row]), "")) for row, kind in why.items()
    ]
    changes += [
        (one.first, "unreadable_row", f"left out: {one.why}", before.get(one.first, "")) for one in rows.unreadable
    ]
    changes += [(int(rows.first[row]), "kept", "its label would be lost", "") for row in staying]
    for number, kind, what, text in sorted(changes):
        entry = {"split": split, "file": str(rows.path), "counted": rows.word, "number": number, "kind": kind}
        line = json.dumps({**entry, "what": what, "before": text or None, "after": None}, ensure_ascii=False)
        log.write(line + "\n")


def _before(rows: FileRows, encoding: str, gone: np.ndarray) -> dict[int, str]:
    """The rows that are left out, as they stood in the file, by the number of their first line."""
    spans = [*zip(rows.first[gone].tolist(), rows.last[gone].tolist(), strict=True)]
    spans = sorted(spans + [(one.first, one.last) for one in rows.unreadable])
    numbers = [number for first, last in spans for number in range(first, last + 1)]
    lines = iter(rows_as_written(rows, encoding, np.array(numbers, dtype=np.int64)))
    return {first: "".join(next(lines) for _ in range(first, last + 1)).rstrip("\r\n") for first, last in spans}


def _copy_parquet(path: Path, gone: np.ndarray, target: Path) -> dict[int, str]:
    """Copy a Parquet file with its schema, row group by row group; returns what was left out, by row from 1."""
    before: dict[int, str] = {}
    with pq.ParquetFile(path) as file:
        columns = file.metadata.row_group(0).num_columns if file.num_row_groups else 0
        codec = file.metadata.row_group(0).column(0).compression if columns else "snappy"
        codec = "none" if codec == "UNCOMPRESSED" else codec
        with pq.ParquetWriter(target, file.schema_arrow, compression=codec) as writer:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                mask = gone[start : start + table.num_rows]
                for row in np.flatnonzero(mask).tolist():
                    cells = table.slice(row, 1).to_pylist()[0]
                    before[start + row + 1] = json.dumps(cells, ensure_ascii=False, default=str)
                writer.write_table(table.filter(pa.array(~mask)), row_group_size=max(table.num_rows, 1))
                start += table.num_rows
    return before
