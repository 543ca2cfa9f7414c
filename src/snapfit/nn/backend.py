"""The torch backend of the predictor: padded ids in, logits out; and bundles opened with torch.

Where several models answer, `ensemble.py` has their backend.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from snapfit.core.errors import BadInput
from snapfit.core.log_odds import Explained
from snapfit.data.batches import Batch
from snapfit.data.tokenizer import TokenIds
from snapfit.nn.classifier import Classifier
from snapfit.nn.ensemble import EnsembleBackend
from snapfit.nn.inference import batch_outputs, differentiable_logits
from snapfit.nn.integrated_gradients import integrated_gradients, word_embeddings
from snapfit.nn.member_weights import read_changed, with_changes
from snapfit.nn.packed_encoder import use_packing
from snapfit.nn.weights import load_all, read_weights
from snapfit.runtime.bundle import Bundle, BundleInfo
from snapfit.runtime.explaining import PathIntegral
from snapfit.runtime.predictor import Predictor


class TorchBackend:
    """Runs a classifier in inference mode.

    model: put into evaluation mode and onto the device. device: default CUDA where there is one, else CPU.
    Thread-safe: the forward pass changes no state, and modes are set once, here.
    forward_passes: of a prediction; one.
    """

    forward_passes = 1.0

    def __init__(self, model: Classifier, *, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model
        torch.nn.Module.to(model, self.device)  # in place; transformers' own wrapper is untyped
        model.train(False)
        self._lock = threading.Lock()

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 [rows, n_outputs] for one padded batch."""
        return self._outputs(batch)[0]

    def logits_and_vectors(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and what the last linear layer makes them of: float32 [rows, width], see `batch_outputs`."""
        logits, vectors = self._outputs(batch, vectors=True)
        assert vectors is not None
        return logits, vectors

    def _outputs(self, batch: Batch, *, vectors: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        with self._lock, torch.inference_mode():
            return batch_outputs(self.model, batch, self.device, vectors=vectors)

    @property
    def differentiable(self) -> bool:
        """Whether `integrated_gradients` can be had: the encoder says which its table of words is."""
        return word_embeddings([self.model]) is not None

    def integrated_gradients(
        self, row: TokenIds, baseline: TokenIds, explained: Explained, *, tolerance: float, most_steps: int
    ) -> PathIntegral:
        """See `PathBackend`; raises WorkFailed where there is no table of words."""
        return integrated_gradients(
            lambda batch: differentiable_logits(self.model, batch, self.device),
            word_embeddings([self.model]),
            row,
            baseline,
            explained,
            lock=self._lock,
            tolerance=tolerance,
            most_steps=most_steps,
        )


def load_classifiers(bundle: Bundle) -> list[Classifier]:
    """The bundle's models, built from its config.json and filled by name; no pretrained checkpoint is looked for.

    There is one unless the bundle has members. Weights that are the same in several models are held once.
    Raises BadInput when a file is damaged, its weights do not fit, or its files disagree about windows.
    """
    config = AutoConfig.from_pretrained(bundle.folder, trust_remote_code=False)
    first = Classifier(config)
    pooled_by = bundle.info.lengths.pools_windows_by
    if first.window_pooling != pooled_by:
        raise BadInput(
            f"{bundle.folder}, whose config.json pools windows by {first.window_pooling}, snapfit.json by {pooled_by}",
            "files of one bundle",
            "copy the bundle again, with all its files",
        )
    load_all(first, read_weights(bundle.folder), source=str(bundle.folder))
    models = [first]
    for member in (bundle.info.members or ())[1:]:
        models.append(with_changes(first, read_changed(bundle.folder / member["file"], first.state_dict())))
    for model in models:
        use_packing(model)
    return models


def load_classifier(bundle: Bundle) -> Classifier:
    """The model of a bundle in which one answers, see `load_classifiers`.

    Raises BadInput as that does, and for a bundle of several models: none of them gives its answers.
    """
    n_models = len(bundle.info.members or ())
    if n_models:
        raise BadInput(
            f"{bundle.folder}, in which {n_models} models answer together",
            "a bundle of one model",
            "snapfit.load for its answers, or load_classifiers for its models",
        )
    return load_classifiers(bundle)[0]


def backend_of(
    models: Sequence[Classifier], info: BundleInfo, *, device: str | None = None
) -> TorchBackend | EnsembleBackend:
    """What computes the logits of a bundle with these models, which are the backend's from now on, but for the first.

    info: says how several answer together.
    """
    if info.members is None:
        return TorchBackend(models[0], device=device)
    return EnsembleBackend(
        models,
        shares=[member["share"] for member in info.members],
        temperatures=[member["temperature"] for member in info.members],
        task=info.task,
        device=device,
    )


def load_backend(bundle: Bundle, *, device: str | None = None) -> TorchBackend | EnsembleBackend:
    """What computes a bundle's logits with torch. Raises BadInput as `load_classifiers` does."""
    return backend_of(load_classifiers(bundle), bundle.info, device=device)


def load_predictor(folder: str | Path, *, device: str | None = None, verify: bool = True) -> Predictor:
    """A predictor for a bundle folder on the torch backend. Raises BadInput for a damaged or foreign folder."""
    bundle = Bundle.open(Path(folder), verify=verify)
    return Predictor(bundle, load_backend(bundle, device=device))
