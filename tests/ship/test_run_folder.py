"""The folder of a run: how it begins, goes on and ends, who may write to it, and what it says about itself."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import toys
from snapfit.core.errors import BadInput, Interrupted, WorkFailed
from snapfit.core.recipe import Recipe
from snapfit.ship.run_folder import RunFolder, new_name, new_run, old_run, placed
from snapfit.training.journal import Journal
from snapfit.training.prepare import read_tables

RECIPE = Recipe().with_values({"optim.lr": 3e-5, "train.epochs": 2, "data.delimiter": "none"})


def begun(folder: Path, tables: dict[str, Any] | None = None, recipe: Recipe = RECIPE) -> RunFolder:
    """A run that got as far as its request."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.write_request(tables or {"train": "t.csv", "valid": None, "test": None}, recipe)
    return run


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """The folder locked as another process has it: a lock belongs to whoever opened the folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


# ---------------------------------------------------------------- the request


def test_a_request_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tables = {"train": Path("data/t.csv"), "valid": "/elsewhere/v.tsv", "test": [{"text": "a", "label": "b"}]}
    run = begun(tmp_path / "run", tables)
    assert run.is_run
    request = run.request()
    assert request.tables == {"train": str(tmp_path / "data" / "t.csv"), "valid": "/elsewhere/v.tsv", "test": None}
    assert request.recipe == RECIPE
    assert request.recipe.stated() == RECIPE.stated()
    values = json.loads((run.path / "request.json").read_text("utf-8"))
    assert values["recipe"] == {"optim": {"lr": 3e-5}, "train": {"epochs": 2.0}, "data": {"delimiter": None}}


def test_tables_that_were_not_given_are_not_in_it(tmp_path: Path) -> None:
    assert set(begun(tmp_path / "run").request().tables) == {"train"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "request.json"),
        ("[]", "is not that of a run"),
        ('{"kind": "snapfit checkpoint", "format": 1}', "is not that of a run"),
        ('{"kind": "snapfit run", "format": 2, "tables": {}, "recipe": {}}', "is not that of a run"),
        ('{"kind": "snapfit run", "format": 1, "tables": {}}', "has no tables or no recipe"),
        ('{"kind": "snapfit run", "format": 1, "tables": [], "recipe": {}}', "has no tables or no recipe"),
        ('{"kind": "snapfit run", "format": 1, "tables": {}, "recipe": {"optim": {"lr": -1}}}', r"optim\.lr"),
    ],
)
def test_a_request_that_is_none(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "request.json").write_text(content)
    with pytest.raises(BadInput, match=found):
        RunFolder(tmp_path).request()


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("kind", ["relative", "absolute", "starter", "hub", "default"])
def test_an_encoders_folder_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "starter").mkdir()
    given = {"relative": "encoder", "absolute": str(tmp_path / "encoder"), "starter": "starter", "hub": "a/b"}
    recipe = Recipe() if kind == "default" else Recipe().with_values({"model.encoder": given[kind]})
    expected = {"relative": str(tmp_path / "encoder")} | {key: given.get(key, "starter") for key in ("hub", "default")}
    assert placed(recipe).model.encoder == expected.get(kind, recipe.model.encoder)
    assert placed(recipe).stated().keys() == recipe.stated().keys()
    assert begun(tmp_path / "run", recipe=recipe).request().recipe == placed(recipe)


def test_settings_are_the_resolved_ones_once_there_are_such(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    now = {"recipe": {}, "data": {}, "labels": {}, "encoder": "e", "tokenizer": "t", "machine": {}}
    assert run.recipe() == RECIPE
    assert run.begun_with(now) == now
    tables = read_tables(toys.single_rows(30), None, None, RECIPE.data)
    resolved = RECIPE.with_values({"train.batch": 8})
    run.write_settled(resolved, tables)
    assert run.recipe() == resolved
    told = run.begun_with(now)
    assert told["labels"] == tables.label_set.to_dict()
    assert told["data"]["train"] == {
        key: value for key, value in tables.identity["train"].items() if key in ("rows", "texts", "labels")
    }
    assert told["recipe"]["train"]["batch"] == 8
    assert "encoder" not in told["recipe"]["model"]
    assert (told["encoder"], told["tokenizer"]) == ("e", "t")
    (run.path / "data.json").write_text('{"splits": {"train": {}}, "labels": {}}')
    with pytest.raises(BadInput, match=r"data\.json cannot be used: KeyError\('rows'\)"):
        run.begun_with(now)


def test_reasons_are_those_that_were_told_last(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    assert run.reasons() == {}
    with Journal(run.journal) as journal:
        journal.append("data")
        assert run.reasons() == {}
        for reason in ("old", "new"):
            journal.append("recipe", recipe={}, reasons={"optim.lr": reason})
    assert run.reasons() == {"optim.lr": "new"}
    run.journal.write_text("[]\n[]\n")
    assert run.reasons() == {}


def test_a_run_is_complete_with_its_result_and_a_whole_bundle(tmp_path: Path) -> None:
    settings = {"n_rows": 30, "train__epochs": 1, "model__pooling": "mean"}
    made = toys.new_run(tmp_path / "trained", **settings).result
    assert RunFolder(made.run).result() == json.loads((made.run / "result.json").read_text("utf-8"))
    run = begun(tmp_path / "run")
    assert run.result() is None
    run.write_result({"steps": 3})
    assert run.result() is None  # there is no bundle
    run.bundle.symlink_to(made.bundle)
    assert run.result() == {"steps": 3}
    (run.path / "result.json").write_text("[]")
    assert run.result() is None


def test_a_result_no_longer_stands_once_the_run_goes_on(tmp_path: Path) -> None:
    run, tables = begun(tmp_path / "run"), read_tables(toys.single_rows(30), None, None, RECIPE.data)
    run.write_result({"steps": 3})
    run.write_settled(RECIPE, tables)
    assert not (run.path / "result.json").exists()
    (run.path / "result.json").mkdir()
    with pytest.raises(WorkFailed, match=r"could not write .*result\.json"):
        run.write_settled(RECIPE, tables)


# ---------------------------------------------------------------- a new run


def test_free_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_name("data/reviews.csv") == Path("runs/reviews")
    for name in ("reviews", "reviews-2", "table"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert new_name(Path("reviews.parquet")) == Path("runs/reviews-3")
    assert new_name([{"text": "a"}]) == Path("runs/table-2")


@pytest.mark.parametrize("error", [BadInput("a", "b", "c"), Interrupted("x")])
@pytest.mark.parametrize("there", [False, True])
def test_where_nothing_was_begun_nothing_stays(tmp_path: Path, error: Exception, there: bool) -> None:
    path = tmp_path / "runs" / "deep" / "first"
    if there:
        path.mkdir(parents=True)

    def work(run: RunFolder) -> None:
        run.write_request({"train": "t.csv"}, RECIPE)
        run.checkpoints.mkdir()
        (run.checkpoints / "x").write_text("x")
        raise error

    with pytest.raises(type(error)), new_run(path) as run:
        work(run)
    if there:
        assert entries(path) == []
    else:
        assert entries(tmp_path) == []


def test_another_run_in_the_same_parent_stays(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "runs" / "second").mkdir()
        raise BadInput("a", "b", "c")

    with pytest.raises(BadInput), new_run(tmp_path / "runs" / "first"):
        work()
    assert entries(tmp_path / "runs") == ["second"]


@pytest.mark.parametrize("error", [WorkFailed("a"), RuntimeError("a defect"), Interrupted("x")])
def test_what_was_begun_stays(tmp_path: Path, error: Exception) -> None:
    def work(run: RunFolder) -> None:
        run.write_request({"train": "t.csv"}, RECIPE)
        run.begun = isinstance(error, Interrupted)
        raise error

    with pytest.raises(type(error)), new_run(tmp_path / "run") as run:
        work(run)
    assert entries(tmp_path / "run") == ["request.json"]


def test_a_folder_in_use_is_refused_and_says_what_is_in_it(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    for state in ("an unfinished run", "a finished run"):
        with pytest.raises(BadInput, match=f"exists already: {state}") as caught, new_run(run.path):
            pass
        assert f"snapfit train --resume {run.path}" in caught.value.fix
        run.write_result({})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "other", tmp_path / "file"):
        with pytest.raises(BadInput, match="exists already\n") as caught, new_run(path):
            pass
        assert "--resume" not in caught.value.fix


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be made"), new_run(tmp_path / "file" / "run"):
        pass


# ---------------------------------------------------------------- a run that was begun


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, found in (("nowhere", "is missing"), ("file", "is a file"), ("folder", "is not a run's folder")):
        with pytest.raises(BadInput, match=found) as caught, old_run(tmp_path / name):
            pass
        assert "--resume" in caught.value.fix
    assert entries(tmp_path) == ["file", "folder"]


def test_leftovers_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    path = begun(tmp_path / "run").path
    (path / "checkpoints" / ".step-000001.0123456789ab.staging").mkdir(parents=True)
    (path / "checkpoints" / ".step-000001.0123456789ab.staging" / "x").write_text("x")
    (path / "checkpoints" / ".step-000002.0123456789ab.old").mkdir()
    (path / ".recipe.yaml.0123456789ab.tmp").write_text("x")
    for kept in (".mine", ".recipe.yaml.0123.tmp", "checkpoints/step-000003", "checkpoints/.keep"):
        (path / kept).mkdir()
    with old_run(path) as run:
        assert run.begun
        assert entries(path) == [".mine", ".recipe.yaml.0123.tmp", "checkpoints", "request.json"]
        assert entries(run.checkpoints) == [".keep", "step-000003"]


@pytest.mark.parametrize("opened", [new_run, old_run])
def test_one_process_at_a_time(tmp_path: Path, opened: Any) -> None:
    path = tmp_path / "run"
    path.mkdir()
    if opened is old_run:
        RunFolder(path).write_request({"train": "t.csv"}, RECIPE)
    (path / ".left.0123456789ab.tmp").write_text("whoever holds the folder may be writing this")
    before = entries(path)
    with held_by_another(path):
        with pytest.raises(BadInput, match="is being written by another process"), opened(path):
            pass
        assert entries(path) == before
    with opened(path):
        pass


def test_the_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    path = begun(tmp_path / "run").path
    with pytest.raises(RuntimeError), old_run(path):
        raise RuntimeError("a defect")
    with old_run(path):
        pass
