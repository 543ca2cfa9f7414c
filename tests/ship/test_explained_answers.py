"""Explanations of models that were really trained: they name the words that the tables were made from, and these count.

In a toy table a text's label is its topic, which two words among fillers tell: what an explanation must name is known.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snapfit
import toys
from ensembles import answer_of_three, fitted_on
from snapfit.core.log_odds import log_odds
from snapfit.runtime.predictor import Predictor
from snapfit.ship.bundling import write_bundle

METHODS = ["integrated_gradients", "occlusion"]
TOPIC_OF = {word: topic for topic, words in toys.TOPICS.items() for word in words}


def texts_of(kind: str, n: int) -> list[Any]:
    rows = toys.ROWS[kind](n, seed=11)
    return [(row["sentence1"], row["sentence2"]) if kind == "pair" else row["text"] for row in rows]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model that has learnt its table, in a few seconds."""
    settings = {"model__pooling": "native", "train__epochs": 8}
    run = toys.new_run(tmp_path_factory.mktemp("learnt"), n_rows=600, **settings)
    return snapfit.load(run.result.bundle, device="cpu")


@pytest.mark.parametrize("method", METHODS)
def test_the_words_of_the_topic_are_named(predictor: Predictor, method: str) -> None:
    rows = toys.single_rows(40, seed=11)
    named, by_chance = [], []
    for row in rows:
        (label,) = predictor.explain(row["text"], method=method, target=row["label"]).labels
        strongest = sorted(label.words, key=lambda word: -word.value)[:2]
        named += [TOPIC_OF.get(word.text) == row["label"] for word in strongest]
        by_chance.append(2 / len(label.words))
    assert np.mean([predictor.predict(row["text"]) == row["label"] for row in rows]) > 0.85
    assert np.mean(named) > 1.3 * np.mean(by_chance)


@pytest.mark.parametrize("method", METHODS)
def test_without_the_words_that_are_named_the_label_loses_more_than_without_others(
    predictor: Predictor, method: str
) -> None:
    """The deletion test: words are taken out of the text itself, which is tokenised and answered anew."""
    rng, lost = np.random.default_rng(0), {"named": [], "random": [], "last": []}
    for text in texts_of("single", 40):
        (label,) = predictor.explain(text, method=method).labels
        order = np.argsort([-word.value for word in label.words])
        drawn = rng.permutation(len(order))
        output = predictor.names.index(label.label)
        for name, taken in (("named", order[:2]), ("random", drawn[:2]), ("last", order[-2:])):
            rest = " ".join(word.text for i, word in enumerate(label.words) if i not in taken)
            odds = log_odds(predictor.logits([text, rest]), "single", predictor.bundle.info.temperature)[:, output]
            lost[name].append(odds[0] - odds[1])
    named, drawn, last = (np.mean(lost[name]) for name in ("named", "random", "last"))
    assert named > 1.5 * drawn > 0.0
    assert last < 0.5 * drawn


def test_a_word_of_another_topic_speaks_against_a_label(predictor: Predictor) -> None:
    text = "the hammer was very quite bread and soup"
    for method in METHODS:
        explanation = predictor.explain(text, method=method, target=["food", "tools"])
        food, tools = ({word.text: word.value for word in label.words} for label in explanation.labels)
        assert food["hammer"] < 0.0 < tools["hammer"]
        assert food["soup"] > 0.0


@pytest.mark.parametrize("kind", ["multi", "regression", "pair"])
def test_every_task_adds_up_and_agrees(kind: str) -> None:
    predictor = snapfit.load(toys.trained(kind, "mean").result.bundle, device="cpu")
    agreements = []
    for explanation in predictor.explain(texts_of(kind, 8), check=True):
        for label in explanation.labels:
            total = sum(word.value for word in label.words)
            size = sum(abs(word.value) for word in label.words)
            due = label.value - label.baseline
            assert abs(total - due) <= 0.01 * max(abs(due), size / 20.0) + 1e-6
            assert label.error is not None
            assert label.error <= 0.01
            agreements.append(label.check.agreement)
    assert np.mean([one for one in agreements if one is not None]) > 0.3


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_bundle_of_several_models_explains_their_mean(kind: str, tmp_path: Path) -> None:
    encoder = toys.encoder_folder(tmp_path / "encoder")
    fitted, tables = fitted_on(str(encoder), kind)
    fitted = replace(fitted, answer=answer_of_three(fitted.model))
    write_bundle(tmp_path / "bundle", fitted, tables)
    predictor = snapfit.load(tmp_path / "bundle", device="cpu")
    texts = texts_of(kind, 5)
    scores = predictor.scores(texts)
    for i, text in enumerate(texts):
        explanation = predictor.explain(text, check=True, tokens=True)
        assert explanation.method == "integrated_gradients"
        assert explanation.decision == predictor.predict(text)
        for label in explanation.labels:
            score = scores[i, predictor.names.index(label.label)]
            assert label.score == pytest.approx(score, abs=1e-6)
            assert label.value == pytest.approx(np.log(score) - np.log1p(-score), abs=1e-3)
            assert label.error is not None
            assert label.error <= 0.01
            assert [token.value for token in label.tokens] == [word.value for word in label.words]  # a word is a token


def test_what_is_read_is_what_is_explained(predictor: Predictor) -> None:
    """Words beyond the limit change nothing, and are told of."""
    text = " ".join(["bread", "the"] * 60)
    explanation = predictor.explain(text, method="occlusion")
    (gap,) = explanation.unread
    read = text[: gap.start].rstrip()
    assert predictor.explain(read, method="occlusion").labels == explanation.labels
    assert text[gap.end :] == ""
