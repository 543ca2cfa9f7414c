"""A bundle's decision rule: what snapfit.json says of it beyond temperature and thresholds, checked, and read.

slopes, shifts           one a label: scores of many labels, made better probabilities label by label
min_labels, max_labels   how many labels a text gets
least_score              answers with a lower score are not given
scope                    {method, least}: texts below it are not answered; `centroids` has a file of its own
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task
from snapfit.core.scope import METHODS, Centroids

CENTROIDS_FILE = "centroids.safetensors"
_LISTS, _COUNTS = ("slopes", "shifts"), ("min_labels", "max_labels")
EXPECTED = (
    "null, or an object with some of slopes, shifts (a number a label), min_labels, max_labels (whole numbers), "
    f"least_score (a number) and scope (method: {', '.join(METHODS)}; least: a number)"
)


def is_decision(value: Any) -> bool:
    """Whether this is what a rule has beyond temperature and thresholds, each part by itself; None is nothing."""
    if value is None:
        return True
    known = {*_LISTS, *_COUNTS, "least_score", "scope"}
    if not isinstance(value, dict) or not value or not value.keys() <= known:
        return False
    numbers = [one for name in _LISTS if name in value for one in (value[name] if _is_list(value[name]) else [None])]
    numbers += [value["least_score"]] if "least_score" in value else []
    scope = value.get("scope", {"method": METHODS[0], "least": 0.0})
    if not isinstance(scope, dict) or scope.keys() != {"method", "least"} or scope["method"] not in METHODS:
        return False
    return all(map(_is_number, [*numbers, scope["least"]])) and all(
        type(value[name]) is int for name in _COUNTS if name in value
    )


def split_rule(rule: DecisionRule) -> dict[str, Any]:
    """Fields of a bundle that say a rule: temperature, thresholds, decision (None where there is nothing else)."""
    values = rule.to_dict()
    temperature, thresholds = values.pop("temperature", 1.0), values.pop("thresholds", None)
    return {"temperature": temperature, "thresholds": thresholds, "decision": values or None}


def told_in_bundle(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle says of the report on its rule: all but the tables for plots."""
    return {name: value for name, value in report.items() if name != "reliability"}


def joined_rule(
    task: Task,
    temperature: float,
    thresholds: list[float] | None,
    decision: Mapping[str, Any] | None,
    *,
    centroids: Centroids | None = None,
) -> DecisionRule:
    """The rule that such fields say. Raises BadInput where they do not fit together."""
    values: dict[str, Any] = {"temperature": float(temperature), **(decision or {})}
    if thresholds is not None:
        values["thresholds"] = thresholds
    return DecisionRule.from_dict(task, values, centroids=centroids)


def needs_centroids(decision: Mapping[str, Any] | None) -> bool:
    """Whether a bundle with such a decision has a file of centroids."""
    return ((decision or {}).get("scope") or {}).get("method") == "centroids"


def read_centroids(folder: Path) -> Centroids:
    """A bundle's centroids. Raises BadInput when the file is missing or damaged."""
    path = folder / CENTROIDS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "the centroids of the bundle", "copy it again") from error
    return Centroids.of_tensors(tensors, source=str(path))


def write_centroids(folder: Path, rule: DecisionRule) -> None:
    """The file that a rule with centroids needs, and none for another. Raises WorkFailed when it cannot be written."""
    if rule.scope is None or rule.scope.centroids is None:
        return
    tensors = {name: np.ascontiguousarray(one) for name, one in rule.scope.centroids.tensors().items()}
    try:
        save_file(tensors, folder / CENTROIDS_FILE)
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"could not write {folder / CENTROIDS_FILE}: {error}") from error


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
