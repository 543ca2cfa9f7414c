"""The folder of a run: how it begins, who may write to it, and what it says about itself.

request.json    what was asked for: tables and settings as given        recipe.yaml     every setting, resolved
data.json       identity of data, splits and labels                     journal.jsonl   one event a line
checkpoints/    the state of the training                               bundle/         what ships
snapshots/      members for an ensemble and averages of weights, where the recipe keeps some
verdict.json    what was chosen among them, and why             student/        the training of a student of them
control/        single runs of equal compute, one for each length
folds/1/ ...    of a cross-validation the folds, each a run's folder; folds.json: what they came to
out_of_fold.parquet      what each of their models says of the rows it has not seen; label_errors.csv: suspected labels
result.json     written last, when no step is left to do
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapfit.core.errors import BadInput, Interrupted, SnapfitError
from snapfit.core.files import cannot_write, make_folder, read_json, write_json_atomic, write_text_atomic
from snapfit.core.folders import is_leftover, remove_leftovers
from snapfit.core.recipe import Recipe, load_recipe
from snapfit.runtime.bundle import Bundle
from snapfit.training.journal import read_journal
from snapfit.training.prepare import Tables, identity_hash

KIND, FORMAT = "snapfit run", 1
_OF_A_VERDICT = {"rows", "chosen", "best_single", "rule", "expected", "expected_single", "notes", "metric", "error"}
TABLES = ("train", "valid", "test")
_OF_A_SPLIT = ("rows", "texts", "labels", "pools")  # pools: of a large table


@dataclass(frozen=True)
class Request:
    """What a run was asked for. tables: absolute paths by split; None for one that was no file. recipe: as given."""

    tables: dict[str, str | None]
    recipe: Recipe


class RunFolder:
    """One run's folder, whether it was finished or not.

    path: of the folder. Attributes: begun, set by whoever trains as soon as there is something to keep.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = False

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "request.json").is_file()

    # ---------------------------------------------------------------- what was asked for and settled

    def write_request(self, sources: Mapping[str, Any], recipe: Recipe) -> None:
        """Note what was asked for, before anything else is written."""
        tables = {
            split: str(Path(source).absolute()) if isinstance(source, str | Path) else None
            for split, source in sources.items()
            if source is not None
        }
        stated: dict[str, dict[str, Any]] = {}
        for key, value in placed(recipe).stated().items():
            section, _, name = key.partition(".")
            stated.setdefault(section, {})[name] = value
        values = {"kind": KIND, "format": FORMAT, "tables": tables, "recipe": stated}
        write_json_atomic(self.path / "request.json", values)

    def request(self) -> Request:
        """What the run was asked for. Raises BadInput when it cannot be read."""
        path = self.path / "request.json"
        values = read_json(path)
        if not isinstance(values, dict) or values.get("kind") != KIND or values.get("format") != FORMAT:
            raise BadInput(f"{path} is not that of a run", f"{KIND!r}, format {FORMAT}", "pip install -U snapfit")
        tables, recipe = values.get("tables"), values.get("recipe")
        if not isinstance(tables, dict) or not isinstance(recipe, dict):
            raise BadInput(f"{path} has no tables or no recipe", "both of them", "restore the file")
        return Request({str(split): source for split, source in tables.items()}, Recipe.from_dict(recipe))

    def write_settled(self, recipe: Recipe, tables: Tables) -> None:
        """recipe.yaml and data.json; what an earlier, shorter training of the run came to no longer stands then."""
        try:
            (self.path / "result.json").unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.path / "result.json", error) from error
        write_text_atomic(self.path / "recipe.yaml", placed(recipe).to_yaml())
        identity = {
            "hash": identity_hash(tables.identity),
            "splits": tables.identity,
            "labels": tables.label_set.to_dict(),
        }
        write_json_atomic(self.path / "data.json", identity)

    def recipe(self) -> Recipe:
        """The run's settings: resolved if it came to that, else as they were asked for."""
        path = self.path / "recipe.yaml"
        return load_recipe(path, environment={}) if path.exists() else self.request().recipe

    def begun_with(self, now: Mapping[str, Any]) -> dict[str, Any]:
        """The identity that the run began with, as far as its files tell; the rest is that of `now`."""
        path = self.path / "data.json"
        if not path.exists() or not (self.path / "recipe.yaml").exists():
            return dict(now)
        values, recipe = read_json(path), self.recipe().to_dict()
        recipe["model"].pop("encoder")
        try:
            data = {
                split: {key: one[key] for key in _OF_A_SPLIT if key != "pools" or key in one}
                for split, one in values["splits"].items()
            }
            return {**now, "recipe": recipe, "data": data, "labels": values["labels"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} cannot be used: {error!r}", "what a run writes", "restore the file") from error

    def reasons(self) -> dict[str, str]:
        """Why each `auto` became what it is, as the journal says."""
        try:
            events = [event for event in read_journal(self.journal) if event["kind"] == "recipe"]
        except SnapfitError:
            return {}
        return dict(events[-1]["reasons"]) if events else {}

    # ---------------------------------------------------------------- how it ended

    def write_result(self, values: Mapping[str, Any]) -> None:
        """Say that the run is complete."""
        write_json_atomic(self.path / "result.json", dict(values))

    def write_verdict(self, values: Mapping[str, Any]) -> None:
        """Keep the table of all candidates."""
        write_json_atomic(self.path / "verdict.json", dict(values))

    def verdict(self) -> dict[str, Any] | None:
        """The table of all candidates; None where there is none. Raises BadInput when it cannot be read."""
        path = self.path / "verdict.json"
        if not path.exists():
            return None
        values = read_json(path)
        if not isinstance(values, dict) or not values.keys() >= _OF_A_VERDICT:
            raise BadInput(f"{path} holds no table", "what a run writes", "remove it, or restore the file")
        return values

    def result(self) -> dict[str, Any] | None:
        """What the complete run came to; None while it is not complete, or when its bundle is damaged."""
        try:
            values = read_json(self.path / "result.json")
            if not isinstance(values, dict):
                return None
            if values.get("bundle", "") is not None:  # a cross-validation may be asked to make none
                Bundle.open(self.bundle)
        except SnapfitError:
            return None
        return values


def placed(recipe: Recipe) -> Recipe:
    """The same recipe, with a folder that is its encoder named so that it is found from anywhere."""
    folder = Path(recipe.model.encoder).expanduser()
    if "model.encoder" in recipe.stated() and recipe.model.encoder != "starter" and folder.is_dir():
        return recipe.with_values({"model.encoder": str(folder.absolute())})
    return recipe


def new_name(table: Any) -> Path:
    """A free name below runs/, after the table's file."""
    stem = Path(table).stem if isinstance(table, str | Path) else "table"
    names = (Path("runs") / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 1_000_000))
    return next(path for path in names if not path.exists())


@contextmanager
def new_run(path: Path) -> Iterator[RunFolder]:
    """A new run's folder, ours alone; taken away again, with all that was made for it, when nothing was begun in it.

    A run that was killed while it wrote its very first file is no run yet: what it left is cleared away.
    Raises BadInput for a folder that is in use, and says how an unfinished run in it goes on.
    """
    if path.exists() and (not path.is_dir() or not all(is_leftover(entry) for entry in path.iterdir())):
        raise _in_use(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        make_folder(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be made: {error.strerror}", "a folder that can be written", "--out") from error
    run = RunFolder(path)
    with _locked(path):  # whoever is refused here has nothing to take away: the folder is another's
        remove_leftovers(path)
        try:
            yield run
        except (BadInput, Interrupted, KeyboardInterrupt):
            if not run.begun:
                for entry in path.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                with suppress(OSError):  # another run may have begun in the same parent
                    for folder in made:
                        folder.rmdir()
            raise


@contextmanager
def old_run(path: Path) -> Iterator[RunFolder]:
    """A begun run's folder, ours alone, without what interrupted writes left in it.

    Raises BadInput for a folder that is no run's, or that another process writes to.
    """
    run = RunFolder(path)
    if not path.is_dir():
        found = f"{path} is {'a file' if path.exists() else 'missing'}"
        fix = "check the path; to begin a new run there with train --resume, give TRAIN too"
        raise BadInput(found, "the folder of a run", fix)
    if not run.is_run:
        fix = "check the path: give the folder that train made, as --resume takes it"
        raise BadInput(f"{path} is not a run's folder", "a folder with request.json", fix)
    run.begun = True
    with _locked(path):
        remove_leftovers(path)
        for folder in (run.checkpoints, run.student, run.student / "checkpoints"):
            remove_leftovers(folder)
        yield run


def _in_use(path: Path) -> BadInput:
    if path.is_dir() and RunFolder(path).is_run:
        state = "a finished run" if (path / "result.json").exists() else "an unfinished run"
        return BadInput(
            f"{path} exists already: {state}",
            "a folder that does not exist yet",
            f"continue it with `snapfit train --resume {path}`, or choose another with --out",
        )
    return BadInput(f"{path} exists already", "a folder that does not exist yet", "choose another with --out")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process ends, however it does."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(
                f"{path} is being written by another process", "a run that nobody works on", "wait for it, or end it"
            ) from error
        yield
    finally:
        os.close(handle)
