"""The torch backend of the predictor: padded ids in, logits out; and bundles opened with it."""

import threading
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig

from snapfit.data.batches import Batch
from snapfit.nn.classifier import Classifier
from snapfit.nn.packed_encoder import use_packing
from snapfit.nn.weights import load_all, read_weights
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.predictor import Predictor


class TorchBackend:
    """Runs a classifier in inference mode.

    model: put into evaluation mode and onto the device. device: default CUDA where there is one, else CPU.
    Thread-safe: the forward pass changes no state, and modes are set once, here.
    """

    def __init__(self, model: Classifier, *, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model
        torch.nn.Module.to(model, self.device)  # in place; transformers' own wrapper is untyped
        model.train(False)
        self._lock = threading.Lock()

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 [rows, n_outputs] for one padded batch."""
        ids, mask, types = (
            torch.from_numpy(a).to(self.device) for a in (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        )
        with self._lock, torch.inference_mode():
            output = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        array: np.ndarray = output.logits.float().cpu().numpy()
        return array


def load_classifier(bundle: Bundle) -> Classifier:
    """The bundle's model, built from its config.json and filled by name; no pretrained checkpoint is looked for."""
    config = AutoConfig.from_pretrained(bundle.folder, trust_remote_code=False)
    model = Classifier(config)
    load_all(model, read_weights(bundle.folder), source=str(bundle.folder))
    use_packing(model)
    return model


def load_predictor(folder: str | Path, *, device: str | None = None, verify: bool = True) -> Predictor:
    """A predictor for a bundle folder on the torch backend. Raises BadInput for a damaged or foreign folder."""
    bundle = Bundle.open(Path(folder), verify=verify)
    return Predictor(bundle, TorchBackend(load_classifier(bundle), device=device))
