"""Tables in parts: the same records as at once, the same errors, and memory that does not grow with the rows."""

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapfit.core import resampling
from snapfit.core.decisions import DecisionRule
from snapfit.core.errors import BadInput, SnapfitError
from snapfit.data.records import Records
from snapfit.runtime import parts as parts_module
from snapfit.runtime import predictor as predictor_module
from snapfit.runtime.bundle import Bundle
from snapfit.runtime.evaluating import evaluate_bundle, examples_of
from snapfit.runtime.inputs import parts_for_bundle, read_for_bundle, read_texts, text_parts
from snapfit.runtime.parts import RecordParts
from snapfit.runtime.predictor import Predictor
from snapfit.runtime.tables import prediction_writer, write_predictions
from tiny_bundle import WORDS, BagOfWords, tiny_info, write_tiny_bundle

INFO = tiny_info()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of any size are read in parts of three rows."""
    monkeypatch.setattr(parts_module, "WHOLE_BYTES", -1)
    monkeypatch.setattr(parts_module, "PART_ROWS", 3)


def together(parts: RecordParts) -> dict[str, Any]:
    """All rows of all parts."""
    records = list(parts)
    assert sum(map(len, records)) == len(parts)
    return {
        "table": pa.concat_tables([part.table for part in records]),
        "texts": [text for part in records for text in part.texts.to_pylist()],
        "labels": [label for part in records for label in (part.labels if part.labels is not None else ())],
    }


def at_once(records: Records) -> dict[str, Any]:
    labels = [] if records.labels is None else list(records.labels)
    return {"table": records.table, "texts": records.texts.to_pylist(), "labels": labels}


def outcome(work: Callable[[], dict[str, Any]]) -> Any:
    """What work gives, or the error that it raises."""
    try:
        return work()
    except SnapfitError as error:
        return str(error)


CELL = st.text(st.sampled_from('ab \t\n\r",[]{}:1\u3000\u2028\x85\0é'), max_size=6)
LINES = st.lists(st.lists(CELL | st.sampled_from(["good", "bad"]), min_size=1, max_size=3), max_size=9)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=LINES,
    suffix=st.sampled_from(["csv", "tsv", "jsonl"]),
    header=st.sampled_from(["text{}label", "label{}text", "text", "a{}text{}a"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    closed=st.booleans(),
    mark=st.booleans(),
    size=st.sampled_from([8, 10_000]),
)
@pytest.mark.usefixtures("_small")
def test_whatever_a_file_holds_means_the_same(
    tmp_path: Path, lines: list[list[str]], suffix: str, header: str, end: str, closed: bool, mark: bool, size: int
) -> None:
    between = "\t" if suffix == "tsv" else ","
    if suffix == "jsonl":
        rows = [f'{{"text": "{row[0]}", "label": "{row[-1]}"}}' for row in lines]
    else:
        rows = [header.format(*[between] * 2), *(between.join(row) for row in lines)]
    path = tmp_path / f"t.{suffix}"
    path.write_bytes((("\ufeff" if mark else "") + end.join(rows) + end * closed).encode())
    expected = outcome(lambda: at_once(read_texts(INFO, path)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "PART_CHARACTERS", size)
        assert outcome(lambda: together(text_parts(INFO, path))) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.none() | st.integers(0, 3) | st.sampled_from([1.0, 2.5, "good", "bad", True]) | st.just(["good"]),
        min_size=1,
        max_size=10,
    )
)
@pytest.mark.usefixtures("_small")
def test_json_whose_columns_change_their_type(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"text": WORDS[i], "label": "good", "other": value} for i, value in enumerate(values)]
    path.write_bytes(b"\n".join(json.dumps(row).encode() for row in rows))
    assert together(parts_for_bundle(INFO, path)) == at_once(read_for_bundle(INFO, path))


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5 if len(rows) < 100 else 500)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        between = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(between.join(row) + "\n" for row in [list(rows[0]), *(r.values() for r in rows)]))
    return path


def some_rows(n: int, seed: int = 0) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {"text": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))), "label": rng.choice(["bad", "fair", "good"])}
        for _ in range(n)
    ]


SUFFIXES = ["csv", "tsv", "jsonl", "parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("_small")
def test_a_large_file_is_read_anew_each_time(tmp_path: Path, suffix: str) -> None:
    path = write_table(tmp_path / f"t.{suffix}", some_rows(20))
    parts = parts_for_bundle(INFO, path)
    assert (parts.source, parts.column_names, len(parts)) == (str(path), ["text", "label"], 20)
    assert [len(part) for part in parts] == ([3, 5, 5, 5, 2] if suffix == "parquet" else [3] * 6 + [2])
    assert together(parts) == together(parts) == at_once(read_for_bundle(INFO, path))
    write_table(path, some_rows(20, seed=1))
    assert together(parts) == at_once(read_for_bundle(INFO, path))  # so nothing was held


@pytest.mark.usefixtures("_small")
def test_long_texts_make_short_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_ROWS", 100)
    monkeypatch.setattr(parts_module, "PART_CHARACTERS", 40)
    rows = some_rows(20)
    parts = parts_for_bundle(INFO, write_table(tmp_path / "t.csv", rows))
    assert together(parts)["texts"] == [row["text"] for row in rows]
    for part in parts:
        assert sum(map(len, part.texts.to_pylist() + part.labels)) < 40 + 60


@pytest.mark.usefixtures("_small")
def test_folders_and_encodings(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        rows = some_rows(4, seed=number)
        write_table(tmp_path / f"{number}.csv", [dict(reversed(row.items())) for row in rows] if number else rows)
    assert together(parts_for_bundle(INFO, tmp_path)) == at_once(read_for_bundle(INFO, tmp_path))
    (tmp_path / "0.tsv").write_bytes("text\tlabel\n电影\tgood\n好\tbad\n".encode("gb18030"))
    for source in (tmp_path / "0.tsv", tmp_path):
        for encoding in ("gb18030", "utf-8", "UTF8", "ascii", "klingon", "hex"):
            for format in ("auto", "tsv", "excel"):
                told = {"encoding": encoding, "format": format}
                expected = outcome(lambda at=source, told=told: at_once(read_for_bundle(INFO, at, **told)))
                assert outcome(lambda at=source, told=told: together(parts_for_bundle(INFO, at, **told))) == expected
    assert "does not exist" in outcome(lambda: together(text_parts(INFO, tmp_path / "none.csv")))


@pytest.mark.usefixtures("_small")
def test_bad_rows_are_named_as_when_read_at_once(tmp_path: Path) -> None:
    info, path = tiny_info(), tmp_path / "t.csv"
    rows = some_rows(20)
    rows[17]["label"] = rows[8]["label"] = "superb"
    write_table(path, rows)
    with pytest.raises(BadInput, match=r"'superb' \(2 times\)"):
        parts_for_bundle(info, path)
    rows[17]["label"] = rows[8]["label"] = " "
    write_table(path, rows)
    with pytest.raises(BadInput, match="is empty in 2 rows: line 10, line 19"):
        parts_for_bundle(info, path)
    path.write_text("text,label\n" + "film,good\n" * 9 + "film\n")
    with pytest.raises(BadInput, match="line 11 has 1"):
        parts_for_bundle(info, path)


@pytest.mark.usefixtures("_small")
def test_numbers_that_are_labels_are_named_by_the_whole_column(tmp_path: Path) -> None:
    info = tiny_info(labels={"task": "single", "names": ["1", "1.0", "2.5"], "target_mean": 0.0, "target_scale": 1.0})
    pq.write_table(pa.table({"text": ["a"] * 6, "label": [1.0] * 5 + [2.5]}), tmp_path / "t.parquet")
    assert together(parts_for_bundle(info, tmp_path / "t.parquet"))["labels"] == ["1.0"] * 5 + ["2.5"]


# ---------------------------------------------------------------- evaluating and predicting in parts


class Watched(BagOfWords):
    """A backend that notes how much Arrow holds."""

    arrow_bytes = 0

    def logits(self, batch: Any) -> np.ndarray:
        self.arrow_bytes = max(self.arrow_bytes, pa.total_allocated_bytes())
        return super().logits(batch)


def assert_nearly_equal(this: Any, other: Any) -> None:
    """Plain values are the same but for rounding: batches of other rows move scores in float32's last bits."""
    if isinstance(this, dict):
        assert this.keys() == other.keys()
        this, other = list(this.values()), list(other.values())
    if isinstance(this, list):
        assert len(this) == len(other)
        for one, another in zip(this, other, strict=True):
            assert_nearly_equal(one, another)
    else:
        assert this == (pytest.approx(other, abs=1e-5) if isinstance(other, float) else other)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("task", ["single", "multi", "regression"])
def test_an_evaluation_in_parts_gives_the_same(
    tmp_path: Path, task: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"delimiter": ";"} if task == "multi" else {}
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle", task, **changes))
    made, rows = Predictor(bundle, BagOfWords(bundle.label_set.n_outputs)), some_rows(500)
    labels = {"bad": "drama;war", "fair": "", "good": "fun"} if task == "multi" else {"bad": "1", "fair": "2.5"}
    for row in rows:
        row["label"] = row["label"] if task == "single" else labels.get(row["label"], "4")
    path = write_table(tmp_path / f"t.{suffix}", rows)
    whole = evaluate_bundle(made, read_for_bundle(bundle.info, path))
    assert evaluate_bundle(made, parts_for_bundle(bundle.info, path)) == whole
    monkeypatch.setattr(parts_module, "WHOLE_BYTES", -1)
    monkeypatch.setattr(parts_module, "PART_ROWS", 64)
    monkeypatch.setattr(predictor_module, "_CHUNK_ROWS", 10)
    in_parts = evaluate_bundle(made, parts_for_bundle(bundle.info, path))
    assert_nearly_equal(in_parts, whole)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_table(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "WHOLE_BYTES", -1)
    monkeypatch.setattr(parts_module, "PART_ROWS", 128)
    monkeypatch.setattr(parts_module, "PART_CHARACTERS", 4096)
    monkeypatch.setattr(resampling, "MAX_GROUPS", 256)  # up to so many rows it does grow
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle"))

    def peak(n: int, *, at_once: bool = False) -> int:
        """The most that is held while a table is evaluated, and answered into a file."""
        path, backend = write_table(tmp_path / f"t.{suffix}", some_rows(n)), Watched(3)
        made, before = Predictor(bundle, backend), pa.total_allocated_bytes()
        backend.arrow_bytes = 0
        tracemalloc.start()
        try:
            records = read_for_bundle(bundle.info, path) if at_once else parts_for_bundle(bundle.info, path)
            assert evaluate_bundle(made, records)["rows"] == n
            del records
            if not at_once:
                parts = text_parts(bundle.info, path)
                with prediction_writer(parts.column_names, tmp_path / "out.csv", label_set=bundle.label_set) as write:
                    for part in parts:
                        write(part.table, made.answers(examples_of(part)))
            return tracemalloc.get_traced_memory()[1] + backend.arrow_bytes - before
        finally:
            tracemalloc.stop()

    peak(256)
    few, many = peak(640), peak(16 * 640)
    assert many < few + 10 * 15 * 640  # ten bytes a row, where a row has some 30 characters
    if suffix != "jsonl":
        return
    assert peak(16 * 640, at_once=True) > few + 100 * 15 * 640  # the measure sees what grows


def test_answers_in_parts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle"))
    made, path = Predictor(bundle, BagOfWords(3)), write_table(tmp_path / "t.csv", some_rows(50))
    records = read_texts(bundle.info, path)
    told = {"label_set": bundle.label_set, "all_scores": True}
    monkeypatch.setattr(parts_module, "WHOLE_BYTES", -1)
    monkeypatch.setattr(parts_module, "PART_ROWS", 7)
    parts = text_parts(bundle.info, path)
    for suffix in SUFFIXES:
        write_predictions(records.table, made.answers(examples_of(records)), tmp_path / f"whole.{suffix}", **told)
        with prediction_writer(parts.column_names, tmp_path / f"parts.{suffix}", **told) as write:
            for part in parts:
                made_columns = write(part.table, made.answers(examples_of(part)))
                assert list(made_columns)[:2] == ["predicted", "score"]
        if suffix == "parquet":
            assert pq.read_table(tmp_path / "parts.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
        else:
            assert (tmp_path / f"parts.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_nothing_is_left_of_a_file_that_was_cut_short(tmp_path: Path) -> None:
    bundle = Bundle.open(write_tiny_bundle(tmp_path / "bundle"))

    def cut_short() -> None:
        with prediction_writer(["text"], tmp_path / "out.csv", label_set=bundle.label_set) as write:
            answers = DecisionRule("single").decide(np.array([[0.2, 0.3, 0.5]]))
            write(pa.table({"text": ["a film"]}), answers)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
