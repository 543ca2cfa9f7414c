"""The verdict: what its table says is what its team answers, the stated rule holds, and teachers are those it names."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snapfit.core.combining import combine, measure
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.scores import logits_to_scores
from snapfit.training.averaging import average
from snapfit.training.verdict import Scored, Source, Verdict, best_teacher, score, settle

ROWS, WIDTH = 240, 6
SETS = {
    "single": LabelSet("single", ("a", "b", "c", "d")),
    "multi": LabelSet("multi", ("a", "b", "c")),
    "regression": LabelSet("regression", ("size",), 0.0, 1.0),
}
METRIC = {"single": "accuracy", "multi": "micro_f1", "regression": "rmse"}


class Problem:
    """Linear models around a true one, and targets that the true one makes."""

    def __init__(self, task: str, *, models: int = 4, noise: float = 0.6, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.label_set, self.metric = SETS[task], METRIC[task]
        self.features = rng.normal(size=(ROWS, WIDTH))
        true = rng.normal(size=(WIDTH, self.label_set.n_outputs)) * 2
        logits = self.features @ true
        if task == "single":
            self.targets = np.array([rng.choice(4, p=p) for p in logits_to_scores(logits, "single")])
        elif task == "multi":
            self.targets = (rng.random(logits.shape) < logits_to_scores(logits, "multi")).astype(np.float32)
        else:
            self.targets = logits + rng.normal(size=logits.shape) * 0.1
        self.sources = [
            Source(f"m{i}", {"w": torch.from_numpy(true + rng.normal(size=true.shape) * noise).float()})
            for i in range(models)
        ]

    def logits_of(self, weights: Mapping[str, Tensor]) -> np.ndarray:
        return np.asarray(self.features @ weights["w"].double().numpy())

    def scored(self, sources: list[Source] | None = None) -> Scored:
        return score(sources or self.sources, self.logits_of, self.targets, self.label_set, self.metric)

    def verdict(self, scored: Scored | None = None, **more: Any) -> Verdict:
        return settle(scored or self.scored(), self.targets, self.label_set, self.metric, **more)

    def answers(self, verdict: Verdict) -> np.ndarray:
        """The scores of its team, from its weights."""
        team = verdict.team
        parts = [self.logits_of(weights) for weights in team.weights]
        return combine(parts, team.temperatures, self.label_set.task, team.temperature, shares=team.shares)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("task", list(SETS))
def test_the_team_answers_as_the_table_says_and_never_worse_than_the_best_single(task: str, seed: int) -> None:
    problem = Problem(task, seed=seed)
    verdict = problem.verdict()
    chosen, single = verdict.rows[verdict.chosen], verdict.rows[verdict.best_single]
    found = measure(problem.answers(verdict), problem.targets, problem.label_set.task, problem.metric)
    assert found.error == pytest.approx(chosen.quality.error, abs=1e-9)
    assert found.metric == pytest.approx(chosen.quality.metric, abs=1e-9)
    better = -1 if problem.metric == "rmse" else 1
    assert better * chosen.quality.metric >= better * single.quality.metric
    assert chosen.quality.error <= single.quality.error
    assert sum(verdict.team.shares) == pytest.approx(1.0)
    assert list(verdict.team.shares) == sorted(verdict.team.shares, reverse=True)


def test_rows_are_sources_soups_and_means_and_say_what_they_are_made_of() -> None:
    problem = Problem("single")
    verdict = problem.verdict()
    rows = {row.name: row for row in verdict.rows}
    assert [f"m{i}" for i in range(4)] == [row.name for row in verdict.rows[:4]]
    assert rows["uniform soup"].made_of == ("m0", "m1", "m2", "m3")
    mixed = average([source.weights for source in problem.sources])
    scored = problem.scored()
    place = [source.name for source in scored.sources].index("uniform soup")
    assert torch.equal(scored.sources[place].weights["w"], mixed["w"])
    assert (rows["mean of all"].cost, rows["uniform soup"].cost) == (4.0, 1.0)
    assert verdict.made_of["rule"] == verdict.rule
    assert json.loads(json.dumps(verdict.to_dict()))["rows"][0]["name"] == "m0"


def test_members_that_share_a_trunk_and_tensors_cost_less() -> None:
    problem = Problem("single", models=3)
    shared = torch.zeros(100)
    sources = [Source(one.name, {**one.weights, "trunk": shared}) for one in problem.sources]
    verdict = problem.verdict(problem.scored(sources), trunk=0.75)
    mean = next(row for row in verdict.rows if row.name == "mean of all")
    assert mean.cost == pytest.approx(0.75 + 3 * 0.25)
    own = problem.sources[0].weights["w"].nbytes
    assert mean.bytes == 400 + 3 * own


def test_what_stands_beside_is_shown_and_never_chosen() -> None:
    problem = Problem("single")
    perfect = 50 * np.eye(4)[problem.targets]
    verdict = problem.verdict(beside=[(Source("control", problem.sources[0].weights), perfect)])
    control = verdict.rows[-1]
    assert (control.name, control.contends, control.quality.metric) == ("control", False, 1.0)
    assert verdict.chosen < len(verdict.rows) - 1
    assert verdict.expected.metric < 1.0


def test_one_source_ships_at_its_own_temperature() -> None:
    problem = Problem("single", models=1)
    cold = Source("cold", {"w": problem.sources[0].weights["w"] * 5})
    verdict = problem.verdict(problem.scored([cold]))
    assert (verdict.chosen, len(verdict.rows), len(verdict.team.weights)) == (0, 1, 1)
    assert verdict.team.temperatures[0] > 3.0
    assert verdict.team.temperature == 1.0


def test_a_student_joins_the_others_but_is_no_part_of_a_mean() -> None:
    problem = Problem("single")
    scored = problem.scored()
    student = Source("student", problem.sources[1].weights, single=False, made_of=("from m0",))
    joined = scored.joined_by(student, 30 * np.eye(4)[problem.targets])
    verdict = problem.verdict(joined)
    assert verdict.rows[verdict.chosen].name == "student"
    assert verdict.rows[verdict.chosen].made_of == ("from m0",)
    mean = next(row for row in verdict.rows if row.name == "mean of all")
    assert mean.made_of == ("m0", "m1", "m2", "m3")


@pytest.mark.parametrize("task", list(SETS))
def test_the_teacher_is_the_best_mean_and_the_student_begins_with_the_best_weights(task: str) -> None:
    problem = Problem(task)
    scored = problem.scored()
    team, start = best_teacher(scored, problem.targets, problem.label_set, problem.metric)
    verdict = problem.verdict(scored)
    means = [row for row in verdict.rows if row.cost > 1]
    alone = [row for row in verdict.rows if row.cost == 1]
    parts = [problem.logits_of(weights) for weights in team.weights]
    scores = combine(parts, team.temperatures, problem.label_set.task, team.temperature, shares=team.shares)
    found = measure(scores, problem.targets, problem.label_set.task, problem.metric)
    assert found.error == pytest.approx(min(row.quality.error for row in means), abs=1e-9)
    assert start.name == min(alone, key=lambda row: row.quality.error).name


def test_without_a_mean_the_best_weights_teach_themselves() -> None:
    problem = Problem("single", models=1)
    team, start = best_teacher(problem.scored(), problem.targets, problem.label_set, problem.metric)
    assert team.weights[0] is start.weights


def test_too_few_rows_are_refused() -> None:
    problem = Problem("single")
    scored = problem.scored()
    few = Scored(
        scored.sources,
        tuple(type(one)(one.name, one.logits[:3], one.bytes, one.single) for one in scored.models),
        scored.notes,
        scored.shared_bytes,
    )
    with pytest.raises(BadInput, match="3 held-out rows"):
        settle(few, problem.targets[:3], problem.label_set, problem.metric)
