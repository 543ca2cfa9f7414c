"""The recipe: precedence, what each source may hold, and errors that name the setting, the place and the way
out.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.lengths import HEAD, LengthPolicy
from snapfit.core.recipe import Recipe, load_recipe, settled
from snapfit.core.recipe_sections import DataSection

DEFAULTS = {
    "data": dict(text="auto", pair="auto", label="auto", task="auto", delimiter=None, encoding="utf-8",
                 format="auto", valid_fraction="auto", split_seed=0),
    "model": dict(encoder="starter", pooling="auto", dropout=0.1, attention_dropout=0.0, reinit_layers=0,
                  head="fresh"),
    "optim": dict(name="adamw", lr="auto", head_lr_factor="auto", layer_ratio="auto", weight_decay=0.01,
                  max_grad_norm=1.0, freeze_layers=0, betas=[0.9, 0.999], eps=1e-8, momentum=0.9),
    "schedule": dict(shape="linear", warmup_fraction=0.1, cycles=1, cycle_mult=1.0, cycle_decay=1.0,
                     floor=0.0, decay_fraction=0.2, head_first=0.0, unfreeze_share=0.0),
    "train": dict(epochs="auto", batch="auto", accumulate=1, token_budget=None, seed=0, precision="auto",
                  patience="auto", metric="auto", evaluations_per_epoch="auto", threads="auto",
                  window=64, sampling="all", sampling_power=0.5, max_recoveries=8, folds=None, fold_bundle="refit"),
    "length": dict(
        max_tokens="auto", policy="head", head_share=0.25, overlap=0.25, max_windows=8, window_pooling="mean"
    ),
    "loss": dict(function="plain", gamma=2.0, gamma_pos=0.0, gamma_neg=4.0, margin=0.05, label_smoothing="auto",
                 class_weights=None, effective_beta=None),
    "regularise": dict(r_drop=0.0, adversarial=0.0, dropout_samples=1),
    "ensemble": dict(members=0, rounds=0, restart="anchor", anchor_share=0.6, restart_rate=0.5, restart_head_rate=0.1,
                     rewarm_fraction=0.05, student_epochs=0.0, teacher_share=0.5, ema_share=0.0, tail_share=0.0),
    "decision": dict(calibrate="auto", thresholds="auto", threshold_metric="auto", min_labels=0, max_labels=None,
                     abstain_precision=None, abstain_coverage=None, out_of_scope=None, in_scope_share=0.97),
    "checkpoint": dict(every_steps="auto", keep=2),
    "log": dict(level="info", interval_steps="auto"),
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def to_file(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


def load(file=None, **settings):
    return load_recipe(file, **{"environment": {}, **settings})


def refusal(file=None, **settings):
    """The message of the one error, which is ours and has nothing of pydantic's in it."""
    with pytest.raises(BadInput) as caught:
        load(file, **settings)
    text = str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    for foreign in ("pydantic", "validation error", "input_value", "type=", "Input should", "literal["):
        assert foreign not in text
    assert all([caught.value.found, caught.value.expected, caught.value.fix])
    return text


def test_defaults():
    assert Recipe().to_dict() == DEFAULTS
    assert load() == Recipe()


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (
            ["schedule.head_first=0.6", "schedule.unfreeze_share=0.4"],
            "head_first is 0.6, schedule.unfreeze_share is 0.4",
        ),
        (["regularise.adversarial=1", "optim.freeze_layers=1"], "adversarial is 1, optim.freeze_layers is 1"),
        (["regularise.dropout_samples=4", "model.pooling=native"], "dropout_samples is 4, model.pooling is 'native'"),
        (
            ["length.policy=windows", "length.window_pooling=max_states", "model.pooling=native"],
            "window_pooling is 'max_states', model.pooling is 'native'",
        ),
        (["train.folds=7", "train.fold_bundle=ensemble"], "fold_bundle is 'ensemble', train.folds is 7"),
        (["train.folds=3", "train.fold_bundle=ensemble", "ensemble.ema_share=0.1"], "each fold keeps members"),
        (["train.folds=1"], "train.folds is '1'"),
        (["train.folds=21"], "train.folds is '21'"),
        (["regularise.r_drop=-1"], "regularise.r_drop is '-1'"),
        (["regularise.dropout_samples=0"], "regularise.dropout_samples is '0'"),
        (["decision.min_labels=3", "decision.max_labels=2"], "min_labels is 3, decision.max_labels is 2"),
        (["decision.abstain_precision=0.9", "decision.abstain_coverage=0.5"], "abstain_coverage is 0.5"),
        (["decision.thresholds=1.5"], "decision.thresholds is '1.5'"),
        (["decision.thresholds={a: 2}"], "decision.thresholds is"),
        (["decision.in_scope_share=1"], "decision.in_scope_share is '1'"),
        (["decision.max_labels=0"], "decision.max_labels is '0'"),
    ],
)
def test_options_that_do_not_go_together(overrides, found):
    assert found in refusal(overrides=overrides)


def test_the_length_policy_is_what_the_section_says():
    recipe = load(overrides=["length.policy=windows", "length.overlap=0.5", "length.window_pooling=attention"])
    assert recipe.length.chosen == LengthPolicy("windows", overlap=0.5, window_pooling="attention")
    assert Recipe().length.chosen == HEAD
    load(overrides=["length.window_pooling=attention", "model.pooling=native"])  # which nothing is pooled by


def test_keys_are_unambiguous_without_their_section():
    keys = [key for section in DEFAULTS.values() for key in section]
    assert len(keys) == len(set(keys))


def test_flag_over_environment_over_file_over_default(write):
    file = write("train:\n  epochs: 1\n  batch: 2\n  seed: 3\noptim:\n  lr: 1.0e-3\n")
    environment = {"SNAPFIT_TRAIN_EPOCHS": "10", "SNAPFIT_TRAIN_BATCH": "20", "SNAPFIT_TRAIN_SEED": ""}
    recipe = load(file, environment=environment, overrides=["optim.eps=1e-6"], epochs=100)
    assert (recipe.train.epochs, recipe.train.batch, recipe.train.seed) == (100.0, 20, 3)
    assert (recipe.optim.lr, recipe.optim.eps, recipe.optim.weight_decay) == (1e-3, 1e-6, 0.01)


def test_the_environment_of_the_process_counts(monkeypatch):
    monkeypatch.setenv("SNAPFIT_OPTIM_HEAD_LR_FACTOR", "7")
    monkeypatch.setenv("SNAPFIT_CACHE", "/somewhere")
    assert load_recipe().optim.head_lr_factor == 7.0


def test_flags_in_short_in_full_and_not_given():
    recipe = load(**{"lr": 1e-5, "train.seed": 4, "epochs": None, "patience": "none", "encoder": Path("a/b")})
    assert (recipe.optim.lr, recipe.train.seed, recipe.train.epochs) == (1e-5, 4, "auto")
    assert recipe.train.patience is None
    assert recipe.model.encoder == str(Path("a/b"))


def test_of_repeated_overrides_the_last_counts():
    assert load(overrides=["train.seed=1", "train.seed=2"]).train.seed == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-5", 3e-5),
        ("3.0e-05", 3e-5),
        (".5", 0.5),
        ("1", 1.0),
        ("2E-3", 2e-3),
        (" 3e-5", 3e-5),
        ("'3e-5'", 3e-5),
    ],
)
def test_rates_as_text(write, text, value):
    assert load(overrides=[f"optim.lr={text}"]).optim.lr == value
    assert load(environment={"SNAPFIT_OPTIM_LR": text}).optim.lr == value
    assert load(write(f"optim:\n  lr: {text}\n")).optim.lr == value
    assert load(lr=text).optim.lr == value if "'" not in text else True


@pytest.mark.parametrize("name", ["no", "off", "yes", "007", "1e3", "12:30", "2020-01-01", "null1", "=", "标签"])
def test_names_stay_text(write, name):
    file = write(f"data:\n  label: {name}\n  delimiter: off\nloss:\n  class_weights: {{{name}: 2, on: 1e0}}\n")
    for recipe in (load(file), load(overrides=[f"data.label={name}"]), load(label=name)):
        assert recipe.data.label == name
    assert load(file).data.delimiter == "off"
    assert load(file).loss.class_weights == {name: 2.0, "on": 1.0}


@pytest.mark.parametrize("delimiter", [",", "|", ";", "#", ":", "\t", " ", "&", "*", "-", "、", "%"])
def test_any_delimiter(delimiter):
    assert load(overrides=[f"data.delimiter={delimiter}"]).data.delimiter == delimiter
    recipe = load(delimiter=delimiter)
    assert recipe.data.delimiter == delimiter


def test_a_quoted_tab():
    assert load(overrides=['data.delimiter="\\t"']).data.delimiter == "\t"


@pytest.mark.parametrize("none", ["none", "None", "null", "~"])
def test_none_in_words(write, none):
    assert load(overrides=[f"data.pair={none}"]).data.pair is None
    recipe = load(write(f"data:\n  pair: {none}\ntrain: {{patience: {none}}}\nloss:\n  class_weights: {none}\n"))
    assert (recipe.data.pair, recipe.train.patience, recipe.loss.class_weights) == (None, None, None)
    assert "data.text is " in refusal(write("data:\n  text:\n"))  # it has no none
    assert load(text="none").data.text == "none"


def test_lists_and_mappings():
    recipe = load(overrides=["optim.betas=[0.8, 0.98]", "loss.class_weights={spam: 2, ham: 1}"])
    assert recipe.optim.betas == (0.8, 0.98)
    assert recipe.loss.class_weights == {"spam": 2.0, "ham": 1.0}
    assert load(betas=(0.5, 0.6)).optim.betas == (0.5, 0.6)
    assert load(overrides=["loss.class_weights=balanced"]).loss.class_weights == "balanced"


def test_numbers_of_numpy():
    recipe = load(lr=np.float32(0.5), batch=np.int64(8), betas=np.array([0.5, 0.5]).tolist())
    assert (recipe.optim.lr, recipe.train.batch) == (0.5, 8)
    assert type(recipe.train.batch) is int


@pytest.mark.parametrize("text", ["", "# nothing\n", "train:\n", "---\n"])
def test_a_recipe_without_settings(write, text):
    assert load(write(text)) == Recipe()


def test_a_byte_order_mark(write):
    assert load(write(b"\xef\xbb\xbftrain:\r\n  seed: 5\r\n")).train.seed == 5


WRONG_VALUES = [
    ("optim.lr", "fast", "a number above 0, or auto"),
    ("optim.lr", "0", "a number above 0, or auto"),
    ("optim.lr", "nan", "a number above 0, or auto"),
    ("optim.lr", "inf", "a number above 0, or auto"),
    ("optim.lr", "[1]", "a number above 0, or auto"),
    ("optim.layer_ratio", "1.5", "a number above 0, at most 1, or auto"),
    ("optim.weight_decay", "-1", "a number from 0 up"),
    ("optim.betas", "[0.9]", "a list of 2, each a number from 0 to below 1"),
    ("optim.betas", "[0.9, 1]", "a list of 2, each a number from 0 to below 1"),
    ("optim.freeze_layers", "-1", "a whole number from 0 up"),
    ("train.batch", "3.5", "a whole number from 1 up, or auto"),
    ("train.batch", "none", "a whole number from 1 up, or auto"),
    ("train.patience", "0", "a whole number from 1 up, auto, or none"),
    ("train.patience", "false", "a whole number from 1 up, auto, or none"),
    ("train.seed", "4294967296", "a whole number from 0 to 4294967295"),
    ("train.metric", "f1", "auto, or one of accuracy"),
    ("data.valid_fraction", "0.6", "a number from 0 to 0.5, or auto"),
    ("data.encoding", "utf-9", "a text encoding of Python"),
    ("data.encoding", "base64", "a text encoding of Python"),
    ("data.encoding", "unicode_escape", "a text encoding of Python"),
    ("data.encoding", "idna", "a text encoding of Python"),
    ("data.label", "", "text that is not empty"),
    ("data.task", "binary", "single, multi, regression, or auto"),
    ("model.dropout", "1", "a number from 0 to below 1, or auto"),
    ("loss.class_weights", "{a: -1}", "balanced, effective, a mapping of names, each to a number above 0, or none"),
    ("schedule.shape", "step", "linear, cosine, cosine_restarts, one_cycle, wsd, or constant"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "text", "allowed"), WRONG_VALUES)
def test_wrong_values_in_every_source(write, key, text, allowed):
    section, name = key.split(".")
    variable = f"SNAPFIT_{section}_{name}".upper()
    messages = {f"--set {key}={text}": refusal(overrides=[f"{key}={text}"])}
    if text:
        messages[f"the environment variable {variable}"] = refusal(environment={variable: text})
        file = write(f"# first line\n{section}:\n  {name}: {text}\n")
        messages[f"{file}, line 3"] = refusal(file)
    for origin, message in messages.items():
        assert message.startswith(f"{key} is ")
        assert f"({origin})" in message
        assert f"\n  expected: {allowed}" in message
        assert f"--set {key}=" in message


@pytest.mark.parametrize("value", [True, False, np.bool_(True), b"1", object(), {"a": True}, [True, False]])
@pytest.mark.parametrize("key", ["lr", "batch", "label", "betas", "class_weights", "shape"])
def test_python_values_that_mean_nothing(key, value):
    assert " is " in refusal(**{key: value})


def test_the_nearest_choice_is_offered():
    assert "did you mean regression? --set data.task=regression" in refusal(task="regresion")
    assert "--set train.metric=macro_f1" in refusal(metric="macro-f1")
    assert "--set train.patience=auto" in refusal(patience="aut")


def test_several_wrong_settings_are_all_named():
    assert "optim.lr is -1 " in (message := refusal(lr=-1, eps=-1, momentum=2))
    assert "also wrong: eps, momentum" in message


UNKNOWN = [
    ("optim.lrr", "did you mean optim.lr?"),
    ("optim.dropout", "did you mean model.dropout?"),
    ("lr", "did you mean optim.lr?"),
    ("epoch", "did you mean train.epochs?"),
    ("training.epochs", "did you mean train.epochs?"),
    ("train.evaluation_per_epoch", "did you mean train.evaluations_per_epoch?"),
    ("zzz.qqq", "take it out"),
    ("a.b.c", "take it out"),
]


@pytest.mark.parametrize(("key", "hint"), UNKNOWN)
def test_unknown_names(write, key, hint):
    for message in (refusal(overrides=[f"{key}=1"]), refusal(**({key: 1} if key != "lr" else {"lrr.lr": 1}))):
        assert message.startswith("there is no setting ")
    assert hint in refusal(overrides=[f"{key}=1"])
    with pytest.raises(BadInput, match="there is no setting"):
        Recipe().with_values({"zzz": 1})


def test_unknown_names_in_files_and_variables(write):
    assert "line 2)" in refusal(write("optim:\n  learning_rate: 1\n"))
    assert "did you mean optim.lr?" in refusal(write("lr: 3e-5\n"))
    assert "SNAPFIT_TRAIN_EPOCH)" in refusal(environment={"SNAPFIT_TRAIN_EPOCH": "3"})
    assert "SNAPFIT_EPOCHS)" in refusal(environment={"SNAPFIT_EPOCHS": "3"})
    assert (
        load(
            environment={
                "SNAPFIT": "1",
                "OTHER": "x",
                "SNAPFIT_CACHE": "y",
                "SNAPFIT_KERNELS": "off",
                "SNAPFIT_REAL_DATA": "z",
            }
        )
        == Recipe()
    )


def test_a_section_that_is_no_mapping(write):
    message = refusal(write("train:\n  seed: 1\noptim: [lr, eps]\n"))
    assert message.startswith("optim is ['lr', 'eps'] (")
    assert "line 3)" in message
    assert "optim is '3' (--set optim=3)" in refusal(overrides=["optim=3"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just text", "holds the text 'just text'"),
        ("- a\n- b\n", "holds a list"),
        ("a: b: c", "line 1, column 5: not YAML"),
        ("train:\n\tseed: 1\n", "line 2, column 1: not YAML"),
        ("train: {seed: 1", "not YAML"),
        ("train:\n  seed: 1\n  seed: 2\n", "line 3: 'seed' again, after line 2"),
        ("train: {}\ntrain: {}\n", "line 2: 'train' again, after line 1"),
        ("? [a]\n: 1\n", "line 1: a list as a key"),
        ("loss:\n  class_weights: &a {x: *a}\n", "nested too deeply"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8: byte 0 is 0xff"),
        (b"train:\n  seed: \x00\n", "not YAML"),
    ],
)
def test_files_that_are_no_recipes(write, text, words):
    message = refusal(file := write(text))
    assert str(file) in message
    assert words in message


def test_missing_file_and_folder(tmp_path):
    assert "there is no file" in refusal(tmp_path / "none.yaml")
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("override", ["optim.lr", "=3", "", " =3"])
def test_overrides_without_a_key_or_value(override):
    assert "SECTION.KEY=VALUE" in refusal(overrides=[override])


def test_one_setting_as_flag_and_override():
    assert "train.epochs is given twice" in refusal(overrides=["train.epochs=1"], epochs=2)


def test_combinations():
    assert "cosine_restarts" in refusal(cycles=3)
    assert load(cycles=3, shape="cosine_restarts").schedule.cycles == 3
    assert "data.task=multi" in refusal(delimiter=",", task="single")
    assert load(delimiter=",", task="multi").data.delimiter == ","
    assert "--set ensemble.members=6" in refusal(rounds=3)
    assert "--set schedule.cycles=1" in refusal(rounds=3, members=4, cycles=2, shape="cosine_restarts")
    assert "--set train.patience=none" in refusal(rounds=3, members=4, patience=2)
    assert load(rounds=3, members=4, patience=None).ensemble.rounds == 3


def test_direct_construction_speaks_the_same_language():
    with pytest.raises(BadInput, match="optim.lr is 'x'"):
        Recipe(optim={"lr": "x"})
    with pytest.raises(BadInput, match="did you mean optim.lr"):
        Recipe(optim={"lrr": 1})
    with pytest.raises(BadInput, match="data.text is 3"):
        DataSection(text=3)
    with pytest.raises(BadInput, match="there is no setting 'optimizer'"):
        Recipe.from_dict({"optimizer": {}})
    with pytest.raises(BadInput, match="a mapping with some of data"):
        Recipe.from_dict([1])
    with pytest.raises(BadInput, match="train is 3"):
        Recipe.from_dict({"train": 3})


def test_frozen():
    with pytest.raises(ValidationError):
        Recipe().optim.lr = 3


def test_with_values():
    recipe = load(seed=7)
    other = recipe.with_values({"optim.lr": 1e-4, "train.patience": None, "epochs": "2"})
    assert (other.optim.lr, other.train.patience, other.train.epochs, other.train.seed) == (
        1e-4,
        None,
        2.0,
        7,
    )
    assert recipe.optim.lr == "auto"
    with pytest.raises(BadInput, match="optim.lr is -1"):
        recipe.with_values({"optim.lr": -1})
    with pytest.raises(BadInput, match="optim.lr is empty"):
        recipe.with_values({"optim.lr": None})


def test_settled():
    assert settled(Recipe().optim.weight_decay) == 0.01
    assert settled(load(lr=0.5).optim.lr) == 0.5
    with pytest.raises(WorkFailed):
        settled(Recipe().optim.lr)


def test_yaml_is_complete_and_plain():
    text = load(lr=3e-5, label="no", class_weights={"007": 1}).to_yaml()
    assert yaml.safe_load(text)["optim"]["lr"] == 3e-5  # what any reader of YAML sees
    assert yaml.safe_load(text)["data"]["label"] == "no"
    assert yaml.safe_load(text)["loss"]["class_weights"] == {"007": 1.0}
    assert "betas: [0.9, 0.999]" in text
    assert list(yaml.safe_load(text)) == list(DEFAULTS)


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
positive = st.floats(min_value=1e-300, max_value=1e300)
values = st.fixed_dictionaries(
    {},
    optional={
        "data.text": text,
        "data.pair": st.none() | text,
        "data.delimiter": st.none() | text,
        "data.valid_fraction": st.floats(0, 0.5) | st.just("auto"),
        "optim.lr": positive | st.just("auto"),
        "optim.betas": st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
        "train.seed": st.integers(0, 2**32 - 1),
        "train.patience": st.none() | st.just("auto") | st.integers(1, 99),
        "loss.class_weights": st.none()
        | st.sampled_from(["balanced", "effective"])
        | st.dictionaries(text, positive, max_size=4),
    },
)


@given(values)
@example({"data.text": "\x85"})
@example({"data.text": "a\u2028b\r\nc"})
def test_round_trips(tmp_path_factory, chosen):
    recipe = Recipe().with_values(chosen)
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_bytes(recipe.to_yaml().encode())
    assert load(path) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipe.with_values({}) == recipe


def test_what_was_stated_is_told_from_defaults():
    recipe = load(overrides=["optim.weight_decay=0.01"], epochs=3)
    assert recipe.stated() == {"optim.weight_decay": 0.01, "train.epochs": 3.0}
    assert recipe.with_values({"seed": 5}).stated() == recipe.stated() | {"train.seed": 5}
    assert Recipe().stated() == {}
    assert Recipe.from_dict(recipe.to_dict()) == recipe
