"""Tiny real encoders of every family, for tests: three layers, 32 wide, random weights that are large enough to tell.

transformers initialises with a standard deviation of 0.02, which at this width gives logits near zero whatever goes
in. These encoders use 0.2, so that a wrong mask, position or weight changes the logits by far more than a tolerance.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from snapfit.nn.classifier import Classifier, classifier_config
from snapfit.nn.families import family_of

VOCABULARY = 100
FIRST_WORD = 5
"""Ids below are special tokens."""

_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_ROBERTA = {"pad_token_id": 1, "bos_token_id": 0, "type_vocab_size": 1, "max_position_embeddings": 66}
_CHANGES = {
    "bert": {},
    "ernie": {},
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 4},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "mpnet": {"pad_token_id": 1, "max_position_embeddings": 66},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    "modernbert": {
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 6,
        "initializer_cutoff_factor": 3.0,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "nomic_bert": {},
}
KNOWN = tuple(name for name in _CHANGES if name not in ("rembert", "nomic_bert"))
"""Model types that snapfit's table knows."""
UNKNOWN = ("rembert", "nomic_bert")
"""Model types that it does not."""
ALL = (*KNOWN, *UNKNOWN)


def encoder_config(model_type: str, **changes: object) -> PreTrainedConfig:
    """The config of a tiny encoder."""
    config: PreTrainedConfig = AutoConfig.for_model(model_type, **(_BASE | _CHANGES[model_type] | changes))
    return config


def encoder(model_type: str, *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A tiny encoder with random weights, poolers included, biases and norms not left at zero and one."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModel.from_config(encoder_config(model_type, **changes), dtype=torch.float32)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim < 2:
                tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def save_encoder(folder: Path, model_type: str, *, seed: int = 0, **changes: object) -> PreTrainedModel:
    """Save a tiny encoder as transformers does, and return it."""
    model = encoder(model_type, seed=seed, **changes)
    with quiet():
        model.save_pretrained(folder)
    return model


def config_for(
    model_type: str,
    pooling: str = "native",
    *,
    task: str = "single",
    n_labels: int = 3,
    window_pooling: str | None = None,
    **changes: object,
) -> PreTrainedConfig:
    """The config of a classifier over a tiny encoder, without dropout in its head. changes: of the encoder's config."""
    names = [f"label {i}" for i in range(n_labels)]
    return classifier_config(
        encoder_config(model_type, **changes),
        task=task,  # type: ignore[arg-type]
        label_names=names,
        pooling=pooling,
        head_dropout=0.0,
        window_pooling=window_pooling,  # type: ignore[arg-type]
    )


def poolings(model_type: str) -> tuple[str, ...]:
    """One pooling of each kind that the family offers."""
    own = ("cls", "mean", "max", "attention", "last4_mean", "last4_concat")
    return ("native", *own) if family_of(encoder_config(model_type)).known else own


def short_poolings(model_type: str) -> tuple[str, ...]:
    """The native head where there is one, and a pooled one."""
    return ("native", "mean") if model_type in KNOWN else ("mean",)


FAMILY_AND_POOLING = [(name, pooling) for name in ALL for pooling in short_poolings(name)]


def classifier(model_type: str, pooling: str = "native", *, seed: int = 0, **options: object) -> Classifier:
    """A classifier with random weights that are large enough to tell, in evaluation mode."""
    torch.manual_seed(seed)
    model = Classifier(config_for(model_type, pooling, **options))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim < 2:
                tensor.add_(0.1 * torch.randn_like(tensor))
            elif not name.startswith(model.encoder_prefix):
                tensor.normal_(std=0.3)
    return model


def inputs(
    config: PreTrainedConfig, lengths: Sequence[int], *, seed: int = 0, width: int | None = None
) -> dict[str, torch.Tensor]:
    """Random rows of these lengths, padded to `width` (default: the longest)."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    mask = torch.zeros(len(lengths), width, dtype=torch.int64)
    ids = torch.full((len(lengths), width), config.pad_token_id or 0)
    types = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(FIRST_WORD, VOCABULARY, (length,), generator=generator)
        mask[row, :length] = 1
        types[row, length // 2 : length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def one_row(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """A row of a batch alone, without its padding."""
    length = int(batch["attention_mask"][row].sum())
    return {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
