"""Build, load, group, optimizer, schedule, in that order: what comes out fits together for every family."""

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from snapfit.core.errors import BadInput
from snapfit.core.recipe import Recipe
from snapfit.nn.attention import NAME
from snapfit.nn.encoder import EncoderSource, find_encoder
from snapfit.nn.families import depth_reader, n_depths
from snapfit.nn.weights import read_weights
from snapfit.training.assemble import Assembly, assemble, build_model, layer_parameters, pick_device
from snapfit.training.param_groups import format_plan

LABELS = ["a", "b", "c"]
BASE = Recipe().with_values(
    {
        "optim.lr": 1e-3,
        "optim.head_lr_factor": 8.0,
        "optim.layer_ratio": 0.25,
        "optim.weight_decay": 0.05,
        "train.precision": "fp32",
    }
)


def source_of(folder: Path, family: str, **changes: object) -> EncoderSource:
    tiny.save_encoder(folder, family, seed=4, **changes)
    return find_encoder(str(folder))


def put_together(folder: Path, family: str, pooling: str, **values: object) -> Assembly:
    recipe = BASE.with_values({key.replace("__", "."): value for key, value in values.items()})
    source = source_of(folder, family)
    model, report = build_model(recipe, source, task="single", label_names=LABELS, pooling=pooling)
    return assemble(model, report, recipe, total_steps=20, device="cpu")


def norm_and_bias_names(model: nn.Module) -> set[str]:
    """Found another way than the plan does: biases and scales are vectors in these encoders, whatever their names."""
    return {name for name, parameter in model.named_parameters() if parameter.ndim == 1}


@pytest.mark.parametrize("freeze", [0, 1])
@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_the_plan_partitions_the_model(tmp_path: Path, family: str, pooling: str, freeze: int) -> None:
    if freeze and n_depths(tiny.encoder_config(family)) == 1:
        freeze = 0
    assembly = put_together(tmp_path, family, pooling, optim__freeze_layers=freeze)
    model = assembly.model
    in_optimizer = [id(p) for group in assembly.optimizer.param_groups for p in group["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert len(set(in_optimizer)) == len(in_optimizer)
    assert set(in_optimizer) == set(trainable)
    assert (len(assembly.plan.frozen) > 0) == bool(freeze)
    assert assembly.plan.trainable_count == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert assembly.plan.frozen_count == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    total = format_plan(assembly.plan)[-1].split()
    assert total == [
        "all",
        str(len(list(model.parameters()))),
        f"{sum(p.numel() for p in model.parameters()):,}",
    ]


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_rates_are_geometric_and_vectors_do_not_decay(tmp_path: Path, family: str, pooling: str) -> None:
    assembly = put_together(tmp_path, family, pooling)
    model, depth = assembly.model, depth_reader(assembly.model.config, assembly.model.encoder_prefix)
    rates: dict[object, set[float]] = {}
    for group in assembly.plan.groups:
        for name in group.parameters:
            rates.setdefault(depth(name), set()).add(group.lr)
            assert (group.weight_decay == 0.05) == (name not in norm_and_bias_names(model)), name
    last = n_depths(model.config)
    expected: dict[object, float] = {i: 1e-3 * 0.25 ** ((last - i) / max(last - 1, 1)) for i in range(1, last + 1)}
    if family in tiny.KNOWN:
        expected[0] = expected[1]
    expected["head"] = 8e-3
    assert all(len(found) == 1 for found in rates.values())
    assert {place: found.pop() for place, found in rates.items()} == pytest.approx(expected)


def test_optimizer_and_schedule_are_those_of_the_recipe(tmp_path: Path) -> None:
    values = {
        "optim__name": "SGD",
        "optim__momentum": 0.5,
        "schedule__shape": "cosine",
        "schedule__floor": 0.2,
    }
    assembly = put_together(tmp_path, "bert", "native", **values)
    assert isinstance(assembly.optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in assembly.optimizer.param_groups} == {0.5}
    assert [assembly.cycles.encoder(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]  # 2 of 20 steps warm up
    assert 0.2 < assembly.cycles.encoder(19) < 0.21


def test_freezing_more_layers_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"optim\.freeze_layers is 4") as caught:
        put_together(tmp_path, "bert", "native", optim__freeze_layers=4)
    assert caught.value.expected.startswith("0 to 3")


def test_all_layers_frozen_leaves_the_head(tmp_path: Path) -> None:
    assembly = put_together(tmp_path, "bert", "mean", optim__freeze_layers=3)
    assert {n for n, p in assembly.model.named_parameters() if p.requires_grad} == {
        "head.output.weight",
        "head.output.bias",
    }


# ---------------------------------------------------------------- build_model


@pytest.mark.parametrize("family", tiny.KNOWN)
@pytest.mark.parametrize("n_layers", [0, 1])
def test_reinit_leaves_lower_layers_pretrained(tmp_path: Path, family: str, n_layers: int) -> None:
    source = source_of(tmp_path, family)
    model, _ = build_model(
        BASE.with_values({"model.reinit_layers": n_layers}),
        source,
        task="single",
        label_names=LABELS,
        pooling="mean",
    )
    pretrained, state = read_weights(tmp_path), model.encoder.state_dict()
    depth, last = depth_reader(model.config, model.encoder_prefix), n_depths(model.config)
    for name, _ in model.encoder.named_parameters():
        full = f"{model.encoder_prefix}.{name}"
        same = torch.equal(state[name], pretrained[name])
        assert same == (depth(full) == "head" or depth(full) <= last - n_layers), name


def test_the_head_comes_from_the_seed_alone(tmp_path: Path) -> None:
    source = source_of(tmp_path, "bert")

    def head(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        model, _ = build_model(
            BASE.with_values({"train.seed": seed}), source, task="single", label_names=LABELS, pooling="mean"
        )
        return model.head.output.weight.detach()

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_dropout_goes_where_the_recipe_says(tmp_path: Path, pooling: str) -> None:
    source = source_of(tmp_path, "bert", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)

    def probabilities(**values: object) -> tuple[set[float], float]:
        recipe = BASE.with_values({f"model.{key}": value for key, value in values.items()})
        model, _ = build_model(recipe, source, task="single", label_names=LABELS, pooling=pooling)
        attention = model.config.attention_probs_dropout_prob
        found = {m.p for n, m in model.named_modules() if isinstance(m, nn.Dropout) and "attention.self" not in n}
        return found, attention

    assert probabilities(dropout=0.15, attention_dropout=0.05) == ({0.15}, 0.05)
    kept = {0.3} if pooling == "native" else {0.3, 0.1}
    assert probabilities(dropout="auto", attention_dropout="auto") == (kept, 0.2)


def test_bf16_runs_the_products_in_bf16_and_keeps_float32_weights(tmp_path: Path) -> None:
    assembly = put_together(tmp_path, "bert", "mean", train__precision="bf16")
    assert assembly.model.config._attn_implementation == NAME
    with assembly.autocast():
        output = assembly.model(**tiny.inputs(assembly.model.config, [5, 3])).logits
    assert output.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in assembly.model.parameters()} == {torch.float32}


def test_layer_parameters_leaves_tables_out(tmp_path: Path) -> None:
    model = tiny.classifier("bert", "mean")
    tables = (100 + 64 + 2) * 32
    assert layer_parameters(model) == sum(p.numel() for p in model.bert.parameters()) - tables
    assert pick_device() == ("cuda" if torch.cuda.is_available() else "cpu")
