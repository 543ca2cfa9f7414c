"""Values as lines for a person: aligned tables, recipes, metrics, verdicts, sizes and times."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from snapfit.core.errors import visible

_LONGEST_TEXT = 60


def recipe_lines(recipe: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str], *, every: bool) -> list[str]:
    """The resolved recipe as aligned `key = value  (reason)`: what was settled or given; all with `every`."""
    from snapfit.core.recipe import Recipe

    defaults = Recipe().to_dict()
    rows = []
    for section, settings in recipe.items():
        for name, value in settings.items():
            key = f"{section}.{name}"
            given = value != defaults.get(section, {}).get(name)
            reason = reasons.get(key) or ("given" if given else "default")
            if key in reasons or given or every:
                rows.append((f"{key} = {plain(value)}", f"({reason})"))
    return aligned(rows)


def plain(value: Any) -> str:
    """A setting's value as it is written on the command line."""
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def metrics_lines(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Metrics by split as an aligned table."""
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [("", *names)]
    rows += [(s, *(f"{values[n]:.4f}" if n in values else "" for n in names)) for s, values in metrics.items()]
    return aligned(rows, right=range(1, len(names) + 1))


def fold_lines(report: Mapping[str, Any]) -> list[str]:
    """What the folds of a run came to as an aligned table: each one's metrics, their mean and spread."""
    names = list(report["mean"])
    rows = [("", "rows", *names)]
    for one in report["folds"]:
        rows.append((f"fold {one['fold']}", f"{one['rows']:,}", *(f"{one['metrics'][name]:.4f}" for name in names)))
    parts = [("mean", report["mean"]), ("sd", report["sd"])]
    if report["test"] is not None:
        parts += [(f"test, {what}", report["test"][what]) for what in ("mean", "sd")]
    rows += [(what, "", *(f"{values[name]:.4f}" for name in names)) for what, values in parts]
    return aligned(rows, right=range(1, len(names) + 2))


def suspect_lines(counts: Mapping[str, Any], suspects: Sequence[Mapping[str, str]], file: str) -> list[str]:
    """How many labels look wrong, and the likeliest ones as an aligned table.

    counts: `label_errors` of a report. suspects: lines of `file`. Texts are made fit for a terminal.
    """
    first = f"{counts['suspected']:,} of {counts['labels']:,} labels look wrong; all of them, likeliest first: {file}"
    rows = []
    for one in suspects:
        label = f"{one['label']} " if "label" in one else ""
        score = float(one.get("suggested_score") or one["deviations"])
        row = (f"row {one['row']}", f"{label}{one['given']}", "->", one["suggested"], f"{score:.2f}", one["text"])
        rows.append([_cut(cell, _LONGEST_TEXT) for cell in row])
    return [first, *aligned(rows, right=[4])]


def _cut(text: str, most: int) -> str:
    """At most so many characters, without any that would move a terminal's cursor or change its colours."""
    safe = "".join(character if character.isprintable() else " " for character in text)
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """A verdict as an aligned table of its candidates, the chosen one marked, and what it means below it."""
    metric, error = verdict["metric"], verdict["error"]
    rows = [("", "candidate", metric, error, "calibration error", "cost", "size", "made of")]
    for i, row in enumerate(verdict["rows"]):
        off = row["calibration"]
        rows.append(
            (
                "*" if i == verdict["chosen"] else "" if row["contends"] else "-",
                row["name"],
                f"{row['metric']:.4f}",
                f"{row['error']:.4f}",
                "" if off is None else f"{off:.4f}",
                f"{row['cost']:.2f}x",
                byte_size(row["bytes"]),
                "; ".join(row["made_of"]),
            )
        )
    single = verdict["rows"][verdict["best_single"]]
    expected, alone = verdict["expected"], verdict["expected_single"]
    return [
        *aligned(rows, right=range(2, 7)),
        f"* {verdict['rows'][verdict['chosen']]['name']} ships: {verdict['rule']}",
        f"to expect on new texts: {metric} {expected['metric']:.4f}, {error} {expected['error']:.4f} "
        f"({single['name']}: {alone['metric']:.4f}, {alone['error']:.4f})",
        *verdict["notes"],
    ]


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines whose columns stand under one another, also where characters are wide.

    right: the columns that are set to the right. Control characters in cells are escaped.
    """
    if not rows:
        return []
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            gap = " " * (widths[i] - cell_len(cell))
            cells.append(gap + cell if i in right else cell + gap)
        lines.append("  ".join(cells).rstrip())
    return lines


def printable(text: str, most: int = 100) -> str:
    """A text of unknown origin on one line of at most so many characters, which moves no cursor and sets no colour.

    What is not printable (controls, line breaks, marks that turn the direction of text) is shown as an escape.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def byte_size(n_bytes: int) -> str:
    """A size in the unit that reads best."""
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
