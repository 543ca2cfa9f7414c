"""The measurement behind `model.pooling: auto`: the first token wins where it clearly carries more of the labels."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

import tiny
from snapfit.core.labels import LabelSet
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.training import pooling_probe
from snapfit.training.loop import Examples
from snapfit.training.pooling_probe import PENALTIES, choose_pooling

ROWS = 400
SINGLE = LabelSet("single", ("no", "yes"))


def make_tokens(n_rows: int = ROWS) -> TokenIds:
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 20, n_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenIds(rng.integers(5, 100, offsets[-1]).astype(np.uint16), offsets, lengths.astype(np.uint32))


def states(model: Classifier, tokens: TokenIds) -> tuple[np.ndarray, np.ndarray]:
    """Mean and first state of every row, one at a time."""
    mean, first = [], []
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.take(np.array([row])).ids.astype(np.int64))[None]
        with torch.inference_mode():
            last = model.encoder(input_ids=ids).last_hidden_state[0].double()
        mean.append(last.mean(0).numpy())
        first.append(last[0].numpy())
    return np.stack(mean), np.stack(first)


def direction(features: np.ndarray) -> np.ndarray:
    """The projection of the features in which they vary most, standardised."""
    centred = features - features.mean(0)
    projected = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    return projected / projected.std()


@pytest.fixture(scope="module")
def model() -> Classifier:
    return tiny.classifier("bert", "mean")


def test_labels_that_the_mean_carries_choose_the_mean(model: Classifier) -> None:
    tokens = make_tokens()
    targets = (direction(states(model, tokens)[0]) > 0).astype(np.int64)
    choice = choose_pooling(model, Examples(tokens, targets, 0), SINGLE, seed=0)
    assert choice.pooling == "mean"
    assert "on 400 training texts" in choice.reason
    assert not model.training


def test_labels_that_the_first_token_carries_choose_the_native_head(model: Classifier) -> None:
    tokens = make_tokens()
    targets = (direction(states(model, tokens)[1]) > 0).astype(np.int64)
    assert choose_pooling(model, Examples(tokens, targets, 0), SINGLE, seed=0).pooling == "native"
    assert choose_pooling(model, Examples(tokens, targets, 0), SINGLE, seed=0, native=False).pooling == "cls"


def test_noise_chooses_the_mean(model: Classifier) -> None:
    targets = np.random.default_rng(5).integers(0, 2, ROWS)
    assert choose_pooling(model, Examples(make_tokens(), targets, 0), SINGLE, seed=0).pooling == "mean"


@pytest.mark.parametrize(("of_first", "pooling"), [(False, "mean"), (True, "native")])
@pytest.mark.parametrize("task", ["multi", "regression"])
def test_other_tasks(model: Classifier, task: str, of_first: bool, pooling: str) -> None:
    tokens = make_tokens()
    values = direction(states(model, tokens)[of_first]).astype(np.float32)
    if task == "multi":
        label_set = LabelSet("multi", ("x", "y"))
        targets = np.stack([values > 0, values > 1], 1).astype(np.float32)
    else:
        label_set, targets = LabelSet("regression", ("score",)), values[:, None]
    assert choose_pooling(model, Examples(tokens, targets, 0), label_set, seed=0).pooling == pooling


def test_the_choice_is_a_function_of_the_seed(model: Classifier) -> None:
    examples = Examples(make_tokens(1_500), np.arange(1_500) % 2, 0)
    first, again, other = (choose_pooling(model, examples, SINGLE, seed=seed).reason for seed in (0, 0, 1))
    assert first == again != other
    assert "on 1,024 training texts" in first


def test_a_family_without_a_native_head_gets_the_mean() -> None:
    unknown = tiny.classifier("rembert", "mean")
    choice = choose_pooling(unknown, Examples(make_tokens(10), np.arange(10) % 2, 0), SINGLE, seed=0)
    assert choice.pooling == "mean"
    assert "no native head" in choice.reason


@pytest.mark.parametrize("n_rows", [1, 2, 3, 5])
def test_tables_of_a_few_rows(model: Classifier, n_rows: int) -> None:
    """Nothing can be measured, nothing warns, and the answer is the default."""
    label_set = LabelSet("regression", ("score",))
    targets = np.arange(n_rows, dtype=np.float32)[:, None]
    choice = choose_pooling(model, Examples(make_tokens(n_rows), targets, 0), label_set, seed=0)
    assert choice.pooling == "mean"
    assert "nan" not in choice.reason
    assert len(choice.reason) < 300


def test_the_probe_is_scikit_learns_ridge() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 7)) * 3 + 1
    targets = features[:, :2] @ rng.normal(size=(2, 3)) + rng.normal(size=(60, 3))
    halves = (slice(None, 30), slice(30, None))

    def explained(penalty: float) -> float:
        shares = []
        for fit, held in (halves, halves[::-1]):
            centre, spread = features[fit].mean(0), features[fit].std(0)
            ridge = Ridge(alpha=penalty * 30).fit((features[fit] - centre) / spread, targets[fit])
            predicted = ridge.predict((features[held] - centre) / spread)
            shares.append(r2_score(targets[held], predicted, multioutput="variance_weighted"))
        return float(np.mean(shares))

    best = max(explained(penalty) for penalty in PENALTIES)
    assert pooling_probe._explained(features, targets) == pytest.approx(best, rel=1e-5)
