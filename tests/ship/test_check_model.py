"""Labels that models disagree with, as a check tells of them: the run that it makes, takes, goes on with or refuses."""

import csv
from pathlib import Path
from typing import Any

import pytest

import checking
import snapfit
import toys
import trained
from snapfit.core.errors import BadInput
from snapfit.ship.check_report import CheckReport

pytest.importorskip("cleanlab")
QUICK: dict[str, Any] = {"near_similarity": None, "plan": False, "train__precision": "fp32", "train__epochs": 3}


def rows_with_errors() -> list[dict[str, Any]]:
    """90 rows, every thirtieth of which has the label of another one."""
    rows = toys.single_rows(90)
    for i in range(0, 90, 30):
        rows[i] = {**rows[i], "label": {"food": "tools", "tools": "animals", "animals": "food"}[rows[i]["label"]]}
    return rows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.encoder_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.write_csv(tmp_path_factory.mktemp("table") / "train.csv", rows_with_errors())


@pytest.fixture(scope="module")
def run(encoder: str, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folds") / "run"


@pytest.fixture(scope="module")
def report(encoder: str, table: Path, run: Path) -> CheckReport:
    return snapfit.check(table, encoder=encoder, with_model=run, train__folds=3, optim__lr=1e-2, **QUICK)


def test_suspects_are_told_by_their_lines_and_the_run_stays(report: CheckReport, run: Path) -> None:
    found = checking.of_kind(report.findings, "suspected_label")
    with open(run / "label_errors.csv", encoding="utf-8", newline="") as file:
        suspects = list(csv.DictReader(file))
    assert 0 < found.count == len(suspects)
    lines = sorted({int(one["row"]) + 1 for one in suspects})  # behind the header
    assert checking.numbers(found) == lines
    assert found.examples[0].note == f"{suspects[0]['given']}, perhaps {suspects[0]['suggested']}"
    assert str(run / "label_errors.csv") in found.what_to_do
    assert not (run / "bundle").exists()


def test_a_run_that_is_there_is_taken_as_it_is(report: CheckReport, run: Path, encoder: str, table: Path) -> None:
    before = (run / "result.json").stat().st_mtime_ns
    again = snapfit.check(table, encoder=encoder, with_model=run, **QUICK)
    assert (run / "result.json").stat().st_mtime_ns == before
    one, other = (checking.of_kind(part.findings, "suspected_label") for part in (report, again))
    assert one.to_dict() == other.to_dict()


def test_folds_are_trained_on_the_rows_that_can_be_used(encoder: str, table: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.csv"
    damaged.write_text(table.read_text("utf-8").replace("\n", "\nalone\n", 1), "utf-8")
    run = tmp_path / "run"
    found = snapfit.check(damaged, encoder=encoder, with_model=run, train__folds=3, optim__lr=1e-2, **QUICK).findings
    with open(run / "label_errors.csv", encoding="utf-8", newline="") as file:
        rows = sorted({int(one["row"]) for one in csv.DictReader(file)})
    assert checking.of_kind(found, "unreadable_row").count == 1
    assert checking.numbers(checking.of_kind(found, "suspected_label")) == [row + 2 for row in rows]


def test_a_folds_run_that_stopped_goes_on(report: CheckReport, run: Path, encoder: str, table: Path) -> None:
    for name in ("result.json", "folds.json", "label_errors.csv", "folds/3/held_out.parquet"):
        (run / name).unlink()
    again = snapfit.check(table, encoder=encoder, with_model=run, **QUICK)
    one, other = (checking.of_kind(part.findings, "suspected_label") for part in (report, again))
    assert one.to_dict() == other.to_dict()


def test_what_is_no_run_of_folds_of_this_table_is_refused(
    report: CheckReport, run: Path, encoder: str, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="is no run"):
        snapfit.check(table, encoder=encoder, with_model=tmp_path / "folder", **QUICK)
    single = snapfit.train(table, encoder=encoder, out=tmp_path / "single", train__epochs=1, train__precision="fp32")
    with pytest.raises(BadInput, match="one training"):
        snapfit.check(table, encoder=encoder, with_model=single.run, **QUICK)
    other = trained.write_csv(tmp_path / "other.csv", toys.single_rows(90))
    with pytest.raises(BadInput, match=r"another table \(labels differ\)"):
        snapfit.check(other, encoder=encoder, with_model=run, **QUICK)


def test_a_table_that_no_model_can_learn_is_not_asked_about(encoder: str, tmp_path: Path) -> None:
    rows = [{**one, "label": "food"} for one in toys.single_rows(30)]
    found = snapfit.check(rows, encoder=encoder, with_model=tmp_path / "run", **QUICK)
    assert found.skipped is not None
    assert "label errors" in found.skipped
    assert not (tmp_path / "run").exists()
