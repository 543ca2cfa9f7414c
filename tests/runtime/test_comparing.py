"""Two bundles on the same rows: counts by hand, tests against scipy, labels in any order, and what is refused."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from snapfit.core.errors import BadInput
from snapfit.core.labels import LabelSet
from snapfit.data.batches import Batch
from snapfit.data.records import Records, read_records
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import evaluate_bundle, examples_of
from snapfit.runtime.predictor import Predictor
from tiny_bundle import LABELS, WORDS, BagOfWords, write_tiny_bundle

N = 300


class Blurred(BagOfWords):
    """The same backend with noise on its matrix, and its outputs in another order."""

    def __init__(self, n_outputs: int, noise: float, order: list[int]) -> None:
        super().__init__(n_outputs)
        self.matrix = self.matrix + noise * np.random.default_rng(1).normal(size=self.matrix.shape)
        self._order = order

    def logits(self, batch: Batch) -> np.ndarray:
        return np.ascontiguousarray(super().logits(batch)[:, self._order])


def two(folder: Path, task: str, *, noise: float = 0.3, **changes: Any) -> tuple[Predictor, Predictor]:
    """A predictor and a noisy copy of it, whose labels stand in the opposite order."""
    names = LABELS[task].names
    first = Bundle.open(write_tiny_bundle(folder / "first", task))
    labels = LabelSet(LABELS[task].task, tuple(reversed(names)), 3.0, 1.5).to_dict() if len(names) > 1 else None
    second = Bundle.open(
        write_tiny_bundle(folder / "second", task, **({"labels": labels} if labels else {}), **changes)
    )
    order = list(reversed(range(len(names))))
    return Predictor(first, BagOfWords(len(names))), Predictor(second, Blurred(len(names), noise, order))


def some_records(made: Predictor, task: str) -> Records:
    """Rows whose truth is mostly what `made` says."""
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(N)]
    labels: list[Any] = []
    for answer in made.predict(texts):
        if task == "regression":
            labels.append(answer + rng.gauss(0, 3))
        elif task == "single":
            labels.append(answer if rng.random() < 0.7 else rng.choice(LABELS["single"].names))
        else:
            flipped = [name for name in LABELS["multi"].names if (name in answer) != (rng.random() < 0.15)]
            labels.append(flipped)
    return read_records([{"text": t, "label": x} for t, x in zip(texts, labels, strict=True)], task=task)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_answers_are_held_against_each_other_by_name(tmp_path: Path, task: str) -> None:
    this, other = two(tmp_path, task)
    records = some_records(this, task)
    result = evaluate_bundle(this, records, against=other)
    found = result["comparison"]
    truth = records.labels or []
    mine, theirs = this.predict(examples_of(records)), other.predict(examples_of(records))
    norm = (lambda one: frozenset(one)) if task == "multi" else (lambda one: one)
    right, others = (np.array([norm(a) == norm(t) for a, t in zip(x, truth, strict=True)]) for x in (mine, theirs))
    only = int((right & ~others).sum()), int((others & ~right).sum())
    assert min(only) > 0
    assert found["answers"] == {
        "same": sum(norm(a) == norm(b) for a, b in zip(mine, theirs, strict=True)),
        "both": int((right & others).sum()),
        "this_only": only[0],
        "other_only": only[1],
        "neither": int((~right & ~others).sum()),
        "p": pytest.approx(scipy.stats.binomtest(only[0], sum(only)).pvalue),
    }
    assert found["metrics"] == pytest.approx(evaluate_bundle(other, records)["metrics"])
    for name, difference in found["difference"].items():
        assert difference["value"] == result["metrics"][name] - found["metrics"][name]
        if name == "ece":
            assert difference["interval"] is None
        else:
            assert difference["interval"][0] < difference["value"] < difference["interval"][1]
    for kind, marked in (("this_only", right & ~others), ("other_only", others & ~right)):
        for one in found[kind]:
            row = one["row"] - 1
            assert marked[row]
            assert one["text"] == examples_of(records)[row]
            assert (norm(one["this"]), norm(one["other"])) == (norm(mine[row]), norm(theirs[row]))
            assert norm(one["true"]) == norm(truth[row])


def test_labels_that_changed(tmp_path: Path) -> None:
    this, other = two(tmp_path, "single")
    records = some_records(this, "single")
    labels = evaluate_bundle(this, records, against=other)["comparison"]["labels"]
    mine, theirs = this.predict(examples_of(records)), other.predict(examples_of(records))
    names = list(LABELS["single"].names)
    for key, answers in (("f1", mine), ("other_f1", theirs)):
        expected = dict(zip(names, f1_score(records.labels, answers, labels=names, average=None), strict=True))
        assert {one["label"]: one[key] for one in labels} == pytest.approx(expected)
    for one in labels:
        pairs = list(zip(mine, theirs, strict=True))
        assert one["gained"] == sum(a == one["label"] != b for a, b in pairs)
        assert one["lost"] == sum(b == one["label"] != a for a, b in pairs)
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    sizes = [abs(one["difference"]) for one in labels]
    assert sizes == sorted(sizes, reverse=True)


def test_numbers_are_compared_by_which_is_nearer(tmp_path: Path) -> None:
    this, other = two(tmp_path, "regression")
    records = some_records(this, "regression")
    found = evaluate_bundle(this, records, against=other)["comparison"]
    truth = np.asarray(records.labels)
    gaps = [np.abs(np.array(one.predict(examples_of(records))) - truth) for one in (other, this)]
    nearer, farther = int((gaps[0] > gaps[1]).sum()), int((gaps[0] < gaps[1]).sum())
    assert (found["answers"]["this_only"], found["answers"]["other_only"]) == (nearer, farther)
    assert found["answers"]["p"] == pytest.approx(scipy.stats.binomtest(nearer, nearer + farther).pvalue)
    assert found["labels"] == []
    for name in ("pearson", "spearman", "rmse", "mae", "r2"):
        low, high = found["difference"][name]["interval"]
        assert low <= found["difference"][name]["value"] <= high
    largest = int(np.argmax(gaps[0] - gaps[1])) + 1
    assert found["this_only"][0]["row"] == largest


def test_a_bundle_against_itself_does_not_differ(tmp_path: Path) -> None:
    this, _ = two(tmp_path, "single")
    found = evaluate_bundle(this, some_records(this, "single"), against=this)["comparison"]
    assert found["answers"]["same"] == N
    assert found["answers"]["p"] == 1.0
    assert all(one == {"value": 0.0, "interval": None} for one in found["difference"].values())
    assert found["this_only"] == found["other_only"] == []


def test_a_difference_that_is_none_is_held_as_often_as_it_should(tmp_path: Path) -> None:
    """Two equally blurred copies of one bundle: neither is better, and the intervals say so."""
    this = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "a")), Blurred(3, 0.4, [0, 1, 2]))
    rng = random.Random(5)
    held = []
    for seed in range(25):
        texts = [" ".join(rng.choices(WORDS, k=4)) for _ in range(150)]
        mirrored = Blurred(3, 0.4, [0, 1, 2])
        mirrored.matrix = 2 * BagOfWords(3).matrix - mirrored.matrix
        other = Predictor(this.bundle, mirrored)
        truth = [random.Random((seed, i).__hash__()).choice(["bad", "fair", "good"]) for i in range(150)]
        records = read_records([{"text": t, "label": x} for t, x in zip(texts, truth, strict=True)])
        low, high = evaluate_bundle(this, records, against=other)["comparison"]["difference"]["accuracy"]["interval"]
        held.append(low <= 0.0 <= high)
    assert np.mean(held) >= 0.8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "multi", "labels": LABELS["multi"].to_dict()}, "of the task single"),
        ({"pair": True, "text_columns": ["a", "b"]}, "trained on pairs of texts"),
        ({"labels": LabelSet("single", ("bad", "good", "superb")).to_dict()}, "'fair'.*'superb'"),
    ],
)
def test_bundles_that_answer_other_questions(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    first = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "first")), BagOfWords(3))
    second = Predictor(Bundle.open(write_tiny_bundle(tmp_path / "second", **changes)), BagOfWords(3))
    records = read_records([{"text": "film", "label": "good"}] * 3)
    with pytest.raises(BadInput, match=words):
        evaluate_bundle(first, records, against=second)
