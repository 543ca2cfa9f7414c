"""A decision rule and what is known about it, in words: lines for the console, the model card and everyone else."""

from collections.abc import Mapping, Sequence
from typing import Any

from snapfit.core.labels import Task

_SHOWN = 8
_CALIBRATIONS = {
    "none": "scores are as they come",
    "temperature": "scores are at temperature {0:.3g}",
    "platt": "each label's score has a line of its own, after temperature {0:.3g}",
}
_LIKENESS = {
    "max_probability": "the highest score is below {0:.4g}",
    "energy": "the energy is below {0:.4g}",
    "centroids": "the squared distance to the nearest class is above {1:.4g}",
}


def rule_lines(task: Task, rule: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    """How answers are made, and how good that is.

    rule: what `DecisionRule.to_dict` gives. report: what `FittedRule` holds; may be empty.
    """
    if task == "regression":
        return []
    lines = [*(_single(rule) if task == "single" else _multi(rule, report))]
    lines[0] += f"; {_calibration(rule)}"
    if "fitted" in report:
        lines += _calibration_figures(report)
        lines += _threshold_figures(report) if task == "multi" else _refusal_figures(report)
    return lines


def _calibration(rule: Mapping[str, Any]) -> str:
    temperature = rule.get("temperature", 1.0)
    method = "platt" if "slopes" in rule else "none" if temperature == 1.0 else "temperature"
    return _CALIBRATIONS[method].format(temperature)


def _single(rule: Mapping[str, Any]) -> list[str]:
    lines = ["the label with the highest score"]
    if scope := rule.get("scope"):
        lines.append(
            f"no answer (out of scope) where {_LIKENESS[scope['method']].format(scope['least'], -scope['least'])}"
        )
    if rule.get("least_score"):
        lines.append(f"no answer (low score) where the highest score is below {rule['least_score']:.4g}")
    return lines


def _multi(rule: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    limits = rule.get("thresholds")
    if limits is None:
        what = "reaches 0.5"
    elif report.get("thresholds") == "default":
        what = f"reaches what 0.5 was before calibration, {min(limits):.3g} to {max(limits):.3g}"
    elif min(limits) == max(limits):
        what = f"reaches {limits[0]:.3g}"
    else:
        what = f"reaches the label's threshold, {min(limits):.3g} to {max(limits):.3g}"
    tuned = f", tuned for {report['metric']}" if report.get("thresholds") == "tuned" else ""
    lines = [f"every label whose score {what}{tuned}"]
    least, most = rule.get("min_labels", 0), rule.get("max_labels")
    if least or most is not None:
        counts = [f"at least {least}"] if least else []
        counts += [f"at most {most}"] if most is not None else []
        lines.append(f"{' and '.join(counts)} a text, the likeliest first")
    return lines


def _calibration_figures(report: Mapping[str, Any]) -> list[str]:
    plain, fitted, expected = report["plain"], report["fitted"], report["expected"]
    rows = f"{report['rows']:,} held-out rows"
    if report["calibration"] == "none":
        return [f"not calibrated ({report['why']['calibration']}); ece {plain['ece']:.4f} on {rows}"]
    figures = ", ".join(f"{name} {plain[name]:.4f} -> {fitted[name]:.4f}" for name in ("nll", "ece"))
    told = "" if expected is None else f"; cross-fitted {expected['nll']:.4f} and {expected['ece']:.4f}"
    return [f"calibrated on {rows}: {figures}{told}"]


def _threshold_figures(report: Mapping[str, Any]) -> list[str]:
    metric, expected = report["metric"], report["expected"]
    if metric is None:
        return [f"thresholds are not tuned: {report['why']['thresholds']}"]
    to_expect = "" if expected is None else f", {expected[metric]:.4f} to expect (cross-fitted)"
    lines = [f"{metric} {report['plain'][metric]:.4f} with 0.5, {report['fitted'][metric]:.4f} tuned{to_expect}"]
    if rare := report["rare"]:
        lines.append(f"with few rows, and so drawn towards the common threshold: {_listed(rare)}")
    return lines


def _refusal_figures(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for one in report["refusals"]:
        if not one["reached"]:
            lines.append(f"a {one['by']} of {one['target']:g} cannot be reached: every row is answered")
    figures = report["expected"] or report["fitted"]
    if report["refusals"]:
        shown = [f"{name} {figures[name]:.4f}" for name in _REFUSAL_METRICS if name in figures]
        how = "cross-fitted" if report["expected"] else "on the rows it was fitted to"
        lines.append(f"{', '.join(shown)} ({how})")
    return lines


_REFUSAL_METRICS = ("accuracy", "coverage", "answered_accuracy", "refusal_recall", "refusal_precision")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
