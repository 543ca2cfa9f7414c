"""A check's figures in words, for the terminal and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snapfit.checks.findings import Finding, percent

if TYPE_CHECKING:
    from snapfit.ship.check_plan import TrainingPlan


def rows_told(finding: Finding, *, most: int) -> list[str]:
    """Where a finding's rows are, a line for each file: "train.csv: lines 3, 8, 12 and 40 more"."""
    told = []
    for one in finding.where:
        numbers = one.numbers[:most].tolist()
        more = len(one.numbers) - len(numbers)
        listed = ", ".join(map(str, numbers)) + (f" and {more:,} more" if more else "")
        name = Path(one.file).name if one.file else one.split
        told.append(f"{name}: {one.word}{'' if len(one.numbers) == 1 else 's'} {listed}")
    return told


def plan_rows(plan: "TrainingPlan") -> Sequence[tuple[str, str]]:
    """A plan as names and values."""
    epochs = f"{plan.epochs:g} {'epoch' if plan.epochs == 1 else 'epochs'}"
    measured = f"{plan.tokens_per_second:,.0f} tokens/s ({plan.measured_steps} were measured on this {plan.device})"
    parts = f"{in_words(plan.train_seconds)} of steps at {measured}, {in_words(plan.evaluation_seconds)} of evaluations"
    disk = f"{gigabytes(plan.disk_bytes)} at most, the bundle {gigabytes(plan.bundle_bytes)}"
    rows = [
        ("steps", f"{plan.steps:,} over {plan.rows['train']:,} rows, {epochs}, at most {plan.max_tokens} tokens a row"),
        ("time", f"{in_words(plan.seconds)} at most: {parts}"),
        ("disk", f"{disk}; {gigabytes(plan.free_bytes)} are free here"),
    ]
    if plan.memory_bytes:
        rows.insert(2, ("memory", f"about {gigabytes(plan.memory_bytes)}"))
    return rows


def length_rows(tokens: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """What each length policy does to the rows of tables, a header first; empty where nothing is too long.

    tokens: by split, what `TokenSurvey.to_dict` gave.
    """
    rows: list[tuple[str, ...]] = []
    for split, one in tokens.items():
        if not one["rows_too_long"]:
            continue
        least = min(policy["tokens"] for policy in one["policies"].values())
        for name, policy in one["policies"].items():
            n = policy["rows_cut"]
            cut = f"{n:,} ({percent(n / one['rows_looked_at'])})"
            lost, times = percent(policy["share_of_tokens_cut"]), f"{policy['tokens'] / least:.2f}"
            rows.append((split, name + (" *" if name == one["policy"] else ""), f"{one['limit']:,}", cut, lost, times))
    return [("", "policy", "limit", "texts cut", "tokens lost", "tokens read, to the least"), *rows] if rows else []


def in_words(seconds: float) -> str:
    """A duration in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gigabytes(n_bytes: int) -> str:
    """A size in megabytes or gigabytes."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"
