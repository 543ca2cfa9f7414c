"""Rules in words: every part that is there is told, and nothing that is not."""

from typing import Any

import numpy as np
import pytest

from snapfit.core.decisions import DecisionRule, Scope
from snapfit.core.recipe_sections import DecisionSection
from snapfit.core.rule_fitting import HeldRows, fit_rule
from snapfit.core.rule_words import rule_lines

NAMES = tuple("abcdefghijkl")


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        (DecisionRule("regression"), []),
        (DecisionRule("single"), ["the label with the highest score; scores are as they come"]),
        (
            DecisionRule("single", 0.7096, least_score=0.62, scope=Scope("energy", 4.3125)),
            [
                "the label with the highest score; scores are at temperature 0.71",
                "no answer (out of scope) where the energy is below 4.312",
                "no answer (low score) where the highest score is below 0.62",
            ],
        ),
        (DecisionRule("multi"), ["every label whose score reaches 0.5; scores are as they come"]),
        (
            DecisionRule("multi", thresholds=(0.3, 0.3), min_labels=1, max_labels=2),
            [
                "every label whose score reaches 0.3; scores are as they come",
                "at least 1 and at most 2 a text, the likeliest first",
            ],
        ),
        (
            DecisionRule("multi", 1.5, (1.0, 2.0), (0.0, 1.0), (0.1234, 0.5)),
            [
                "every label whose score reaches the label's threshold, 0.123 to 0.5; "
                "each label's score has a line of its own, after temperature 1.5"
            ],
        ),
    ],
)
def test_rules_alone(rule: DecisionRule, lines: list[str]) -> None:
    assert rule_lines(rule.task, rule.to_dict(), {}) == lines
    assert rule_lines(rule.task, rule.to_dict(), {"rows": 0}) == lines


def told(task: Any, n: int = 400, **settings: Any) -> str:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 12)) * 3
    targets: np.ndarray = (logits + rng.normal(size=(n, 12)) * 2).argmax(axis=1)
    if task == "multi":
        targets = (logits + rng.normal(size=(n, 12)) * 2 > np.linspace(2, 8, 12)).astype(np.float32)
    fitted = fit_rule(HeldRows(logits, targets), DecisionSection(**settings), task, NAMES)
    return "\n".join(rule_lines(task, fitted.rule.to_dict(), fitted.report))


def test_figures_of_a_single_label() -> None:
    text = told("single", calibrate="temperature", abstain_coverage=0.8)
    assert "calibrated on 400 held-out rows: nll " in text
    assert "cross-fitted" in text
    assert "coverage 0." in text
    assert "not calibrated (as asked for); ece" in told("single", calibrate=None)
    assert "a precision of 0.999 cannot be reached: every row is answered" in told("single", abstain_precision=0.999)


def test_figures_of_many_labels() -> None:
    assert "reaches what 0.5 was before calibration, 0." in told("multi", n=60, calibrate="platt")
    text = told("multi", thresholds="tuned", threshold_metric="macro_f1")
    assert "tuned for macro_f1" in text
    assert " with 0.5, " in text
    assert "to expect (cross-fitted)" in text
    assert "drawn towards the common threshold: " in text
    assert "thresholds are not tuned: as asked for" in told("multi", thresholds=0.4)
    assert "and 1 more" in told("multi", n=60, thresholds="tuned") or "drawn" in told("multi", n=60, thresholds="tuned")
