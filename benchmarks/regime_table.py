"""What a table of `regimes.py` is: a list of runs, how one of them is done, and what its rows say.

A new table is a module with an object that has these members, put into `regimes.TABLES`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accuracy import ALONE
from harness import ROOT
from subsets import DataSet, Files, write

Record = dict[str, Any]
"""What is stored of a run: plain values."""


@dataclass(frozen=True)
class Run:
    """One run to do. key: unique within its table, and what its result is found by. asked: plain values."""

    key: str
    asked: Record


@dataclass(frozen=True)
class Place:
    """Where a benchmark works. data: the folder of data sets. work: an empty scratch folder."""

    data: Path
    work: Path


class Table(Protocol):
    """One table: runs, rows, and the figures that limits are held against."""

    name: str
    title: str
    about: str
    """A paragraph or more of Markdown: what is compared with what, and how."""
    header: list[str]

    def runs(self, *, quick: bool, seeds: Sequence[int] | None) -> list[Run]:
        """Every run, in the order they should be done in. quick: of a small version, whose keys are others."""
        ...

    def absent(self, place: Place) -> str | None:
        """What the table needs and is not there, in words; None where nothing is."""
        ...

    def prepare(self, runs: Sequence[Run], place: Place) -> list[str]:
        """Make what the runs share; lines that tell of it, such as seeds and splits."""
        ...

    def run(self, run: Run, place: Place) -> Record:
        """Do one run, in a process of its own; RuntimeError where it fails. Called from several threads."""
        ...

    def line(self, record: Record) -> str:
        """A run's outcome in a line."""
        ...

    def rows(self, records: Sequence[Record]) -> list[list[str]]:
        """The table's rows, as `header` names their cells; of as many runs as there are."""
        ...

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """What the section of floors.toml with the table's name limits."""
        ...

    def notes(self, records: Sequence[Record]) -> list[str]:
        """Lines below the table: splits, settings that all runs share."""
        ...


class OfDataSets:
    """What tables over data sets share: their rows are drawn once. sets: that the whole table needs."""

    def __init__(self, sets: Sequence[DataSet]) -> None:
        self._sets = sets
        self._files: dict[str, Files] = {}

    def absent(self, place: Place) -> str | None:
        """The first data set that is not there."""
        missing = [place.data / one.folder for one in self._sets if not (place.data / one.folder).exists()]
        return f"{missing[0]} is absent; --data names another place" if missing else None

    def prepare(self, runs: Sequence[Run], place: Place) -> list[str]:
        """Draw the rows of every data set."""
        for one in dict.fromkeys(run.asked["set"] for run in runs):
            if one.name not in self._files:
                self._files[one.name] = write(one, place.data, place.work)
        return [files.about for files in self._files.values()]


def alone() -> dict[str, str]:
    """The environment of a process with one thread that imports this checkout's snapfit, wherever it runs."""
    given = [str(Path(part).resolve()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {**ALONE, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *given])}


def shared_by_seeds(seeds: Sequence[Sequence[int]]) -> list[int]:
    """The seeds that all of several lists have, ascending."""
    return sorted(set.intersection(*map(set, seeds))) if seeds else []
