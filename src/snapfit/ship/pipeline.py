"""The main job: a table of labelled texts goes in, a run folder with a bundle comes out.

runs/first/
  recipe.yaml     every setting, resolved
  data.json       identity of data, splits and labels
  journal.jsonl   what happened, one event a line
  bundle/         what ships
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapfit.core.errors import BadInput, Interrupted
from snapfit.core.files import write_json_atomic, write_text_atomic
from snapfit.core.recipe import Recipe, load_recipe
from snapfit.ship.bundling import versions, write_bundle
from snapfit.training.fit import fit
from snapfit.training.interrupts import StopRequest
from snapfit.training.journal import Journal
from snapfit.training.prepare import Tables, identity_hash, read_tables

Listener = Callable[[dict[str, Any]], None]
"""Hears of every journal event as it happens."""


@dataclass(frozen=True)
class TrainResult:
    """What `train` leaves behind.

    run, bundle: folders. metrics: by split, then by name. recipe: resolved. seconds: of the whole call;
    train_seconds: of the loop. stopped_by: the signal that ended it early, or None.
    """

    run: Path
    bundle: Path
    metrics: dict[str, dict[str, float]]
    recipe: Recipe
    best_step: int
    steps: int
    seconds: float
    train_seconds: float
    stopped_by: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "run": str(self.run),
            "bundle": str(self.bundle),
            "metrics": self.metrics,
            "best_step": self.best_step,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "train_seconds": round(self.train_seconds, 2),
            "stopped_by": self.stopped_by,
            "recipe": self.recipe.to_dict(),
        }


def train(
    table: Any,
    *,
    valid: Any = None,
    test: Any = None,
    out: str | Path | None = None,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    listener: Listener | None = None,
    **settings: Any,
) -> TrainResult:
    """Fine-tune a classifier on a table and write its run folder.

    table, valid, test: a path (CSV, TSV, JSONL, Parquet, or a folder of one kind), or a pandas, polars or Arrow
        table, or a list of dictionaries. Without `valid` a stratified part of `table` is held out.
    out: the run folder, which must not exist yet; by default a free name under runs/.
    recipe: a Recipe, a file, or nested settings. settings: single keys, alone (`epochs=3`) or in full with "__" for
        the dot (`train__epochs=3`); they win over the recipe.
    listener: hears of every event while it runs.

    Raises BadInput before any work for anything that cannot be used, WorkFailed when training cannot go on.
    """
    start = time.monotonic()
    chosen = _recipe(recipe, settings)
    with StopRequest() as stop:
        tables = read_tables(table, valid, test, chosen.data)
        with _run_folder(out, table) as run, Journal(run / "journal.jsonl") as journal:
            notify = _notifier(journal, listener)
            _announce(notify, tables, run)
            fitted = fit(tables, chosen, notify=notify, stop=stop)
            _write_identity(run, fitted.recipe, tables)
            write_bundle(run / "bundle", fitted, tables)
            result = TrainResult(
                run=run,
                bundle=run / "bundle",
                metrics=fitted.metrics,
                recipe=fitted.recipe,
                best_step=fitted.best_step,
                steps=fitted.steps,
                seconds=time.monotonic() - start,
                train_seconds=fitted.train_seconds,
                stopped_by=stop.signal_number if fitted.interrupted else None,
            )
            notify("end", **{k: v for k, v in result.to_dict().items() if k != "recipe"})
    return result


def _recipe(recipe: Recipe | Mapping[str, Any] | str | Path | None, settings: Mapping[str, Any]) -> Recipe:
    values = {key.replace("__", "."): value for key, value in settings.items()}
    if isinstance(recipe, Recipe):
        return recipe.with_values(values)
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(recipe).with_values(values)
    return load_recipe(recipe, **values)


@contextmanager
def _run_folder(out: str | Path | None, table: Any) -> Iterator[Path]:
    """The run's new folder; taken away again, with all that was made for it, when nothing can be trained."""
    run = _free_name(table) if out is None else Path(out)
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise BadInput(f"{run} exists already", "a folder that does not exist yet", "choose another with --out")
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{run} cannot be made: {error.strerror}", "a folder that can be written", "--out") from error
    try:
        yield run
    except (BadInput, Interrupted):
        for path in run.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with suppress(OSError):  # another run may have begun in the same parent
            for folder in made:
                folder.rmdir()
        raise


def _free_name(table: Any) -> Path:
    stem = Path(table).stem if isinstance(table, (str, Path)) else "table"
    names = (Path("runs") / (stem if i == 1 else f"{stem}-{i}") for i in range(1, 1_000_000))
    return next(path for path in names if not path.exists())


def _notifier(journal: Journal, listener: Listener | None) -> Callable[..., None]:
    def notify(kind: str, **fields: Any) -> None:
        event = journal.append(kind, **fields)
        if listener is not None:
            listener(event)

    return notify


def _announce(notify: Callable[..., None], tables: Tables, run: Path) -> None:
    notify(
        "data",
        run=str(run),
        found=tables.columns.found,
        split=tables.split_note,
        task=tables.label_set.task,
        n_labels=tables.label_set.n_outputs,
        rows={name: len(part) for name, part in tables.splits.items()},
        versions=versions(),
    )


def _write_identity(run: Path, recipe: Recipe, tables: Tables) -> None:
    write_text_atomic(run / "recipe.yaml", recipe.to_yaml())
    identity = {
        "hash": identity_hash(tables.identity),
        "splits": tables.identity,
        "labels": tables.label_set.to_dict(),
    }
    write_json_atomic(run / "data.json", identity)
