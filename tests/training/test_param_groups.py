"""Parameter groups: rates in closed form, decay told from modules, and the partition proven on real
architectures.
"""

import re

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.training.param_groups import Rule, format_plan, plan_groups, prove_partition, to_torch

SIZES = dict(vocab_size=50, hidden_size=8, num_attention_heads=2, intermediate_size=12)
FAMILIES = {
    "bert": BertConfig(num_hidden_layers=4, **SIZES),
    "roberta": RobertaConfig(num_hidden_layers=3, **SIZES),
    "electra": ElectraConfig(num_hidden_layers=2, embedding_size=4, **SIZES),
    "mpnet": MPNetConfig(num_hidden_layers=2, **SIZES),
    "albert": AlbertConfig(num_hidden_layers=3, embedding_size=4, **SIZES),
    "deberta": DebertaV2Config(
        num_hidden_layers=2, relative_attention=True, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
        position_buckets=4, max_relative_positions=8, **SIZES,
    ),
    "modernbert": ModernBertConfig(num_hidden_layers=3, pad_token_id=0, **SIZES),
    "distilbert": DistilBertConfig(vocab_size=50, dim=8, n_heads=2, hidden_dim=12, n_layers=3),
}  # fmt: skip
DEPTHS = {"albert": 1, "bert": 4, "roberta": 3, "modernbert": 3, "distilbert": 3}
RECIPE = dict(lr=1e-4, head_lr_factor=10.0, layer_ratio=0.5, weight_decay=0.01)


def depth_of(name):
    """What families.py knows, for the tests: the layer's number in the name, else embeddings or head."""
    if found := re.search(r"\.layers?\.(\d+)\.", name):
        return int(found.group(1)) + 1
    if "albert_layer_groups" in name:
        return 1
    if re.search(r"embedding|encoder\.(rel_|LayerNorm|relative_)|embedding_hidden_mapping", name):
        return 0
    return "head"


@pytest.fixture(params=FAMILIES)
def family(request):
    torch.manual_seed(0)
    return request.param, AutoModelForSequenceClassification.from_config(FAMILIES[request.param])


def bert():
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(FAMILIES["bert"])


def test_partition_and_counts(family):
    name, model = family
    plan = plan_groups(model, depth_of, **RECIPE)
    named = [p for group in plan.groups for p in group.parameters]
    assert sorted(named) == sorted(n for n, _ in model.named_parameters())
    assert plan.trainable_count == sum(p.numel() for p in model.parameters())
    assert plan.n_layers == DEPTHS.get(name, 2)
    assert plan.frozen == ()
    groups = to_torch(plan, model)
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in model.parameters()}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    assert len({g.name for g in plan.groups}) == len(plan.groups)


def test_decay_is_what_the_modules_say(family):
    """Every matrix decays, tables of embeddings included, and nothing else does."""
    _, model = family
    decay = {
        name: group.weight_decay for group in plan_groups(model, depth_of, **RECIPE).groups for name in group.parameters
    }
    for path, module in model.named_modules():
        for leaf, tensor in module.named_parameters(recurse=False):
            expected = 0.01 if isinstance(module, (nn.Linear, nn.Embedding)) and leaf == "weight" else 0.0
            if isinstance(module, (nn.Linear, nn.Embedding, nn.LayerNorm)):
                assert decay[f"{path}.{leaf}"] == expected
            elif tensor.ndim < 2:
                assert decay[f"{path}.{leaf}"] == 0.0


def test_rates_of_bert_in_closed_form():
    plan = plan_groups(bert(), depth_of, **RECIPE)
    rates = {group.name: group.lr for group in plan.groups}
    step = 0.5 ** (1 / 3)  # four layers, three steps between them
    places = {"head": 1e-3, **{f"layer {i}": 1e-4 * step ** (4 - i) for i in (1, 2, 3, 4)}}
    places["embeddings"] = 0.5e-4
    assert rates == pytest.approx({**places, **{f"{name}, no decay": rate for name, rate in places.items()}})
    ordered = [group.name for group in plan.groups if group.weight_decay]
    assert ordered == ["embeddings", "layer 1", "layer 2", "layer 3", "layer 4", "head"]


def test_counts_of_bert_by_hand():
    counts = {group.name: group.count for group in plan_groups(bert(), depth_of, **RECIPE).groups}
    assert counts["layer 2"] == 4 * 8 * 8 + 2 * 8 * 12
    assert counts["layer 2, no decay"] == 4 * 8 + 12 + 8 + 2 * 2 * 8
    assert counts["embeddings"] == (50 + 512 + 2) * 8
    assert counts["embeddings, no decay"] == 2 * 8
    assert counts["head"] == 8 * 8 + 2 * 8
    assert counts["head, no decay"] == 8 + 2


@pytest.mark.parametrize("n_layers", [1, 2, 7])
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_ratio_means_the_same_at_any_depth(n_layers, ratio):
    model = nn.ModuleDict({f"layer{i}": nn.Linear(2, 2, bias=False) for i in range(1, n_layers + 1)})
    plan = plan_groups(
        model, lambda name: int(name[5]), lr=1.0, head_lr_factor=1.0, layer_ratio=ratio, weight_decay=0.0
    )
    rates = [group.lr for group in plan.groups]
    assert rates[-1] == 1.0
    assert rates[0] == pytest.approx(ratio if n_layers > 1 else 1.0)
    steps = [upper / lower for lower, upper in zip(rates, rates[1:], strict=False)]
    assert steps == pytest.approx([(1 / ratio) ** (1 / (n_layers - 1))] * len(steps) if steps else [])


def test_an_encoder_of_one_depth_gets_the_plain_rate():
    plan = plan_groups(bert(), lambda name: 0 if name.startswith("bert") else "head", **RECIPE)
    assert {g.name: g.lr for g in plan.groups if g.weight_decay} == {"embeddings": 1e-4, "head": 1e-3}
    assert plan.n_layers == 0


def test_norms_of_any_make():
    class GemmaRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 2))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_bias = nn.Parameter(torch.zeros(2, 2))
            self.table = nn.Parameter(torch.zeros(2, 2))

    model = nn.Sequential(
        GemmaRMSNorm(),
        nn.LayerNorm((2, 2)),
        nn.RMSNorm(2),
        nn.BatchNorm1d(2),
        nn.GroupNorm(1, 2),
        Attention(),
    )
    plan = plan_groups(model, lambda name: "head", **RECIPE)
    assert {g.name: g.parameters for g in plan.groups}["head"] == ("5.table",)


def test_no_weight_decay_makes_no_second_group():
    plan = plan_groups(bert(), depth_of, **{**RECIPE, "weight_decay": 0.0})
    assert [group.name for group in plan.groups] == [
        "embeddings", "layer 1", "layer 2", "layer 3", "layer 4", "head"
    ]  # fmt: skip


def test_tied_parameters_count_once():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "out": nn.Linear(3, 5)})
    model["out"].weight = model["embed"].weight
    plan = plan_groups(model, lambda name: 0 if "embed" in name else "head", **RECIPE)
    assert plan.trainable_count == 15 + 5
    assert {g.name: g.parameters for g in plan.groups} == {
        "embeddings": ("embed.weight",), "head, no decay": ("out.bias",)
    }  # fmt: skip
    ruled = plan_groups(model, lambda name: 0 if "embed" in name else "head", rules=[Rule("out.weight", 0.5)], **RECIPE)
    assert ruled.groups[0].name == "embeddings [out.weight]"
    assert ruled.groups[0].lr == pytest.approx(0.5e-4)


def test_freezing_takes_embeddings_and_the_lowest_layers():
    model = bert()
    plan = plan_groups(model, depth_of, freeze_layers=2, **RECIPE)
    assert all(p.requires_grad for p in model.parameters())  # a plan changes nothing
    assert {depth_of(name) for name in plan.frozen} == {0, 1, 2}
    assert {depth_of(n) for g in plan.groups for n in g.parameters} == {3, 4, "head"}
    rates = {group.name: group.lr for group in plan.groups}
    assert rates["layer 3"] == pytest.approx(1e-4 * 0.5 ** (1 / 3))  # as if nothing were frozen
    assert plan.trainable_count + plan.frozen_count == sum(p.numel() for p in model.parameters())
    to_torch(plan, model)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == set(plan.frozen)
    prove_partition(plan, model)


def test_freezing_all_layers_leaves_the_head_and_no_more_fit():
    assert {g.name for g in plan_groups(bert(), depth_of, freeze_layers=4, **RECIPE).groups} == {
        "head", "head, no decay"
    }  # fmt: skip
    with pytest.raises(BadInput, match="0 to 4"):
        plan_groups(bert(), depth_of, freeze_layers=5, **RECIPE)
    with pytest.raises(BadInput, match="0 to 4"):
        plan_groups(bert(), depth_of, freeze_layers=-1, **RECIPE)


def test_parameters_without_gradient_stay_frozen():
    model = bert()
    model.bert.embeddings.requires_grad_(False)
    plan = plan_groups(model, depth_of, **RECIPE)
    assert {depth_of(name) for name in plan.frozen} == {0}
    model.requires_grad_(False)
    with pytest.raises(BadInput, match="nothing is left to learn"):
        plan_groups(model, depth_of, **RECIPE)


def test_rules():
    rules = [Rule("*.attention.*", lr_factor=0.5), Rule("classifier.*", weight_decay=0.2)]
    plan = plan_groups(bert(), depth_of, rules=rules, **RECIPE)
    groups = {group.name: group for group in plan.groups}
    assert groups["layer 4 [*.attention.*]"].lr == pytest.approx(0.5e-4)
    assert groups["layer 4 [*.attention.*], no decay"].lr == pytest.approx(0.5e-4)
    assert groups["layer 4"].lr == pytest.approx(1e-4)
    assert groups["head [classifier.*]"].parameters == ("classifier.weight", "classifier.bias")
    assert groups["head [classifier.*]"].weight_decay == 0.2
    assert plan.trainable_count == sum(p.numel() for p in bert().parameters())


@pytest.mark.parametrize(
    ("rules", "freeze", "words"),
    [
        ([Rule("*.atention.*")], 0, "matches no parameter"),
        ([Rule("bert.embeddings.*")], 1, "matches no parameter that learns"),
        ([Rule("*.weight"), Rule("classifier.*")], 0, "both match 'classifier.weight'"),
    ],
)
def test_rules_refused(rules, freeze, words):
    with pytest.raises(BadInput, match=words):
        plan_groups(bert(), depth_of, rules=rules, freeze_layers=freeze, **RECIPE)


def test_impossible_rule():
    with pytest.raises(BadInput, match="0 or more"):
        Rule("*", lr_factor=-1.0)


@pytest.mark.parametrize(
    "wrong", [dict(lr=0.0), dict(lr=float("nan")), dict(layer_ratio=1.5), dict(head_lr_factor=0.0),
              dict(weight_decay=-0.1), dict(weight_decay=float("inf"))]
)  # fmt: skip
def test_rates_refused(wrong):
    with pytest.raises(BadInput, match=f"optim.{next(iter(wrong))} is"):
        plan_groups(bert(), depth_of, **{**RECIPE, **wrong})


@pytest.mark.parametrize("depth", [-1, 1.5, True, None, "tail"])
def test_a_depth_that_is_none(depth):
    with pytest.raises(WorkFailed, match=r"the depth of the parameter"):
        plan_groups(bert(), lambda name: depth, **RECIPE)


def test_a_plan_for_another_model_is_refused():
    model = bert()
    plan = plan_groups(model, depth_of, **RECIPE)
    model.extra = nn.Linear(2, 2)
    with pytest.raises(WorkFailed, match=r"in no group, the first is 'extra\.weight'"):
        to_torch(plan, model)
    del model.extra
    model.bert.pooler = None
    with pytest.raises(WorkFailed, match="does not have"):
        to_torch(plan, model)
    model = bert()
    layers = model.bert.encoder.layer
    layers[0].output.dense.weight = layers[1].output.dense.weight
    with pytest.raises(WorkFailed, match="one parameter twice"):
        to_torch(plan, model)
    model = bert()
    model.classifier.requires_grad_(False)
    with pytest.raises(WorkFailed, match="take no gradient"):
        to_torch(plan, model)
    model = bert()
    model.classifier = nn.Linear(8, 5)
    with pytest.raises(WorkFailed, match="numbers"):
        to_torch(plan, model)


def test_torch_groups_carry_what_the_loop_needs():
    model = bert()
    plan = plan_groups(model, depth_of, **RECIPE)
    optimizer = torch.optim.AdamW(to_torch(plan, model))
    for group, planned in zip(optimizer.param_groups, plan.groups, strict=True):
        assert (group["name"], group["lr"], group["base_lr"], group["weight_decay"]) == (
            planned.name, planned.lr, planned.lr, planned.weight_decay
        )  # fmt: skip
        assert sum(p.numel() for p in group["params"]) == planned.count


def test_printed():
    model = bert()
    lines = format_plan(plan_groups(model, depth_of, freeze_layers=1, **RECIPE))
    assert lines[0].split() == ["group", "rate", "decay", "tensors", "numbers", "example"]
    assert lines[-3].split() == ["head,", "no", "decay", "0.001", "0", "2", "10", "bert.pooler.dense.bias"]
    assert lines[-2].startswith("frozen")
    assert lines[-1].split() == ["all", "73", f"{sum(p.numel() for p in model.parameters()):,}"]
    assert all(line == line.rstrip() for line in lines)
