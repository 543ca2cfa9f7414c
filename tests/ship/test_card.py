"""The model card says what a stranger must know, and its example runs."""

import contextlib
import dataclasses
import io
import re
from pathlib import Path

import pytest

import toys
from snapfit.runtime.bundle import Bundle, BundleInfo
from snapfit.ship.card import model_card


def card_of(kind: str, pooling: str) -> tuple[str, BundleInfo]:
    folder = toys.trained(kind, pooling).result.bundle
    return (folder / "README.md").read_text("utf-8"), Bundle.open(folder).info


@pytest.mark.parametrize(
    ("kind", "task"), [("single", "one label a text"), ("multi", "any number"), ("regression", "a number")]
)
def test_says_the_task_the_labels_and_the_figures(kind: str, task: str) -> None:
    card, info = card_of(kind, "native")
    assert f"Task: {task}" in card
    assert all(f"`{name}`" in card for name in info.labels["names"])
    assert "| valid |" in card
    for value in info.metrics["valid"].values():
        assert f"{value:.4f}" in card


def test_says_which_pooling_and_why() -> None:
    card, _ = card_of("single", "mean")
    assert "pooling `mean`: stated in the recipe" in card
    info = Bundle.open(toys.trained().result.bundle).info
    measured = dataclasses.replace(info, pooling_reason="a probe explains 71 %")
    assert "pooling `native`: a probe explains 71 %" in model_card(measured, reasons={})


def test_says_whether_plain_transformers_opens_it() -> None:
    assert "AutoModelForSequenceClassification.from_pretrained" in card_of("single", "native")[0]
    pooled = card_of("single", "mean")[0]
    assert "this bundle needs snapfit" in pooled
    assert "--set model.pooling=native" in pooled


def test_names_every_automatic_setting_with_its_reason() -> None:
    info = Bundle.open(toys.trained().result.bundle).info
    card = model_card(info, reasons={"optim.lr": "for its size", "train.batch": "for its rows"})
    assert "- `optim.lr` = `0.002`: for its size" in card
    assert "- `train.batch` = `8`: for its rows" in card
    assert f"at most {info.max_tokens} tokens; of longer texts the first {info.max_tokens} tokens are read" in card


def test_without_a_held_out_split_it_claims_nothing() -> None:
    info = Bundle.open(toys.trained().result.bundle).info
    assert "nothing was measured" in model_card(dataclasses.replace(info, metrics={}), reasons={})


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_its_example_runs(kind: str) -> None:
    folder = toys.trained(kind, "native").result.bundle
    card = (folder / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace("path/to/this/folder", Path(folder).as_posix())
    scope: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, scope)
    assert scope["classifier"].task == "single"


def test_labels_cannot_leave_their_place() -> None:
    info = Bundle.open(toys.trained().result.bundle).info
    names = ["a\n# title", "b`<script>`", "``", "\x1b[31m"]
    card = model_card(dataclasses.replace(info, labels={**info.labels, "names": names}), reasons={})
    assert "`a\\n# title`, `` b`<script>` ``, ``` `` ```, `\\x1b[31m`" in card
