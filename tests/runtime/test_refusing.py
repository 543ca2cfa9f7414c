"""Predictors whose rule gives no answer to some rows: every way of asking refuses the same rows for the same reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snapfit.core.decisions import REFUSALS, DecisionRule, Scope, measure_likeness
from snapfit.core.errors import BadInput
from snapfit.core.folders import write_manifest
from snapfit.core.scope import fit_centroids
from snapfit.data.batches import Batch
from snapfit.runtime import predictor as predictor_module
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.bundle_rule import split_rule, write_centroids
from snapfit.runtime.predictor import Predictor
from tiny_bundle import WORDS, BagOfWords, write_tiny_bundle


def sentences(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 13))) for _ in range(n)]


class BagWithVectors(BagOfWords):
    """Gives the mean of the words' vectors too."""

    def logits_and_vectors(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        weights = batch.attention_mask * (1.0 + batch.token_type_ids)
        total = (self.vectors[batch.input_ids] * weights[:, :, None]).sum(axis=1)
        return self.logits(batch), (total / weights.sum(axis=1)[:, None]).astype(np.float32)


def refusing(folder: Path, scope: Scope, least_score: float = 0.5) -> Predictor:
    rule = DecisionRule("single", 2.0, least_score=least_score, scope=scope)
    write_tiny_bundle(folder, **split_rule(rule), format_version=3)
    write_centroids(folder, rule)
    write_manifest(folder)
    return Predictor(Bundle.open(folder), BagWithVectors(3))


@pytest.mark.parametrize("method", ["max_probability", "energy", "centroids"])
def test_every_way_refuses_the_same_rows(tmp_path: Path, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(300)
    plain = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "plain", temperature=2.0)), BagWithVectors(3))
    logits, vectors = plain.outputs(texts)
    centroids = fit_centroids(vectors, logits.argmax(axis=1), 3) if method == "centroids" else None
    likeness = measure_likeness(method, logits, plain.rule, vectors, centroids=centroids)
    scope = Scope(method, float(np.sort(likeness)[40:42].mean()), centroids)
    least = float(np.sort(plain.scores(texts).max(axis=1))[100:102].mean())
    predictor = refusing(tmp_path / "bundle", scope, least)
    scores = predictor.scores(texts)
    expected: list[str | None] = [predictor.names[i] for i in scores.argmax(axis=1)]
    why = np.where(likeness < scope.least, "out of scope", np.where(scores.max(axis=1) < least, "low score", ""))
    expected = [None if reason else name for reason, name in zip(why, expected, strict=True)]
    assert set(why) == {"out of scope", "low score", ""}
    assert predictor.predict(texts) == expected
    assert [predictor.predict(text) for text in texts[:50]] == expected[:50]
    assert predictor.answers(texts).reasons() == [reason or None for reason in why]
    stream = list(predictor.predict_stream(texts, chunk=7))
    assert [one.label for one in stream] == expected
    assert [one.refused or "" for one in stream] == why.tolist()
    monkeypatch.setattr(predictor_module, "_CHUNK_ROWS", 16)
    again = predictor.answers(texts, first=100)
    assert [REFUSALS[code] for code in again.refused] == why.tolist()
    np.testing.assert_allclose(again.scores, scores, atol=1e-6)


def test_centroids_need_a_backend_that_gives_vectors(tmp_path: Path) -> None:
    centroids = fit_centroids(np.eye(12, dtype=np.float32), np.arange(12) % 3, 3)
    folder = refusing(tmp_path / "bundle", Scope("centroids", -1.0, centroids)).bundle.folder
    with pytest.raises(BadInput, match="gives logits alone"):
        Predictor(Bundle.open(folder), BagOfWords(3))
    plain = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "plain")), BagOfWords(3))
    with pytest.raises(BadInput, match="one that gives vectors"):
        plain.outputs(["good"])


def test_vectors_of_no_texts_and_of_many(tmp_path: Path) -> None:
    predictor = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "plain")), BagWithVectors(3), max_rows=4)
    logits, vectors = predictor.outputs(sentences(30))
    np.testing.assert_array_equal(logits, predictor.logits(sentences(30)))
    assert vectors.shape == (30, 12)
    assert predictor.outputs([])[1].size == 0
    assert len(predictor.answers([])) == 0
