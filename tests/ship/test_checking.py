"""`snapfit.check` as a function: the whole report, what it leaves alone, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import checking
import snapfit
import toys
from snapfit.core.errors import BadInput, Interrupted, MissingExtra
from snapfit.ship.check_report import CheckReport

QUICK: dict[str, Any] = {"near_similarity": None, "encoder": None}


def put(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.encoder_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def report(encoder: str) -> CheckReport:
    valid = [*toys.single_rows(12, seed=1), {"text": toys.single_rows(1)[0]["text"], "label": "food"}]
    return snapfit.check(toys.single_rows(90), valid=valid, encoder=encoder, train__precision="fp32")


def test_a_report_tells_of_tables_findings_encoder_and_plan(report: CheckReport) -> None:
    assert {name: one["usable"] for name, one in report.tables.items()} == {"train": 90, "valid": 13}
    leak = checking.of_kind(report.findings, "leak", "valid")
    assert (leak.level, leak.count) == ("error", 1)
    assert report.levels["error"] == 1
    assert report.labels["train"] == {"animals": 30, "food": 30, "tools": 30}
    assert report.scripts["train"] == {"Latin": 1.0}
    assert report.tokens is not None
    assert report.tokens["train"]["unknown_share"] == 0
    assert report.plan is not None
    assert report.skipped == {}


def test_the_plan_is_that_of_the_training(report: CheckReport, encoder: str, tmp_path: Path) -> None:
    assert report.plan is not None
    plan = report.plan
    trained = snapfit.train(
        toys.single_rows(90),
        valid=toys.single_rows(12, seed=1),
        out=tmp_path / "run",
        encoder=encoder,
        train__precision="fp32",
    )
    assert plan.epochs == trained.recipe.train.epochs
    assert plan.max_tokens == trained.recipe.length.max_tokens
    assert plan.steps == len(range(0, 90, int(trained.recipe.train.batch))) * plan.epochs  # type: ignore[arg-type]
    assert 1 <= plan.measured_steps <= 30
    assert plan.seconds == pytest.approx(plan.train_seconds + plan.evaluation_seconds, abs=0.2)
    written = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert plan.bundle_bytes < written
    assert plan.disk_bytes > plan.bundle_bytes
    assert plan.memory_bytes > 50e6


def test_a_report_is_plain_values(report: CheckReport) -> None:
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["levels"]["error"] == 1
    assert values["plan"]["steps"] == report.plan.steps  # type: ignore[union-attr]
    assert [one["level"] for one in values["findings"]] == sorted(
        (one["level"] for one in values["findings"]), key=["error", "warning", "note"].index
    )


def test_it_prints_nothing_writes_nothing_and_leaves_torch_as_it_was(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    table = put(
        tmp_path / "t.csv", "text,label\nbad\n" + "".join(f"{r['text']},{r['label']}\n" for r in toys.single_rows(60))
    )
    before, content = torch.get_rng_state(), table.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = snapfit.check(table, encoder=encoder, train__precision="fp32", near_similarity=None)
    assert checking.kinds(found.findings) >= {"unreadable_row"}
    assert capfd.readouterr() == ("", "")
    assert table.read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["t.csv", "temporary"]
    assert torch.equal(torch.get_rng_state(), before)


def test_without_encoder_and_near_duplicates_the_rest_is_checked() -> None:
    found = snapfit.check([("a", "x"), ("A", "y"), ("", "x")], **QUICK)
    assert checking.kinds(found.findings) >= {"conflicting_labels", "empty_text", "small_class"}
    assert set(found.skipped or {}) == {"encoder", "near-duplicates"}
    assert (found.plan, found.tokens, found.encoder) == (None, None, None)


def test_what_cannot_be_planned_is_said(encoder: str) -> None:
    found = snapfit.check([("the cat", "x"), ("a saw", "x")], encoder=encoder, near_similarity=None)
    assert checking.of_kind(found.findings, "one_label").level == "error"
    assert "one label only" in (found.skipped or {})["plan"]


def test_an_encoder_that_is_not_there_is_refused_only_when_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = [("a", "x"), ("b", "y")]
    with pytest.raises(BadInput, match="no folder"):
        snapfit.check(table, encoder=str(tmp_path / "none"), near_similarity=None)
    with pytest.raises(BadInput, match="no folder"):
        snapfit.check(table, model__encoder=str(tmp_path / "none"), near_similarity=None)
    monkeypatch.setattr("snapfit.nn.encoder.STARTER_PACKAGE", "no_such_package")
    found = snapfit.check(table, near_similarity=None)
    assert "snapfit[starter]" in (found.skipped or {})["encoder"]


def test_without_the_extra_near_duplicates_are_skipped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    found = snapfit.check([("a", "x"), ("b", "y")], encoder=None)
    assert "snapfit[check]" in (found.skipped or {})["near-duplicates"]
    with pytest.raises(MissingExtra, match="check"):
        snapfit.check(put(tmp_path / "t.csv", ""), encoder=None, fix=tmp_path / "out", drop=["near_leak"])


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # as if they were not installed
import snapfit
report = snapfit.check([("a text", "x"), ("A text", "y"), ("another", "x")])
print(sorted(one.kind for one in report.findings), report.skipped["encoder"])
"""


def test_the_bare_install_checks_all_but_the_encoder() -> None:
    search = os.pathsep.join([str(Path(snapfit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": search},
    )
    assert done.returncode == 0, done.stderr
    assert "'conflicting_labels', 'duplicate_text'" in done.stdout
    assert "snapfit[train]" in done.stdout


def test_a_cleaned_copy_has_no_error_any_more(tmp_path: Path) -> None:
    train = put(
        tmp_path / "t.tsv",
        "text\tlabel\n" + "".join(f"text {i}\t{'xy'[i % 2]}\n" for i in range(40)) + "bad\nno label\t\n",
    )
    valid = put(tmp_path / "v.tsv", "text\tlabel\ntext 3\ty\nnew\tx\n")
    found = snapfit.check(train, valid=valid, fix=tmp_path / "out", **QUICK)
    assert found.levels["error"] == 3
    assert found.cleaned is not None
    again = snapfit.check(found.cleaned.tables["train"], valid=found.cleaned.tables["valid"], **QUICK)
    assert again.levels["error"] == 0
    assert again.tables["train"]["rows"] == 39


def test_the_listener_hears_of_long_work(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.ship.checking._MANY_ROWS", 10)
    heard: list[dict[str, Any]] = []
    snapfit.check(toys.single_rows(60), encoder=encoder, listener=heard.append, train__precision="fp32")
    told = " ".join(event["text"] for event in heard if event["kind"] == "working")
    for words in ("comparing texts", "characters and scripts", "tokenising", "first steps", "near-duplicates"):
        assert words in told


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapfit.ship.checking._MANY_ROWS", 0)

    def listener(event: dict[str, Any]) -> None:
        if "writing" in event["text"]:
            raise KeyboardInterrupt

    train = put(tmp_path / "t.tsv", "text\tlabel\na\tx\nb\ty\n")
    with pytest.raises(Interrupted, match="nothing was written"):
        snapfit.check(train, fix=tmp_path / "out", listener=listener, **QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.tsv"]


def test_a_large_table_has_the_same_findings(monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    """Read piece by piece, as beyond a million rows."""
    rows: list[dict[str, Any]] = [
        *toys.single_rows(200),
        {"text": None, "label": "food"},
        {"text": "", "label": "food"},
    ]
    rows += [{"text": f"{row['text']}!", "label": "tools"} for row in rows[:9]]
    tables = {"valid": toys.single_rows(40, seed=1), "test": [{"text": row["text"]} for row in rows[:5]]}
    options: dict[str, Any] = {"encoder": encoder, "plan": False}
    small = snapfit.check(rows, **tables, **options).to_dict()
    monkeypatch.setattr("snapfit.checks.reading.POOL_ROWS", 30)
    monkeypatch.setattr("snapfit.checks.reading.SLAB_ROWS", 64)
    large = snapfit.check(rows, **tables, **options).to_dict()
    assert [one["text"] for one in large["findings"]] == [one["text"] for one in small["findings"]]
    assert {**large, "seconds": 0} == {**small, "seconds": 0}


# ---------------------------------------------------------------- what is refused before any work


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"near_similarity": 0.5}, "a similarity of 0.5"),
        ({"drop": ["near_leak"]}, "no cleaned copy"),
        ({"fix": "out", "drop": ["all"]}, "--drop all"),
        ({"fix": "."}, "exists already"),
        ({"fix": "out", "drop": ["near_leak"], "near_similarity": None}, "no search for it"),
        ({"html": "."}, "is a folder"),
        ({"nonsense": 1}, "there is no setting"),
    ],
)
def test_bad_options_come_before_a_bad_table(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "something", "")
    with pytest.raises(BadInput, match=words):
        snapfit.check("nowhere.csv", **({"encoder": None} | options))
    assert os.listdir(tmp_path) == ["something"]


def test_without_a_table_it_says_what_to_do() -> None:
    with pytest.raises(BadInput, match="no table to check"):
        snapfit.check(None)


def test_a_copy_of_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file"):
        snapfit.check([("a", "x")], fix=tmp_path / "out", encoder=None)
