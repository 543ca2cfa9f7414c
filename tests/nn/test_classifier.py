"""The classifier: built from a config alone, filled in either right way, the same answers in any batch."""

import builtins
import copy
import io
import json
import socket
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny
from snapfit.core.errors import BadInput
from snapfit.nn.classifier import Classifier, classifier_config, load_encoder_folder, task_of
from snapfit.nn.encoder import read_config
from snapfit.nn.families import family_of
from snapfit.nn.losses import loss_sum
from snapfit.nn.weights import load_all, read_weights

EVERYTHING = [(name, pooling) for name in tiny.ALL for pooling in tiny.poolings(name)]
TARGETS = {
    "single": torch.tensor([0, 2, 1]),
    "multi": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "regression": torch.tensor([[0.5], [-2.0], [1.0]]),
}


def saved_config(folder: Path, pooling: str, *, task: str = "single"):
    names = ["a", "b", "c"] if task != "regression" else ["score"]
    return classifier_config(read_config(folder), task=task, label_names=names, pooling=pooling, head_dropout=0.0)


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_building_reads_no_file_and_no_network(
    family: str, pooling: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tiny.config_for(family, pooling)
    Classifier(config)  # the modules of this family are imported now

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"a constructor opened {args}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    assert not Classifier(config).training


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_transformers_way_and_plain_way_agree(family: str, pooling: str, tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder", family)
    config = saved_config(tmp_path / "encoder", pooling)
    batch = tiny.inputs(config, [7, 3, 5])

    torch.manual_seed(5)
    ours = Classifier.from_pretrained(tmp_path / "encoder", config=config)
    torch.manual_seed(5)
    plain = Classifier(config)
    report = load_encoder_folder(plain, tmp_path / "encoder")
    logits = ours(**batch).logits
    assert torch.equal(plain(**batch).logits, logits)

    pretrained = encoder.state_dict()
    in_model = ours.encoder.state_dict()
    assert all(torch.equal(in_model[name], pretrained[name]) for name in in_model if name in pretrained)
    assert all(name.startswith(ours.encoder_prefix) for name in report.loaded)
    assert not any(name.startswith(ours.encoder_prefix) for name in report.fresh)

    with tiny.quiet():
        ours.save_pretrained(tmp_path / "saved")
    assert {p.suffix for p in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    again = Classifier.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(**batch).logits, logits)
    assert task_of(again.config) == "single"
    assert again.config.id2label == {0: "a", 1: "b", 2: "c"}

    other = {name: tensor * 0.5 for name, tensor in ours.state_dict().items()}
    halved = Classifier.from_pretrained(tmp_path / "saved", state_dict=other)
    by_name = Classifier(again.config)
    load_all(by_name, other, source="a test")
    assert torch.equal(halved(**batch).logits, by_name(**batch).logits)
    assert not torch.equal(halved(**batch).logits, logits)


@pytest.mark.parametrize("family", tiny.KNOWN)
def test_native_folders_open_with_transformers(family: str, tmp_path: Path) -> None:
    model = tiny.classifier(family, "native")
    with tiny.quiet():
        model.save_pretrained(tmp_path)
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(theirs).__name__]
    assert model.architecture == type(theirs).__name__
    assert list(theirs.state_dict()) == list(model.state_dict())
    assert set(read_weights(tmp_path)) == set(theirs.state_dict())
    batch = tiny.inputs(model.config, [9, 2, 6])
    if not model.accepts_types:
        batch.pop("token_type_ids")
    torch.testing.assert_close(model(**batch).logits, theirs.eval()(**batch).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "pooling"), EVERYTHING)
def test_batched_padded_and_reordered_rows_answer_as_one_at_a_time(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling)
    batch = tiny.inputs(model.config, [4, 17, 1, 9, 12])
    with torch.inference_mode():
        alone = torch.cat([model(**tiny.one_row(batch, row)).logits for row in range(5)]).softmax(-1)
        together = model(**batch).logits.softmax(-1)
        wider = model(**tiny.inputs(model.config, [4, 17, 1, 9, 12], width=30)).logits.softmax(-1)
        order = torch.tensor([3, 0, 4, 2, 1])
        turned = model(**{name: tensor[order] for name, tensor in batch.items()}).logits.softmax(-1)
    assert (alone.max(0).values - alone.min(0).values).max() > 0.05  # the rows do differ
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(wider, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned, alone[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "pooling"), tiny.FAMILY_AND_POOLING)
def test_every_parameter_gets_a_gradient(family: str, pooling: str) -> None:
    model = tiny.classifier(family, pooling).train()
    model(**tiny.inputs(model.config, [8, 3, 5]), labels=TARGETS["single"]).loss.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("pooling", tiny.poolings("bert"))
def test_every_pooling_trains_all_that_it_has(pooling: str) -> None:
    model = tiny.classifier("bert", pooling).train()
    model(**tiny.inputs(model.config, [8, 3, 5]), labels=TARGETS["single"]).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_frozen_parameters_get_no_gradient() -> None:
    model = tiny.classifier("bert").train()
    model.bert.embeddings.requires_grad_(False)
    model(**tiny.inputs(model.config, [8, 3, 5]), labels=TARGETS["single"]).loss.backward()
    assert all(p.grad is None for p in model.bert.embeddings.parameters())
    assert all(p.grad is not None for p in model.bert.encoder.parameters())


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize("task", TARGETS)
def test_loss_is_the_mean_of_the_rows(task: str, pooling: str) -> None:
    model = tiny.classifier("bert", pooling, task=task, n_labels=1 if task == "regression" else 3)
    output = model(**tiny.inputs(model.config, [8, 3, 5]), labels=TARGETS[task])
    torch.testing.assert_close(output.loss, loss_sum(output.logits, TARGETS[task], task=task) / 3)
    assert model(**tiny.inputs(model.config, [8, 3, 5])).loss is None


def test_token_types_matter_where_the_encoder_reads_them() -> None:
    for family, reads in (("bert", True), ("roberta", False), ("distilbert", False)):
        model = tiny.classifier(family, "mean")
        batch = tiny.inputs(model.config, [8, 3])
        with_types = model(**batch).logits
        without = model(batch["input_ids"], batch["attention_mask"]).logits
        assert model.accepts_types is reads
        assert torch.equal(with_types, without) is not reads


def test_no_mask_means_no_padding() -> None:
    model = tiny.classifier("bert", "mean")
    batch = tiny.inputs(model.config, [6, 6])
    batch.pop("token_type_ids")
    assert torch.equal(model(batch["input_ids"]).logits, model(**batch).logits)


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_copies_and_moves_carry_all_parts(pooling: str) -> None:
    model = tiny.classifier("roberta", pooling)
    batch = tiny.inputs(model.config, [6, 4])
    twin = copy.deepcopy(model)
    assert torch.equal(twin(**batch).logits, model(**batch).logits)
    with torch.no_grad():
        twin.output.bias.add_(1.0)
    torch.testing.assert_close(twin(**batch).logits, model(**batch).logits + 1.0)
    assert twin.double()(**batch).logits.dtype == torch.float64
    assert all(module.training for module in model.train().modules())
    assert not any(module.training for module in model.eval().modules())


def test_rescale_output_folds_scale_and_shift_into_the_last_layer() -> None:
    for family, pooling in (("bert", "native"), ("roberta", "native"), ("bert", "attention")):
        model = tiny.classifier(family, pooling, task="regression", n_labels=1)
        batch = tiny.inputs(model.config, [6, 4])
        before = model(**batch).logits
        model.rescale_output(scale=250.0, shift=1e5)
        torch.testing.assert_close(model(**batch).logits, before * 250.0 + 1e5)


def test_the_encoders_config_is_not_changed() -> None:
    config = tiny.encoder_config("bert")
    before = config.to_dict()
    made = classifier_config(config, task="multi", label_names=["x", "y"], pooling="mean", head_dropout=0.3)
    assert config.to_dict() == before
    assert (made.num_labels, made.problem_type, made.snapfit_head_dropout) == (
        2,
        "multi_label_classification",
        0.3,
    )
    assert task_of(made) == "multi"


def test_unusable_poolings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="pooling 'sum'"):
        tiny.config_for("bert", "sum")
    assert not family_of(tiny.encoder_config("rembert")).known
    with pytest.raises(BadInput, match="a native head for the family 'rembert'"):
        tiny.config_for("rembert", "native")
    with pytest.raises(BadInput, match="2 layers"):
        tiny.config_for("bert", "last4_concat", num_hidden_layers=2)


def test_an_encoder_without_a_classifiers_config_is_refused(tmp_path: Path) -> None:
    tiny.save_encoder(tmp_path, "bert")
    with pytest.raises(BadInput, match="holds an encoder, not a classifier"):
        Classifier.from_pretrained(tmp_path)


def test_a_state_dict_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    model = tiny.classifier("bert")
    with tiny.quiet():
        model.save_pretrained(tmp_path)
    state = model.state_dict()
    state.pop("classifier.bias")
    with pytest.raises(BadInput, match=r"classifier\.bias"):
        Classifier.from_pretrained(tmp_path, state_dict=state)


def test_a_half_precision_checkpoint_gives_a_float32_classifier(tmp_path: Path) -> None:
    encoder = tiny.encoder("bert").to(torch.bfloat16)
    with tiny.quiet():
        encoder.save_pretrained(tmp_path / "encoder")
    assert json.loads((tmp_path / "encoder" / "config.json").read_text())["dtype"] == "bfloat16"
    model = Classifier.from_pretrained(tmp_path / "encoder", config=saved_config(tmp_path / "encoder", "native"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with tiny.quiet():
        model.save_pretrained(tmp_path / "saved")
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    batch = tiny.inputs(model.config, [9, 2, 6])
    torch.testing.assert_close(model(**batch).logits, theirs(**batch).logits, atol=1e-5, rtol=0)
