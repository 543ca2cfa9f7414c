"""Writes a bundle: everything that prediction needs, in one folder, complete or not there at all."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file

from snapfit.core.errors import WorkFailed
from snapfit.core.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from snapfit.core.folders import staged_folder, write_manifest
from snapfit.core.scores import logits_to_scores
from snapfit.data.batches import pad
from snapfit.nn.backend import TorchBackend
from snapfit.nn.classifier import Classifier
from snapfit.nn.weights import WEIGHTS_NAME
from snapfit.runtime.bundle import BundleInfo
from snapfit.ship.card import model_card
from snapfit.training.fit import Fitted
from snapfit.training.prepare import Tables
from snapfit.version import __version__

N_PROBES = 16
"""Texts whose scores are stored with the bundle, to be replayed after a move or an export."""


def write_bundle(folder: Path, fitted: Fitted, tables: Tables) -> BundleInfo:
    """Write the bundle of a finished training; `folder` appears only when it is complete.

    The weights are those of `fitted.model`, float32, contiguous. Returns what snapfit.json says.
    Raises WorkFailed when it cannot be written.
    """
    info = _info(fitted, tables)
    with staged_folder(folder) as staging:
        save_classifier(staging, fitted.model)
        write_bytes_atomic(staging / "tokenizer.json", fitted.tokenizer_files.tokenizer_json)
        write_json_atomic(staging / "tokenizer_config.json", _tokenizer_settings(fitted))
        write_json_atomic(staging / "snapfit.json", info.to_dict())
        write_json_atomic(staging / "probes.json", _probes(fitted, tables))
        write_text_atomic(staging / "README.md", model_card(info, reasons=fitted.reasons))
        write_manifest(staging)
    return info


def _tokenizer_settings(fitted: Fitted) -> dict[str, Any]:
    """The encoder's own settings, with which transformers cuts where snapfit does and gives what is read."""
    types = ["token_type_ids"] if fitted.model.accepts_types else []
    return {
        **fitted.tokenizer_files.tokenizer_config,
        "model_max_length": fitted.tokenizer.max_tokens,
        "model_input_names": ["input_ids", *types, "attention_mask"],
    }


def save_classifier(folder: Path, model: Classifier) -> None:
    """config.json and model.safetensors, as transformers names and reads them. Raises WorkFailed when it cannot."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [model.architecture]
    config.pop("_name_or_path", None)
    write_json_atomic(folder / "config.json", config)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    try:
        save_file(state, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise WorkFailed(f"could not write {folder / WEIGHTS_NAME}: {error}") from error


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "snapfit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }


def _info(fitted: Fitted, tables: Tables) -> BundleInfo:
    pooling = fitted.recipe.model.pooling
    columns = tables.columns
    return BundleInfo(
        task=tables.label_set.task,
        labels=tables.label_set.to_dict(),
        pair=tables.pair,
        text_columns=[columns.text] if columns.pair is None else [columns.text, columns.pair],
        label_column=columns.label,
        delimiter=fitted.recipe.data.delimiter,
        pooling=pooling,
        pooling_reason=fitted.reasons.get("model.pooling", "stated in the recipe"),
        head="native" if pooling == "native" else "snapfit",
        max_tokens=fitted.tokenizer.max_tokens,
        pad_id=fitted.tokenizer_files.pad_id,
        metrics=fitted.metrics,
        versions=versions(),
        data=tables.identity,
        recipe=fitted.recipe.to_dict(),
    )


def _probes(fitted: Fitted, tables: Tables) -> dict[str, Any]:
    """Short stand-in texts and their scores; never rows of the training table, which may be private."""
    texts = probe_texts()
    examples: Sequence[Any] = list(zip(texts, reversed(texts), strict=True)) if tables.pair else texts
    pairs = [b for _, b in examples] if tables.pair else None
    tokens = fitted.tokenizer.encode(texts, pairs)
    rows = np.arange(len(texts))
    logits = TorchBackend(fitted.model, device="cpu").logits(pad(tokens, rows, pad_id=fitted.tokenizer_files.pad_id))
    return {"texts": examples, "scores": logits_to_scores(logits, tables.label_set.task).tolist()}


def probe_texts() -> list[str]:
    """N_PROBES texts of many lengths and scripts, the same for every bundle."""
    seeds = [
        "yes",
        "Where is my order?",
        "The second half drags, but the ending makes up for it.",
        "我想取消昨天的订单。",
        "2026-01-31 12:00, total 1,299.50 EUR",
        "¿Cuánto cuesta el envío a Canarias?",
        "",
        "🙂 café naïve Straße",
    ]
    return [*seeds, *(" ".join([text] * 3) for text in reversed(seeds))]
