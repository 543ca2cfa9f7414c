"""Weights by name: what is loaded, what stays fresh, what is refused, from every layout a checkpoint comes in."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from snapfit.core.errors import BadInput
from snapfit.nn.classifier import Classifier, load_encoder_folder
from snapfit.nn.weights import (
    INDEX_NAME,
    WEIGHTS_NAME,
    load_all,
    load_encoder,
    match_encoder_names,
    read_weights,
)


def snapshot(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def bare() -> dict[str, Tensor]:
    """A checkpoint of the encoder alone."""
    return dict(tiny.encoder("bert", seed=1).state_dict())


def load(model: Classifier, state: dict[str, Tensor]):
    return load_encoder(model, state, prefix=model.encoder_prefix, optional=model.optional_parts, source="checkpoint")


def test_bare_and_prefixed_checkpoints_load_the_same(bare: dict[str, Tensor]) -> None:
    prefixed = {f"bert.{name}": tensor for name, tensor in bare.items()}
    prefixed["cls.predictions.bias"] = torch.zeros(3)
    one, other = tiny.classifier("bert", seed=2), tiny.classifier("bert", seed=2)
    first, second = load(one, bare), load(other, prefixed)
    assert same(snapshot(one), snapshot(other))
    assert first.loaded == second.loaded
    assert (first.unused, second.unused) == ((), ("cls.predictions.bias",))
    assert first.fresh == ("classifier.bias", "classifier.weight")
    assert all(torch.equal(one.state_dict()[f"bert.{name}"], bare[name]) for name in bare)


def test_the_report_says_what_happened(bare: dict[str, Tensor]) -> None:
    bare |= {"extra.weight": torch.zeros(2), "more.weight": torch.zeros(2)}
    lines = load(tiny.classifier("bert", "mean"), bare).lines()
    assert lines[0].startswith("weights: 53 tensors from checkpoint")
    assert "head.output.bias, head.output.weight" in lines[1]
    assert lines[2].split(":")[0].endswith("unused 4")  # two extra, two of the pooler
    assert "bert.extra.weight" in lines[2]


def test_names_of_2018_are_understood(bare: dict[str, Tensor]) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in bare.items()
    }
    assert old.keys() != bare.keys()
    one, other = tiny.classifier("bert", seed=2), tiny.classifier("bert", seed=2)
    load(one, bare)
    load(other, old)
    assert same(snapshot(one), snapshot(other))


def test_gamma_outside_a_norm_is_another_name() -> None:
    state = {"layer.gamma": torch.ones(1), "norm.LayerNorm.gamma": torch.ones(1)}
    assert set(match_encoder_names(state, "enc")) == {"enc.layer.gamma", "enc.norm.LayerNorm.weight"}


def test_a_missing_pooler_may_be_fresh_and_nothing_else(bare: dict[str, Tensor]) -> None:
    without_pooler = {name: tensor for name, tensor in bare.items() if not name.startswith("pooler.")}
    model = tiny.classifier("bert", seed=3)
    before = snapshot(model)
    report = load(model, without_pooler)
    assert {name for name in report.fresh if name.startswith("bert.")} == {
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
    }
    assert torch.equal(model.state_dict()["bert.pooler.dense.weight"], before["bert.pooler.dense.weight"])


@pytest.mark.parametrize("family", tiny.ALL)
def test_a_missing_encoder_weight_is_named(family: str) -> None:
    model = tiny.classifier(family, "mean")
    state = dict(model.encoder.state_dict())
    lost = next(name for name, tensor in reversed(state.items()) if tensor.ndim == 2)
    state.pop(lost)
    before = snapshot(model)
    with pytest.raises(
        BadInput, match=rf"lacks 1 of the encoder's \d+ weights, such as '{model.encoder_prefix}\.{lost}'"
    ):
        load(model, state)
    assert same(snapshot(model), before)


def test_a_weight_of_another_shape_is_named_and_nothing_is_loaded(bare: dict[str, Tensor]) -> None:
    bare["embeddings.word_embeddings.weight"] = torch.zeros(120, 32)
    model = tiny.classifier("bert")
    before = snapshot(model)
    with pytest.raises(BadInput, match=r"bert\.embeddings\.word_embeddings\.weight has shape \(120, 32\)") as caught:
        load(model, bare)
    assert caught.value.expected.startswith("shape (100, 32)")
    assert same(snapshot(model), before)


def test_load_all_wants_exactly_the_models_names() -> None:
    model = tiny.classifier("bert", "mean")
    state = snapshot(model)
    report = load_all(tiny.classifier("bert", "mean", seed=9), state, source="state")
    assert (report.fresh, report.unused) == ((), ())
    with pytest.raises(BadInput, match=r"0 weights missing \(none\), 1 unknown \(surprise\)"):
        load_all(model, state | {"surprise": torch.zeros(1)}, source="state")
    state.pop("head.output.bias")
    with pytest.raises(BadInput, match=r"1 weights missing \(head\.output\.bias\)"):
        load_all(model, state, source="state")


def test_loading_converts_to_the_models_precision(bare: dict[str, Tensor]) -> None:
    model = tiny.classifier("bert")
    load(model, {name: tensor.to(torch.bfloat16) for name, tensor in bare.items()})
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


# ---------------------------------------------------------------- folders


def test_sharded_checkpoints_are_put_together(tmp_path: Path, bare: dict[str, Tensor]) -> None:
    with tiny.quiet():
        tiny.encoder("bert", seed=1).save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / WEIGHTS_NAME).exists()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same(dict(read_weights(tmp_path)), bare)
    model = tiny.classifier("bert")
    load_encoder_folder(model, tmp_path)
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, bare["embeddings.word_embeddings.weight"])


def test_a_lost_shard_is_named(tmp_path: Path) -> None:
    with tiny.quiet():
        tiny.encoder("bert").save_pretrained(tmp_path, max_shard_size="20KB")
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(BadInput, match=f"{lost.name} cannot be read"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors"])
def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(BadInput, match="names the shard"):
        read_weights(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_NAME).write_text(text)
    with pytest.raises(BadInput, match="is not a shard index"):
        read_weights(tmp_path)


def test_pickles_are_refused_and_never_opened(tmp_path: Path) -> None:
    marker = tmp_path / "opened"
    bomb = f"cposix\nsystem\n(S'touch {marker}'\ntR."
    (tmp_path / "pytorch_model.bin").write_bytes(bomb.encode())
    with pytest.raises(BadInput, match=r"as a pickle \(pytorch_model\.bin\)") as caught:
        read_weights(tmp_path)
    assert "save_pretrained" in caught.value.fix
    assert not marker.exists()


def test_a_folder_without_weights_and_a_damaged_file(tmp_path: Path, bare: dict[str, Tensor]) -> None:
    with pytest.raises(BadInput, match=f"has no {WEIGHTS_NAME}"):
        read_weights(tmp_path)
    save_file(bare, tmp_path / WEIGHTS_NAME)
    assert same(load_file(tmp_path / WEIGHTS_NAME), bare)
    whole = (tmp_path / WEIGHTS_NAME).read_bytes()
    (tmp_path / WEIGHTS_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="cannot be read"):
        read_weights(tmp_path)


def test_a_fine_tuned_classifier_gives_its_encoder_only(tmp_path: Path) -> None:
    """Its head was for other labels: the new one is fresh."""
    trained = tiny.classifier("roberta", n_labels=5, seed=7)
    with tiny.quiet():
        trained.save_pretrained(tmp_path)
    model = tiny.classifier("roberta", n_labels=2)
    report = load_encoder_folder(model, tmp_path)
    assert torch.equal(
        model.roberta.encoder.layer[2].output.dense.weight,
        trained.roberta.encoder.layer[2].output.dense.weight,
    )
    assert all(name.startswith("classifier.") for name in (*report.fresh, *report.unused))
    assert model.output.out_features == 2


def test_an_unknown_familys_stored_names_are_left_to_transformers(tmp_path: Path) -> None:
    """nomic_bert is stored under other names than its modules have."""
    encoder = tiny.save_encoder(tmp_path, "nomic_bert")
    assert {"emb_ln.weight"} <= set(read_weights(tmp_path)) - set(encoder.state_dict())
    model = tiny.classifier("nomic_bert", "mean")
    load_encoder_folder(model, tmp_path)
    batch = {k: v for k, v in tiny.inputs(model.config, [6, 3]).items() if k != "token_type_ids"}
    torch.testing.assert_close(
        model.encoder(**batch).last_hidden_state, encoder(**batch).last_hidden_state, atol=1e-5, rtol=0
    )
    state = load_file(tmp_path / WEIGHTS_NAME)
    state.pop(next(name for name in state if "layers.1" in name))
    save_file(state, tmp_path / WEIGHTS_NAME, metadata={"format": "pt"})
    with pytest.raises(BadInput, match="lacks 3 of the encoder's"):
        load_encoder_folder(tiny.classifier("nomic_bert", "mean"), tmp_path)
