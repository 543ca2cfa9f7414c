"""The sections of a recipe: every setting with its type, its default and what it may be.

Every mistake is one BadInput that names the setting, what was found and where, and what is allowed.
"""

import codecs
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from snapfit.core.errors import BadInput, nearest
from snapfit.core.labels import Task
from snapfit.core.lengths import HEAD, LengthPolicy, Policy, WindowPooling
from snapfit.core.metrics import METRICS
from snapfit.core.recipe_sources import plain_value
from snapfit.core.recipe_words import allowed_values, allows_none, named_values, shown, written

Auto = Literal["auto"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Above0 = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
Inside1 = Annotated[float, Field(gt=0, lt=1)]

_NONE_WORDS = frozenset({"none", "null", "~"})


class Section(BaseModel):
    """Base of the sections: frozen, strict about names and numbers, its errors in words."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    section: ClassVar[str]
    words: ClassVar[dict[str, str]] = {}  # what is allowed, where the type does not say it

    @field_validator("*", mode="before")
    @classmethod
    def _tidy(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and value.strip().lower() in _NONE_WORDS:
            optional = allows_none(cls.model_fields[str(info.field_name)].annotation)
            return None if optional else value
        return plain_value(value)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Any], info: ValidationInfo) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            origins = (info.context or {}).get("origins", {})
            raise cls._in_words(error, value, origins) from None

    @classmethod
    def _in_words(cls, error: ValidationError, value: Any, origins: Mapping[str, str]) -> BadInput:
        """The error as one of ours: the first wrong setting in full, others by name."""
        wrong = list(dict.fromkeys(str(entry["loc"][0]) for entry in error.errors() if entry["loc"]))
        if not wrong:
            return not_a_section(cls.section, value, origins.get(cls.section, ""))
        for name in wrong:
            if name not in cls.model_fields:
                return unknown(f"{cls.section}.{name}", origins.get(f"{cls.section}.{name}", ""))
        key, field = f"{cls.section}.{wrong[0]}", cls.model_fields[wrong[0]]
        meant = nearest(str(value[wrong[0]]), cls.choices(wrong[0]))
        others = f"; also wrong: {', '.join(wrong[1:])}" if wrong[1:] else ""
        return BadInput(
            f"{key} is {shown(value[wrong[0]])}{given_at(origins.get(key, ''))}{others}",
            cls.allowed(wrong[0]),
            f"did you mean {meant}? --set {key}={meant}"
            if meant
            else f"give an allowed value, or the default: --set {key}={written(field.default)}",
        )

    @classmethod
    def allowed(cls, name: str) -> str:
        """What a setting may be, in words."""
        field = cls.model_fields[name]
        return cls.words.get(name) or allowed_values(field.annotation, field.metadata)

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """The words among what a setting may be."""
        return named_values(cls.model_fields[name].annotation)


_NOTATIONS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}
"""Codecs of Python that are ways to write text down in text, not encodings of files."""


class DataSection(Section):
    """Where texts and labels are in a table, and how validation rows are split off."""

    section: ClassVar[str] = "data"
    words: ClassVar[dict[str, str]] = {"encoding": "a text encoding of Python, such as utf-8 or gb18030"}

    text: Text = "auto"
    pair: Text | None = "auto"
    label: Text = "auto"
    task: Task | Auto = "auto"
    delimiter: Text | None = None  # between the labels of one cell; makes the task multi
    encoding: Text = "utf-8"
    format: Literal["auto", "csv", "tsv", "tsv-quoted", "jsonl", "parquet"] = "auto"
    valid_fraction: Annotated[float, Field(ge=0, le=0.5)] | Auto = "auto"  # 0: train on everything
    split_seed: Seed = 0

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            codec = codecs.lookup(value)
            if not codec._is_text_encoding or codec.name in _NOTATIONS:
                raise ValueError("no text encoding")
        except LookupError as error:
            raise ValueError("unknown") from error
        return value


class ModelSection(Section):
    """The encoder and what is put on top of it."""

    section: ClassVar[str] = "model"

    encoder: Text = "starter"
    pooling: Literal["auto", "native", "cls", "mean", "max", "attention", "last4_mean", "last4_concat"] = "auto"
    dropout: Below1 | Auto = 0.1  # auto: as the encoder's config has it
    attention_dropout: Below1 | Auto = 0.0
    reinit_layers: Count = 0  # top layers that start from random weights
    head: Literal["fresh", "kept"] = "fresh"  # kept: that of the bundle which `encoder` names


class OptimSection(Section):
    """The optimizer, its rates and what it must not touch."""

    section: ClassVar[str] = "optim"

    name: Text = "adamw"  # any class of torch.optim that can run the loop, in any case
    lr: Above0 | Auto = "auto"  # peak rate of the encoder's top layer
    head_lr_factor: Above0 | Auto = "auto"
    layer_ratio: Share | Auto = "auto"  # rate of the bottom layer over the top layer's
    weight_decay: NotNegative = 0.01
    max_grad_norm: NotNegative = 1.0  # 0: no clipping
    freeze_layers: Count = 0  # n: the embeddings and the lowest n layers
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    eps: Above0 = 1e-8
    momentum: Below1 = 0.9  # of SGD


class ScheduleSection(Section):
    """How the rates rise and fall; see `snapfit.training.schedules`."""

    section: ClassVar[str] = "schedule"

    shape: Literal["linear", "cosine", "cosine_restarts", "one_cycle", "wsd", "constant"] = "linear"
    warmup_fraction: Below1 = 0.1
    cycles: AtLeastOne = 1
    cycle_mult: Above0 = 1.0
    cycle_decay: Share = 1.0
    floor: Below1 = 0.0
    decay_fraction: Share = 0.2  # of wsd
    head_first: Below1 = 0.0  # share of the steps in which the head learns alone; see `snapfit.training.unfreezing`
    unfreeze_share: Below1 = 0.0  # share after it, over which one layer after the other begins to learn, from the top


MOST_FOLDS = 20
"""Every fold is a whole training; ten are as many as an estimate needs (Kohavi 1995)."""


class TrainSection(Section):
    """How long, in which portions, from which seed, and what decides which weights are kept."""

    section: ClassVar[str] = "train"
    words: ClassVar[dict[str, str]] = {"metric": f"auto, or one of {', '.join(METRICS)}"}

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """The words among what a setting may be."""
        return tuple(METRICS) if name == "metric" else super().choices(name)

    epochs: Above0 | Auto = "auto"
    batch: AtLeastOne | Auto = "auto"
    accumulate: AtLeastOne = 1
    token_budget: AtLeastOne | None = None  # padded tokens of a step at most
    window: AtLeastOne = 64  # steps whose rows are sorted by length together; 1: plain random order
    sampling: Literal["all", "balanced", "weighted"] = "all"  # balanced: rows drawn so that all classes come up alike
    sampling_power: Share = 0.5  # of weighted: rows drawn in proportion to (rows of their class) ** -power
    seed: Seed = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    patience: AtLeastOne | Auto | None = "auto"  # evaluations without a gain before the run stops
    metric: Text = "auto"
    evaluations_per_epoch: AtLeastOne | Auto = "auto"
    threads: AtLeastOne | Auto = "auto"
    max_recoveries: Count = 8  # skipped batches and rollbacks, when numbers go wrong, before the run fails
    folds: Annotated[int, Field(ge=2, le=MOST_FOLDS)] | None = None  # of a cross-validation; see `ship.folding`
    fold_bundle: Literal["refit", "ensemble", "none"] = "refit"  # what ships of it: a training on all rows, the folds'

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value != "auto" and value not in METRICS:
            raise ValueError("unknown")
        return value


class LengthSection(Section):
    """How many tokens of a text are read, and which; see `snapfit.core.lengths`."""

    section: ClassVar[str] = "length"

    max_tokens: Annotated[int, Field(ge=3)] | Auto = "auto"  # special tokens included
    policy: Policy = HEAD.policy  # what is read of a longer text
    head_share: Annotated[float, Field(gt=0, lt=1)] = HEAD.head_share  # of head+tail
    overlap: Below1 = HEAD.overlap  # of windows, and so are the next two
    max_windows: AtLeastOne = HEAD.max_windows
    window_pooling: WindowPooling = HEAD.window_pooling

    @property
    def chosen(self) -> LengthPolicy:
        """The policy with what it goes by."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "max_tokens"}
        return LengthPolicy(**values)


class LossSection(Section):
    """The loss: cross-entropy, binary cross-entropy or squared error, and what is done to it; see `snapfit.nn.losses`.

    Weights of classes are made in `snapfit.training.class_weights`.
    """

    section: ClassVar[str] = "loss"

    function: Literal["plain", "focal", "asymmetric"] = "plain"
    gamma: NotNegative = 2.0  # of focal: the exponent by which what is answered right already counts less
    gamma_pos: NotNegative = 0.0  # of asymmetric: that of labels which hold
    gamma_neg: NotNegative = 4.0  # and of those which do not
    margin: Below1 = 0.05  # of asymmetric: labels that do not hold count nothing up to this score
    label_smoothing: Below1 | Auto = "auto"
    class_weights: Literal["balanced", "effective"] | dict[str, Above0] | None = None
    effective_beta: Below1 | None = None  # of effective; none: from the mean rows of a class


class RegulariseSection(Section):
    """What a step does besides against learning by heart; see `snapfit.training.regularise` and `adversary`."""

    section: ClassVar[str] = "regularise"

    r_drop: NotNegative = 0.0  # weight of how far two passes with different dropout are apart; 0: one pass
    adversarial: NotNegative = 0.0  # how far the word embeddings are moved against the model; 0: not at all
    dropout_samples: AtLeastOne = 1  # how often the dropout before the output layer is drawn


MOST_MEMBERS = 6
"""Beyond a few, members add cost and luck, and little else (Huang et al. 2017; Wang et al. 2022)."""


class EnsembleSection(Section):
    """Members for an ensemble or a soup from one run; see `snapfit.training.cycles` and `trajectory`."""

    section: ClassVar[str] = "ensemble"

    members: Annotated[int, Field(ge=0, le=MOST_MEMBERS)] = 0  # at most so many weights are kept beside the best
    rounds: Count = 0  # short cycles after the run proper, whose steps are taken from its end
    restart: Literal["anchor", "last"] = "anchor"  # where each of them begins: there (a star), or where the last ended
    anchor_share: Annotated[float, Field(gt=0, lt=1)] = 0.6  # of all steps, before the first of them
    restart_rate: Share = 0.5  # the peak rate of each over the run's, for the encoder
    restart_head_rate: Share = 0.1  # and for the head
    rewarm_fraction: Below1 = 0.05  # of each
    student_epochs: NotNegative = 0.0  # of one model that learns what the members know, at a round's rates; 0: none
    teacher_share: Share = 0.5  # of their scores in the target of a labelled text
    ema_share: Below1 = 0.0  # time constant of an exponential average of the weights, of all steps; 0: none is made
    tail_share: Below1 = 0.0  # of all steps, the last ones that a plain mean of the weights is over; 0: none


class DecisionSection(Section):
    """What is made of logits once a training is over; see `snapfit.core.rule_fitting`. Nothing here changes weights."""

    section: ClassVar[str] = "decision"

    calibrate: Literal["auto", "temperature", "platt"] | None = "auto"  # none: scores stay as they come
    thresholds: Literal["auto", "tuned"] | Chance | dict[str, Chance] = "auto"  # of many labels; a number: for each
    threshold_metric: Literal["auto", "macro_f1", "micro_f1", "weighted_f1", "subset_accuracy"] = "auto"
    min_labels: Count = 0  # of many labels: a text gets so many at least,
    max_labels: AtLeastOne | None = None  # and so many at most
    abstain_precision: Inside1 | None = None  # of one label: answer where so many answers are right,
    abstain_coverage: Inside1 | None = None  # or the share of texts of which the model is surest
    out_of_scope: Literal["max_probability", "energy", "centroids"] | None = None  # texts unlike all trained on
    in_scope_share: Inside1 = 0.97  # of the texts that are in scope, what is kept


class CheckpointSection(Section):
    """How often the state of the training is saved, and how many of the saved ones are kept."""

    section: ClassVar[str] = "checkpoint"

    every_steps: AtLeastOne | Auto | None = "auto"  # none: only at the end and when interrupted
    keep: AtLeastOne = 2  # the newest ones; the best weights are in each of them


class LogSection(Section):
    """What is written about a run."""

    section: ClassVar[str] = "log"

    level: Literal["debug", "info", "warning", "error"] = "info"
    interval_steps: AtLeastOne | Auto = "auto"


SECTIONS: dict[str, type[Section]] = {
    section.section: section
    for section in (
        DataSection,
        ModelSection,
        OptimSection,
        ScheduleSection,
        TrainSection,
        LengthSection,
        LossSection,
        RegulariseSection,
        EnsembleSection,
        DecisionSection,
        CheckpointSection,
        LogSection,
    )
}
KEYS = tuple(f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields)
FULL = {key.partition(".")[2]: key for key in KEYS}
"""Key alone -> "section.key"; a test holds that no two sections share a key."""


def unknown(key: str, origin: str) -> BadInput:
    section, _, name = key.rpartition(".")
    meant = FULL.get(name) or nearest(key, KEYS) or FULL.get(nearest(name, FULL) or "")
    if section in SECTIONS:
        expected = f"one of {', '.join(SECTIONS[section].model_fields)} in {section}"
    else:
        expected = f"SECTION.KEY with a section of {', '.join(SECTIONS)}"
    fix = f"did you mean {meant}?" if meant else "take it out"
    return BadInput(f"there is no setting {key!r}{given_at(origin)}", expected, fix)


def not_a_section(section: str, value: Any, origin: str) -> BadInput:
    settings = SECTIONS.get(section)
    inside = settings.model_fields if settings else SECTIONS
    return BadInput(
        f"{section} is {shown(value)}{given_at(origin)}",
        f"a mapping with some of {', '.join(inside)}",
        f"for example: --set {settings.section if settings else 'optim'}.{next(iter(inside))}=VALUE",
    )


def given_at(origin: str) -> str:
    return f" ({origin})" if origin else ""
