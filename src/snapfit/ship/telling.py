"""Who hears of a training: its journal, and whoever listens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from snapfit.core.process import SETTLED
from snapfit.ship.bundling import versions
from snapfit.ship.run_folder import RunFolder
from snapfit.training.checkpoint import Checkpoint, Skipped
from snapfit.training.identity import Difference
from snapfit.training.journal import Journal
from snapfit.training.prepare import Notify, Tables

Listener = Callable[[dict[str, Any]], None]
"""Hears of every journal event as it happens."""


def teller(listener: Listener | None) -> Callable[[str], None]:
    """What tells of work that takes a while, at once and not in the journal: there may be no run yet."""

    def told(text: str) -> None:
        if listener is not None:
            listener({"kind": "working", "text": text})

    return told


def notifier(journal: Journal, listener: Listener | None, run: RunFolder | None = None) -> Notify:
    """What writes events to a journal and tells the listener; a step of a run makes it worth keeping."""

    def notify(kind: str, **fields: Any) -> None:
        event = journal.append(kind, **fields)
        if run is not None:
            run.begun = run.begun or kind == "step"
        if listener is not None:
            listener(event)

    return notify


def tell_of_resuming(
    notify: Notify,
    run: RunFolder,
    checkpoint: Checkpoint | None,
    skipped: Sequence[Skipped],
    *,
    changes: Sequence[Difference] = (),
) -> None:
    """Tell where a run goes on from, what was passed over on the way there, and what was accepted."""
    notify(
        "resume",
        run=str(run.path),
        step=0 if checkpoint is None else checkpoint.step,
        checkpoint=None if checkpoint is None else checkpoint.folder.name,
        skipped=[{"checkpoint": one.folder.name, "why": one.why} for one in skipped],
        changes=[str(change) for change in changes],
    )


def announce(notify: Notify, tables: Tables, run: Path | None = None) -> None:
    """Tell what was found in the tables; run: the run's folder, where there is one."""
    notify(
        "data",
        run="" if run is None else str(run),
        found=tables.columns.found,
        split=tables.split_note,
        task=tables.label_set.task,
        n_labels=tables.label_set.n_outputs,
        rows={name: len(part) for name, part in tables.splits.items()},
        versions=versions(),
        process=dict(SETTLED),
    )
