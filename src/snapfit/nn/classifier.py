"""The classifier: a transformers encoder and a head, built from a config alone.

The constructor reads no file and no network. Weights arrive afterwards, in either of two ways:

    Classifier.from_pretrained(folder)                      transformers' way; saved with `save_pretrained`
    model = Classifier(config); load_encoder(model, ...)    the plain way; or `load_all` for prediction

With pooling "native" the modules, their names and the saved folder are exactly those of transformers'
`...ForSequenceClassification`, so that plain transformers opens them. With another pooling the encoder keeps its
native names and `head.*` is snapfit's.
"""

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import logging as transformers_logging

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.labels import Task
from snapfit.core.lengths import WindowPooling
from snapfit.nn.families import family_of
from snapfit.nn.head import Head
from snapfit.nn.losses import loss_sum
from snapfit.nn.pooling import POOLINGS
from snapfit.nn.weights import LoadReport, load_all, load_encoder, read_weights
from snapfit.nn.windows import combine_windows

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
_PROBLEM_TYPES: dict[Task, ProblemType] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}


def classifier_config(
    encoder_config: PreTrainedConfig,
    *,
    task: Task,
    label_names: list[str],
    pooling: str,
    head_dropout: float = 0.1,
    window_pooling: WindowPooling | None = None,
) -> PreTrainedConfig:
    """A copy of the encoder's config that describes a whole classifier, in transformers' own words where it has them.

    pooling: "native" or one of pooling.POOLINGS. head_dropout: of snapfit's head; a native head reads its own name.
    window_pooling: how windows of a text become one answer, see `core/windows.py`; None: a text is one sequence.
    Raises BadInput for a native head of a family that the table does not know, for one that should do more than give
    logits for windows, and for last4 poolings over fewer than three layers.
    """
    if pooling != "native" and pooling not in POOLINGS:
        raise BadInput(f"pooling {pooling!r}", f"native, {', '.join(POOLINGS)}", "correct model.pooling")
    if pooling == "native" and not family_of(encoder_config).known:
        raise BadInput(
            f"a native head for the family {encoder_config.model_type!r}",
            "a family of snapfit's table for pooling 'native'",
            "use --set model.pooling=mean",
        )
    if pooling == "native" and window_pooling in ("attention", "max_states"):
        raise BadInput(
            f"windows pooled by {window_pooling!r} under a native head",
            "mean or max, which need nothing but logits of each window",
            "use --set length.window_pooling=mean, or --set model.pooling=mean",
        )
    n_layers = getattr(encoder_config, "num_hidden_layers", None)
    if pooling.startswith("last4") and n_layers is not None and n_layers < 3:
        raise BadInput(
            f"pooling {pooling!r} over an encoder of {n_layers} layers",
            "states of four layers, the embeddings among them",
            "use --set model.pooling=mean",
        )
    config = copy.deepcopy(encoder_config)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: i for i, name in enumerate(label_names)}
    config.problem_type = _PROBLEM_TYPES[task]
    config.snapfit_pooling = pooling
    config.snapfit_head_dropout = head_dropout
    vars(config).pop("snapfit_window_pooling", None)  # of a bundle whose encoder it is
    if window_pooling is not None:
        config.snapfit_window_pooling = window_pooling
    config.tie_word_embeddings = False  # there is no language-model head to tie to
    return config


def task_of(config: PreTrainedConfig) -> Task:
    """The task that a classifier's config was made for."""
    return next(task for task, name in _PROBLEM_TYPES.items() if name == config.problem_type)


class Classifier(PreTrainedModel):
    """Logits from padded token ids.

    config: from `classifier_config`. Building is random and reads nothing; it ends in training mode off.
    Attributes: pooling, window_pooling, encoder_prefix (where the encoder stands, such as "bert"), family, encoder.
    """

    config_class = PreTrainedConfig
    main_input_name = "input_ids"
    # The encoder, built first, decides about its attention; these only keep this class from overruling it.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: PreTrainedConfig) -> None:
        self_pooling: str = config.snapfit_pooling
        inner = _build_inner(config, native=self_pooling == "native")
        super().__init__(inner.config)
        self.pooling = self_pooling
        self.window_pooling: WindowPooling | None = getattr(config, "snapfit_window_pooling", None)
        self.family = family_of(config)
        self.base_model_prefix = self.encoder_prefix = str(inner.base_model_prefix or "encoder")
        if self_pooling == "native":
            # One dictionary of children: this model's names are transformers' own, and `_native` runs on them.
            self._modules = inner._modules
            self.__dict__["_native"] = inner
        else:
            self.add_module(self.encoder_prefix, inner)
            self.head = Head(
                self_pooling,
                width=config.hidden_size,
                n_outputs=len(config.id2label or ()),
                dropout=config.snapfit_head_dropout,
                window_pooling=self.window_pooling,
            )
        self.accepts_types = _accepts_types(self.encoder, config)
        self.train(False)

    @property
    def encoder(self) -> nn.Module:
        """transformers' encoder module."""
        return self.get_submodule(self.encoder_prefix)

    @property
    def output(self) -> nn.Linear:
        """The last linear layer, whose rows are the labels."""
        layer = self.get_submodule(self.family.output if self.pooling == "native" else "head.output")
        assert isinstance(layer, nn.Linear)  # else a wrong row of the families table
        return layer

    @property
    def architecture(self) -> str:
        """The class name for config.json's `architectures`: transformers' own for a native head."""
        native = self.__dict__.get("_native")
        return type(self if native is None else native).__name__

    @property
    def optional_parts(self) -> tuple[str, ...]:
        """Paths under the encoder's prefix that an encoder checkpoint may lack."""
        return (f"{self.encoder_prefix}.{self.family.pooler}",) if self.family.pooler else ()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        first_windows: np.ndarray | None = None,
        combine: bool = True,
    ) -> SequenceClassifierOutput:
        """Logits, and the mean loss if labels are given.

        input_ids, attention_mask (1 on real tokens), token_type_ids: int64 [batch, length].
        labels: what `losses.loss_sum` takes. first_windows: int64 [rows + 1], where each row's windows begin in the
        batch, and their number; None: every sequence is a row. Returns logits float [rows, n_outputs].
        combine: False leaves the windows as they are: what is returned as logits are the columns of every sequence,
        float [batch, columns], for `core.windows.combine_windows` and then `finish`.
        """
        logits = self._columns(input_ids, attention_mask, token_type_ids)
        if not combine:
            return SequenceClassifierOutput(logits=logits)
        if self.window_pooling is not None:
            every = np.arange(len(logits) + 1) if first_windows is None else first_windows
            logits = self.finish(combine_windows(logits, every, self.window_pooling))
        elif first_windows is not None:
            raise WorkFailed("windows of texts were given to a model that was not made for them")
        loss = None
        if labels is not None:
            loss = loss_sum(logits, labels, task=task_of(self.config)) / len(logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _columns(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        """What is computed of each sequence by itself, float [batch, columns]."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.accepts_types and token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        if self.pooling == "native":
            native: Tensor = self.__dict__["_native"](**inputs).logits
            return native
        output = self.encoder(**inputs, output_hidden_states=self.head.pooling.needs_all_layers)
        states = output.hidden_states or (output.last_hidden_state,)
        columns: Tensor = self.head(states, attention_mask.bool())
        return columns

    def finish(self, rows: Tensor) -> Tensor:
        """Logits float [rows, n_outputs] of rows to which the columns of windows were combined."""
        return rows if self.pooling == "native" else self.head.finish(rows)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # transformers' is untyped and takes dozens of switches
        cls,
        folder: str | Path,
        *,
        config: PreTrainedConfig | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> "Classifier":
        """A classifier from a folder: a saved one whole, or a fresh head over a pretrained encoder.

        Of a bundle in which several models answer it is the first one, as for transformers.

        config: from `classifier_config`, for training over an encoder; without it the folder must hold a classifier.
        state_dict: a whole classifier's weights to use instead of the folder's.
        Raises BadInput when weights are missing or do not fit.
        """
        folder = Path(folder)
        saved = AutoConfig.from_pretrained(folder, trust_remote_code=False) if config is None else config
        if not hasattr(saved, "snapfit_pooling"):
            raise BadInput(
                f"{folder} holds an encoder, not a classifier",
                "a classifier's folder, or config= from classifier_config",
                "pass config=classifier_config(AutoConfig.from_pretrained(folder), ...)",
            )
        model = cls(saved)
        if state_dict is not None:
            load_all(model, state_dict, source="state_dict")
        elif config is None:
            load_all(model, read_weights(folder), source=str(folder))
        else:
            load_encoder_folder(model, folder)
        return model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Save config.json and model.safetensors; with the native head exactly as transformers' own class would."""
        if self.pooling == "native":
            self.__dict__["_native"].save_pretrained(save_directory, **kwargs)
        else:
            # Under the names that this class has, even where transformers stores a family under other ones.
            super().save_pretrained(save_directory, **{"save_original_format": False, **kwargs})

    @torch.no_grad()
    def rescale_output(self, *, scale: float, shift: float) -> None:
        """Fold `logits * scale + shift` into the output layer: a regression's logits are then in target units."""
        self.output.weight.mul_(scale)
        self.output.bias.mul_(scale).add_(shift)


def encoder_layers(model: Classifier) -> nn.ModuleList | None:
    """The list of the encoder's layers; None for a family without a row in the table."""
    layers = model.encoder.get_submodule(model.family.layers) if model.family.layers else None
    return layers if isinstance(layers, nn.ModuleList) else None


def load_encoder_folder(model: Classifier, folder: Path) -> LoadReport:
    """Load the encoder of a checkpoint folder into a built classifier; the head stays fresh."""

    def load(state: Mapping[str, Tensor]) -> LoadReport:
        return load_encoder(
            model, state, prefix=model.encoder_prefix, optional=model.optional_parts, source=str(folder)
        )

    state = read_weights(folder)
    try:
        return load(state)
    except BadInput:
        if model.family.known:
            raise
        renamed = _read_by_transformers(folder)
        if renamed is None:
            raise
    return load(renamed)


def _read_by_transformers(folder: Path) -> dict[str, Tensor] | None:
    """An encoder checkpoint under the names of transformers' modules, for families whose files have other names.

    None when transformers cannot read it either; weights that the checkpoint lacks are left out.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        encoder, found = AutoModel.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError):
        return None
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    return {name: tensor for name, tensor in encoder.state_dict().items() if name not in found["missing_keys"]}


def _build_inner(config: PreTrainedConfig, *, native: bool) -> PreTrainedModel:
    """transformers' native classifier, or its bare encoder without the pooler that nothing would read."""
    if native:
        built: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        return built
    if type(config) not in MODEL_MAPPING:
        raise BadInput(
            f"the model type {config.model_type!r}", "an encoder that transformers can build", "choose another encoder"
        )
    known = MODEL_MAPPING[type(config)]
    encoder_class: Any = known[0] if isinstance(known, tuple) else known
    poolable = "add_pooling_layer" in inspect.signature(encoder_class).parameters
    extra = {"add_pooling_layer": False} if poolable else {}
    encoder: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32, **extra)
    return encoder


def _accepts_types(encoder: nn.Module, config: PreTrainedConfig) -> bool:
    """Whether the encoder reads token types and has more than one of them."""
    return (
        "token_type_ids" in inspect.signature(encoder.forward).parameters
        and (getattr(config, "type_vocab_size", 0) or 0) > 1
    )
