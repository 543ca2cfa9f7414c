"""The predictor on a real tokenizer and a numpy backend whose logits can be worked out by hand."""

import itertools
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.special
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.files import write_json_atomic
from snapfit.data.batches import Batch
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.predictor import Prediction, Predictor, batched_logits
from tiny_bundle import SPECIALS, WORDS, BagOfWords, write_tiny_bundle


def make(folder: Path, task: str = "single", **changes: Any) -> tuple[Predictor, BagOfWords]:
    bundle = Bundle.open(write_tiny_bundle(folder, task, **changes))
    backend = BagOfWords(bundle.label_set.n_outputs)
    return Predictor(bundle, backend), backend


def sentences(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 13))) for _ in range(n)]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return make(tmp_path_factory.mktemp("single") / "bundle", temperature=2.0)[0]


def test_every_number_can_be_worked_out_by_hand(tmp_path: Path) -> None:
    predictor, backend = make(tmp_path, temperature=2.0)
    texts = sentences(300)
    expected = np.stack([backend.by_hand(text) for text in texts])
    logits = predictor.logits(texts)
    assert logits.dtype == np.float32
    assert logits.shape == (300, 3)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    scores = predictor.scores(texts)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, scipy.special.softmax(expected / 2.0, axis=1), atol=1e-5)
    np.testing.assert_array_equal(predictor.predict_proba(texts), scores)
    assert predictor.predict(texts) == [predictor.names[i] for i in scores.argmax(axis=1)]
    assert len(set(predictor.predict(texts))) > 1


def test_multi_uses_the_bundles_thresholds(tmp_path: Path) -> None:
    thresholds = [0.2, 0.5, 0.9]
    predictor, backend = make(tmp_path, "multi", thresholds=thresholds)
    texts = sentences(40)
    scores = scipy.special.expit(np.stack([backend.by_hand(text) for text in texts]))
    expected = [[n for n, s, t in zip(predictor.names, row, thresholds, strict=True) if s >= t] for row in scores]
    assert predictor.predict(texts) == expected
    assert predictor.predict(texts[0]) == expected[0]


def test_regression_gives_numbers_as_they_are(tmp_path: Path) -> None:
    predictor, backend = make(tmp_path, "regression", temperature=5.0)
    value = predictor.predict("a good film")
    assert type(value) is float
    assert value == pytest.approx(backend.by_hand("a good film")[0], rel=1e-5)
    assert predictor.predict(["a good film"]) == [value]
    with pytest.raises(BadInput, match="call predict"):
        predictor.predict_proba(["a"])


def test_pairs(tmp_path: Path) -> None:
    predictor, backend = make(tmp_path, pair=True, text_columns=["a", "b"])
    pairs = list(zip(sentences(20, 1), ["why", "how good", "", "the plot"] * 5, strict=True))
    expected = np.stack([backend.by_hand(*pair) for pair in pairs if len(" ".join(pair).split()) <= 13])
    short = [pair for pair in pairs if len(" ".join(pair).split()) <= 13]
    np.testing.assert_allclose(predictor.logits(short), expected, rtol=1e-5, atol=1e-5)
    assert predictor.predict(pairs[0]) == predictor.predict([pairs[0]])[0]
    assert predictor.predict([list(pair) for pair in pairs]) == predictor.predict(pairs)
    assert not np.allclose(predictor.scores(("good", "bad")), predictor.scores(("bad", "good")))
    for items, place in [
        (["a"], "item 0"),
        ([("a", "b"), ("a",)], "item 1"),
        ([("a", None)], "second text of item 0"),
    ]:
        with pytest.raises(BadInput, match=place):
            predictor.predict(items)
    with pytest.raises(BadInput, match="a sequence of texts"):
        predictor.predict("one text")


def test_long_texts_are_cut_at_max_tokens(single: Predictor) -> None:
    words = [WORDS[i % len(WORDS)] for i in range(40)]
    np.testing.assert_array_equal(single.logits([" ".join(words)]), single.logits([" ".join(words[:14])]))


def test_tails_and_both_ends_are_what_the_bundle_says(tmp_path: Path, single: Predictor) -> None:
    words = [WORDS[i % len(WORDS)] for i in range(40)]
    for name, policy, kept in [
        ("tail", {"policy": "tail"}, words[-14:]),
        ("both", {"policy": "head+tail", "head_share": 0.5}, words[:7] + words[-7:]),
    ]:
        bundle = Bundle.open(write_tiny_bundle(tmp_path / name, length_policy=policy))
        found = Predictor(bundle, BagOfWords(3)).logits([" ".join(words), "good"])
        np.testing.assert_array_equal(found, single.logits([" ".join(kept), "good"]))


@pytest.fixture
def windowed(tmp_path: Path) -> Predictor:
    """Windows of 14 words, of which neighbours share seven or more; at most three of them."""
    policy = {"policy": "windows", "overlap": 0.5, "max_windows": 3, "window_pooling": "mean"}
    return Predictor(Bundle.open(write_tiny_bundle(tmp_path / "windowed", length_policy=policy)), BagOfWords(3))


def test_long_texts_are_read_in_windows(windowed: Predictor, single: Predictor) -> None:
    words = [WORDS[i % len(WORDS)] for i in range(40)]
    for n, starts in [(14, [0]), (15, [0, 1]), (21, [0, 7]), (24, [0, 5, 10]), (40, [0, 13, 26])]:
        parts = [" ".join(words[start : start + 14]) for start in starts]
        expected = single.logits(parts).mean(axis=0)
        np.testing.assert_allclose(windowed.logits(" ".join(words[:n]))[0], expected, atol=1e-5)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), max_size=20),
    token_budget=st.integers(1, 64),
    max_rows=st.integers(1, 8),
)
def test_windows_of_other_texts_never_change_an_answer(
    windowed: Predictor, texts: list[str], token_budget: int, max_rows: int
) -> None:
    alone = np.concatenate([np.zeros((0, 3)), *(windowed.scores(text) for text in texts)])
    other = Predictor(windowed.bundle, BagOfWords(3), token_budget=token_budget, max_rows=max_rows)
    np.testing.assert_allclose(other.scores(texts), alone, atol=1e-6)
    np.testing.assert_allclose([one.scores for one in other.predict_stream(texts, chunk=3)] or alone, alone, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), max_size=30),
    token_budget=st.integers(1, 64),
    max_rows=st.integers(1, 8),
    order=st.randoms(use_true_random=False),
)
def test_batches_and_order_never_change_an_answer(
    single: Predictor, texts: list[str], token_budget: int, max_rows: int, order: Any
) -> None:
    alone = np.concatenate([np.zeros((0, 3)), *(single.scores(text) for text in texts)])
    other = Predictor(single.bundle, BagOfWords(3), token_budget=token_budget, max_rows=max_rows)
    np.testing.assert_allclose(other.scores(texts), alone, atol=1e-5)
    rows = list(range(len(texts)))
    order.shuffle(rows)
    np.testing.assert_allclose(other.scores([texts[i] for i in rows]), alone[rows], atol=1e-5)


def test_batches_keep_to_their_limits(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path))
    backend = BagOfWords(3)
    Predictor(bundle, backend, token_budget=40, max_rows=5).scores(sentences(200))
    assert all(rows * length <= 40 and rows <= 5 for rows, length in backend.shapes)
    with pytest.raises(BadInput, match="at least 1"):
        Predictor(bundle, backend, token_budget=0)


def test_more_texts_than_a_chunk_keep_their_order(single: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sentences(103)
    expected = single.scores(texts)
    monkeypatch.setattr("snapfit.runtime.predictor._CHUNK_ROWS", 10)
    np.testing.assert_allclose(single.scores(texts), expected, atol=1e-5)


def test_one_text_and_no_texts(single: Predictor) -> None:
    assert single.predict("good") == single.predict(["good"])[0]
    assert single.scores("good").shape == (1, 3)
    assert single.predict([]) == []
    assert single.scores([]).shape == single.predict_proba(()).shape == single.logits([]).shape == (0, 3)
    assert list(single.predict_stream([])) == []
    assert single.predict([""]) == [single.predict("")]


def test_columns_of_every_kind_are_taken(single: Predictor) -> None:
    texts = ["good film", "bad film", "why"]
    expected = single.predict(texts)
    columns: list[Any] = [
        tuple(texts),
        np.array(texts),
        pd.Series(texts, index=[5, 6, 7]),
        pl.Series(texts),
        pa.array(texts),
        pa.chunked_array([texts]),
        iter(texts),
    ]
    for column in columns:
        assert single.predict(column) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], r"item 1 is None \(NoneType\)"),
        (["a", 3], r"item 1 is 3 \(int\)"),
        (["a", float("nan")], "item 1 is nan"),
        ([b"a"], "item 0 is b'a'"),
        (["a", ("a", "b")], "trained on single texts"),
        (["a", "x\ud800"], "item 1 has half of a surrogate pair at character 1"),
        (None, "texts given as NoneType"),
        (3, "texts given as int"),
        (b"a", "texts given as bytes"),
        ({"a": 1}, "texts given as dict"),
        (pd.DataFrame({"text": ["a"]}), "its column of texts"),
        (pa.table({"text": ["a"]}), "its column of texts"),
    ],
)
def test_what_is_not_text(single: Predictor, texts: Any, message: str) -> None:
    for method in (single.predict, single.scores, single.predict_proba, single.logits):
        with pytest.raises(BadInput, match=message):
            method(texts)
    with pytest.raises(BadInput, match=message):
        list(single.predict_stream(texts))


def test_a_stream_answers_as_a_list_does(single: Predictor) -> None:
    texts = sentences(50)
    expected = single.scores(texts)
    for chunk in (1, 7, 50, 1024):
        answers = list(single.predict_stream(iter(texts), chunk=chunk))
        assert all(isinstance(answer, Prediction) for answer in answers)
        assert [answer.label for answer in answers] == single.predict(texts)
        np.testing.assert_allclose(np.stack([answer.scores for answer in answers]), expected, atol=1e-5)
    assert [answer.label for answer in single.predict_stream("good")] == [single.predict("good")]


def test_a_stream_reads_no_further_than_it_must(single: Predictor) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "good film"

    assert len(list(itertools.islice(single.predict_stream(endless(), chunk=8), 20))) == 20
    assert read == 24


def test_a_streams_memory_is_flat(single: Predictor) -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in single.predict_stream((f"good film {i}" for i in range(n)), chunk=64):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(4000) < 2 * peak(500)


def test_a_streams_errors_count_from_its_start(single: Predictor) -> None:
    answers = single.predict_stream(["good"] * 5 + [None], chunk=2)
    assert len(list(itertools.islice(answers, 4))) == 4
    with pytest.raises(BadInput, match="item 5"):
        next(answers)
    with pytest.raises(BadInput, match="chunk 0"):
        single.predict_stream(["a"], chunk=0)
    with pytest.raises(BadInput, match="texts given as int"):
        single.predict_stream(5)  # type: ignore[arg-type]


def test_many_threads_get_the_same_answers(single: Predictor) -> None:
    parts = [sentences(60, seed) for seed in range(12)]
    expected = [single.scores(part) for part in parts]
    with ThreadPoolExecutor(6) as pool:
        for got, wanted in zip(pool.map(single.scores, parts), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


class Wrong(BagOfWords):
    """A backend whose logits go through a function before they leave."""

    def __init__(self, change: Any) -> None:
        super().__init__(3)
        self.change = change

    def logits(self, batch: Batch) -> np.ndarray:
        array: np.ndarray = self.change(super().logits(batch))
        return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits[:, :2], r"shape \(2, 2\); float32 of shape \(2, 3\)"),
        (lambda logits: logits[:1], r"shape \(1, 3\)"),
        (lambda logits: logits.astype(np.float64), "float64"),
        (lambda logits: logits * np.nan, "not finite for row 0"),
    ],
)
def test_a_backend_that_fails_is_not_believed(tmp_path: Path, change: Any, message: str) -> None:
    predictor = Predictor(Bundle.open(write_tiny_bundle(tmp_path)), Wrong(change))
    with pytest.raises(WorkFailed, match=message):
        predictor.predict(["a", "good"])


def test_answers_name_what_is_wrong_by_its_number(single: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.runtime.predictor._CHUNK_ROWS", 8)
    with pytest.raises(BadInput, match="item 19 is None"):
        single.answers(["good"] * 9 + [None], first=10)
    backend = BagOfWords(3)
    backend.vectors[len(SPECIALS) + WORDS.index("bad")] = np.nan
    damaged = Predictor(single.bundle, backend)
    with pytest.raises(WorkFailed, match="for row 112:"):
        damaged.answers(["good film"] * 12 + ["bad"], first=100)


def test_windows_of_tokens_change_no_logits(single: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = single.bundle.tokenizer().encode(sentences(50))
    whole = batched_logits(BagOfWords(3), tokens, pad_id=0)
    monkeypatch.setattr("snapfit.runtime.predictor._WINDOW_ROWS", 7)
    np.testing.assert_allclose(batched_logits(BagOfWords(3), tokens, pad_id=0), whole, atol=1e-5)


def test_logits_of_tokens_without_a_bundle(single: Predictor) -> None:
    texts = sentences(20)
    tokens = single.bundle.tokenizer().encode(texts)
    np.testing.assert_allclose(batched_logits(BagOfWords(3), tokens, pad_id=0), single.logits(texts), atol=1e-5)
    none = single.bundle.tokenizer().encode([])
    assert batched_logits(BagOfWords(3), none, pad_id=0).shape == (0, 0)
    assert batched_logits(BagOfWords(3), none, pad_id=0, n_outputs=3).shape == (0, 3)


@pytest.mark.parametrize("pair", [False, True])
def test_probes_are_replayed(tmp_path: Path, pair: bool) -> None:
    predictor, _ = make(tmp_path, pair=pair)
    assert predictor.replay_probes() == 0.0
    texts: list[Any] = [("a film", "why"), ("", "good")] if pair else ["a film", "", "good"]
    scores = predictor.scores(texts)
    write_json_atomic(tmp_path / "probes.json", {"texts": texts, "scores": scores.tolist()})
    assert predictor.replay_probes() <= 1e-5
    scores[1, 0] += 0.01
    write_json_atomic(tmp_path / "probes.json", {"texts": texts, "scores": scores.tolist()})
    with pytest.raises(WorkFailed, match=r"probe 1 .* differ by 0\.01"):
        predictor.replay_probes()
    assert predictor.replay_probes(tolerance=0.02) == pytest.approx(0.01, abs=1e-5)
