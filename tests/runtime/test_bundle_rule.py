"""Decision rules of bundles: there and back, told from what older formats hold, and refused where they cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapfit.core.decisions import DecisionRule, Scope
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.files import write_bytes_atomic
from snapfit.core.folders import write_manifest
from snapfit.core.scope import fit_centroids
from snapfit.runtime.bundle import Bundle, BundleInfo
from snapfit.runtime.bundle_rule import CENTROIDS_FILE, is_decision, split_rule, told_in_bundle, write_centroids
from tiny_bundle import tiny_info, write_tiny_bundle

CENTROIDS = fit_centroids(np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), np.arange(30) % 3, 3)
RULES = [
    DecisionRule("single"),
    DecisionRule("single", 0.7),
    DecisionRule("single", 0.7, least_score=0.4, scope=Scope("energy", -1.5)),
    DecisionRule("single", scope=Scope("centroids", -9.0, CENTROIDS)),
    DecisionRule("multi", thresholds=(0.25, 0.5, 1.0)),
    DecisionRule("multi", 2.0, (1.0, 0.5, 2.0), (0.0, -1.0, 1.0), (0.25, 0.5, 1.0), 1, 2),
    DecisionRule("multi", max_labels=1),
    DecisionRule("regression"),
]


def fields_of(rule: DecisionRule) -> dict[str, Any]:
    fields = split_rule(rule)
    return {**fields, "format_version": 3 if fields["decision"] else 1}


def write(folder: Path, rule: DecisionRule) -> Path:
    write_tiny_bundle(folder, rule.task, **fields_of(rule))
    write_centroids(folder, rule)
    write_manifest(folder)
    return folder


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_survives_a_bundle(tmp_path: Path, rule: DecisionRule) -> None:
    opened = Bundle.open(write(tmp_path / "bundle", rule))
    again = opened.rule()
    assert again == rule
    assert (tmp_path / "bundle" / CENTROIDS_FILE).exists() is rule.needs_vectors
    if rule.scope is not None and rule.scope.centroids is not None:
        assert again.scope is not None
        assert again.scope.centroids is not None
        vectors = np.random.default_rng(1).normal(size=(4, 5))
        np.testing.assert_array_equal(again.scope.centroids.alike(vectors), CENTROIDS.alike(vectors))
    assert (
        DecisionRule.from_dict(rule.task, opened.info.rule_values, centroids=again.scope and again.scope.centroids)
        == rule
    )


def test_what_an_older_snapfit_would_do_right_is_written_as_it_was() -> None:
    for rule in (RULES[0], RULES[1], RULES[4], RULES[7]):
        values = tiny_info(rule.task, **fields_of(rule)).to_dict()
        assert values["format_version"] == 1
        assert not {"decision", "decided"} & values.keys()
    for rule in (RULES[2], RULES[3], RULES[5], RULES[6]):
        assert tiny_info(rule.task, **fields_of(rule)).to_dict()["format_version"] == 3


def test_what_is_known_about_a_rule_is_kept_but_for_tables() -> None:
    report = {"rows": 9, "plain": {"nll": 1.0}, "reliability": {"plain": [{"from": 0.0}]}}
    info = tiny_info(decided=told_in_bundle(report))
    assert info.decided == {"rows": 9, "plain": {"nll": 1.0}}
    assert BundleInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "energy",
        {"slope": [1.0]},
        {"slopes": 1.0},
        {"slopes": []},
        {"slopes": ["1", 1, 1]},
        {"slopes": [True, 1, 1]},
        {"shifts": [float("nan"), 0, 0]},
        {"min_labels": 1.5},
        {"max_labels": True},
        {"least_score": "0.5"},
        {"least_score": float("inf")},
        {"scope": "energy"},
        {"scope": {"method": "energy"}},
        {"scope": {"method": "energi", "least": 0.0}},
        {"scope": {"method": "energy", "least": None}},
        {"scope": {"method": "energy", "least": 0.0, "more": 1}},
    ],
)
def test_decisions_that_cannot_be(value: Any) -> None:
    assert not is_decision(value)
    with pytest.raises(BadInput, match="decision: "):
        tiny_info("single", decision=value, format_version=3)


@pytest.mark.parametrize(
    ("task", "decision"),
    [
        ("single", {"min_labels": 1}),
        ("single", {"slopes": [1.0, 1.0, 1.0], "shifts": [0.0, 0.0, 0.0]}),
        ("single", {"least_score": 1.5}),
        ("multi", {"least_score": 0.5}),
        ("multi", {"scope": {"method": "energy", "least": 0.0}}),
        ("regression", {"scope": {"method": "centroids", "least": 0.0}}),
        ("multi", {"slopes": [1.0, 1.0, 1.0]}),
        ("multi", {"slopes": [1.0, 1.0], "shifts": [0.0, 0.0]}),
        ("multi", {"slopes": [1.0, 1.0, -1.0], "shifts": [0.0, 0.0, 0.0]}),
        ("multi", {"min_labels": 2, "max_labels": 1}),
        ("multi", {"max_labels": 0}),
    ],
)
def test_decisions_that_do_not_fit_the_bundle(task: str, decision: dict[str, Any]) -> None:
    assert is_decision(decision)
    with pytest.raises(BadInput, match=r"decision: .* in snapfit\.json"):
        tiny_info(task, decision=decision, format_version=3)


@pytest.mark.parametrize("version", [1, 2])
def test_the_format_says_that_there_is_a_decision(version: int) -> None:
    with pytest.raises(BadInput, match="format_version"):
        tiny_info("multi", decision={"max_labels": 1}, format_version=version)
    with pytest.raises(BadInput, match="format_version"):
        tiny_info("multi", format_version=3)


def test_centroids_that_are_missing_or_damaged(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle", RULES[3])
    whole = (folder / CENTROIDS_FILE).read_bytes()
    (folder / CENTROIDS_FILE).unlink()
    write_manifest(folder)
    with pytest.raises(BadInput, match=r"has no centroids\.safetensors"):
        Bundle.open(folder)
    write_bytes_atomic(folder / CENTROIDS_FILE, whole[:-8])
    write_manifest(folder)
    with pytest.raises(BadInput, match="cannot be read"):
        Bundle.open(folder).rule()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="could not write"):
        write_centroids(tmp_path / "missing", RULES[3])
