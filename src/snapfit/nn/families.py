"""What is particular to each encoder family: where its parts are, and how its native head is laid out.

This table is the only place that knows architectures. A family that is not in it still trains: its layers
count as one depth, its native head is not offered, and `Family.known` tells callers to say so.
Paths are below the encoder (for BERT, below `bert.`) unless stated otherwise; they are those of transformers 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedConfig

Depth = int | Literal["head"]


@dataclass(frozen=True)
class Family:
    """One row of the table.

    bottom: modules that feed the first layer, or that all layers share; depth 0.
    layers: the module list of the layers; the i-th (from 0) has depth i + 1.
    top: modules after the last layer; they have the last layer's depth.
    pooler: the module inside the encoder that transformers adds for a native head, or None.
    output: the last linear layer of the native head, as a path from the whole model.
    hidden_dropout, attention_dropout, head_dropout: names of the config's probabilities.
    position_offset: positions that the position table loses to padding; "pad" means padding_idx + 1.
    shared_layers: the config's name for the number of distinct layers, where layers share weights.
    packs: whether rows can go through the encoder without padding. Not where attention takes positions relative to
        the whole batch, or where its code takes no attention from outside.
    """

    bottom: tuple[str, ...] = ("embeddings",)
    layers: str = "encoder.layer"
    top: tuple[str, ...] = ()
    pooler: str | None = None
    output: str = "classifier"
    hidden_dropout: tuple[str, ...] = ("hidden_dropout_prob",)
    attention_dropout: tuple[str, ...] = ("attention_probs_dropout_prob",)
    head_dropout: tuple[str, ...] = ("classifier_dropout",)
    position_offset: int | Literal["pad"] = 0
    shared_layers: str | None = None
    packs: bool = True
    known: bool = True


_BERT = Family(pooler="pooler")
_ROBERTA = Family(pooler="pooler", output="classifier.out_proj", position_offset="pad")
_UNKNOWN = Family(
    bottom=(), layers="", hidden_dropout=(), attention_dropout=(), head_dropout=(), packs=False, known=False
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "ernie": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        layers="transformer.layer",
        hidden_dropout=("dropout",),
        attention_dropout=("attention_dropout",),
        head_dropout=("seq_classif_dropout",),
    ),
    "electra": Family(bottom=("embeddings", "embeddings_project"), output="classifier.out_proj"),
    "albert": Family(
        bottom=("embeddings", "encoder.embedding_hidden_mapping_in"),
        layers="encoder.albert_layer_groups",
        pooler="pooler",
        head_dropout=("classifier_dropout_prob",),
        shared_layers="num_hidden_groups",
    ),
    "mpnet": Family(
        bottom=("embeddings", "encoder.relative_attention_bias"),
        pooler="pooler",
        output="classifier.out_proj",
        position_offset="pad",
        packs=False,
    ),
    "deberta-v2": Family(
        bottom=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm", "encoder.conv"),
        head_dropout=("pooler_dropout", "cls_dropout"),
        packs=False,
    ),
    "modernbert": Family(
        layers="layers",
        top=("final_norm",),
        hidden_dropout=("mlp_dropout", "embedding_dropout"),
        attention_dropout=("attention_dropout",),
    ),
}


def family_of(config: PreTrainedConfig) -> Family:
    """The row for this config's `model_type`; the row of unknown families if there is none."""
    return FAMILIES.get(config.model_type, _UNKNOWN)


def n_depths(config: PreTrainedConfig) -> int:
    """The number of layers with weights of their own; 1 for an unknown family."""
    family = family_of(config)
    if not family.known:
        return 1
    return int(getattr(config, family.shared_layers or "num_hidden_layers"))


def max_positions(config: PreTrainedConfig) -> int | None:
    """The longest row, special tokens included, that the encoder has positions for; None if it has no limit."""
    try:
        table = getattr(config, "max_position_embeddings", None)
    except NotImplementedError:  # how transformers says "no limit" for XLNet
        return None
    if table is None or table <= 0:
        return None
    offset = family_of(config).position_offset
    return int(table) - ((config.pad_token_id or 0) + 1 if offset == "pad" else offset)


def depth_reader(config: PreTrainedConfig, encoder_prefix: str) -> Callable[[str], Depth]:
    """A function from a parameter's full name to its depth: "head", 0 (embeddings) or 1..n_depths.

    encoder_prefix: where the encoder stands in the model, such as "bert".
    Raises KeyError for an encoder parameter that a known family's row does not place: the row is then wrong.
    """
    family, last = family_of(config), n_depths(config)

    def depth(name: str) -> Depth:
        if not name.startswith(encoder_prefix + "."):
            return "head"
        path = name[len(encoder_prefix) + 1 :]
        if not family.known:
            return last
        if family.pooler and _under(path, family.pooler):
            return "head"
        if any(_under(path, part) for part in family.bottom):
            return 0
        if any(_under(path, part) for part in family.top):
            return last
        if _under(path, family.layers):
            return int(path[len(family.layers) + 1 :].split(".", 1)[0]) + 1
        raise KeyError(f"{config.model_type}: no depth is known for the parameter {name}")

    return depth


def set_dropout(config: PreTrainedConfig, *, hidden: float | None, attention: float | None) -> None:
    """Write dropout probabilities into a config, under the names that its family uses; None keeps its own.

    hidden: between layers and before the head's output; attention: on attention weights.
    """
    family = family_of(config)
    for value, names in (
        (hidden, family.hidden_dropout + family.head_dropout),
        (attention, family.attention_dropout),
    ):
        for name in names:
            if value is not None and hasattr(config, name):
                setattr(config, name, value)


def _under(path: str, module: str) -> bool:
    return path == module or path.startswith(module + ".")
