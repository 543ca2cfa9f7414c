"""A student: its targets are the stated mix, its loss that of both losses, its training the run's at lower rates."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import stage
from snapfit.core.combining import combine
from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.losses import loss_sum
from snapfit.training import student
from snapfit.training.loop import Examples
from snapfit.training.plan import Plan
from snapfit.training.student import SoftTargets, joined, student_plan, team_scores
from snapfit.training.verdict import Team

ROWS, LABELS = 7, 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    import toys

    encoder = toys.encoder_folder(tmp_path_factory.mktemp("encoder"))
    return stage.make_plan_on(
        encoder,
        ensemble__members=3,
        ensemble__student_epochs=1.5,
        loss__label_smoothing=0.1,
        loss__function="focal",
        loss__class_weights="effective",
        train__sampling="weighted",
        train__patience=5,
    )


def soft_scores(n: int = ROWS, *, seed: int = 0) -> np.ndarray:
    scores = np.random.default_rng(seed).random((n, LABELS)).astype(np.float32)
    return scores / scores.sum(axis=1, keepdims=True)


def test_a_labelled_row_mixes_and_one_without_a_label_does_not() -> None:
    soft, hard = soft_scores(), np.array([0, 2, 1, 1, 0])
    targets = SoftTargets(hard, soft, 0.25, "single")
    rows = np.array([4, 6, 1, 5])
    found = targets[rows]
    assert len(targets) == ROWS
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(0.25 * soft[4] + 0.75 * np.eye(3)[0], abs=1e-6)
    assert found[2] == pytest.approx(0.25 * soft[1] + 0.75 * np.eye(3)[2], abs=1e-6)
    assert np.array_equal(found[[1, 3]], soft[[6, 5]])
    assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(soft, soft_scores())


@pytest.mark.parametrize("task", ["multi", "regression"])
def test_other_tasks_mix_as_numbers(task: str) -> None:
    soft = soft_scores()
    hard = np.random.default_rng(1).integers(0, 2, (5, LABELS)).astype(np.float32)
    found = SoftTargets(hard, soft, 0.5, task)[np.arange(ROWS)]
    assert found[:5] == pytest.approx((soft[:5] + hard) / 2, abs=1e-6)
    assert np.array_equal(found[5:], soft[5:])


def test_the_loss_of_mixed_targets_is_the_mix_of_both_losses() -> None:
    logits = torch.randn(ROWS, LABELS, generator=torch.Generator().manual_seed(0))
    hard, soft = np.arange(ROWS) % LABELS, soft_scores()
    mixed = torch.from_numpy(SoftTargets(hard, soft, 0.3, "single")[np.arange(ROWS)])
    apart = 0.7 * functional.cross_entropy(logits, torch.from_numpy(hard), reduction="sum")
    apart += 0.3 * -(torch.from_numpy(soft) * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(loss_sum(logits, mixed, task="single"), apart)


def test_joined_rows_are_those_of_both() -> None:
    one = TokenIds(np.array([5, 6, 7], np.uint16), np.array([0, 2, 3]), np.array([2, 1], np.uint16))
    more = TokenIds(np.array([8, 9], np.uint16), np.array([0, 0, 2]), np.array([0, 2], np.uint16))
    both = joined(one, more)
    assert both.lengths.tolist() == [2, 1, 0, 2]
    assert both.take(np.array([3, 0])).ids.tolist() == [8, 9, 5, 6]
    assert both.second_start.tolist() == [2, 1, 0, 2]


def test_texts_beside_a_table_in_pieces_are_refused(plan: Plan) -> None:
    class Pieces:
        def __len__(self) -> int:
            return 2_000_000

    with pytest.raises(BadInput, match="unlabelled texts beside a training table of 2,000,000 rows"):
        joined(Pieces(), plan.examples["train"].tokens)  # type: ignore[arg-type]


def test_scores_of_a_team_are_combined_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_set = LabelSet("single", ("a", "b", "c"))
    parts = [np.random.default_rng(seed).normal(size=(ROWS, LABELS)).astype(np.float32) for seed in (0, 1)]
    weights = [{"w": torch.from_numpy(part)} for part in parts]
    team = Team(tuple(weights), (0.75, 0.25), (1.5, 0.8), 1.2)
    asked: list[int] = []

    def logits_of(one: dict[str, torch.Tensor], rows: np.ndarray) -> np.ndarray:
        asked.append(1)
        return one["w"].numpy()[rows]

    wanted = combine(parts, (1.5, 0.8), "single", 1.2, shares=(0.75, 0.25))
    for root in (None, tmp_path / "student", tmp_path / "student"):
        found = team_scores(team, logits_of, label_set, ROWS, texts="t", root=root)  # type: ignore[arg-type]
        assert np.array_equal(found, wanted.astype(np.float32))
    assert len(asked) == 4
    monkeypatch.setattr(student, "_CHUNK_ROWS", 3)
    pieces = team_scores(team, logits_of, label_set, ROWS, texts="t", root=None)  # type: ignore[arg-type]
    assert np.array_equal(pieces, wanted.astype(np.float32))
    assert len(asked) == 4 + 2 * 3
    monkeypatch.undo()
    team_scores(team, logits_of, label_set, ROWS, texts="others", root=tmp_path / "student")  # type: ignore[arg-type]
    hotter = Team(tuple(weights), (0.75, 0.25), (1.5, 0.9), 1.2)
    team_scores(hotter, logits_of, label_set, ROWS, texts="t", root=tmp_path / "student")  # type: ignore[arg-type]
    assert len(asked) == 10 + 4
    assert len(list((tmp_path / "student").iterdir())) == 3


def test_the_students_training_is_the_runs_at_the_rates_of_a_round(plan: Plan) -> None:
    n_rows = len(plan.examples["train"].tokens)
    soft = soft_scores(n_rows)
    taught = student_plan(plan, soft, None)
    before, now = plan.recipe, taught.recipe
    assert now.optim.lr == before.optim.lr * 0.5  # type: ignore[operator]
    assert now.optim.lr * now.optim.head_lr_factor == pytest.approx(  # type: ignore[operator]
        before.optim.lr * before.optim.head_lr_factor * 0.1  # type: ignore[operator]
    )
    assert (now.loss.label_smoothing, now.train.patience, now.ensemble.members) == (0.0, None, 0)
    assert (now.loss.function, now.loss.class_weights, now.train.sampling) == ("plain", None, "all")
    assert plan.weights is not None
    assert plan.order.weights is not None
    assert taught.weights is taught.order.weights is None
    assert taught.total_steps == plan.order.total_steps(1.5)
    assert taught.order.seed != plan.order.seed
    assert taught.identity() != plan.identity()
    assert student_plan(plan, soft_scores(n_rows, seed=1), None).identity() != taught.identity()
    assert student_plan(plan, soft, None).identity() == taught.identity()


def test_unlabelled_texts_come_behind_the_labelled_ones(plan: Plan) -> None:
    train = plan.examples["train"]
    n_rows = len(train.tokens)
    more = train.tokens.take(np.arange(5))
    taught = student_plan(plan, soft_scores(n_rows + 5), more)
    examples: Examples = taught.examples["train"]
    assert len(examples.tokens) == len(examples.targets) == n_rows + 5
    assert taught.total_steps > student_plan(plan, soft_scores(n_rows), None).total_steps
    seen = np.concatenate(list(taught.order.steps(0)))
    assert sorted(seen.tolist()) == list(range(n_rows + 5))
    assert taught.identity()["data"]["train"]["rows"] == n_rows + 5
