"""Means of scores, the greedy selection and the rule that chooses: closed forms, what always holds, every branch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from snapfit.core.combining import (
    Candidate,
    Model,
    Quality,
    as_logits,
    best_of,
    choose,
    combine,
    cross_fitted,
    greedy_picks,
    make_candidates,
    measure,
    merge_picks,
    row_errors,
    scores_of,
)
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores

METRIC = {"single": "accuracy", "multi": "micro_f1", "regression": "rmse"}
TASKS = tuple(METRIC)


def problem(task: str, *, rows: int = 300, models: int = 4, noise: float = 2.0, seed: int = 0) -> tuple[Any, Any]:
    """Models that each see the truth through noise of their own, and the truth."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        targets = rng.normal(size=(rows, 1))
        logits = [targets + rng.normal(size=(rows, 1)) * noise / 4 for _ in range(models)]
    elif task == "single":
        targets = rng.integers(0, 5, rows)
        logits = [3 * np.eye(5)[targets] + rng.normal(size=(rows, 5)) * noise for _ in range(models)]
    else:
        targets = (rng.random((rows, 3)) < 0.4).astype(np.int64)
        logits = [3 * (targets - 0.5) + rng.normal(size=(rows, 3)) * noise for _ in range(models)]
    return [Model(f"m{i}", one, 100 + i) for i, one in enumerate(logits)], targets


# ---------------------------------------------------------------- scores of several


def test_one_model_answers_as_it_would_alone() -> None:
    (model, *_), _ = problem("single")
    assert np.array_equal(combine([model.logits], [2.0], "single", 1.0), logits_to_scores(model.logits, "single", 2.0))


@pytest.mark.parametrize("task", ["single", "multi"])
def test_a_mean_is_of_scores_and_its_temperature_works_on_their_logits(task: Any) -> None:
    models, _ = problem(task, models=2)
    parts = [one.logits for one in models]
    mean = (logits_to_scores(parts[0], task, 1.5) + logits_to_scores(parts[1], task, 0.5)) / 2
    assert combine(parts, [1.5, 0.5], task, 1.0) == pytest.approx(mean)
    powers = mean ** (1 / 3)
    odds = powers / (1 - mean) ** (1 / 3)
    wanted = powers / powers.sum(axis=1, keepdims=True) if task == "single" else odds / (1 + odds)
    assert combine(parts, [1.5, 0.5], task, 3.0) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_shares_do_what_repeated_picks_do(task: Any) -> None:
    models, _ = problem(task)
    parts, heat, picks = [one.logits for one in models], [1.5, 0.5, 2.0, 1.0], (2, 0, 2, 3, 2)
    wanted = combine([parts[i] for i in picks], [heat[i] for i in picks], task, 1.7)
    once, shares = merge_picks(picks)
    assert (once, shares) == ([2, 0, 3], [0.6, 0.2, 0.2])
    for scale in (1.0, 5.0):  # only their ratios count
        got = combine(
            [parts[i] for i in once], [heat[i] for i in once], task, 1.7, shares=[scale * share for share in shares]
        )
        assert got == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(ValueError):  # noqa: PT011
        combine(parts, heat, task, 1.0, shares=[0.5, 0.5])


@pytest.mark.parametrize("task", ["single", "multi"])
def test_logits_of_scores_have_those_scores(task: Any) -> None:
    scores = logits_to_scores(problem(task)[0][0].logits, task)
    assert logits_to_scores(as_logits(scores, task), task) == pytest.approx(scores, abs=1e-12)
    assert np.isfinite(as_logits(np.array([[0.0, 1.0]]), task)).all()


@pytest.mark.parametrize("task", TASKS)
def test_errors_and_metrics_are_those_of_scikit_learn(task: Any) -> None:
    models, targets = problem(task)
    scores = logits_to_scores(models[0].logits, task)
    quality = measure(scores, targets, task, METRIC[task])
    assert row_errors(scores, targets, task).mean() == pytest.approx(quality.error)
    if task == "regression":
        assert quality.error == pytest.approx(quality.metrics["rmse"] ** 2)
        assert quality.calibration is None
    else:
        assert quality.error == pytest.approx(quality.metrics["nll"])
    if task == "single":
        assert quality.metric == accuracy_score(targets, scores.argmax(axis=1))
        assert quality.error == pytest.approx(log_loss(targets, scores))


@pytest.mark.parametrize("task", TASKS)
def test_the_error_of_a_mean_is_at_most_the_mean_of_errors(task: Any) -> None:
    """Jensen's inequality, row by row and whatever the models."""
    models, targets = problem(task, seed=5)
    parts = [logits_to_scores(one.logits, task) for one in models]
    mean = combine([one.logits for one in models], [1.0] * len(models), task, 1.0)
    each = np.mean([row_errors(one, targets, task) for one in parts], axis=0)
    assert (row_errors(mean, targets, task) <= each + 1e-12).all()


# ---------------------------------------------------------------- greedy selection


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_greedy_selection_is_never_worse_than_the_best_model(task: Any, seed: int) -> None:
    models, targets = problem(task, seed=seed)
    scores = [logits_to_scores(one.logits, task) for one in models]
    picks = greedy_picks(scores, targets, task, METRIC[task])
    found = [measure(one, targets, task, METRIC[task]) for one in scores]
    best = found[best_of(found, METRIC[task], len(targets))]
    chosen = measure(np.mean([scores[i] for i in picks], axis=0), targets, task, METRIC[task])
    better = chosen.metric <= best.metric if task == "regression" else chosen.metric >= best.metric
    assert better
    assert chosen.error < best.error
    assert len(set(picks)) > 1


def test_a_model_that_others_only_harm_is_picked_alone() -> None:
    targets = np.arange(6) % 3
    right = logits_to_scores(np.eye(3)[targets] * 9, "single")
    wrong = logits_to_scores(np.eye(3)[(targets + 1) % 3] * 9, "single")
    assert greedy_picks([wrong, right, wrong], targets, "single", "accuracy") == [1]


def test_a_helpful_model_is_picked_again() -> None:
    """The likelihood (0.6 + 0.3 w) (0.9 - 0.35 w) of a mean with share w of the first model is highest at w = 2 / 7."""
    first, second = (np.array([[right, 1 - right] for right in of]) for of in ((0.9, 0.55), (0.6, 0.9)))
    picks = greedy_picks([first, second], np.array([0, 0]), "single", "accuracy")
    assert picks == [1, 0, 1, 1]


# ---------------------------------------------------------------- the best of several


def quality(metric: float, error: float) -> Quality:
    return Quality(metric, error, None, {})


def test_of_metrics_that_differ_by_chance_the_least_error_decides() -> None:
    """At 0.9 a standard error over 900 rows is 0.01."""
    found = [quality(0.900, 0.30), quality(0.891, 0.25), quality(0.889, 0.20), quality(0.5, 0.1)]
    assert best_of(found, "accuracy", 900) == 1
    assert best_of(found, "accuracy", 90_000) == 0
    assert best_of(found, "accuracy", 700) == 2
    assert best_of([quality(float("nan"), 0.1), *found], "accuracy", 900) == 2
    assert best_of([quality(float("nan"), 0.1)], "accuracy", 900) == 0
    assert best_of([found[0], found[0]], "accuracy", 900) == 0


def test_without_a_standard_error_the_best_value_decides() -> None:
    found = [quality(0.31, 0.30), quality(0.30, 0.35), quality(0.30, 0.32)]
    assert best_of(found, "rmse", 10) == 2
    assert best_of([quality(-0.2, 0.1), quality(-0.1, 0.3)], "pearson", 10) == 1


# ---------------------------------------------------------------- the rule


def test_candidates_are_few_and_say_what_they_cost() -> None:
    models, targets = problem("single")
    models.append(Model("soup", models[0].logits, 50, single=False))
    made = {one.name: one for one in make_candidates(models, targets, "single", "accuracy")}
    assert {"m0", "m1", "m2", "m3", "soup", "mean of all"} <= set(made) <= {*(m.name for m in models), *made}
    assert (made["mean of all"].picks, made["mean of all"].cost, made["mean of all"].bytes) == ((0, 1, 2, 3), 4, 406)
    assert (made["soup"].cost, made["soup"].bytes, made["soup"].is_mean) == (1, 50, False)
    with pytest.raises(BadInput, match="no models"):
        make_candidates([], targets, "single", "accuracy")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_never_worse_than_the_best_single_model(task: Any, seed: int) -> None:
    models, targets = problem(task, seed=seed, rows=120)
    made = make_candidates(models, targets, task, METRIC[task])
    choice = choose(made, models, targets, task, METRIC[task])
    chosen, single = (
        measure(scores_of(made[i], models, task), targets, task, METRIC[task])
        for i in (choice.chosen, choice.best_single)
    )
    assert (chosen.metric <= single.metric) if task == "regression" else (chosen.metric >= single.metric)
    assert chosen.error <= single.error + 1e-12
    assert not made[choice.best_single].is_mean


def chosen_of(models: list[Model], targets: np.ndarray) -> tuple[str, str]:
    made = make_candidates(models, targets, "single", "accuracy")
    choice = choose(made, models, targets, "single", "accuracy")
    return made[choice.chosen].name, choice.rule


def test_means_of_models_with_errors_of_their_own_are_chosen() -> None:
    models, targets = problem("single", rows=2_000)
    name, rule = chosen_of(models, targets)
    assert name in ("mean of all", "greedy selection")
    assert rule.startswith(("the least nll", "the cheapest of those"))


def test_a_soup_as_good_as_the_mean_is_chosen_for_its_price() -> None:
    models, targets = problem("single", rows=500)
    (of_all,) = (one for one in make_candidates(models, targets, "single", "accuracy") if one.name == "mean of all")
    mean = as_logits(scores_of(of_all, models, "single"), "single")
    jitter = np.random.default_rng(0).normal(size=mean.shape) * 1e-3
    name, rule = chosen_of([*models, Model("soup", mean + jitter, 100, single=False)], targets)
    assert (name, rule[:12]) == ("soup", "the cheapest")
    worse = mean * 0.7 + np.random.default_rng(0).normal(size=mean.shape)
    assert chosen_of([*models, Model("soup", worse, 100, single=False)], targets)[0] != "soup"


def test_where_nothing_is_as_good_the_best_single_model_ships() -> None:
    targets = np.arange(60) % 3
    right = Model("right", np.eye(3)[targets] * 9.0, 100)
    wrong = Model("wrong", np.eye(3)[(targets + 1) % 3] * 9.0, 100)
    name, rule = chosen_of([wrong, right], targets)
    assert name == "right"
    assert rule.startswith("no other candidate")


def test_snapshots_among_others_have_a_mean_of_their_own() -> None:
    models, targets = problem("single")
    some = [replace(one, snapshot=i in (1, 3)) for i, one in enumerate(models)]
    made = {one.name: one for one in make_candidates(some, targets, "single", "accuracy")}
    assert (made["mean of snapshots"].picks, made["mean of snapshots"].cost) == ((1, 3), 2)
    every = [replace(one, snapshot=True) for one in models]
    assert "mean of snapshots" not in {one.name for one in make_candidates(every, targets, "single", "accuracy")}
    one = [replace(one, snapshot=i == 2) for i, one in enumerate(models)]
    assert "mean of snapshots" not in {one.name for one in make_candidates(one, targets, "single", "accuracy")}


def test_equal_models_cost_no_more_than_one() -> None:
    models, targets = problem("single", models=1)
    same = [Model(f"m{i}", models[0].logits, 100) for i in range(3)]
    assert chosen_of(same, targets)[0] in ("m0", "m1", "m2")


# ---------------------------------------------------------------- what to expect


@pytest.mark.parametrize("task", TASKS)
def test_an_expectation_measures_every_row_once_by_what_the_other_half_chose(task: Any) -> None:
    models, targets = problem(task, rows=2_000)
    chosen, single = cross_fitted(models, targets, task, METRIC[task])
    again, _ = cross_fitted(models, targets, task, METRIC[task])
    assert chosen == again
    other, _ = cross_fitted(models, targets, task, METRIC[task], seed=1)
    assert (other == chosen) == (task == "regression")  # where nothing is fitted and the same is chosen on any half
    made = make_candidates(models, targets, task, METRIC[task])
    seen = choose(made, models, targets, task, METRIC[task])
    in_sample = measure(scores_of(made[seen.chosen], models, task), targets, task, METRIC[task])
    assert (chosen.error == in_sample.error) == (task == "regression")
    assert abs(chosen.error - in_sample.error) < 0.1 * in_sample.error
    assert chosen.error < single.error


def test_a_choice_by_luck_is_not_expected_of_new_rows() -> None:
    """Of forty models that know nothing the best looks good; the estimate knows better."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 60)
    models = [Model(f"m{i}", rng.normal(size=(60, 2)), 1) for i in range(40)]
    made = make_candidates(models, targets, "single", "accuracy")
    choice = choose(made, models, targets, "single", "accuracy")
    seen = measure(scores_of(made[choice.best_single], models, "single"), targets, "single", "accuracy")
    luckiest = max(measure(scores_of(one, models, "single"), targets, "single", "accuracy").metric for one in made[:40])
    _, expected = cross_fitted(models, targets, "single", "accuracy")
    assert luckiest > 0.6 > seen.metric
    assert seen.error < np.log(2) < expected.error


def test_too_few_rows() -> None:
    models, targets = problem("single", rows=3)
    with pytest.raises(BadInput, match="3 held-out rows"):
        cross_fitted(models, targets, "single", "accuracy")


def test_a_candidate_of_one_pick_twice_is_no_mean() -> None:
    assert not Candidate("x", (1, 1), (1.0, 1.0), 1.0, 1, 1).is_mean
