"""The recipe: every setting of a run, validated, frozen, and the same in a file, on the command line and in
Python.

    load_recipe("recipe.yaml", overrides=["optim.lr=3e-5"], epochs=3)

A value may be `auto` where its type says so; `snapfit.training.defaults` turns it into a number and says why.
Every mistake is one BadInput that names the setting, what was found and where, and what is allowed.
"""

import codecs
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

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

from snapfit.core.errors import BadInput, WorkFailed, nearest
from snapfit.core.labels import Task
from snapfit.core.metrics import METRICS
from snapfit.core.recipe_sources import (
    Given,
    dump_yaml,
    plain_value,
    read_environment,
    read_overrides,
    read_recipe_file,
)
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
Value = TypeVar("Value")

_NONE_WORDS = frozenset({"none", "null", "~"})


class _Section(BaseModel):
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
            return _not_a_section(cls.section, value, origins.get(cls.section, ""))
        for name in wrong:
            if name not in cls.model_fields:
                return _unknown(f"{cls.section}.{name}", origins.get(f"{cls.section}.{name}", ""))
        key, field = f"{cls.section}.{wrong[0]}", cls.model_fields[wrong[0]]
        meant = nearest(str(value[wrong[0]]), cls.choices(wrong[0]))
        others = f"; also wrong: {', '.join(wrong[1:])}" if wrong[1:] else ""
        return BadInput(
            f"{key} is {shown(value[wrong[0]])}{_from(origins.get(key, ''))}{others}",
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


class DataSection(_Section):
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
            if not codecs.lookup(value)._is_text_encoding:
                raise ValueError("no text encoding")
        except LookupError as error:
            raise ValueError("unknown") from error
        return value


class ModelSection(_Section):
    """The encoder and what is put on top of it."""

    section: ClassVar[str] = "model"

    encoder: Text = "starter"
    pooling: Literal["auto", "native", "cls", "mean", "max", "attention", "last4_mean", "last4_concat"] = "auto"
    dropout: Below1 | Auto = 0.1  # auto: as the encoder's config has it
    attention_dropout: Below1 | Auto = 0.0
    reinit_layers: Count = 0  # top layers that start from random weights


class OptimSection(_Section):
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


class ScheduleSection(_Section):
    """How the rates rise and fall; see `snapfit.training.schedules`."""

    section: ClassVar[str] = "schedule"

    shape: Literal["linear", "cosine", "cosine_restarts", "one_cycle", "wsd", "constant"] = "linear"
    warmup_fraction: Below1 = 0.1
    cycles: AtLeastOne = 1
    cycle_mult: Above0 = 1.0
    cycle_decay: Share = 1.0
    floor: Below1 = 0.0
    decay_fraction: Share = 0.2  # of wsd


class TrainSection(_Section):
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
    seed: Seed = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    patience: AtLeastOne | Auto | None = "auto"  # evaluations without a gain before the run stops
    metric: Text = "auto"
    evaluations_per_epoch: AtLeastOne | Auto = "auto"
    threads: AtLeastOne | Auto = "auto"

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value != "auto" and value not in METRICS:
            raise ValueError("unknown")
        return value


class LengthSection(_Section):
    """How many tokens of a text are read."""

    section: ClassVar[str] = "length"

    max_tokens: Annotated[int, Field(ge=3)] | Auto = "auto"  # special tokens included


class LossSection(_Section):
    """What the loss adds to plain cross-entropy, binary cross-entropy or squared error."""

    section: ClassVar[str] = "loss"

    label_smoothing: Below1 | Auto = "auto"
    class_weights: Literal["balanced"] | dict[str, Above0] | None = None


class LogSection(_Section):
    """What is written about a run."""

    section: ClassVar[str] = "log"

    level: Literal["debug", "info", "warning", "error"] = "info"
    every_steps: AtLeastOne | Auto = "auto"


class Recipe(BaseModel):
    """All sections. `Recipe()` is the default recipe; `load_recipe` reads one from where settings are
    given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    optim: OptimSection = OptimSection()
    schedule: ScheduleSection = ScheduleSection()
    train: TrainSection = TrainSection()
    length: LengthSection = LengthSection()
    loss: LossSection = LossSection()
    log: LogSection = LogSection()

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            recipe: Recipe = handler(value)
        except ValidationError as error:
            location = error.errors()[0]["loc"]
            if not location:
                raise _not_a_section("the recipe", value, "") from None
            raise _unknown(str(location[0]), "") from None
        recipe._check_combinations()
        return recipe

    def _check_combinations(self) -> None:
        if self.schedule.cycles > 1 and self.schedule.shape != "cosine_restarts":
            raise BadInput(
                f"schedule.cycles is {self.schedule.cycles}, schedule.shape is {self.schedule.shape!r}",
                "more than one cycle only with the shape cosine_restarts",
                "--set schedule.shape=cosine_restarts, or --set schedule.cycles=1",
            )
        if self.data.delimiter is not None and self.data.task not in ("auto", "multi"):
            raise BadInput(
                f"data.delimiter is {self.data.delimiter!r}, data.task is {self.data.task!r}",
                "a delimiter, which means many labels a row, only with the task multi",
                "--set data.task=multi, or --set data.delimiter=none",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> "Recipe":
        """The recipe that `to_dict` gave `values` for; what is missing there has its default. Raises
        BadInput.
        """
        return cls.model_validate(values)

    def with_values(self, values: Mapping[str, Any]) -> "Recipe":
        """A new recipe in which settings, named "section.key" or by key alone, have other values. Raises
        BadInput.
        """
        given = [Given(_FULL.get(key, key), value, "") for key, value in values.items()]
        return _build(self.to_dict(), given)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """{section: {key: value}} of plain values, every setting of the recipe; fit for JSON."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The whole recipe as a YAML file that `load_recipe` reads back to an equal one."""
        return f"# snapfit recipe: every setting of the run\n{dump_yaml(self.to_dict())}"


def load_recipe(
    file: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    **flags: Any,
) -> Recipe:
    """The recipe from all places in which settings are given: flag > environment > file > default.

    file: YAML of sections. overrides: texts "section.key=value", as flags. environment: variables, of which
    SNAPFIT_<SECTION>_<KEY> count; None means those of the process.
    flags: by key alone (epochs=3) or, as **{"train.epochs": 3}, in full; None means not given, "none" means
    none.

    Raises BadInput for an unreadable file, an unknown name, a value that is not allowed, or one setting given
    both as a flag and as an override.
    """
    given = read_recipe_file(Path(file)) if file is not None else []
    given += read_environment(os.environ if environment is None else environment, Recipe.model_fields)
    set_ones = read_overrides(overrides)
    flag_ones = [
        Given(_FULL.get(name, name), value, f"the argument {name}={shown(value)}")
        for name, value in flags.items()
        if value is not None
    ]
    set_by_key = {one.key: one for one in set_ones}
    for one in flag_ones:
        if one.key in set_by_key:
            raise BadInput(
                f"{one.key} is given twice: {one.origin} and {set_by_key[one.key].origin}",
                "one of the two",
                "take one out",
            )
    return _build({}, [*given, *set_ones, *flag_ones])


def settled(value: Auto | Value) -> Value:
    """A setting that may be `auto` in a recipe in which it has been resolved; WorkFailed where it was not."""
    if isinstance(value, str) and value == "auto":
        raise WorkFailed("a setting is used while it is still 'auto'")
    return value


def _sections() -> dict[str, type[_Section]]:
    return {name: cast(type[_Section], field.annotation) for name, field in Recipe.model_fields.items()}


_KEYS = tuple(f"{name}.{key}" for name, section in _sections().items() for key in section.model_fields)
_FULL = {key.partition(".")[2]: key for key in _KEYS}
"""Key alone -> "section.key"; a test holds that no two sections share a key."""


def _build(base: Mapping[str, Mapping[str, Any]], given: Sequence[Given]) -> Recipe:
    values = {section: dict(settings) for section, settings in base.items()}
    origins: dict[str, str] = {}
    for one in given:
        if one.key not in _KEYS:
            known = one.key in Recipe.model_fields
            raise _not_a_section(one.key, one.value, one.origin) if known else _unknown(one.key, one.origin)
        section, _, key = one.key.partition(".")
        values.setdefault(section, {})[key] = one.value
        origins[one.key] = one.origin
    return Recipe.model_validate(values, context={"origins": origins})


def _unknown(key: str, origin: str) -> BadInput:
    section, _, name = key.rpartition(".")
    meant = _FULL.get(name) or nearest(key, _KEYS) or _FULL.get(nearest(name, _FULL) or "")
    if section in _sections():
        expected = f"one of {', '.join(_sections()[section].model_fields)} in {section}"
    else:
        expected = f"SECTION.KEY with a section of {', '.join(_sections())}"
    fix = f"did you mean {meant}?" if meant else "take it out"
    return BadInput(f"there is no setting {key!r}{_from(origin)}", expected, fix)


def _not_a_section(section: str, value: Any, origin: str) -> BadInput:
    settings = _sections().get(section)
    inside = settings.model_fields if settings else Recipe.model_fields
    return BadInput(
        f"{section} is {shown(value)}{_from(origin)}",
        f"a mapping with some of {', '.join(inside)}",
        f"for example: --set {settings.section if settings else 'optim'}.{next(iter(inside))}=VALUE",
    )


def _from(origin: str) -> str:
    return f" ({origin})" if origin else ""
