"""Temperatures and lines against searches by other means, calibration errors against hand-made bins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from sklearn.metrics import log_loss

from snapfit.core.calibration import (
    COLDEST,
    HOTTEST,
    PRIOR,
    Reliability,
    calibration_error,
    doubt_of,
    fit_lines,
    fit_temperature,
)
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores


def drawn(seed: int, task: str, *, rows: int = 400, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets that were drawn from them at temperature 1 before they were made sharper."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 4)) * 2
    if task == "single":
        cumulated = logits_to_scores(logits, "single").cumsum(axis=1)
        targets = (cumulated < rng.random((rows, 1))).sum(axis=1).clip(max=3)
    else:
        targets = (rng.random((rows, 4)) < logits_to_scores(logits, "multi")).astype(np.int64)
    return logits * sharpness, targets


def nll(logits: np.ndarray, targets: np.ndarray, task: str, temperature: float) -> float:
    scores = logits_to_scores(logits, task, temperature)  # type: ignore[arg-type]
    if task == "single":
        return float(log_loss(targets, scores, labels=range(4)))
    return float(np.mean([log_loss(targets[:, i], scores[:, i], labels=[0, 1]) for i in range(4)]))


@pytest.mark.parametrize("task", ["single", "multi"])
@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 8.0])
def test_the_temperature_is_where_the_loss_is_least(task: str, sharpness: float) -> None:
    logits, targets = drawn(3, task, sharpness=sharpness)
    found = fit_temperature(logits, targets, task)  # type: ignore[arg-type]
    reference = minimize_scalar(
        lambda log_t: nll(logits, targets, task, float(np.exp(log_t))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert found == pytest.approx(np.exp(reference.x), rel=1e-4)
    assert found == pytest.approx(sharpness, rel=0.25)  # which is how the logits were made


@pytest.mark.parametrize("task", ["single", "multi"])
def test_what_is_always_right_is_as_cold_as_allowed_and_what_is_always_wrong_as_hot(task: str) -> None:
    logits = np.eye(4)[[0, 1, 2, 3, 0]] * 2 - 1
    right = np.array([0, 1, 2, 3, 0]) if task == "single" else (logits > 0).astype(np.int64)
    wrong = (right + 1) % 4 if task == "single" else 1 - right
    assert fit_temperature(logits, right, task) == pytest.approx(COLDEST, rel=1e-3)  # type: ignore[arg-type]
    assert fit_temperature(logits, wrong, task) == pytest.approx(HOTTEST, rel=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["single", "multi"])
def test_doubt_spreads_a_part_of_each_target(task: str) -> None:
    logits, targets = drawn(5, task, sharpness=2.0)

    def loss(log_t: float) -> float:
        scores = logits_to_scores(logits, task, float(np.exp(log_t)))  # type: ignore[arg-type]
        if task == "single":
            spread = 0.9 * np.eye(4)[targets] + 0.1 / 4
            return float(-(spread * np.log(scores)).sum(axis=1).mean())
        spread = 0.9 * targets + 0.1 * (1 - targets)
        return float(-(spread * np.log(scores) + (1 - spread) * np.log(1 - scores)).mean())

    reference = minimize_scalar(loss, bounds=(-2, 3), method="bounded", options={"xatol": 1e-9})
    got = fit_temperature(logits, targets, task, doubt=0.1)  # type: ignore[arg-type]
    assert got == pytest.approx(np.exp(reference.x), rel=1e-4)
    assert doubt_of(np.zeros((3, 4))) == 1 / 14


def test_logits_that_say_nothing_and_regressions_keep_temperature_one() -> None:
    assert fit_temperature(np.zeros((5, 3)), np.arange(5) % 3, "single") == 1.0
    assert fit_temperature(np.zeros((5, 3)), np.ones((5, 3)), "multi") == 1.0
    assert fit_temperature(np.ones((5, 1)), np.ones((5, 1)), "regression") == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["single", "multi"]), st.floats(0.3, 5.0), st.integers(1, 40))
def test_no_other_temperature_is_better_and_decisions_stay(seed: int, task: str, sharpness: float, rows: int) -> None:
    logits, targets = drawn(seed, task, rows=rows, sharpness=sharpness)
    found = fit_temperature(logits, targets, task)  # type: ignore[arg-type]
    assert COLDEST <= found <= HOTTEST
    least = nll(logits, targets, task, found)
    for other in (COLDEST, found * 0.9, found * 1.1, 1.0, HOTTEST):
        assert least <= nll(logits, targets, task, min(max(other, COLDEST), HOTTEST)) + 1e-9
    if task == "single":
        scores = logits_to_scores(logits, "single", found)
        assert np.array_equal(scores.argmax(axis=1), logits.argmax(axis=1))


def test_calibration_error_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65], [0.4, 0.6]])
    targets = np.array([0, 1, 1, 1])
    # two bins: every confidence is in the upper one, their mean is 0.7375, 3 of 4 are right
    assert calibration_error(scores, targets, "single", bins=2) == pytest.approx(0.75 - 0.7375)
    # five bins: [0.6, 0.8) holds 0.65 and 0.6, both right; [0.8, 1] holds 0.9 and 0.8, one right
    assert calibration_error(scores, targets, "single", bins=5) == pytest.approx((0.75 + 0.7) / 4)
    many = np.array([[0.1, 0.9], [0.3, 0.7]])
    truth = np.array([[0, 1], [1, 1]])
    assert calibration_error(many, truth, "multi", bins=2) == pytest.approx((0.6 + 0.4) / 4)
    assert calibration_error(many, truth, "regression") is None


@pytest.mark.parametrize("task", ["single", "multi"])
def test_scores_that_were_drawn_from_are_calibrated_and_sharper_ones_are_not(task: str) -> None:
    logits, targets = drawn(1, task, rows=20_000)
    errors = [
        calibration_error(logits_to_scores(logits, task, 1 / s), targets, task)  # type: ignore[arg-type]
        for s in (1, 3)
    ]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] < 0.01 < 0.05 < errors[1]
    assert calibration_error(np.ones((3, 1)), np.zeros(3, dtype=int), "single") == 0.0


@pytest.mark.parametrize("function", [fit_temperature, calibration_error])
def test_shapes_that_do_not_fit(function: object) -> None:
    for values, targets, task in (
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "single"),
        (np.zeros((3, 3)), np.zeros(2, dtype=int), "single"),
        (np.zeros((3, 3)), np.zeros(3, dtype=int), "multi"),
        (np.zeros(3), np.zeros(3, dtype=int), "single"),
    ):
        with pytest.raises(BadInput, match="of shape"):
            function(values, targets, task)  # type: ignore[operator]


# ---------------------------------------------------------------- lines


def test_lines_are_logistic_regressions_beside_a_prior() -> None:
    logits, targets = drawn(2, "multi", rows=600, sharpness=2.0)
    logits = logits - np.array([2.0, 0.0, -1.0, 0.0])
    made = fit_lines(logits, targets, 2.0)
    for label in range(4):
        x, y = logits[:, label] / 2.0, targets[:, label]

        def loss(line: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            values = x * line[0] + line[1]
            nll = np.logaddexp(0.0, np.where(y > 0, -values, values)).sum()
            return float(nll + PRIOR / 2 * ((line[0] - 1) ** 2 + line[1] ** 2))

        reference = minimize(loss, [1.0, 0.0], method="BFGS", options={"gtol": 1e-8})
        assert [made.slopes[label], made.shifts[label]] == pytest.approx(reference.x.tolist(), abs=1e-4)


def test_a_label_without_rows_stays_near_the_common_temperature_and_slopes_stay_above_0() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 2)) - 4.0
    targets = np.zeros((12, 2))
    made = fit_lines(logits, targets, 1.0)
    assert np.abs(made.slopes - 1.0).max() < 0.2
    assert np.abs(made.shifts).max() < 0.2
    against = fit_lines(np.linspace(-3, 3, 400)[:, None], (np.linspace(-3, 3, 400) < 0).astype(float)[:, None], 1.0)
    assert against.slopes[0] > 0


def test_reliability_by_hand_and_in_parts() -> None:
    confidence, right = np.array([0.05, 0.12, 0.9, 0.95, 1.0]), np.array([False, True, True, False, True])
    whole, parts = Reliability(10), Reliability(10)
    whole.add(confidence, right)
    for part in ([0], [], [1, 2], [3, 4]):
        parts.add(confidence[part], right[part])
    assert whole.table() == parts.table()
    assert [(one["from"], one["to"], one["answers"]) for one in whole.table()] == [
        (0, 0.1, 1),
        (0.1, 0.2, 1),
        (0.9, 1, 3),
    ]
    assert whole.table()[2]["confidence"] == pytest.approx(0.95)
    assert whole.table()[2]["right"] == pytest.approx(2 / 3)
    assert whole.error == pytest.approx((0.05 + 0.88 + 0.85) / 5)
    assert Reliability().error == 0.0
    assert Reliability().table() == []
