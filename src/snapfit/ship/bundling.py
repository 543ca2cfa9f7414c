"""Writes a bundle: everything that prediction needs, in one folder, complete or not there at all."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from snapfit.core.errors import WorkFailed
from snapfit.core.files import cannot_write, write_bytes_atomic, write_json_atomic, write_text_atomic
from snapfit.core.folders import staged_folder, write_manifest
from snapfit.core.lengths import HEAD
from snapfit.data.batches import pad
from snapfit.nn.backend import backend_of
from snapfit.nn.classifier import Classifier
from snapfit.nn.member_weights import changed_tensors, with_changes
from snapfit.nn.weights import WEIGHTS_NAME
from snapfit.runtime.bundle import BundleInfo, format_of, member_file
from snapfit.runtime.bundle_rule import split_rule, told_in_bundle, write_centroids
from snapfit.runtime.predictor import Backend
from snapfit.ship.card import model_card
from snapfit.training.answer import Answer
from snapfit.training.fit import Fitted
from snapfit.training.prepare import Tables
from snapfit.training.tensor_files import write_tensors
from snapfit.version import __version__

N_PROBES = 16
"""Texts whose scores are stored with the bundle, to be replayed after a move or an export."""


def write_bundle(folder: Path, fitted: Fitted, tables: Tables) -> BundleInfo:
    """Write the bundle of a finished training; `folder` appears only when it is complete.

    The weights are those of `fitted.model`, float32, contiguous; of further models of its answer, what differs from
    them. Returns what snapfit.json says.
    Raises WorkFailed when it cannot be written, BadInput when a further model is of another architecture.
    """
    info = _info(fitted, tables)
    changed = _changed(fitted)
    with staged_folder(folder) as staging:
        save_classifier(staging, fitted.model)
        hashes = _save_members(staging, changed)
        write_bytes_atomic(staging / "tokenizer.json", fitted.tokenizer_files.tokenizer_json)
        write_json_atomic(staging / "tokenizer_config.json", _tokenizer_settings(fitted))
        write_centroids(staging, fitted.rule)
        write_json_atomic(staging / "snapfit.json", info.to_dict())
        write_json_atomic(staging / "probes.json", _probes(fitted, tables, info, _backend(fitted, info, changed)))
        write_text_atomic(staging / "README.md", model_card(info, reasons=fitted.reasons))
        write_manifest(staging, known=hashes)
    return info


def _tokenizer_settings(fitted: Fitted) -> dict[str, Any]:
    """The encoder's own settings, with which transformers cuts where snapfit does, as far as it can: at one end; and
    gives what is read.
    """
    types = ["token_type_ids"] if fitted.model.accepts_types else []
    settings = {
        **fitted.tokenizer_files.tokenizer_config,
        "model_max_length": fitted.tokenizer.max_tokens,
        "model_input_names": ["input_ids", *types, "attention_mask"],
    }
    tail = fitted.tokenizer.policy.policy == "tail"
    if tail or "truncation_side" in settings:
        settings["truncation_side"] = "left" if tail else "right"
    return settings


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


def _save_members(folder: Path, changed: Sequence[Mapping[str, Tensor]]) -> dict[str, str]:
    """What differs in each further model, in a file of its own; returns the files' SHA-256 by name."""
    hashes = {}
    for number, tensors in enumerate(changed, 1):
        name = member_file(number)
        try:
            (folder / name).parent.mkdir(exist_ok=True)
            contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            hashes[name] = write_tensors(folder / name, contiguous)
        except OSError as error:
            raise cannot_write(folder / name, error) from error
    return hashes


def _changed(fitted: Fitted) -> list[dict[str, Tensor]]:
    """Of each further model of the answer, what differs from the first one."""
    first = fitted.model.state_dict()
    others = fitted.answer.others if fitted.answer else ()
    return [changed_tensors(first, other, source=f"model {n} of the answer") for n, other in enumerate(others, 2)]


def _backend(fitted: Fitted, info: BundleInfo, changed: Sequence[Mapping[str, Tensor]]) -> Backend:
    """What answers for the bundle, as it will when it is loaded."""
    models = [fitted.model, *(with_changes(fitted.model, tensors) for tensors in changed)]
    return backend_of(models, info, device="cpu")


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
    pooling, policy = fitted.recipe.model.pooling, fitted.tokenizer.policy
    columns, answer = tables.columns, fitted.answer or Answer("")
    members = [
        {"file": member_file(number), "share": share, "temperature": temperature}
        for number, (share, temperature) in enumerate(zip(answer.shares, answer.temperatures, strict=True))
    ]
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
        length_policy=None if policy.policy == HEAD.policy else policy.to_dict(),
        pad_id=fitted.tokenizer_files.pad_id,
        **split_rule(fitted.rule),
        decided=told_in_bundle(fitted.report),
        metrics=fitted.metrics,
        versions=versions(),
        data=tables.identity,
        recipe=fitted.recipe.to_dict(),
        members=members if answer.is_mean else None,
        made_of={} if fitted.answer is None else {"name": answer.name, **answer.made_of},
        format_version=format_of(answer.is_mean, split_rule(fitted.rule)["decision"]),
    )


def _probes(fitted: Fitted, tables: Tables, info: BundleInfo, backend: Backend) -> dict[str, Any]:
    """Short stand-in texts and their scores; never rows of the training table, which may be private."""
    texts = probe_texts()
    if info.length_policy is not None:
        texts += long_probe_texts(info.max_tokens)
    examples: Sequence[Any] = list(zip(texts, reversed(texts), strict=True)) if tables.pair else texts
    pairs = [b for _, b in examples] if tables.pair else None
    tokens = fitted.tokenizer.encode(texts, pairs)
    rows = np.arange(len(texts))
    logits = backend.logits(pad(tokens, rows, pad_id=info.pad_id))
    return {"texts": examples, "scores": fitted.rule.scores(logits).tolist()}


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


def long_probe_texts(max_tokens: int) -> list[str]:
    """Two texts of more than twice so many tokens, whose beginnings, middles and ends differ."""
    words = probe_texts()[2].split()
    return [" ".join(words[i * step % len(words)] for i in range(2 * max_tokens + 1)) for step in (1, 5)]
