"""The recipe: every setting of a run, validated, frozen, and the same in a file, on the command line and in
Python.

    load_recipe("recipe.yaml", overrides=["optim.lr=3e-5"], epochs=3)

A value may be `auto` where its type says so; `snapfit.training.defaults` turns it into a number and says why.
Every mistake is one BadInput that names the setting, what was found and where, and what is allowed.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.recipe_sections import (
    FULL,
    KEYS,
    MOST_MEMBERS,
    Auto,
    CheckpointSection,
    DataSection,
    DecisionSection,
    EnsembleSection,
    LengthSection,
    LogSection,
    LossSection,
    ModelSection,
    OptimSection,
    RegulariseSection,
    ScheduleSection,
    TrainSection,
    not_a_section,
    unknown,
)
from snapfit.core.recipe_sources import Given, dump_yaml, read_environment, read_overrides, read_recipe_file
from snapfit.core.recipe_words import shown

Value = TypeVar("Value")


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
    regularise: RegulariseSection = RegulariseSection()
    ensemble: EnsembleSection = EnsembleSection()
    decision: DecisionSection = DecisionSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            recipe: Recipe = handler(value)
        except ValidationError as error:
            location = error.errors()[0]["loc"]
            if not location:
                raise not_a_section("the recipe", value, "") from None
            raise unknown(str(location[0]), "") from None
        recipe._check_combinations()
        return recipe

    def _check_combinations(self) -> None:
        if self.schedule.cycles > 1 and self.schedule.shape != "cosine_restarts":
            raise BadInput(
                f"schedule.cycles is {self.schedule.cycles}, schedule.shape is {self.schedule.shape!r}",
                "more than one cycle only with the shape cosine_restarts",
                "--set schedule.shape=cosine_restarts, or --set schedule.cycles=1",
            )
        if self.ensemble.student_epochs and not self.ensemble.members:
            raise BadInput(
                f"ensemble.student_epochs is {self.ensemble.student_epochs:g}, ensemble.members is 0",
                "members that the student can learn from",
                "--set ensemble.members=6",
            )
        if self.data.delimiter is not None and self.data.task not in ("auto", "multi"):
            raise BadInput(
                f"data.delimiter is {self.data.delimiter!r}, data.task is {self.data.task!r}",
                "a delimiter, which means many labels a row, only with the task multi",
                "--set data.task=multi, or --set data.delimiter=none",
            )
        self._check_phases()
        self._check_folds()
        self._check_decision()
        if self.ensemble.rounds:
            self._check_rounds()

    def _check_phases(self) -> None:
        """What layers that learn later or never, and heads of transformers' own, cannot go with."""
        if self.schedule.head_first + self.schedule.unfreeze_share >= 1.0:
            raise BadInput(
                f"schedule.head_first is {self.schedule.head_first:g}, schedule.unfreeze_share is "
                f"{self.schedule.unfreeze_share:g}",
                "shares of the steps that are below 1 together, so that all layers learn in the end",
                "--set schedule.head_first=0.1 --set schedule.unfreeze_share=0.3",
            )
        if self.regularise.adversarial and self.optim.freeze_layers:
            raise BadInput(
                f"regularise.adversarial is {self.regularise.adversarial:g}, optim.freeze_layers is "
                f"{self.optim.freeze_layers}",
                "word embeddings that learn, for they are what is moved",
                "--set optim.freeze_layers=0, or --set regularise.adversarial=0",
            )
        pooled_by = self.length.chosen.pools_windows_by
        if pooled_by in ("attention", "max_states") and self.model.pooling == "native":
            raise BadInput(
                f"length.window_pooling is {pooled_by!r}, model.pooling is 'native'",
                "snapfit's own head, for transformers' own gives the labels' logits and nothing else",
                "--set model.pooling=mean, or --set length.window_pooling=mean",
            )
        if self.regularise.dropout_samples > 1 and self.model.pooling == "native":
            raise BadInput(
                f"regularise.dropout_samples is {self.regularise.dropout_samples}, model.pooling is 'native'",
                "snapfit's own head, for inside transformers' own dropout is drawn once",
                "--set model.pooling=mean, or --set regularise.dropout_samples=1",
            )

    def _check_folds(self) -> None:
        """What can ship of a cross-validation."""
        folds, wanted = self.train.folds, self.train.fold_bundle
        if folds is None or wanted != "ensemble":
            return
        if folds > MOST_MEMBERS:
            raise BadInput(
                f"train.fold_bundle is 'ensemble', train.folds is {folds}",
                f"at most {MOST_MEMBERS} models in a bundle",
                f"--folds {MOST_MEMBERS - 1}, or --fold-bundle refit",
            )
        if self.ensemble.members or self.ensemble.ema_share or self.ensemble.tail_share:
            raise BadInput(
                "train.fold_bundle is 'ensemble' while each fold keeps members or averages (ensemble.*)",
                "one model of each fold",
                "--fold-bundle refit, or leave ensemble.members, ema_share and tail_share at 0",
            )
        asked = self.decision.model_dump(include={"abstain_precision", "abstain_coverage", "out_of_scope"})
        asked |= {"thresholds": self.decision.thresholds if self.decision.thresholds == "tuned" else None}
        asked |= {"calibrate": self.decision.calibrate if self.decision.calibrate == "platt" else None}
        for name in (name for name, value in asked.items() if value is not None):
            raise BadInput(
                f"decision.{name} is {asked[name]!r} while train.fold_bundle is 'ensemble'",
                "rows to fit it to that none of the models has seen, and there are none",
                "--fold-bundle refit, or fit it to another table afterwards: snapfit decide BUNDLE TABLE --out NEW",
            )

    def _check_decision(self) -> None:
        """Decisions that contradict each other."""
        decision = self.decision
        if decision.max_labels is not None and decision.max_labels < decision.min_labels:
            raise BadInput(
                f"decision.min_labels is {decision.min_labels}, decision.max_labels is {decision.max_labels}",
                "no more labels at least than at most",
                f"--set decision.max_labels={decision.min_labels}, or --set decision.max_labels=none",
            )
        if decision.abstain_precision is not None and decision.abstain_coverage is not None:
            raise BadInput(
                f"decision.abstain_precision is {decision.abstain_precision:g}, decision.abstain_coverage is "
                f"{decision.abstain_coverage:g}",
                "one of the two: either says where no answer is given",
                "--set decision.abstain_coverage=none",
            )

    def _check_rounds(self) -> None:
        """What the short cycles of an ensemble cannot go with."""
        if self.ensemble.members == 0:
            raise BadInput(
                f"ensemble.rounds is {self.ensemble.rounds}, ensemble.members is 0",
                "members to keep from the rounds",
                f"--set ensemble.members={min(self.ensemble.rounds + 3, MOST_MEMBERS)}, or --set ensemble.rounds=0",
            )
        if self.schedule.cycles > 1:
            raise BadInput(
                f"ensemble.rounds is {self.ensemble.rounds}, schedule.cycles is {self.schedule.cycles}",
                "one kind of cycles: rounds after the run proper, or equal cycles all through it",
                "--set schedule.cycles=1, or --set ensemble.rounds=0",
            )
        if isinstance(self.train.patience, int):
            raise BadInput(
                f"ensemble.rounds is {self.ensemble.rounds}, train.patience is {self.train.patience}",
                "no patience, for the rounds' evaluations need not gain anything",
                "--set train.patience=none, or --set ensemble.rounds=0",
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
        given = [Given(FULL.get(key, key), value, "") for key, value in values.items()]
        return _build(self.model_dump(mode="json", exclude_unset=True), given)

    def stated(self) -> dict[str, Any]:
        """{"section.key": value} of the settings that were given, rather than left at their default."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return {f"{section}.{key}": value for section, values in given.items() for key, value in values.items()}

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
        Given(FULL.get(name, name), value, f"the argument {name}={shown(value)}")
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


def chosen_recipe(recipe: Recipe | Mapping[str, Any] | str | Path | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe that the arguments of `train`, and of functions like it, ask for.

    recipe: a Recipe, nested settings or a file. settings: single keys, with "__" for the dot; they win.
    """
    values = {key.replace("__", "."): value for key, value in settings.items()}
    if isinstance(recipe, Recipe):
        return recipe.with_values(values)
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(recipe).with_values(values)
    return load_recipe(recipe, **values)


def settled(value: Auto | Value) -> Value:
    """A setting that may be `auto` in a recipe in which it has been resolved; WorkFailed where it was not."""
    if isinstance(value, str) and value == "auto":
        raise WorkFailed("a setting is used while it is still 'auto'")
    return value


def _build(base: Mapping[str, Mapping[str, Any]], given: Sequence[Given]) -> Recipe:
    values = {section: dict(settings) for section, settings in base.items()}
    origins: dict[str, str] = {}
    for one in given:
        if one.key not in KEYS:
            known = one.key in Recipe.model_fields
            raise not_a_section(one.key, one.value, one.origin) if known else unknown(one.key, one.origin)
        section, _, key = one.key.partition(".")
        values.setdefault(section, {})[key] = one.value
        origins[one.key] = one.origin
    return Recipe.model_validate(values, context={"origins": origins})
