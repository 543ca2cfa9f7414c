"""What the tests of checks share: tables in memory or in files, read as a check reads them."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snapfit.checks.findings import Finding
from snapfit.checks.index import Index, make_index
from snapfit.checks.reading import CheckedSplit, Source, read_split

Rows = Sequence[tuple[Any, ...] | dict[str, Any]]


def splits_of(asked: Source | None = None, **tables: object) -> dict[str, CheckedSplit]:
    """Tables by split, the training table first: lists of (text, label), or whatever a table may be."""
    found: dict[str, CheckedSplit] = {}
    folder = Path(tempfile.mkdtemp())
    for name, table in tables.items():
        columns = found["train"].records.columns if found else None
        found[name] = read_split(name, table, asked or Source(), folder, columns)
    return found


def indexed(asked: Source | None = None, **tables: object) -> tuple[dict[str, CheckedSplit], Index]:
    """The splits, and their index."""
    splits = splits_of(asked, **tables)
    return splits, make_index(splits)


def rows(words: Iterable[str], labels: Sequence[str] = ("a", "b")) -> list[tuple[str, str]]:
    """A row of each text, its label by turns."""
    return [(word, labels[i % len(labels)]) for i, word in enumerate(words)]


def of_kind(findings: Iterable[Finding], kind: str, split: str = "train") -> Finding:
    """The one finding of a kind about a split."""
    (found,) = (one for one in findings if (one.kind, one.split) == (kind, split))
    return found


def kinds(findings: Iterable[Finding]) -> set[str]:
    """All kinds that were found."""
    return {one.kind for one in findings}


def numbers(finding: Finding, split: str | None = None) -> list[int]:
    """Numbers of a finding's rows, of one split or of its own."""
    chosen = [one.numbers for one in finding.where if one.split == (split or finding.split)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *chosen]).tolist()


def plain(finding: Finding) -> dict[str, Any]:
    """What a finding is as JSON, read again."""
    values: dict[str, Any] = json.loads(json.dumps(finding.to_dict(), allow_nan=False))
    return values
