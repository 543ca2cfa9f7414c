"""A tiny bundle and a real backend for it: a mean of word vectors and a linear layer, in numpy."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from snapfit.core.files import write_bytes_atomic, write_json_atomic
from snapfit.core.folders import write_manifest
from snapfit.core.labels import LabelSet
from snapfit.core.windows import combine_windows
from snapfit.data.batches import Batch
from snapfit.runtime.bundle import BundleInfo

WORDS = [
    "the",
    "a",
    "film",
    "was",
    "is",
    "good",
    "bad",
    "great",
    "dull",
    "very",
    "not",
    "plot",
    "actor",
    "music",
    "ending",
    "why",
    "how",
    "what",
    "when",
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LABELS = {
    "single": LabelSet("single", ("bad", "fair", "good")),
    "multi": LabelSet("multi", ("drama", "fun", "war")),
    "regression": LabelSet("regression", ("stars",), 3.0, 1.5),
}


def tiny_tokenizer() -> Tokenizer:
    """Words of WORDS, and [CLS] a [SEP] b [SEP] around them."""
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def tiny_info(task: str = "single", **changes: Any) -> BundleInfo:
    """What a tiny bundle's snapfit.json says."""
    values: dict[str, Any] = {
        "task": task,
        "labels": LABELS[task].to_dict(),
        "pair": False,
        "text_columns": ["text"],
        "pooling": "mean",
        "pooling_reason": "stated",
        "head": "snapfit",
        "max_tokens": 16,
        "pad_id": 0,
    }
    return BundleInfo(**(values | changes))


def write_tiny_bundle(folder: Path, task: str = "single", **changes: Any) -> Path:
    """A bundle folder with everything but useful weights, which no backend here reads."""
    info = tiny_info(task, **changes)
    write_json_atomic(folder / "snapfit.json", info.to_dict())
    write_json_atomic(folder / "config.json", {"model_type": "tiny"})
    write_bytes_atomic(folder / "model.safetensors", b"\0" * 64)
    write_bytes_atomic(folder / "tokenizer.json", tiny_tokenizer().to_str().encode())
    write_manifest(folder)
    return folder


class BagOfWords:
    """Logits of a batch: the mean of its tokens' vectors (second texts weigh double) through a fixed
    matrix; of windows of a text the mean of their logits.
    """

    def __init__(self, n_outputs: int) -> None:
        rng = np.random.default_rng(7)
        self.vectors = rng.normal(size=(len(SPECIALS) + len(WORDS), 12))
        self.matrix = rng.normal(size=(12, n_outputs))
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, batch: Batch) -> np.ndarray:
        """float32 [rows, n_outputs]."""
        self.shapes.append(batch.input_ids.shape)
        weights = batch.attention_mask * (1.0 + batch.token_type_ids)
        total = (self.vectors[batch.input_ids] * weights[:, :, None]).sum(axis=1)
        logits: np.ndarray = (total / weights.sum(axis=1)[:, None] @ self.matrix * 8.0).astype(np.float32)
        return logits if batch.first_windows is None else combine_windows(logits, batch.first_windows, "mean")

    def by_hand(self, first: str, second: str | None = None) -> np.ndarray:
        """The same logits of one text (or pair) that fits max_tokens, computed without batches."""
        encoding = tiny_tokenizer().encode(first, second)
        weights = np.array([1.0 + kind for kind in encoding.type_ids])
        mean = (self.vectors[encoding.ids] * weights[:, None]).sum(axis=0) / weights.sum()
        logits: np.ndarray = mean @ self.matrix * 8.0
        return logits
