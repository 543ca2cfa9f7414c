"""`snapfit.load`: the one place that chooses a backend for a bundle, so that the runtime itself needs no torch."""

from pathlib import Path

from snapfit.core.errors import MissingExtra
from snapfit.runtime.predictor import Predictor


def load(folder: str | Path, *, device: str | None = None, verify: bool = True) -> Predictor:
    """A predictor for a bundle folder. Nothing but the folder is read: no pretrained checkpoint, no network.

    device: torch device, such as "cuda:0"; default CUDA where there is one, else the CPU.
    verify: compare every file with the manifest's SHA-256 first.
    Raises BadInput for a folder that is no bundle, is damaged or comes from a newer snapfit; MissingExtra when no
    backend is installed.
    """
    try:
        from snapfit.nn.backend import load_predictor
    except ModuleNotFoundError as error:
        if error.name in ("torch", "transformers"):
            raise MissingExtra("train", error.name) from error
        raise
    return load_predictor(folder, device=device, verify=verify)
