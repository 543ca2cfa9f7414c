"""`snapfit evaluate`: the figures, as tables and as JSON."""

import json
import os
import pty
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

import snapfit
import tiny_bundle
import trained
from snapfit.cli.console import Console
from snapfit.cli.evaluation_lines import show_evaluation
from snapfit.cli.lines import printable
from snapfit.core.labels import LabelSet
from snapfit.data.records import read_records
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import Questions, evaluate_bundle
from snapfit.runtime.predictor import Predictor


def test_tables(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "single/bundle", workplace / "test.csv")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert "\r" not in outcome.out
    for word in ("accuracy", "macro_f1", "95 %", "precision", "animals", "food", "tools", "mistakes", "tokens"):
        assert word in outcome.out


def test_json_agrees_with_scikit_learn(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    (line,) = outcome.out.splitlines()
    result = json.loads(line)
    rows = [line.split(",") for line in (workplace / "test.csv").read_text().splitlines()[1:]]
    predicted = snapfit.load(workplace / "single/bundle").predict([text for text, _ in rows])
    truth = [label for _, label in rows]
    assert result["metrics"]["accuracy"] == sum(map(str.__eq__, predicted, truth)) / len(truth)
    names = [one["label"] for one in result["per_label"]]
    figures = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), figures, strict=True):
        assert [one[key] for one in result["per_label"]] == list(values)
    assert sum(one["rows"] for one in result["mistakes"]) == sum(map(str.__ne__, predicted, truth))
    assert "accuracy" in outcome.err


def test_other_columns(run: Any, workplace: Path) -> None:
    lines = [line.split(",") for line in (workplace / "test.csv").read_text().splitlines()[1:]]
    trained.write_csv(Path("in.csv"), [{"topic": label, "review": text} for text, label in lines])
    outcome = run("evaluate", workplace / "single/bundle", "in.csv", "--text", "review", "--label", "topic", "--json")
    assert outcome.code == 0, outcome.err
    same = run("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    assert json.loads(outcome.out)["metrics"] == json.loads(same.out)["metrics"]


def test_a_large_table_is_measured_in_parts(run: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("evaluate", workplace / "single/bundle", workplace / "test.csv", "--json")
    whole = json.loads(run(*arguments).out)
    monkeypatch.setattr("snapfit.runtime.parts.WHOLE_BYTES", -1)
    monkeypatch.setattr("snapfit.runtime.parts.PART_ROWS", 7)
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.err
    parts = json.loads(outcome.out)
    assert parts["metrics"] == pytest.approx(whole["metrics"], abs=1e-6)
    assert parts["per_label"] == whole["per_label"]
    for key in ("rows", "source", "decides", "unanswered"):
        assert parts[key] == whole[key]
    kinds = [[(one["true"], one["predicted"], one["rows"]) for one in found["mistakes"]] for found in (parts, whole)]
    assert kinds[0] == kinds[1]
    slices = [[(one["slice"], one["rows"], one["value"]) for one in found["slices"]] for found in (parts, whole)]
    assert slices[0] == slices[1]


def test_pairs(run: Any, workplace: Path) -> None:
    outcome = run("evaluate", workplace / "pairs/bundle", workplace / "pairs.csv", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["rows"] == 90


def shown(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What a person sees of an evaluation."""
    capsys.readouterr()
    show_evaluation(Console(sys.stdout), {"against": None, **result})
    return capsys.readouterr().out


def measured(folder: Path, rows: list[dict[str, Any]], task: str = "single", **changes: Any) -> dict[str, Any]:
    """An evaluation of a tiny bundle, and of a mirrored one beside it."""
    bundle = Bundle.open(tiny_bundle.write_tiny_bundle(folder / "bundle", task, **changes))
    made, other = (Predictor(bundle, tiny_bundle.BagOfWords(bundle.label_set.n_outputs)) for _ in range(2))
    other.backend.matrix = -other.backend.matrix  # type: ignore[attr-defined]
    pair = "b" if changes.get("pair") else None
    records = read_records(rows, text="a" if pair else "text", pair=pair, task=task)
    slices = [name for name in rows[0] if name not in ("text", "a", "b", "label")]
    return evaluate_bundle(made, records, against=other, questions=Questions(slices=slices))


def test_mistakes_are_shown_with_examples_and_slices_with_their_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tiny_bundle.WORDS
    made = Predictor(Bundle.open(tiny_bundle.write_tiny_bundle(tmp_path / "b")), tiny_bundle.BagOfWords(3))
    texts = [f"{words[i % 19]} {words[i % 7]}" for i in range(260)]
    wrong = {"bad": "fair", "fair": "good", "good": "bad"}
    rows = [
        {"text": text, "label": wrong[said] if i % 5 == 0 else said, "source": "post" if i % 5 == 0 else "web"}
        for i, (text, said) in enumerate(zip(texts, made.predict(texts), strict=True))
    ]
    result = measured(tmp_path, rows)
    text = shown(result, capsys)
    (first, *_) = result["mistakes"]
    example = first["examples"][0]
    assert f"row {example['row']:,} ({example['predicted_score']:.2f} against {example['true_score']:.2f}): " in text
    assert example["text"] in text
    assert "differs, p < 0.001" in text
    assert "McNemar's p is" in text
    for word in ("web", "post", "only this", "only other", "changed", "have the same answer"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 160


def test_nothing_of_a_table_reaches_the_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No escape sequence, no line break and no mark that turns the direction of text, in labels, texts and columns."""
    evil = "\x1b[31mred\x07 \u202egnp\n\r\x9b2J"
    labels = LabelSet("single", ("bad", f"fair{evil}", f"good{evil}")).to_dict()
    rows = [
        {"text": f"{word} {evil}", "label": f"good{evil}", f"col{evil}": f"{evil}{i % 3}"}
        for i, word in enumerate(tiny_bundle.WORDS * 4)
    ]
    text = shown(measured(tmp_path, rows, labels=labels), capsys)
    assert "\\x1b[31mred" in text
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_printable_text_is_left_alone() -> None:
    for text in ("plain", "Käse 食物 naïve – “quoted”", "", "x" * 100):
        assert printable(text) == text
    assert printable("x" * 101) == "x" * 99 + "…"
    assert printable("a\tb\n\x1b\u202e\U000e0001") == "a\\tb\\n\\x1b\\u202e\\U000e0001"
    assert len(printable("\n" * 5_000, 40)) == 40


@pytest.mark.parametrize("task", ["multi", "regression"])
def test_every_task_is_shown(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    names = tiny_bundle.LABELS[task].names
    labels = [[n for n in names if rng.random() < 0.5] if task == "multi" else float(rng.random()) for _ in range(80)]
    rows = [{"text": " ".join(rng.choice(tiny_bundle.WORDS, 4)), "label": label} for label in labels]
    text = shown(measured(tmp_path, rows, task), capsys)
    words = ("micro_f1", "(none)") if task == "multi" else ("spearman", "sign test's p", "is nearer on")
    for word in words:
        assert word in text


def test_pairs_are_shown_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": "the film", "b": word, "label": "good"} for word in tiny_bundle.WORDS]
    assert "the film | " in shown(measured(tmp_path, rows, pair=True, text_columns=["a", "b"]), capsys)


def test_of_many_labels_the_weakest_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"label {i:02}" for i in range(30))
    rows = [{"text": word, "label": names[i % 25]} for i, word in enumerate(tiny_bundle.WORDS * 4)]
    result = measured(tmp_path, rows, labels=LabelSet("single", names).to_dict())
    text = shown(result, capsys)
    block = text[text.index("\nlabels") : text.index("\nmistakes")]
    weakest = sorted((one for one in result["per_label"] if one["intervals"]["f1"]), key=lambda one: one["f1"])[:20]
    assert [name for name in names if name in block] == sorted(one["label"] for one in weakest)
    assert "the other 10 labels" in block


def test_rows_without_an_answer_are_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"decision": {"least_score": 0.9}, "format_version": 3}
    rows = [{"text": word, "label": "good"} for word in tiny_bundle.WORDS]
    result = measured(tmp_path, rows, **rule)
    text, (silent,) = shown(result, capsys), result["unanswered"].values()
    assert 0 < silent < 19
    assert f"{19 - silent} of 19 rows have one; without: {silent} low score" in text
    assert f"{result['metrics']['coverage']:.4f}" in text
    assert "no answer (low score) where the highest score is below 0.9" in text
    assert re.search(rf"{silent} +good +\(no answer\)", text)


def test_rows_that_no_label_is_right_for_have_a_label_of_their_own(tmp_path: Path, run: Any) -> None:
    folder = tiny_bundle.write_tiny_bundle(tmp_path / "bundle")
    rows = [{"text": word, "label": "good" if i % 2 else "none"} for i, word in enumerate(tiny_bundle.WORDS)]
    trained.write_csv(tmp_path / "rows.csv", rows)
    for arguments, words in (
        (("--out-of-scope-label", "fair"), "a label that the bundle was not trained to give"),
        ((), "'none'"),
    ):
        outcome = run("evaluate", folder, tmp_path / "rows.csv", *arguments)
        assert outcome.code == 2
        assert words in outcome.err


def test_everything_is_written_and_compared(run: Any, workplace: Path) -> None:
    bundle = workplace / "single/bundle"
    outcome = run(
        *("evaluate", bundle, workplace / "test.csv", "--against", bundle, "--slice", "label", "--json"),
        *("--length-edges", "5,8", "--confidence", "0.9", "--out", "e", "--rows", "jsonl", "--all-scores"),
    )
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["out"], result["against"], result["confidence"]) == ("e", str(bundle), 0.9)
    assert result["comparison"]["answers"]["same"] == 30
    assert {one["column"] for one in result["slices"]} == {None, "label"}
    names = "changed_labels.csv confusions.csv evaluation.json per_label.csv rows.jsonl slices.csv"
    assert sorted(path.name for path in Path("e").iterdir()) == names.split()
    first = json.loads(Path("e/rows.jsonl").read_text("utf-8").splitlines()[0])
    assert list(first)[:2] == ["text", "label"]
    assert {"expected", "right", "other_right", "predicted", "score", "score_food"} <= first.keys()
    again = run("evaluate", bundle, workplace / "test.csv", "--out", "e", "--rows", "none")
    assert again.code == 0, again.err
    assert "rows.jsonl" not in [path.name for path in Path("e").iterdir()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream, Console(stream) as console:
        for done in (10, 20, 30):
            console.progress("evaluate", done, 30)
        console.result("metrics", "end")
        stream.flush()
        written = ""
        while "end" not in written:
            written += os.read(leader, 100_000).decode(errors="replace")
    os.close(leader)
    assert "evaluate" in written
    assert "/30" in written
