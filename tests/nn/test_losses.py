"""Losses against torch's own with reduction "mean", and the door that refuses targets of another kind."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from snapfit.core.errors import WorkFailed
from snapfit.nn.focal import Focus, focal_cells, focal_rows
from snapfit.nn.losses import divergence_sum, loss_sum

ROWS, LABELS = 7, 4


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(ROWS, LABELS, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def classes() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 1, 1, 0])


@pytest.fixture
def flags() -> Tensor:
    return torch.randint(0, 2, (ROWS, LABELS), generator=torch.Generator().manual_seed(1)).float()


WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0])
NO_AND_YES = torch.stack((torch.tensor([0.5, 1.0, 0.9, 0.8]), WEIGHTS))
"""Of many labels, where they do not hold and where they do."""
FOCUSES = [Focus(2.0, 2.0), Focus(0.5, 4.0, 0.05)]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_single_is_cross_entropy(logits: Tensor, classes: Tensor, smoothing: float) -> None:
    mean = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, classes)
    torch.testing.assert_close(loss_sum(logits, classes, task="single", label_smoothing=smoothing) / ROWS, mean)


def test_single_with_class_weights(logits: Tensor, classes: Tensor) -> None:
    """torch divides by the rows' weights; the loop divides by rows, for which weights have a mean of one."""
    mean = nn.CrossEntropyLoss(weight=WEIGHTS)(logits, classes)
    total = loss_sum(logits, classes, task="single", class_weights=WEIGHTS)
    torch.testing.assert_close(total / WEIGHTS[classes].sum(), mean)


@pytest.mark.parametrize("focus", [None, FOCUSES[0]])
def test_a_weight_is_that_of_its_whole_row(logits: Tensor, classes: Tensor, focus: Focus | None) -> None:
    """As if the row were there so often, its smoothing with it, and the same for labels given as shares."""
    options = {"task": "single", "label_smoothing": 0.1, "focus": focus}
    rows = [loss_sum(logits[i : i + 1], classes[i : i + 1], **options) for i in range(ROWS)]
    expected = torch.stack(rows) @ WEIGHTS[classes]
    torch.testing.assert_close(loss_sum(logits, classes, class_weights=WEIGHTS, **options), expected)
    shares = nn.functional.one_hot(classes, LABELS).float()
    torch.testing.assert_close(loss_sum(logits, shares, class_weights=WEIGHTS, **options), expected)


def test_a_common_row_is_not_drawn_to_rare_classes() -> None:
    """With a weight for each class of the smoothed target the least loss would be at 51 % for the rare one."""
    weights, right = torch.tensor([0.5, 10.0]), torch.tensor([0])
    logits = torch.zeros(1, 2, requires_grad=True)
    for _ in range(400):
        loss = loss_sum(logits, right, task="single", class_weights=weights, label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert logits.softmax(-1)[0, 0].item() == pytest.approx(0.95, abs=1e-3)


def test_multi_is_binary_cross_entropy(logits: Tensor, flags: Tensor) -> None:
    torch.testing.assert_close(loss_sum(logits, flags, task="multi") / ROWS, nn.BCEWithLogitsLoss()(logits, flags))


def test_multi_with_weights_and_smoothing(logits: Tensor, flags: Tensor) -> None:
    plain = torch.stack((torch.ones(LABELS), WEIGHTS))
    total = loss_sum(logits, flags, task="multi", class_weights=plain, label_smoothing=0.2)
    mean = nn.BCEWithLogitsLoss(pos_weight=WEIGHTS)(logits, flags * 0.8 + 0.1)
    torch.testing.assert_close(total / ROWS, mean)
    cells = nn.BCEWithLogitsLoss(reduction="none")(logits, flags)
    expected = (cells * NO_AND_YES[flags.long(), torch.arange(LABELS)]).mean(-1).sum()
    torch.testing.assert_close(loss_sum(logits, flags, task="multi", class_weights=NO_AND_YES), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focused_losses_take_weights_and_smoothing(
    logits: Tensor, flags: Tensor, classes: Tensor, smoothing: float
) -> None:
    for focus in FOCUSES:
        held, absent = focal_cells(logits, focus)
        smooth = flags * (1 - smoothing) + smoothing / 2
        expected = (smooth * held * WEIGHTS + (1 - smooth) * absent * NO_AND_YES[0]).mean(-1).sum()
        options = {"label_smoothing": smoothing, "focus": focus}
        total = loss_sum(logits, flags, task="multi", class_weights=NO_AND_YES, **options)
        torch.testing.assert_close(total, expected)
        plain = (smooth * held + (1 - smooth) * absent).mean(-1).sum()
        torch.testing.assert_close(loss_sum(logits, flags, task="multi", **options), plain)
        shares = nn.functional.one_hot(classes, LABELS) * (1 - smoothing) + smoothing / LABELS
        rows = focal_rows(logits, shares, focus.held)
        torch.testing.assert_close(loss_sum(logits, classes, task="single", **options), rows.sum())


def test_exponents_of_zero_change_nothing(logits: Tensor, flags: Tensor, classes: Tensor) -> None:
    for task, targets in (("single", classes), ("multi", flags)):
        plain = loss_sum(logits, targets, task=task, label_smoothing=0.1)
        focused = loss_sum(logits, targets, task=task, label_smoothing=0.1, focus=Focus(0.0, 0.0))
        torch.testing.assert_close(focused, plain)


def test_regression_is_squared_error(logits: Tensor) -> None:
    targets = torch.arange(ROWS, dtype=torch.float32)[:, None]
    column = logits[:, :1]
    torch.testing.assert_close(loss_sum(column, targets, task="regression") / ROWS, nn.MSELoss()(column, targets))


def test_the_parts_of_a_batch_add_up(logits: Tensor, flags: Tensor, classes: Tensor) -> None:
    for focus in (None, *FOCUSES):
        for task, targets, weights in (("single", classes, WEIGHTS), ("multi", flags, NO_AND_YES)):
            options = {"task": task, "class_weights": weights, "focus": focus}
            parts = [loss_sum(logits[part], targets[part], **options) for part in (slice(0, 3), slice(3, None))]
            torch.testing.assert_close(sum(parts), loss_sum(logits, targets, **options))


@pytest.mark.parametrize("focus", [None, *FOCUSES])
@pytest.mark.parametrize("task", ["single", "multi"])
def test_half_precision_logits_are_summed_in_float32(
    logits: Tensor, flags: Tensor, classes: Tensor, task: str, focus: Focus | None
) -> None:
    half = logits.to(torch.bfloat16)
    targets = classes if task == "single" else flags
    result = loss_sum(half, targets, task=task, focus=focus)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss_sum(half.float(), targets, task=task, focus=focus))


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("single", torch.zeros(ROWS)),
        ("single", torch.zeros(ROWS, dtype=torch.int32)),
        ("single", torch.zeros(ROWS, 1, dtype=torch.int64)),
        ("single", torch.zeros(ROWS - 1, dtype=torch.int64)),
        ("multi", torch.zeros(ROWS, LABELS, dtype=torch.int64)),
        ("multi", torch.zeros(ROWS, LABELS, dtype=torch.float64)),
        ("multi", torch.zeros(ROWS)),
        ("multi", torch.zeros(ROWS, LABELS - 1)),
        ("regression", torch.zeros(ROWS)),
        ("regression", torch.zeros(ROWS, 1)),
    ],
)
def test_targets_of_another_kind_are_refused(logits: Tensor, task: str, targets: Tensor) -> None:
    with pytest.raises(WorkFailed, match=f"the loss of task '{task}' needs"):
        loss_sum(logits, targets, task=task)  # type: ignore[arg-type]


# ---------------------------------------------------------------- how far two outputs are apart


def other_logits() -> Tensor:
    return torch.randn(ROWS, LABELS, generator=torch.Generator().manual_seed(2)) * 3


def test_the_divergence_of_classes_is_that_of_torch(logits: Tensor) -> None:
    one, other = Categorical(logits=logits), Categorical(logits=other_logits())
    expected = 0.5 * (kl_divergence(one, other) + kl_divergence(other, one)).sum()
    torch.testing.assert_close(divergence_sum(logits, other_logits(), task="single"), expected)


def test_the_divergence_of_labels_is_that_of_torch(logits: Tensor) -> None:
    one, other = Bernoulli(logits=logits), Bernoulli(logits=other_logits())
    expected = 0.5 * (kl_divergence(one, other) + kl_divergence(other, one)).mean(-1).sum()
    torch.testing.assert_close(divergence_sum(logits, other_logits(), task="multi"), expected)


def test_the_divergence_of_scores_is_the_squared_difference(logits: Tensor) -> None:
    one, other = logits[:, :1], other_logits()[:, :1]
    found = divergence_sum(one, other, task="regression")
    torch.testing.assert_close(found, nn.MSELoss(reduction="sum")(one, other))


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_outputs_that_agree_are_not_apart(logits: Tensor, task: str) -> None:
    one, other = (logits * 30).requires_grad_(), logits * 30
    result = divergence_sum(one, other, task=task)
    result.backward()
    assert result.item() == 0.0
    assert torch.equal(one.grad, torch.zeros_like(logits))
    torch.testing.assert_close(
        divergence_sum(logits, other_logits(), task=task), divergence_sum(other_logits(), logits, task=task)
    )
    assert divergence_sum(logits, other_logits(), task=task) > 0
