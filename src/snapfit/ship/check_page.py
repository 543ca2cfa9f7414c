"""The report of a check as one HTML file: nothing is loaded from elsewhere, and all that comes from data is escaped."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from snapfit.checks.findings import Finding, percent, shown
from snapfit.core.errors import BadInput, MissingExtra
from snapfit.core.files import write_text_atomic
from snapfit.ship.check_report import CheckReport
from snapfit.ship.check_words import length_rows, plan_rows, rows_told
from snapfit.version import __version__

_LABELS = 30
_WIDTH, _HEIGHT = 480, 80


def check_page_target(path: Path) -> None:
    """Raise BadInput when no page can be written to a path, MissingExtra without jinja2."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingExtra("check", "jinja2") from error
    if path.is_dir():
        raise BadInput(f"{path} is a folder", "the name of a file to write", "add a file name, such as report.html")
    folder = next(one for one in path.absolute().parents if one.exists())
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise BadInput(f"{path} cannot be written", "a place that may be written to", "choose another with --html")


def write_page(path: Path, report: CheckReport) -> None:
    """Write the report as a page, whole or not at all. Raises WorkFailed when it cannot be written."""
    write_text_atomic(path, page(report))


def page(report: CheckReport) -> str:
    """The page of a report."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("snapfit.ship").joinpath("check_page.html").read_text("utf-8"))
    rows, names, more = _labels(report)
    return template.render(
        title=Path(report.tables["train"]["source"]).name,
        version=__version__,
        report=report,
        levels=list(report.levels.items()),
        findings=[_of_finding(one) for one in report.findings],
        scripts={
            name: ", ".join(f"{script} {percent(share)}" for script, share in list(shares.items())[:3])
            for name, shares in report.scripts.items()
        },
        plan=plan_rows(report.plan) if report.plan is not None else [],
        histograms={name: _bars(lengths) for name, lengths in report.characters.items()},
        labels=rows,
        label_splits=names,
        more_labels=more,
        lengths=length_rows(report.tokens or {}),
        percent=percent,
    )


def _of_finding(one: Finding) -> dict[str, Any]:
    return {
        "level": one.level,
        "kind": one.kind,
        "title": one.of_kind.title,
        "text": one.text,
        "effect": one.of_kind.effect,
        "fix": one.what_to_do,
        "places": rows_told(one, most=200),
        "examples": one.examples,
    }


def _labels(report: CheckReport) -> tuple[list[dict[str, Any]], list[str], int]:
    """(the labels with most training rows, the splits that have labels, how many labels are not shown)."""
    train = report.labels["train"]
    names = [name for name, counts in report.labels.items() if counts]
    total = max(report.tables["train"]["usable"], 1)
    most = max(train.values(), default=1)
    rows = [
        {
            "name": shown(label),
            "counts": [report.labels[name].get(label, 0) for name in names],
            "share": percent(count / total),
            "width": round(200 * count / most, 1),
        }
        for label, count in list(train.items())[:_LABELS]
    ]
    return rows, names, max(len(train) - _LABELS, 0)


def _bars(lengths: dict[str, Any]) -> dict[str, Any]:
    """Bars of a histogram, in the units of the picture."""
    counts: Sequence[int] = lengths["histogram"]
    most, step = max(max(counts), 1), max(lengths["p99"], 1.0) / len(counts)
    width = _WIDTH / len(counts)
    bars = [
        {
            "x": round(i * width, 2),
            "y": round(_HEIGHT * (1 - count / most), 2),
            "width": round(width - 2, 2),
            "height": round(_HEIGHT * count / most, 2),
            "title": f"{i * step:,.0f} to {(i + 1) * step:,.0f}: {count:,} rows",
        }
        for i, count in enumerate(counts)
    ]
    return {"bars": bars, "most": f"{lengths['p99']:,.0f}"}
