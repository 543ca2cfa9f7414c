"""What a check found, as one value."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snapfit.checks.cleaning import Cleaned
from snapfit.checks.findings import LEVELS, Finding

if TYPE_CHECKING:
    from snapfit.ship.check_plan import TrainingPlan

ROWS_TOLD = 100_000
"""Numbers of rows that the plain values of a finding list at most."""


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    tables: of each split its source, its rows, and how many of them can be used. columns: what was taken, in words.
    task: single, multi or regression. findings: ranked, errors first. labels: rows by split and label; empty for a
    regression. characters, scripts: by split. encoder: its name, or None. tokens: by split, of a sample. plan: what a
    training will take. skipped: what was not looked at, and why. cleaned: the cleaned copy. html: the page.
    """

    tables: dict[str, dict[str, Any]]
    columns: str
    task: str
    findings: list[Finding]
    labels: dict[str, dict[str, int]]
    characters: dict[str, dict[str, Any]]
    scripts: dict[str, dict[str, float]]
    encoder: str | None = None
    tokens: dict[str, dict[str, Any]] | None = None
    plan: "TrainingPlan | None" = None
    skipped: dict[str, str] | None = None
    cleaned: Cleaned | None = None
    html: Path | None = None
    seconds: float = 0.0

    @property
    def levels(self) -> dict[str, int]:
        """How many findings there are of each level."""
        counts = Counter(finding.level for finding in self.findings)
        return {level: counts[level] for level in LEVELS}

    def to_dict(self, most_rows: int | None = ROWS_TOLD) -> dict[str, Any]:
        """Plain values, for JSON. most_rows: numbers of rows that a finding lists at most; none: all."""
        return {
            "levels": self.levels,
            "tables": self.tables,
            "columns": self.columns,
            "task": self.task,
            "findings": [finding.to_dict(most_rows) for finding in self.findings],
            "labels": self.labels,
            "characters": self.characters,
            "scripts": self.scripts,
            "encoder": self.encoder,
            "tokens": self.tokens or {},
            "plan": None if self.plan is None else self.plan.to_dict(),
            "skipped": self.skipped or {},
            "cleaned": None if self.cleaned is None else self.cleaned.to_dict(),
            "html": None if self.html is None else str(self.html),
            "seconds": round(self.seconds, 2),
        }
