"""Rules fitted to rows whose truth is known: what is taken, what is left out, and whether the estimates are honest."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput
from snapfit.core.metrics import compute_metrics
from snapfit.core.recipe_sections import DecisionSection
from snapfit.core.rule_fitting import (
    CALIBRATION_ROWS,
    FOLDS,
    THRESHOLD_ROWS,
    FittedRule,
    HeldRows,
    check_decision,
    fit_rule,
    fold_numbers,
    metric_for_thresholds,
    sample_of,
    unfitted_rule,
)
from snapfit.core.scope import fit_centroids
from snapfit.core.scores import logits_to_scores

NAMES = ("a", "b", "c", "d")


def single_rows(n: int, *, seed: int = 0, sharpness: float = 1.0) -> HeldRows:
    """Logits, and targets that were drawn from them before they were made sharper."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2
    cumulated = logits_to_scores(logits, "single").cumsum(axis=1)
    targets = (cumulated < rng.random((n, 1))).sum(axis=1).clip(max=3)
    return HeldRows((logits * sharpness).astype(np.float32), targets)


def multi_rows(n: int, *, seed: int = 0, shift: float = 0.0) -> HeldRows:
    """Labels of which the last is rare; logits are `shift` below what they should be."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2 - np.array([0.0, 1.0, 2.0, 5.0])
    truth = (rng.random((n, 4)) < logits_to_scores(logits, "multi")).astype(np.float32)
    return HeldRows((logits - shift).astype(np.float32), truth)


def fit(rows: HeldRows, task: Any, *, metric: str | None = None, centroids: Any = None, **settings: Any) -> FittedRule:
    return fit_rule(rows, DecisionSection(**settings), task, NAMES, metric=metric, centroids=centroids)


# ---------------------------------------------------------------- calibration


def test_sharp_scores_are_calibrated_and_decisions_stay() -> None:
    rows = single_rows(2_000, sharpness=3.0)
    fitted = fit(rows, "single")
    assert fitted.report["calibration"] == "temperature"
    assert fitted.rule == DecisionRule("single", fitted.rule.temperature)
    assert fitted.rule.temperature == pytest.approx(3.0, rel=0.1)
    plain, after, expected = (fitted.report[name] for name in ("plain", "fitted", "expected"))
    assert after["nll"] < plain["nll"]
    assert after["ece"] < 0.03 < plain["ece"]
    assert expected["nll"] == pytest.approx(after["nll"], rel=0.02)
    assert {name: after[name] for name in ("accuracy", "macro_f1", "mcc")} == {
        name: plain[name] for name in ("accuracy", "macro_f1", "mcc")
    }
    assert set(fitted.report["reliability"]) == {"plain", "fitted", "expected"}
    assert sum(one["answers"] for one in fitted.report["reliability"]["plain"]) == 2_000


def test_scores_that_are_right_already_are_left_alone() -> None:
    taken = [fit(single_rows(600, seed=seed), "single").report["calibration"] for seed in range(8)]
    assert taken.count("none") >= 5  # one standard error is passed by chance now and then
    assert fit(single_rows(600), "single", calibrate=None).rule == DecisionRule("single")


def test_answers_that_were_always_right_are_not_made_certain() -> None:
    logits = np.eye(4)[np.arange(200) % 4] * 4
    fitted = fit(HeldRows(logits.astype(np.float32), np.arange(200) % 4), "single")
    assert fitted.report["calibration"] == "temperature"
    best = fitted.rule.scores(logits).max()
    assert best == pytest.approx(1.0 - 0.75 / 202, abs=1e-4)  # what is left of the doubt: its share of three labels


def test_few_rows_are_not_calibrated_unless_asked_for() -> None:
    rows = single_rows(CALIBRATION_ROWS - 1, sharpness=4.0)
    fitted = fit(rows, "single")
    assert fitted.rule == DecisionRule("single")
    assert f"{len(rows)} held-out rows" in fitted.report["why"]["calibration"]
    assert fit(rows, "single", calibrate="temperature").rule.temperature > 2.0


def test_logits_that_are_too_low_get_lines() -> None:
    fitted = fit(multi_rows(3_000, shift=2.0), "multi")
    assert fitted.report["calibration"] == "platt"
    assert fitted.rule.shifts is not None
    assert np.mean(fitted.rule.shifts[:3]) > 0.5
    assert fitted.report["expected"]["ece"] < fitted.report["plain"]["ece"] / 3
    by_temperature = fit(multi_rows(3_000, shift=2.0), "multi", calibrate="temperature")
    assert by_temperature.report["expected"]["nll"] > fitted.report["expected"]["nll"]


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("metric", ["macro_f1", "micro_f1", "weighted_f1", "subset_accuracy"])
def test_tuned_thresholds_and_honest_estimates(metric: str) -> None:
    rows, fresh = multi_rows(1_500, shift=1.5), multi_rows(20_000, seed=1, shift=1.5)
    fitted = fit(rows, "multi", metric=metric, thresholds="tuned")
    report = fitted.report
    assert (report["thresholds"], report["metric"]) == ("tuned", metric)
    assert report["plain"][metric] < report["expected"][metric] <= report["fitted"][metric] + 0.01
    measured = compute_metrics(
        "multi", fitted.rule.scores(fresh.logits), fresh.targets, thresholds=np.array(fitted.rule.thresholds)
    )
    assert measured[metric] == pytest.approx(report["expected"][metric], abs=0.03)
    assert report["rare"] == [name for name, n in zip(NAMES, rows.targets.sum(axis=0), strict=True) if n < 20]


def test_the_estimate_is_what_folds_give() -> None:
    rows = multi_rows(400, shift=1.0)
    settings = DecisionSection(calibrate=None, thresholds="tuned", threshold_metric="macro_f1")
    got = fit_rule(rows, settings, "multi", NAMES).report["expected"]["macro_f1"]
    chosen = np.zeros(rows.targets.shape, dtype=bool)
    numbers = fold_numbers(rows.targets, seed=0)
    for fold in range(FOLDS):
        held = numbers == fold
        rule = fit_rule(rows.take(~held), settings, "multi", NAMES).rule
        answers = rule.answers(rows.logits[held])
        assert answers.chosen is not None
        chosen[held] = answers.chosen
    assert got == pytest.approx(f1_score(rows.targets, chosen, average="macro"))


def test_thresholds_that_promise_nothing_are_left_out() -> None:
    """Labels that have nothing to do with the logits: tuned on noise, they would be given to every row or to none."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 4)).astype(np.float32) * 3
    truth = (logits > 0).astype(np.float32)  # 0.5 is right for every label
    fitted = fit(HeldRows(logits, truth), "multi", calibrate=None)
    assert fitted.report["thresholds"] in ("default", "tuned")
    assert fitted.report["expected"]["micro_f1"] >= 0.99
    noisy = HeldRows(logits, np.where(rng.random(truth.shape) < 0.45, 1 - truth, truth))
    best = fit(noisy, "multi", calibrate=None, thresholds="tuned", threshold_metric="subset_accuracy").report
    auto = fit(noisy, "multi", calibrate=None, threshold_metric="subset_accuracy").report
    assert auto["expected"]["subset_accuracy"] >= max(
        best["expected"]["subset_accuracy"], auto["plain"]["subset_accuracy"]
    )


def test_few_rows_keep_the_default_unless_asked_for() -> None:
    rows = multi_rows(THRESHOLD_ROWS - 1, shift=2.0)
    fitted = fit(rows, "multi", calibrate=None)
    assert fitted.rule.thresholds is None
    assert fitted.report["thresholds"] == "default"
    assert "held-out rows" in fitted.report["why"]["thresholds"]
    assert fit(rows, "multi", thresholds="tuned").rule.thresholds is not None


def test_lines_alone_change_no_decision() -> None:
    rows = multi_rows(1_000, shift=1.5)
    fitted = fit(rows, "multi", calibrate="platt", thresholds=0.5)
    default = fit_rule(rows, DecisionSection(calibrate="platt"), "multi", NAMES, metric="nll")
    few = fit(rows.take(np.arange(THRESHOLD_ROWS - 1)), "multi", calibrate="platt")
    assert few.report["thresholds"] == "default"
    chosen = few.rule.answers(rows.logits).chosen
    assert chosen is not None
    np.testing.assert_array_equal(chosen, rows.logits >= 0)
    assert default.report["thresholds"] == "tuned"
    literal = fitted.rule.answers(rows.logits).chosen
    assert literal is not None
    assert (literal != chosen).any()  # a number that is given is one of calibrated scores
    assert (fitted.report["thresholds"], fitted.rule.thresholds) == ("stated", (0.5,) * 4)


def test_stated_thresholds_and_counts() -> None:
    rows = multi_rows(300)
    assert fit(rows, "multi", thresholds=0.3).rule.thresholds == (0.3,) * 4
    fitted = fit(rows, "multi", thresholds={"b": 0.2}, min_labels=1, max_labels=2)
    assert fitted.rule.thresholds == (0.5, 0.2, 0.5, 0.5)
    assert fitted.report["thresholds"] == "stated"
    answers = fitted.rule.answers(rows.logits)
    assert answers.chosen is not None
    assert set(answers.chosen.sum(axis=1).tolist()) <= {1, 2}


def test_what_thresholds_are_tuned_for() -> None:
    assert metric_for_thresholds(DecisionSection(), "macro_f1") == "macro_f1"
    assert metric_for_thresholds(DecisionSection(), "nll") == "micro_f1"
    assert metric_for_thresholds(DecisionSection(), None) == "micro_f1"
    assert metric_for_thresholds(DecisionSection(threshold_metric="weighted_f1"), "macro_f1") == "weighted_f1"


# ---------------------------------------------------------------- who is answered


def test_a_coverage_and_a_precision() -> None:
    rows, fresh = single_rows(2_000), single_rows(20_000, seed=1)
    fitted = fit(rows, "single", abstain_coverage=0.6)
    assert fitted.report["fitted"]["coverage"] == pytest.approx(0.6, abs=0.001)
    assert (fitted.rule.answers(fresh.logits).refused == 0).mean() == pytest.approx(0.6, abs=0.03)
    fitted = fit(rows, "single", abstain_precision=0.9)
    answers = fitted.rule.answers(fresh.logits)
    answered = answers.refused == 0
    assert answers.chosen is not None
    assert (answers.chosen == fresh.targets)[answered].mean() == pytest.approx(0.9, abs=0.02)
    assert fitted.report["fitted"]["answered_accuracy"] >= 0.9
    (told,) = fitted.report["refusals"]
    assert (told["reason"], told["by"], told["target"], told["reached"]) == ("low score", "precision", 0.9, True)
    assert told["least"] == fitted.rule.least_score


def test_a_precision_that_cannot_be_reached_refuses_nothing() -> None:
    rows = single_rows(200)
    wrong = HeldRows(rows.logits, (rows.logits.argmax(axis=1) + 1) % 4)
    fitted = fit(wrong, "single", abstain_precision=0.9)
    assert fitted.rule.least_score == 0.0
    assert [one["reached"] for one in fitted.report["refusals"]] == [False]


@pytest.mark.parametrize("method", ["max_probability", "energy", "centroids"])
def test_a_share_of_what_is_in_scope_is_kept_and_the_rest_measured(method: str) -> None:
    """Vectors are the logits themselves; what is out of scope has none that stands out."""
    rng = np.random.default_rng(0)

    def drawn(n: int, seed: int) -> HeldRows:
        draw = np.random.default_rng(seed)
        targets = np.arange(n) % 4
        logits = (np.eye(4)[targets] * 6 + draw.normal(size=(n, 4))).astype(np.float32)
        return HeldRows(logits, targets, logits)

    outside = rng.normal(size=(300, 4)).astype(np.float32)
    train, rows, fresh = drawn(800, 1), drawn(1_000, 2), drawn(5_000, 3)
    centroids = fit_centroids(train.logits, train.targets, 4) if method == "centroids" else None
    both = HeldRows(
        np.concatenate([rows.logits, outside]),
        np.concatenate([rows.targets, np.full(300, -1)]),
        np.concatenate([rows.logits, outside]),
    )
    fitted = fit(both, "single", out_of_scope=method, in_scope_share=0.95, centroids=centroids)
    alone = fit(rows, "single", out_of_scope=method, in_scope_share=0.95, centroids=centroids)
    assert fitted.rule == alone.rule  # rows out of scope are measured, not fitted to
    assert fitted.report["fitted"]["coverage"] == pytest.approx(0.95, abs=0.002)
    kept = fitted.rule.answers(fresh.logits, vectors=fresh.vectors).refused == 0
    assert kept.mean() == pytest.approx(0.95, abs=0.02)
    assert fitted.report["expected"]["refusal_recall"] > 0.9
    assert (fitted.report["rows"], fitted.report["out_of_scope_rows"]) == (1_000, 300)
    assert "refusal_recall" not in alone.report["expected"]


def test_scope_and_a_low_score_together() -> None:
    rows = single_rows(1_000)
    fitted = fit(rows, "single", out_of_scope="energy", in_scope_share=0.9, abstain_coverage=0.5)
    answers = fitted.rule.answers(rows.logits)
    assert (answers.refused == 0).mean() == pytest.approx(0.5, abs=0.002)
    assert (answers.refused == 2).mean() == pytest.approx(0.1, abs=0.002)
    assert [one["reason"] for one in fitted.report["refusals"]] == ["out of scope", "low score"]
    every = fit(rows, "single", out_of_scope="energy", in_scope_share=0.9, abstain_coverage=0.95)
    assert every.rule.least_score == 0.0  # the scope keeps fewer already


# ---------------------------------------------------------------- what is refused, and the rest


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("single", {"thresholds": 0.3}, "decision.thresholds is 0.3, with the task 'single'"),
        ("single", {"min_labels": 1}, "decision.min_labels is 1"),
        ("single", {"max_labels": 1}, "decision.max_labels is 1"),
        ("single", {"threshold_metric": "micro_f1"}, "decision.threshold_metric"),
        ("single", {"calibrate": "platt"}, "one line a label"),
        ("multi", {"out_of_scope": "energy"}, "decision.out_of_scope is 'energy', with the task 'multi'"),
        ("multi", {"abstain_precision": 0.9}, "decision.abstain_precision is 0.9"),
        ("multi", {"abstain_coverage": 0.9}, "decision.abstain_coverage is 0.9"),
        ("multi", {"thresholds": {"x": 0.3}}, "names the label 'x'"),
        ("multi", {"min_labels": 5}, "with 4 labels"),
        ("regression", {"calibrate": "temperature"}, "with the task 'regression'"),
        ("regression", {"thresholds": "tuned"}, "with the task 'regression'"),
    ],
)
def test_settings_that_the_task_has_no_use_for(task: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_decision(DecisionSection(**settings), task, NAMES, n_rows=1_000)


@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("single", {"calibrate": "temperature"}),
        ("single", {"out_of_scope": "energy"}),
        ("single", {"abstain_precision": 0.9}),
        ("multi", {"thresholds": "tuned"}),
    ],
)
def test_settings_that_need_held_out_rows(task: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="with 0 held-out rows"):
        check_decision(DecisionSection(**settings), task, NAMES, n_rows=0)
    check_decision(DecisionSection(**settings), task, NAMES, n_rows=1_000)


def test_without_held_out_rows_only_what_is_stated_counts() -> None:
    settings = DecisionSection(thresholds=0.3, min_labels=1)
    assert unfitted_rule(settings, "multi", NAMES).rule == DecisionRule("multi", thresholds=(0.3,) * 4, min_labels=1)
    assert unfitted_rule(DecisionSection(), "single", NAMES, temperature=1.5).rule == DecisionRule("single", 1.5)
    assert unfitted_rule(DecisionSection(), "regression", ("x",)) == FittedRule(DecisionRule("regression"))
    assert fit_rule(HeldRows(np.zeros((3, 1)), np.zeros((3, 1))), DecisionSection(), "regression", ("x",)).report == {}
    with pytest.raises(BadInput, match="no rows in scope"):
        fit_rule(HeldRows(np.zeros((3, 4)), np.full(3, -1)), DecisionSection(), "single", NAMES)


def test_a_temperature_of_the_logits_stays_where_nothing_is_calibrated() -> None:
    fitted = fit_rule(single_rows(300), DecisionSection(calibrate=None), "single", NAMES, temperature=1.7)
    assert fitted.rule == DecisionRule("single", 1.7)


def test_few_rows_have_no_estimate() -> None:
    fitted = fit(single_rows(2 * FOLDS - 1), "single")
    assert fitted.report["expected"] is None
    assert fitted.report["fitted"] == fitted.report["plain"]


@pytest.mark.parametrize("targets", [np.arange(103) % 7, (np.arange(412).reshape(103, 4) % 5 == 0).astype(np.float32)])
def test_folds_are_alike(targets: np.ndarray) -> None:
    numbers = fold_numbers(targets, seed=3)
    assert np.bincount(numbers).tolist() == [21, 21, 21, 20, 20]
    assert np.array_equal(numbers, fold_numbers(targets, seed=3))
    assert not np.array_equal(numbers, fold_numbers(targets, seed=4))
    if targets.ndim == 1:
        counts = np.array([np.bincount(targets[numbers == fold], minlength=7) for fold in range(FOLDS)])
        assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1


def test_of_many_rows_or_labels_a_sample_is_taken() -> None:
    assert sample_of(500, 4, most_rows=1_000, seed=0) is None
    rows = sample_of(5_000, 4, most_rows=1_000, seed=0)
    assert rows is not None
    assert len(np.unique(rows)) == 1_000
    assert (np.diff(rows) > 0).all()
    wide = sample_of(65_536, 1_000, most_rows=65_536, seed=0)
    assert wide is not None
    assert len(wide) == (1 << 22) // 1_000
