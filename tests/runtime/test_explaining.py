"""Explanations by occlusion against arithmetic by hand, on a backend in numpy; and what holds of any explanation."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from tokenizers import pre_tokenizers

from snapfit.core.correlation import RankPairs
from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.files import write_json_atomic
from snapfit.core.folders import write_manifest
from snapfit.core.log_odds import Explained, log_odds
from snapfit.core.scores import logits_to_scores
from snapfit.data.batches import Batch, pad
from snapfit.data.tokenizer import TokenIds
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.explaining import MOST_PASSES, PathIntegral, Wanted
from snapfit.runtime.explanations import Explanation
from snapfit.runtime.occlusion import Mask, find_mask
from snapfit.runtime.predictor import Predictor
from tiny_bundle import LABELS, BagOfWords, tiny_tokenizer, write_tiny_bundle

UNKNOWN = 1  # the tiny tokenizer has no mask token, so its unknown one stands for a word that is not there


class Sums:
    """A backend with gradients: the number of label i is a sum of tokens' values, so that its integral is known."""

    differentiable = True

    def __init__(self, values: np.ndarray, *, scale: float = 1.0) -> None:
        self.values, self.scale = values, scale  # [vocabulary, labels]

    def logits(self, batch: Batch) -> np.ndarray:
        return np.asarray((self.values[batch.input_ids] * batch.attention_mask[:, :, None]).sum(1), dtype=np.float32)

    def integrated_gradients(
        self, row: TokenIds, baseline: TokenIds, explained: Explained, *, tolerance: float, most_steps: int
    ) -> PathIntegral:
        outputs = list(explained.outputs)
        terms = (self.values[row.ids] - self.values[baseline.ids])[:, outputs].T * self.scale
        ends = [self.logits(pad(one, np.arange(1), pad_id=0))[0, outputs].astype(float) for one in (baseline, row)]
        return PathIntegral(terms, *ends, np.full(len(outputs), tolerance / 2), most_steps)


def predictor_of(folder: Path, task: str = "single", backend: Any = None, **changes: Any) -> Predictor:
    sizes = changes.pop("token_budget", 8192), changes.pop("max_rows", 256)
    bundle = Bundle.open(write_tiny_bundle(folder, task, **changes))
    backend = backend or BagOfWords(LABELS[task].n_outputs)
    return Predictor(bundle, backend, token_budget=sizes[0], max_rows=sizes[1])


def without(backend: BagOfWords, ids: Sequence[int], types: Sequence[int], places: Sequence[int]) -> np.ndarray:
    """Logits [1, k] of one row with the tokens at these places masked, without batches."""
    changed = np.array([UNKNOWN if place in places else one for place, one in enumerate(ids)])
    weights = 1.0 + np.array(types)
    mean = (backend.vectors[changed] * weights[:, None]).sum(axis=0) / weights.sum()
    return (mean @ backend.matrix * 8.0).astype(np.float32)[None]


TEXT = "The film was not very good, but what music!"
PAIR = ("was the film good", "the music is great")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# ---------------------------------------------------------------- occlusion


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_a_words_value_is_what_the_label_loses_without_it(tmp_path: Path, task: Any, temperature: float) -> None:
    predictor = predictor_of(tmp_path / "b", task, temperature=temperature)
    backend: Any = predictor.backend
    explanation = predictor.explain(TEXT)
    encoding = tiny_tokenizer().encode(TEXT)
    ids, types = encoding.ids, encoding.type_ids
    whole = without(backend, ids, types, [])
    assert explanation.decision == predictor.predict(TEXT)
    assert (explanation.method, explanation.text, explanation.mask) == ("occlusion", TEXT, "[UNK]")
    assert explanation.unit == ("number" if task == "regression" else "log-odds")
    for label in explanation.labels:
        output = predictor.names.index(label.label)
        values = log_odds(whole, task, temperature)
        assert label.score == pytest.approx(logits_to_scores(whole, task, temperature)[0, output], abs=1e-6)
        assert label.value == pytest.approx(values[0, output], abs=1e-5)
        assert [word.text for word in label.words] == [TEXT[slice(*place)] for place in encoding.offsets[1:-1]]
        for place, word in enumerate(label.words, 1):
            left = log_odds(without(backend, ids, types, [place]), task, temperature)[0, output]
            assert word.value == pytest.approx(values[0, output] - left, abs=1e-5)
            assert TEXT[word.start : word.end] == word.text
        masked = without(backend, ids, types, range(1, len(ids) - 1))
        assert label.baseline == pytest.approx(log_odds(masked, task, temperature)[0, output], abs=1e-5)
        assert (label.error, label.check, label.tokens) == (None, None, ())
    assert explanation.passes == 1 + 1 + len(encoding.ids) - 2


def test_pairs(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b", pair=True, text_columns=["a", "b"])
    backend: Any = predictor.backend
    explanation = predictor.explain(PAIR)
    encoding = tiny_tokenizer().encode(*PAIR)
    (label,) = explanation.labels
    output = predictor.names.index(label.label)
    real = [i for i, part in enumerate(encoding.sequence_ids) if part is not None]
    assert [word.part for word in label.words] == [encoding.sequence_ids[i] for i in real]
    for place, word in zip(real, label.words, strict=True):
        left = log_odds(without(backend, encoding.ids, encoding.type_ids, [place]), "single")[0, output]
        assert word.value == pytest.approx(label.value - left, abs=1e-5)
        assert PAIR[word.part][word.start : word.end] == word.text
    assert explanation.text == PAIR
    assert [one.text for one in predictor.explain([PAIR, PAIR[::-1]])] == [PAIR, PAIR[::-1]]


def test_neither_batches_nor_other_texts_matter(tmp_path: Path) -> None:
    texts = [TEXT, "good", "", "why was the very dull actor not bad"]
    large = predictor_of(tmp_path / "a").explain(texts, tokens=True)
    small = predictor_of(tmp_path / "b", token_budget=1, max_rows=1)
    for one, expected in zip(small.explain(texts[::-1], tokens=True)[::-1], large, strict=True):
        for label, wanted in zip(one.labels, expected.labels, strict=True):
            for found, due in ((label.words, wanted.words), (label.tokens, wanted.tokens)):
                np.testing.assert_allclose([w.value for w in found], [w.value for w in due], atol=1e-5)
                assert [replace(w, value=0.0) for w in found] == [replace(w, value=0.0) for w in due]
            assert label.value == pytest.approx(wanted.value, abs=1e-5)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(small.explain, texts)) == small.explain(texts)


def test_a_long_text_keeps_to_its_bound(tmp_path: Path) -> None:
    text = " ".join(["the film was good but why is the plot so very dull"] * 4)
    predictor = predictor_of(tmp_path / "b", max_tokens=64)
    backend: Any = predictor.backend
    for most in (2, 5, 11, MOST_PASSES):
        backend.shapes.clear()
        explanation = predictor.explain(text, most_passes=most)
        n_words = len(text.split())
        words = explanation.labels[0].words
        assert len(words) == min(most, n_words)
        assert " ".join(word.text for word in words) == text
        assert sum(rows for rows, _ in backend.shapes) == explanation.passes == 2 + len(words)
        with_tokens = predictor.explain(text, most_passes=most, tokens=True)
        assert with_tokens.passes <= 2 + 2 * most
        assert len(with_tokens.labels[0].tokens) == len(words)


def test_a_text_without_words(tmp_path: Path) -> None:
    for method in ("auto", "occlusion"):
        explanation = predictor_of(tmp_path / method).explain("", method=method, tokens=True)
        (label,) = explanation.labels
        assert (label.words, label.tokens, explanation.unread) == ((), (), ())
        assert label.value == pytest.approx(label.baseline, abs=1e-6)


# ---------------------------------------------------------------- which labels


def test_single_explains_the_label_that_is_given(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b")
    for text in ("good", "bad", "why not", TEXT):
        assert [label.label for label in predictor.explain(text).labels] == [predictor.predict(text)]


def test_multi_explains_each_label_that_is_given_or_else_the_likeliest(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b", "multi")
    seen = set()
    for text in ("good film", "dull plot", "why", "music", "the ending", "great actor", "not bad"):
        given = predictor.predict(text)
        seen.add(len(given))
        likeliest = predictor.names[int(predictor.scores(text)[0].argmax())]
        assert [label.label for label in predictor.explain(text).labels] == (given or [likeliest])
    assert len(seen) > 1


def test_named_labels_come_in_the_order_named_each_once(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b")
    assert [label.label for label in predictor.explain(TEXT, target=["good", "bad", "good"]).labels] == ["good", "bad"]
    (label,) = predictor.explain(TEXT, target="fair").labels
    assert label.score == pytest.approx(predictor.scores(TEXT)[0, 1])
    regression = predictor_of(tmp_path / "r", "regression")
    assert regression.explain(TEXT, target="stars") == regression.explain(TEXT)


# ---------------------------------------------------------------- by gradients, and both


def test_gradients_are_taken_where_there_are_any(tmp_path: Path, rng: np.random.Generator) -> None:
    backend = Sums(rng.normal(size=(23, 3)))
    predictor = predictor_of(tmp_path / "b", "multi", backend)
    explanation = predictor.explain(TEXT, target="fun", tokens=True)
    (label,) = explanation.labels
    ids = tiny_tokenizer().encode(TEXT).ids[1:-1]
    assert explanation.method == "integrated_gradients"
    assert [word.value for word in label.words] == pytest.approx(
        [backend.values[i, 1] - backend.values[1, 1] for i in ids]
    )
    assert sum(word.value for word in label.words) == pytest.approx(label.value - label.baseline, abs=1e-5)
    assert label.error == 0.005
    assert explanation.passes == 1 + 256
    assert predictor.explain(TEXT, method="occlusion").method == "occlusion"
    backend.differentiable = False
    assert predictor.explain(TEXT).method == "occlusion"


def test_values_of_a_words_tokens_add_up_to_the_words(tmp_path: Path, rng: np.random.Generator) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # a token a character
    predictor = predictor_of(tmp_path / "b", "multi", Sums(rng.normal(size=(23, 3))))
    folder = tmp_path / "c"
    write_tiny_bundle(folder, "multi")
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    write_manifest(folder)
    predictor = Predictor(Bundle.open(folder), predictor.backend)
    (label,) = predictor.explain("a film a", target="fun", tokens=True).labels
    assert [word.text for word in label.words] == ["a", "film", "a"]
    assert "".join(token.text for token in label.tokens) == "afilma"
    for word in label.words:
        inside = [t.value for t in label.tokens if word.start <= t.start and t.end <= word.end]
        assert word.value == pytest.approx(sum(inside))


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_a_check_is_the_other_method_and_scipys_rank_correlation(
    tmp_path: Path, rng: np.random.Generator, method: str
) -> None:
    values = rng.normal(size=(23, 3))
    predictor = predictor_of(tmp_path / "b", "single", Sums(values))
    explanation = predictor.explain(TEXT, method=method, check=True, target=["bad", "good"])
    other = {"occlusion": "integrated_gradients", "integrated_gradients": "occlusion"}[method]
    alone = predictor.explain(TEXT, method=other, target=["bad", "good"])
    for label, expected in zip(explanation.labels, alone.labels, strict=True):
        assert label.check is not None
        assert label.check.method == other
        assert label.check.words == expected.words
        both = [[word.value for word in words] for words in (label.words, label.check.words)]
        assert label.check.agreement == pytest.approx(spearmanr(*both).statistic)
    assert explanation.passes > alone.passes


def test_a_check_of_a_long_text_compares_the_same_runs(tmp_path: Path, rng: np.random.Generator) -> None:
    text = "the film was good but why is the plot so very dull"
    predictor = predictor_of(tmp_path / "b", "multi", Sums(rng.normal(size=(23, 3))))
    for method in ("occlusion", "integrated_gradients"):
        (label,) = predictor.explain(text, target="war", method=method, check=True, most_passes=4).labels
        assert len(label.check.words) == 4
        assert len(label.words) == (4 if method == "occlusion" else 12)
        assert label.check.agreement == pytest.approx(1.0)  # of a sum both methods say the same


def test_too_little_to_compare_has_no_agreement(tmp_path: Path, rng: np.random.Generator) -> None:
    predictor = predictor_of(tmp_path / "b", "multi", Sums(rng.normal(size=(23, 3))))
    for text in ("good film", "", "good good good"):
        (label,) = predictor.explain(text, target="fun", check=True).labels
        assert label.check.agreement is None
    ranks = RankPairs()
    ranks.add(np.ones(3), np.arange(3.0))
    assert ranks.correlation() == 0.0  # which would read as "no relation"


def test_values_that_are_not_finite_are_not_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    predictor = predictor_of(tmp_path / "b", "multi", Sums(rng.normal(size=(23, 3)), scale=np.nan))
    with pytest.raises(WorkFailed, match="not finite"):
        predictor.explain(TEXT)
    broken = predictor_of(tmp_path / "c", "multi", Sums(np.full((23, 3), np.nan)))
    with pytest.raises(WorkFailed, match="not finite"):
        broken.explain(TEXT)


# ---------------------------------------------------------------- the mask


def with_vocabulary(folder: Path, settings: Any, *extra: str) -> Bundle:
    write_tiny_bundle(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(list(extra))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), "utf-8")
    if settings is not None:
        write_json_atomic(folder / "tokenizer_config.json", settings)
    write_manifest(folder)
    return Bundle.open(folder)


@pytest.mark.parametrize(
    ("settings", "extra", "piece"),
    [
        (None, (), "[UNK]"),
        (None, ("[MASK]",), "[MASK]"),
        ({}, ("<mask>",), "<mask>"),
        ({"mask_token": "<blank>"}, ("<blank>", "[MASK]"), "<blank>"),
        ({"mask_token": {"content": "<blank>", "lstrip": True}}, ("<blank>",), "<blank>"),
        ({"mask_token": "<gone>", "unk_token": "the"}, (), "the"),
        ({"mask_token": None, "unk_token": "<gone>", "pad_token": "[PAD]"}, (), "[UNK]"),
        ([], (), "[UNK]"),
    ],
)
def test_the_mask_is_what_the_tokenizer_calls_so(
    tmp_path: Path, settings: Any, extra: tuple[str, ...], piece: str
) -> None:
    bundle = with_vocabulary(tmp_path / "b", settings, *extra)
    tokenizer = bundle.tokenizer()
    assert find_mask(bundle, tokenizer) == Mask(tokenizer.id_of(piece), piece)


def test_a_tokenizer_without_anything_of_the_kind_is_refused(tmp_path: Path) -> None:
    bundle = with_vocabulary(tmp_path / "b", None)
    (bundle.folder / "tokenizer.json").write_text(
        tiny_tokenizer().to_str().replace("[UNK]", "~").replace("[PAD]", "_"), "utf-8"
    )
    with pytest.raises(BadInput, match="mask_token, unk_token, pad_token"):
        find_mask(bundle, bundle.tokenizer())
    (bundle.folder / "tokenizer_config.json").write_text("{", "utf-8")
    with pytest.raises(BadInput, match="tokenizer_config.json"):
        find_mask(bundle, bundle.tokenizer())


# ---------------------------------------------------------------- bad input, and plain values


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "gradients"}, ["'gradients'", "integrated_gradients"]),
        ({"method": "integrated_gradients"}, ["no gradients", "--method occlusion"]),
        ({"check": True}, ["no gradients", "a check"]),
        ({"target": "god"}, ["'god'", "did you mean 'good'"]),
        ({"target": ["good", "xyz"]}, ["'xyz'", "inspect"]),
        ({"target": []}, ["no label"]),
        ({"most_passes": 1}, ["most_passes 1"]),
        ({"tolerance": 0.0}, ["tolerance 0.0"]),
        ({"tolerance": float("nan")}, ["tolerance nan"]),
        ({"most_steps": 8}, ["most_steps 8"]),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(
    tmp_path: Path, options: dict[str, Any], words: list[str]
) -> None:
    predictor = predictor_of(tmp_path / "b")
    with pytest.raises(BadInput) as error:
        predictor.explain(TEXT, **options)
    assert all(word in str(error.value) for word in words), error.value
    assert predictor.backend.shapes == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("texts", [["good", None], 3, ("a", "b"), [("a", "b")], {"a": 1}])
def test_what_is_no_text_is_refused(tmp_path: Path, texts: Any) -> None:
    predictor = predictor_of(tmp_path / "b")
    if texts == ("a", "b"):  # a tuple is a sequence of two texts here
        assert len(predictor.explain(texts)) == 2
        return
    with pytest.raises(BadInput):
        predictor.explain(texts)


def test_no_texts_have_no_explanations(tmp_path: Path) -> None:
    assert predictor_of(tmp_path / "b").explain([]) == []


@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_plain_values_go_through_json(tmp_path: Path, task: str, rng: np.random.Generator) -> None:
    columns = LABELS[task].n_outputs
    predictor = predictor_of(tmp_path / "b", task, Sums(rng.normal(size=(23, columns))), max_tokens=8)
    explanation = predictor.explain(TEXT, check=True, tokens=True)
    assert isinstance(explanation, Explanation)
    values = explanation.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["labels"][0]["words"][0]["tokens"] == ["the"]
    (cut,) = values["unread"]
    assert TEXT[cut["start"] : cut["end"]] == ", but what music!"


def test_a_text_without_an_answer_says_why_and_explains_the_likeliest_label(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b", decision={"least_score": 1.0}, format_version=3)
    explanation = predictor.explain(TEXT)
    assert (explanation.decision, explanation.refused) == (None, "low score")
    assert explanation.answer == "no answer (low score)"
    (likeliest,) = explanation.labels
    scores = predictor.scores([TEXT])[0]
    assert likeliest.label == predictor.names[int(scores.argmax())]
    assert explanation.to_dict()["refused"] == "low score"


def test_calibrated_labels_are_explained_as_they_are_scored(tmp_path: Path) -> None:
    decision = {"slopes": [0.5, 2.0, 1.0], "shifts": [0.3, 0.0, -1.0], "max_labels": 1, "min_labels": 1}
    predictor = predictor_of(tmp_path / "b", "multi", decision=decision, format_version=3)
    (given,) = predictor.predict(TEXT)
    (label,) = predictor.explain(TEXT).labels
    assert label.label == given
    score = predictor.scores([TEXT])[0, predictor.names.index(given)]
    assert label.value == pytest.approx(np.log(score / (1 - score)), abs=1e-6)


def test_wanted_has_the_defaults_of_explain(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "b")
    assert predictor.explainer(Wanted()).explain(TEXT) == predictor.explain(TEXT)
