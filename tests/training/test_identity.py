"""Identity: every difference between a checkpoint and a run is found, named exactly, and weighed as documented."""

import copy
from typing import Any

import pytest
import torch
import transformers

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.core.recipe import Recipe
from snapfit.core.recipe_sections import KEYS, DecisionSection
from snapfit.training.identity import (
    Difference,
    check_unchanged,
    differences,
    leaves_work,
    machine,
    setting_weight,
)

SPLIT = {"rows": 1200, "texts": "a" * 64, "labels": "b" * 64}


def identity() -> dict[str, Any]:
    """A plausible identity, made anew each time."""
    return {
        "recipe": Recipe().with_values({"loss.class_weights": {"food": 2.0}}).to_dict(),
        "data": {"train": dict(SPLIT), "valid": dict(SPLIT, rows=120), "test": dict(SPLIT, rows=300)},
        "labels": LabelSet("single", ("food", "tools")).to_dict(),
        "encoder": "c" * 64,
        "tokenizer": "d" * 64,
        "machine": machine("cpu"),
    }


def changed(*path: str, to: Any) -> list[Difference]:
    """The differences when one place of an identity holds another value; None takes it out."""
    then, now = identity(), identity()
    place: Any = now
    for key in path[:-1]:
        place = place[key]
    if to is None and path[0] == "data":
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return differences(then, now)


# ---------------------------------------------------------------- weights of settings

FREE = {
    *(f"decision.{key}" for key in DecisionSection.model_fields),
    *("checkpoint.every_steps", "checkpoint.keep", "log.level", "log.interval_steps"),
    *("train.max_recoveries", "train.fold_bundle"),
}
ACCEPTABLE = {
    *("train.epochs", "train.patience", "train.evaluations_per_epoch", "train.threads", "train.precision"),
    *("optim.lr", "optim.head_lr_factor", "optim.layer_ratio", "optim.weight_decay", "optim.max_grad_norm"),
    *("loss.function", "loss.gamma", "loss.gamma_pos", "loss.gamma_neg", "loss.margin"),
    *("loss.label_smoothing", "loss.class_weights", "loss.effective_beta"),
    *("schedule.shape", "schedule.warmup_fraction", "schedule.cycles", "schedule.cycle_mult"),
    *("schedule.cycle_decay", "schedule.floor", "schedule.decay_fraction"),
    *("schedule.head_first", "schedule.unfreeze_share"),
    *("regularise.r_drop", "regularise.adversarial", "regularise.dropout_samples"),
    *("ensemble.members", "ensemble.rounds", "ensemble.restart", "ensemble.anchor_share", "ensemble.restart_rate"),
    *("ensemble.restart_head_rate", "ensemble.rewarm_fraction", "ensemble.student_epochs", "ensemble.teacher_share"),
    *("ensemble.ema_share", "ensemble.tail_share"),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_has_its_weight(key: str) -> None:
    """A setting that is new must be put into one of the two lists here, or is taken for another training."""
    expected = "free" if key in FREE else "acceptable" if key in ACCEPTABLE else "forbidden"
    assert setting_weight(key) == expected
    if key.partition(".")[0] in ("data", "model", "length"):
        assert expected == "forbidden"


def test_the_lists_name_settings_that_there_are() -> None:
    assert (FREE | ACCEPTABLE).issubset(KEYS)
    for key in (
        "train.seed",
        "train.batch",
        "train.accumulate",
        "train.sampling",
        "train.sampling_power",
        "optim.name",
        "train.metric",
    ):
        assert setting_weight(key) == "forbidden"


@pytest.mark.parametrize("key", KEYS)
def test_a_change_of_any_setting_is_found(key: str) -> None:
    section, _, name = key.partition(".")
    (found,) = changed("recipe", section, name, to="another value")
    assert found.what == key
    assert found.weight == setting_weight(key)
    assert found.now == "another value"


def test_settings_that_only_one_side_has_are_found() -> None:
    """A setting that there was none of then had its default, and differs only where it has another one now."""
    then, now = identity(), identity()
    del then["recipe"]["loss"], then["recipe"]["ensemble"]
    now["recipe"]["train"]["brand_new"] = 3
    found = {one.what: one for one in differences(then, now)}
    assert found["train.brand_new"].weight == "forbidden"
    assert str(found["train.brand_new"]) == "train.brand_new was empty, is 3"
    assert found["loss.class_weights"].weight == "acceptable"
    assert str(found["loss.class_weights"]) == "loss.class_weights was empty, is {'food': 2.0}"
    assert set(found) == {"train.brand_new", "loss.class_weights"}


def test_what_a_finished_run_has_to_do_again() -> None:
    begun = Recipe().with_values({"train.epochs": 3})
    for settings, work in (
        ({}, False),
        ({"log.level": "debug", "checkpoint.keep": 3}, False),
        ({"decision.min_labels": 0}, False),
        ({"decision.min_labels": 1}, True),
        ({"train.epochs": 4}, True),
    ):
        assert leaves_work(begun, begun.with_values(settings)) is work


# ---------------------------------------------------------------- everything else


def test_equal_identities_do_not_differ() -> None:
    assert differences(identity(), identity()) == []
    check_unchanged([], accept=False, where="runs/x")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (dict(SPLIT, rows=7), "the {split} table was '{rows} rows', is '7 rows'"),
        (None, "the {split} table was '{rows} rows', is empty"),
        ({"texts": "f" * 64}, "the SHA-256 of the texts in the {split} table was 'aaaaaaaaaaaa', is 'ffffffffffff'"),
        ({"labels": "f" * 64}, "the SHA-256 of the labels in the {split} table was 'bbbbbbbbbbbb', is 'ffffffffffff'"),
        (
            {"texts": "e" * 64, "labels": "f" * 64},
            "the SHA-256 of the texts and labels in the {split} table was 'aaaaaaaaaaaa', is 'eeeeeeeeeeee'",
        ),
    ],
)
def test_tables(split: str, value: Any, text: str) -> None:
    before = identity()["data"][split]
    now = value if value is None or "rows" in value else before | value
    (found,) = changed("data", split, to=now)
    assert str(found) == text.format(split=split, rows=f"{before['rows']:,}")
    assert found.weight == ("free" if split == "test" else "forbidden")


def test_a_table_that_is_new() -> None:
    then = identity()
    del then["data"]["test"]
    (found,) = differences(then, identity())
    assert str(found) == "the test table was empty, is '300 rows'"
    assert found.weight == "free"


def test_labels_are_named() -> None:
    (found,) = changed("labels", to=LabelSet("single", ("food", "animals")).to_dict())
    assert found.weight == "forbidden"
    assert str(found) == "labels was ['food', 'tools'], is ['food', 'animals']"


@pytest.mark.parametrize("part", ["encoder", "tokenizer"])
def test_hashes_are_shortened(part: str) -> None:
    (found,) = changed(part, to="0" * 64)
    assert str(found) == f"{part} was {identity()[part][:12]!r}, is '000000000000'"
    assert found.weight == "forbidden"


@pytest.mark.parametrize("part", ["torch", "transformers", "device", "processor"])
def test_the_machine_can_be_accepted(part: str) -> None:
    (found,) = changed("machine", part, to="9.9")
    assert (found.what, found.weight) == (part, "acceptable")


def test_the_machine_is_this_one() -> None:
    here = machine("cpu")
    assert here["torch"] == torch.__version__
    assert here["transformers"] == transformers.__version__
    assert here["device"] == "cpu"
    assert torch.backends.cpu.get_cpu_capability() in here["processor"]


# ---------------------------------------------------------------- what is raised


def several(*keys: str) -> list[Difference]:
    then, now = identity(), copy.deepcopy(identity())
    for key in keys:
        section, _, name = key.partition(".")
        now["recipe"][section][name] = 5
    return differences(then, now)


@pytest.mark.parametrize("accept", [False, True])
def test_another_training_is_always_refused(accept: bool) -> None:
    found = several("train.epochs", "train.seed", "train.batch", "checkpoint.keep")
    with pytest.raises(BadInput) as caught:
        check_unchanged(found, accept=accept, where="runs/x, from step 5,")
    assert caught.value.found == (
        "runs/x, from step 5, cannot be continued: train.batch was 'auto', is 5; train.seed was 0, is 5"
    )
    assert "--continue-from" in caught.value.fix


def test_what_can_be_accepted_must_be() -> None:
    found = several("train.epochs", "optim.lr", "log.level")
    with pytest.raises(BadInput) as caught:
        check_unchanged(found, accept=False, where="runs/x")
    assert caught.value.found == (
        "runs/x would be continued with changes: optim.lr was 'auto', is 5; train.epochs was 'auto', is 5"
    )
    assert caught.value.fix == "--accept-changes if you mean it"
    check_unchanged(found, accept=True, where="runs/x")


@pytest.mark.parametrize("accept", [False, True])
def test_what_is_free_goes_on(accept: bool) -> None:
    found = several(*sorted(FREE)) + changed("data", "test", to=dict(SPLIT, rows=1))
    assert {one.weight for one in found} == {"free"}
    check_unchanged(found, accept=accept, where="runs/x")
