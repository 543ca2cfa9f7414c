"""Several models of one architecture that answer together: the mean of their scores, as logits.

Where models have the same embeddings and lowest layers bit for bit (a trunk that training left frozen), these run once:
the others' lowest layers hand on what the first model's gave for this very batch. What is exchanged is a layer's
`forward`; the encoder, packed or not, is transformers' own.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snapfit.core.combining import as_logits, combine, mean_energy
from snapfit.core.errors import BadInput
from snapfit.core.labels import Task
from snapfit.core.log_odds import Explained
from snapfit.data.batches import Batch
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier, encoder_layers
from snapfit.nn.families import depth_reader, n_depths
from snapfit.nn.inference import batch_outputs, differentiable_logits
from snapfit.nn.integrated_gradients import integrated_gradients, mean_logits, word_embeddings
from snapfit.nn.member_weights import same_bits
from snapfit.nn.packed_encoder import is_packed
from snapfit.runtime.explaining import PathIntegral


class EnsembleBackend:
    """Runs models in inference mode and gives logits whose scores, and whose energy, are the mean of theirs.

    models: put into evaluation mode and onto the device; the first is otherwise left as it is, the others are the
    backend's from now on, since their lowest layers may compute nothing any more. shares: of each in the mean, above 0.
    temperatures: of each one's logits. task: says what scores are. device: default CUDA where there is one, else CPU.

    forward_passes: what a prediction costs in passes through one model: 1 for the first, and for each other the share
    of its layers that run. trunks: for each other model, how many of its lowest layers run in the first one.
    Thread-safe: one batch at a time goes through the models.
    Raises BadInput unless there is a share and a temperature for each model.
    """

    def __init__(
        self,
        models: Sequence[Classifier],
        *,
        shares: Sequence[float],
        temperatures: Sequence[float],
        task: Task,
        device: str | None = None,
    ) -> None:
        if not len(models) == len(shares) == len(temperatures) > 0:
            found = f"{len(models)} models, {len(shares)} shares and {len(temperatures)} temperatures"
            raise BadInput(found, "one of each for every model", "correct the lists")
        if len({id(model) for model in models}) < len(models):
            raise BadInput("one model twice", "models that are objects of their own", "give it a larger share")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.models, self.task = tuple(models), task
        self._shares, self._temperatures = tuple(shares), tuple(temperatures)
        first, *others = self.models
        self.trunks = tuple(shared_layers(first, other) for other in others)
        self.forward_passes = 1.0 + sum(1.0 - trunk / n_depths(first.config) for trunk in self.trunks)
        self._handed_on = {trunk: _HandedOn() for trunk in self.trunks if trunk}
        for other, trunk in zip(others, self.trunks, strict=True):
            for layer in (encoder_layers(other) or ())[:trunk]:
                exchanged: Any = layer
                exchanged.forward = self._handed_on[trunk]
        for model in self.models:
            torch.nn.Module.to(model, self.device)  # in place; transformers' own wrapper is untyped
            model.train(False)
        self._lock = threading.Lock()

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 [rows, n_outputs] for one padded batch; a regression's are the mean of the models' numbers.

        A row for which a model gives logits that are not finite is NaN.
        """
        return self._outputs(batch)[0]

    def logits_and_vectors(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and what the first model's last linear layer takes: float32 [rows, width]."""
        logits, vectors = self._outputs(batch, vectors=True)
        assert vectors is not None
        return logits, vectors

    def _outputs(self, batch: Batch, *, vectors: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        with self._lock, torch.inference_mode(), self._trunk_heard():
            logits, found = batch_outputs(self.models[0], batch, self.device, vectors=vectors)
            others = [batch_outputs(model, batch, self.device)[0] for model in self.models[1:]]
        return self._mean([logits, *others]), found

    @property
    def differentiable(self) -> bool:
        """Whether `integrated_gradients` can be had: the encoders say which their tables of words are."""
        return word_embeddings(self.models) is not None

    def integrated_gradients(
        self, row: TokenIds, baseline: TokenIds, explained: Explained, *, tolerance: float, most_steps: int
    ) -> PathIntegral:
        """Those of the mean, see `PathBackend`; raises WorkFailed where there is no table of words."""
        return integrated_gradients(
            lambda batch: mean_logits(self._parts(batch), self._shares, self._temperatures, self.task),
            word_embeddings(self.models),
            row,
            baseline,
            explained,
            lock=self._lock,
            tolerance=tolerance,
            most_steps=most_steps,
        )

    def _parts(self, batch: Batch) -> list[Tensor]:
        """Logits [rows, n_outputs] of each model, with gradients where they are enabled."""
        with self._trunk_heard():
            return [differentiable_logits(model, batch, self.device) for model in self.models]

    def _mean(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """One row that is not finite must not hide which it is from whoever asked for the batch."""
        finite = np.all([np.isfinite(part).all(axis=1) for part in parts], axis=0)[:, None]
        parts = [np.where(finite, part, 0.0) for part in parts]
        mean = as_logits(combine(parts, self._temperatures, self.task, 1.0, shares=self._shares), self.task)
        if self.task == "single":
            mean = mean + mean_energy(parts, self._temperatures, self._shares)
        return np.where(finite, mean, np.nan).astype(np.float32)

    @contextmanager
    def _trunk_heard(self) -> Iterator[None]:
        """Within it, the others' lowest layers give what the first model's gave last; afterwards nothing is kept."""
        layers = encoder_layers(self.models[0])
        with ExitStack() as hooks:
            for trunk, handed_on in self._handed_on.items():
                assert layers is not None  # else there is no trunk
                hooks.callback(handed_on.clear)
                hooks.callback(layers[trunk - 1].register_forward_hook(handed_on.hear).remove)
            yield


class _HandedOn:
    """Takes the place of a layer's `forward`: whatever it gets, it gives what the first model's layer gave."""

    def __init__(self) -> None:
        self._output: Any = None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._output

    def hear(self, layer: torch.nn.Module, arguments: Any, output: Any) -> None:
        """A forward hook of the first model's layer."""
        self._output = output

    def clear(self) -> None:
        """Let go of the states of a batch."""
        self._output = None


def shared_layers(first: Classifier, other: Classifier) -> int:
    """How many of the lowest layers give the same states in both, since they and all below them have the same weights.

    0 for families whose layers are not known, or share their weights; and for models that are not configured alike, or
    of which one packs its rows. A pooling that reads the last four states keeps the layers that make them.
    """
    family, layers = first.family, encoder_layers(first)
    if not family.known or family.shared_layers or layers is None:
        return 0
    if first.config.to_dict() != other.config.to_dict() or is_packed(first) != is_packed(other):
        return 0
    depth_of, theirs = depth_reader(first.config, first.encoder_prefix), other.state_dict()
    most = len(layers) - (3 if first.pooling.startswith("last4") else 0)
    for name, tensor in first.state_dict().items():
        depth = depth_of(name)
        if isinstance(depth, int) and depth <= most and not same_bits(tensor, theirs[name]):
            most = max(depth - 1, 0)
    return max(most, 0)
