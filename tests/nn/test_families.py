"""The table of families against transformers' own modules: depths, positions, dropout, the output layer."""

import pytest
import torch

import tiny
from snapfit.nn.families import FAMILIES, depth_reader, family_of, max_positions, n_depths, set_dropout

DEPTHS = {"albert": 1, **dict.fromkeys(tiny.UNKNOWN, 1)}


def test_every_row_of_the_table_is_tried_here() -> None:
    assert set(tiny.KNOWN) == set(FAMILIES)
    assert not any(family_of(tiny.encoder_config(name)).known for name in tiny.UNKNOWN)


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_every_parameter_has_a_depth(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    depth = depth_reader(model.config, model.encoder_prefix)
    found = {depth(name) for name, _ in model.named_parameters()}
    last = DEPTHS.get(family, 3)
    assert n_depths(model.config) == last
    assert found == {"head", *(range(last + 1) if family in tiny.KNOWN else [1])}


@pytest.mark.parametrize("family", tiny.KNOWN)
def test_depths_follow_the_layers(family: str) -> None:
    """A layer's parameters, found by running the encoder: what layer i feeds changes only from state i on."""
    model = tiny.classifier(family, "mean")
    depth = depth_reader(model.config, model.encoder_prefix)
    batch = {k: v for k, v in tiny.inputs(model.config, [6]).items() if k != "token_type_ids"}

    def states() -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return model.encoder(**batch, output_hidden_states=True).hidden_states

    before = states()
    shared = FAMILIES[family].shared_layers is not None
    for level in range(1, n_depths(model.config) + 1):
        chosen = [p for n, p in model.named_parameters() if depth(n) == level and p.ndim >= 2]
        kept = [p.detach().clone() for p in chosen]
        with torch.no_grad():
            for parameter in chosen:
                parameter.mul_(1.5)
        changed = [not torch.allclose(a, b) for a, b in zip(before, states(), strict=True)]
        first = 1 if shared else level
        assert changed == [i >= first for i in range(len(before))], (family, level)
        with torch.no_grad():
            for parameter, old in zip(chosen, kept, strict=True):
                parameter.copy_(old)


@pytest.mark.parametrize("family", tiny.KNOWN)
def test_the_output_layer_has_a_row_for_each_label(family: str) -> None:
    model = tiny.classifier(family, n_labels=7)
    assert model.output.out_features == 7
    batch = tiny.inputs(model.config, [5, 3])
    before = model(**batch).logits
    with torch.no_grad():
        model.output.bias[4] += 2.5
    torch.testing.assert_close(model(**batch).logits - before, torch.eye(7)[4].expand(2, 7) * 2.5)


def test_a_parameter_that_no_row_places_is_an_error() -> None:
    depth = depth_reader(tiny.encoder_config("bert"), "bert")
    with pytest.raises(KeyError, match=r"bert\.surprise\.weight"):
        depth("bert.surprise.weight")
    assert depth("bert.pooler.dense.weight") == "head"
    assert depth("surprise.weight") == "head"


@pytest.mark.parametrize("family", tiny.ALL)
def test_max_positions_is_the_longest_row_that_runs(family: str) -> None:
    model = tiny.classifier(family, "mean")
    limit = max_positions(model.config)
    assert limit == 64
    model(**tiny.inputs(model.config, [limit]))
    if family in ("deberta-v2", "modernbert", "nomic_bert"):  # relative or rotary: they compute further
        return
    with pytest.raises((IndexError, RuntimeError)):
        model(**tiny.inputs(model.config, [limit + 1]))


def test_max_positions_of_encoders_without_a_limit() -> None:
    assert max_positions(tiny.encoder_config("bert", max_position_embeddings=-1)) is None
    from transformers import XLNetConfig

    assert max_positions(XLNetConfig()) is None


@pytest.mark.parametrize(("family", "pooling"), [(f, p) for f, p in tiny.FAMILY_AND_POOLING if f in tiny.KNOWN])
def test_dropout_set_to_zero_leaves_nothing_random(family: str, pooling: str) -> None:
    def spread(**probabilities: float) -> float:
        config = tiny.config_for(family, pooling)
        config.snapfit_head_dropout = 0.0
        set_dropout(config, **probabilities)
        torch.manual_seed(0)
        model = type(tiny.classifier(family, pooling))(config).train()
        batch = tiny.inputs(config, [9, 4])
        first, second = (model(**batch).logits for _ in range(2))
        return (first - second).abs().max().item()

    assert spread(hidden=0.0, attention=0.0) == 0.0
    assert spread(hidden=0.5, attention=0.0) > 1e-3
    assert spread(hidden=0.0, attention=0.5) > 1e-4


def test_none_keeps_the_encoders_own_dropout() -> None:
    config = tiny.encoder_config("bert", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    set_dropout(config, hidden=None, attention=None)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.3, 0.2)
