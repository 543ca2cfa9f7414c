"""What an evaluation says, as lines for a person. All that comes out of a table is made printable first."""

from collections.abc import Mapping, Sequence
from typing import Any

from snapfit.cli.console import Console
from snapfit.cli.lines import aligned, printable

_MOST_LABELS = 20
_MOST_MISTAKES = 10
_MOST_SLICES = 12
_MOST_CHANGED = 10
_EXAMPLES = 2
_LABEL_WIDTH = 32
_NO_LABEL, _NO_ANSWER = "(none)", "(no answer)"


def show_evaluation(console: Console, result: Mapping[str, Any]) -> None:
    """Metrics, labels, mistakes, slices and, where there was one, the comparison."""
    console.note("data", f"{printable(result['source'])}: {result['rows']:,} rows")
    console.rows("decides", result["decides"])
    show_metrics(console, result)
    show_labels(console, result)
    show_mistakes(console, result, examples=_EXAMPLES)
    show_slices(console, result)
    if result["comparison"] is not None:
        show_comparison(console, result)


def show_metrics(console: Console, result: Mapping[str, Any]) -> None:
    """Each metric with its interval; and how many rows have no answer and why, where some have none."""
    rows = [("", "value", _interval_name(result))]
    rows += [
        (name, _number(value), _ends(result["intervals"][name], digits=4)) for name, value in result["metrics"].items()
    ]
    console.result("metrics", aligned(rows, right=[1, 2]))
    if outside := result["out_of_scope"]:
        text = f"{outside['rows']:,} rows are labelled {printable(outside['label'])}; they are right without an answer"
        console.result("no label", text)
    if unanswered := result["unanswered"]:
        answered = result["rows"] - sum(unanswered.values())
        why = ", ".join(f"{rows:,} {name}" for name, rows in unanswered.items())
        console.result("answers", f"{answered:,} of {result['rows']:,} rows have one; without: {why}")


def show_labels(console: Console, result: Mapping[str, Any]) -> None:
    """The figures of each label; of many labels those with the lowest F1."""
    labels = result["per_label"]
    if not labels:
        return
    many = len(labels) > _MOST_LABELS
    if many:
        known = [one for one in labels if one["intervals"]["f1"] is not None]
        labels = sorted(known, key=lambda one: one["f1"])[:_MOST_LABELS]
    interval = _interval_name(result)
    rows: list[tuple[str, ...]] = [("label", "precision", interval, "recall", interval, "f1", interval, "rows")]
    for one in labels:
        figures = [
            cell
            for name in ("precision", "recall", "f1")
            for cell in (_number(one[name]), _ends(one["intervals"][name]))
        ]
        rows.append((printable(one["label"], _LABEL_WIDTH), *figures, f"{one['support']:,}"))
    lines = aligned(rows, right=range(1, 8))
    if many:
        left = len(result["per_label"]) - len(labels)
        lines.append(f"these have the lowest f1; --json and --out have the other {left} labels too")
    console.rows("labels", lines)


def show_mistakes(console: Console, result: Mapping[str, Any], *, examples: int = 0) -> None:
    """The most frequent mistakes, one a line, and below each some examples."""
    mistakes = result["mistakes"][:_MOST_MISTAKES]
    if not mistakes:
        if result["per_label"]:
            console.note("mistakes", "none")
        return
    rows = [("rows", "true label", "predicted")]
    nothing = _NO_ANSWER if result["task"] == "single" else _NO_LABEL
    rows += [(f"{one['rows']:,}", _label(one["true"]), _label(one["predicted"], nothing)) for one in mistakes]
    header, *lines = aligned(rows, right=[0])
    console.note("mistakes", header)
    for one, line in zip(mistakes, lines, strict=True):
        console.note("", line)
        for example in one["examples"][:examples]:
            scores = [f"{example[name]:.2f}" for name in ("predicted_score", "true_score") if example[name] is not None]
            console.note("", f"      row {example['row']:,} ({' against '.join(scores)}): {_quoted(example)}")


def show_slices(console: Console, result: Mapping[str, Any]) -> None:
    """The slices, each beside the rest of its column; of many, those with most rows."""
    found = result["slices"]
    if not found:
        return
    rows = [("by", "slice", "rows", found[0]["metric"], _interval_name(result), "others", "")]
    hidden = 0
    for column in dict.fromkeys((one["by"], one["column"]) for one in found):
        mine = [one for one in found if (one["by"], one["column"]) == column]
        shown = sorted(mine, key=lambda one: -one["rows"])[:_MOST_SLICES]
        hidden += len(mine) - len(shown)
        for one in [one for one in mine if one in shown]:
            verdict = f"differs, p {_p(one['p_adjusted'])}" if one["differs"] else ""
            name = printable(one["column"] or "length", _LABEL_WIDTH)
            value = (_number(one["value"]), _ends(one["interval"]), _number(one["rest"]))
            rows.append((name, printable(one["slice"], _LABEL_WIDTH), f"{one['rows']:,}", *value, verdict))
    lines = aligned(rows, right=range(2, 6))
    if hidden:
        lines.append(f"and {hidden} slices with fewer rows; --json and --out have them all")
    console.rows("slices", lines)


def show_comparison(console: Console, result: Mapping[str, Any]) -> None:
    """The second bundle's metrics, the differences, and the rows and labels on which both part."""
    found = result["comparison"]
    console.note("against", printable(str(result["against"])))
    console.rows("decides", found["decides"])
    rows = [("", "this", "other", "difference", _interval_name(result))]
    for name, value in result["metrics"].items():
        difference = found["difference"][name]
        cells = (_number(value), _number(found["metrics"][name]), f"{difference['value']:+.4f}")
        rows.append((name, *cells, _ends(difference["interval"], sign="+", digits=4)))
    console.rows("", aligned(rows, right=range(1, 5)))
    answers = found["answers"]
    if result["task"] == "regression":
        text = f"this one is nearer on {answers['this_only']:,} rows, the other on {answers['other_only']:,}; "
        console.note("rows", f"{text}the sign test's p is {_p(answers['p'])}")
    else:
        text = f"{answers['both']:,} both right, {answers['neither']:,} neither, {answers['this_only']:,} only this, "
        console.note("rows", f"{text}{answers['other_only']:,} only the other; McNemar's p is {_p(answers['p'])}")
    console.note("", f"{answers['same']:,} of {result['rows']:,} rows have the same answer")
    for name, word in (("this_only", "only this"), ("other_only", "only other")):
        for i, one in enumerate(found[name]):
            both = f"this {_answer(one['this'])}, other {_answer(one['other'])}, true {_answer(one['true'])}"
            console.note(word if i == 0 else "", f"row {one['row']:,}: {both}: {_quoted(one)}")
    _show_changed(console, result)


def _show_changed(console: Console, result: Mapping[str, Any]) -> None:
    labels = [one for one in result["comparison"]["labels"] if one["gained"] or one["lost"]][:_MOST_CHANGED]
    if not labels:
        return
    rows = [("label", "f1", "other f1", "difference", _interval_name(result), "only this gives it", "only the other")]
    for one in labels:
        figures = (_number(one["f1"]), _number(one["other_f1"]), f"{one['difference']:+.4f}")
        counts = (f"{one['gained']:,}", f"{one['lost']:,}")
        rows.append((printable(one["label"], _LABEL_WIDTH), *figures, _ends(one["interval"], sign="+"), *counts))
    console.rows("changed", aligned(rows, right=range(1, 7)))


def _interval_name(result: Mapping[str, Any]) -> str:
    return f"{100 * result['confidence']:g} % interval"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ends(interval: Sequence[float] | None, *, sign: str = "", digits: int = 3) -> str:
    return "" if interval is None else f"{interval[0]:{sign}.{digits}f} to {interval[1]:{sign}.{digits}f}"


def _p(p: float | None) -> str:
    return "unknown" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _label(label: str | None, nothing: str = _NO_LABEL) -> str:
    return nothing if label is None else printable(label, _LABEL_WIDTH)


def _answer(answer: Any) -> str:
    """A decision, or a truth, of any task."""
    if isinstance(answer, float):
        return f"{answer:.4g}"
    if isinstance(answer, list):
        return printable(", ".join(answer), 60) or _NO_LABEL
    return _label(answer, _NO_ANSWER)


def _quoted(example: Mapping[str, Any]) -> str:
    """The texts of a row."""
    if "pair" not in example:
        return printable(example["text"])
    return f"{printable(example['text'], 50)} | {printable(example['pair'], 50)}"
