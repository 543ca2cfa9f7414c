"""The demo: the whole way from a table to a bundle that stands alone, on texts that every machine has."""

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snapfit.core.errors import BadInput, Interrupted, MissingExtra
from snapfit.core.files import write_text_atomic
from snapfit.core.recipe import Recipe
from snapfit.data.demo import write_demo_tables
from snapfit.data.records import read_records
from snapfit.loading import load
from snapfit.nn.encoder import starter_folder
from snapfit.runtime.evaluating import evaluate_bundle, examples_of
from snapfit.ship.pipeline import train
from snapfit.ship.random_encoder import write_random_encoder
from snapfit.ship.result import TrainResult
from snapfit.ship.selfproof import prove_self_contained
from snapfit.ship.telling import Listener

EPOCHS = 2.0
QUICK_EPOCHS = 1.0
QUICK_ROWS = 1_200
QUICK_VALID_ROWS = 200
PROOF_TEXTS = 200


@dataclass(frozen=True)
class DemoResult:
    """What the demo came to.

    folder: holds data/, run/ and, where no starter encoder is installed, encoder/. encoder: what was trained.
    training: of `train`. evaluation: of `evaluate_bundle` on the test table. largest_difference: of the
    scores in the proof, over proof_texts texts. seconds: of everything. example: a text of the test table.
    """

    folder: Path
    encoder: str
    training: TrainResult
    evaluation: dict[str, Any]
    largest_difference: float
    proof_texts: int
    seconds: float
    example: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "encoder": self.encoder,
            "training": self.training.to_dict(),
            "evaluation": self.evaluation,
            "self_contained": {"largest_difference": self.largest_difference, "texts": self.proof_texts},
            "seconds": round(self.seconds, 2),
        }


def run_demo(
    folder: str | Path | None = None,
    *,
    quick: bool = False,
    recipe: Recipe | None = None,
    listener: Listener | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Write the demo tables, train, measure on the test table, and prove that the bundle needs nothing else.

    folder: new; by default a free name below runs/. quick: QUICK_ROWS rows and one epoch. recipe: the
    settings to start from. listener: hears the training's events. say: hears a sentence about each stage.
    Raises BadInput when the folder is in use, WorkFailed when a stage or the proof fails.
    """
    start = time.monotonic()
    root = _new_folder(folder)
    tables = write_demo_tables(root / "data")
    say(f"docstrings of Python's standard library, labelled by chapter, are in {root / 'data'}")
    if quick:
        _shorten(tables["train"], QUICK_ROWS)
        _shorten(tables["valid"], QUICK_VALID_ROWS)
        say(f"--quick: {QUICK_ROWS:,} rows to train on")
    settings = recipe or Recipe()
    if settings.model.encoder == "starter":
        settings = settings.with_values({"model.encoder": _encoder(root, tables["train"], say)})
    if settings.train.epochs == "auto":
        settings = settings.with_values({"train.epochs": QUICK_EPOCHS if quick else EPOCHS})
    result = train(
        tables["train"],
        valid=tables["valid"],
        test=tables["test"],
        out=root / "run",
        recipe=settings.with_values({"data.text": "text", "data.label": "label"}),
        listener=listener,
    )
    if result.stopped_by is not None:
        raise Interrupted(f"stopped while training; what was learnt until then is in {result.bundle}")
    records = read_records(tables["test"], text="text", pair=None, label="label", task="single")
    evaluation = evaluate_bundle(load(result.bundle), records)
    texts = examples_of(records)[:PROOF_TEXTS]
    say("proof: a copy of the bundle answers in a process without network, encoder package and home folder")
    difference = prove_self_contained(result.bundle, texts)
    return DemoResult(
        folder=root,
        encoder=settings.model.encoder,
        training=result,
        evaluation=evaluation,
        largest_difference=difference,
        proof_texts=len(texts),
        seconds=time.monotonic() - start,
        example=min(texts, key=len),
    )


def _new_folder(folder: str | Path | None) -> Path:
    if folder is None:
        names = (Path("runs") / ("demo" if i == 1 else f"demo-{i}") for i in range(1, 1_000_000))
        return next(path for path in names if not path.exists())
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise BadInput(f"{root} exists already", "a folder that does not exist yet", "choose another with --out")
    return root


def _shorten(table: Path, n_rows: int) -> None:
    """Keep an even sample of a CSV table's rows, in their order."""
    with open(table, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    chosen = np.linspace(0, len(rows) - 1, min(n_rows, len(rows))).round().astype(int)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *(rows[i] for i in chosen)])
    write_text_atomic(table, text.getvalue())


def _encoder(root: Path, table: Path, say: Callable[[str], None]) -> str:
    """ "starter" where it is installed, else the folder of a random encoder made on the demo's texts."""
    try:
        starter_folder()
    except MissingExtra as error:
        records = read_records(table, text="text", pair=None, label="label", task="single")
        write_random_encoder(root / "encoder", examples_of(records), layers=4, width=256, vocabulary=8_000, seed=0)
        say(
            f"the starter encoder is not installed ({error.fix}): a small encoder with random weights, "
            "which knows no language yet, is trained instead; expect far lower figures"
        )
        return str(root / "encoder")
    return "starter"
