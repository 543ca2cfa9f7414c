"""`model.pooling: auto`, answered by a measurement instead of a guess.

The frozen encoder reads a sample of the training texts once. Ridge regressions, each fitted on one half, predict the
other half's targets from the mean of the last states and from the first token's, which a native head reads. The mean
is taken unless the first token predicts clearly better: at equal features its single layer learns faster than a native
head's two (see docs/defaults.md). A native head opens in plain transformers, and can always be asked for.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from snapfit.core.labels import LabelSet
from snapfit.core.windows import combine_windows
from snapfit.data.batches import pad, sorted_batches
from snapfit.nn.classifier import Classifier, encoder_layers
from snapfit.nn.fused_layer import use_fused_layers
from snapfit.nn.kernels import load_kernels
from snapfit.nn.packed_encoder import use_packing
from snapfit.nn.pooling import mean_over_tokens
from snapfit.training.loop import Examples

SAMPLE_ROWS = 1024
CLEAR_GAIN = 0.02
"""Explained share of the targets' variance by which the first token must lead: above the noise of a full sample; the
noise of a smaller one grows as its root."""
PENALTIES = (0.1, 1.0, 10.0)
"""Ridge penalties tried, per row, on standardised features; the best one counts."""


@dataclass(frozen=True)
class PoolingChoice:
    """The pooling taken, and the sentence that says why."""

    pooling: str
    reason: str


def choose_pooling(
    model: Classifier,
    examples: Examples,
    label_set: LabelSet,
    *,
    seed: int,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    native: bool = True,
) -> PoolingChoice:
    """Measure mean pooling against the first token on a sample of the training rows.

    model: any classifier over the encoder in question, on its device; only its encoder is read, without padding where
    that is possible, and it is left so. Families without a row in the table have no native head to choose and get the
    mean. autocast: makes the context of the forward pass. native: whether a native head will do; else snapfit's own
    reads the first token.
    """
    if not model.family.known:
        return PoolingChoice("mean", "the encoder's family has no native head in snapfit's table")
    rng = np.random.default_rng(seed)
    n_rows = len(examples.tokens)
    rows = rng.permutation(n_rows)[:SAMPLE_ROWS]
    _without_padding(model)
    with autocast(), torch.inference_mode():
        mean, first = _features(model, examples, rows)
    targets = _indicators(examples.targets[rows], label_set)
    gain_mean, gain_first = _explained(mean, targets), _explained(first, targets)
    clear_gain = CLEAR_GAIN * (SAMPLE_ROWS / len(rows)) ** 0.5
    pooling = ("native" if native else "cls") if gain_first > gain_mean + clear_gain else "mean"
    return PoolingChoice(
        pooling,
        f"a ridge probe on {len(rows):,} training texts explains {gain_mean:.1%} of the held-out targets' variance "
        f"from mean-pooled states and {gain_first:.1%} from the first token's; the mean is taken unless the first "
        f"token leads by {clear_gain:.1%}",
    )


def _without_padding(model: Classifier) -> None:
    """Send the texts through as fast as training will."""
    layers = encoder_layers(model)
    kernels = load_kernels() if next(model.parameters()).device.type == "cpu" else None
    if use_packing(model) and kernels is not None and layers is not None:
        use_fused_layers(layers, kernels)


def _features(model: Classifier, examples: Examples, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    model.train(False)
    device = next(model.parameters()).device
    tokens = examples.tokens.take(rows)
    width = model.config.hidden_size
    mean, first = (np.zeros((len(rows), width), np.float64) for _ in range(2))
    for part in sorted_batches(tokens.lengths, window_tokens=tokens.window_tokens):
        batch = pad(tokens, part, pad_id=examples.pad_id)
        inputs = {
            "input_ids": torch.from_numpy(batch.input_ids).to(device),
            "attention_mask": torch.from_numpy(batch.attention_mask).to(device),
        }
        if model.accepts_types:
            inputs["token_type_ids"] = torch.from_numpy(batch.token_type_ids).to(device)
        states = model.encoder(**inputs).last_hidden_state.float()
        for features, found in ((mean, mean_over_tokens(states, inputs["attention_mask"])), (first, states[:, 0])):
            array = found.cpu().numpy()
            windows = batch.first_windows
            features[part] = array if windows is None else combine_windows(array, windows, "mean")
    return mean, first


def _indicators(targets: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """The targets as columns of numbers: one per label, or the regression's own."""
    if label_set.task == "single":
        return np.asarray(np.eye(label_set.n_outputs)[targets])
    return np.asarray(targets, np.float64)


def _explained(features: np.ndarray, targets: np.ndarray) -> float:
    """R² over all columns of the best ridge regression: fitted on one half, measured on the other, both ways."""
    return max(_explained_at(features, targets, penalty) for penalty in PENALTIES)


def _explained_at(features: np.ndarray, targets: np.ndarray, penalty: float) -> float:
    half = len(features) // 2
    if half == 0:
        return 0.0
    folds = [(slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))]
    shares = []
    for fit, held in folds:
        centre, spread = features[fit].mean(0), features[fit].std(0) + 1e-6
        known, unseen = (features[fit] - centre) / spread, (features[held] - centre) / spread
        middle = targets[fit].mean(0)
        gram = known.T @ known + penalty * len(known) * np.eye(known.shape[1])
        weights = np.linalg.solve(gram, known.T @ (targets[fit] - middle))
        errors = targets[held] - middle - unseen @ weights
        total = ((targets[held] - targets[held].mean(0)) ** 2).sum()
        shares.append(1.0 - (errors**2).sum() / total if total > 0 else 0.0)
    return float(np.mean(shares))
