"""Decisions on the same texts by every path: how many differ. One process for `decisions.py`; prints a JSON line.

    python benchmarks/decision_paths.py '{"bundle": "...", "table": "...", "rows": 10000, "work": "...", "name": "..."}'

The paths: `predict` of all texts at once, which the others are compared with; in another order; one text at a time (of
a tenth of them); `predict_stream`; what `evaluate` counts; and the command `snapfit predict` on a table in parts.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import snapfit
from snapfit.cli.app import main as snapfit_command
from snapfit.data.formats import read_table
from snapfit.data.records import read_records
from snapfit.runtime import parts
from snapfit.runtime.evaluating import evaluate_bundle
from snapfit.runtime.predictor import Predictor

ALONE = 10
"""One text in so many is answered by itself."""


def compared(asked: dict[str, Any]) -> dict[str, Any]:
    """Differences by path."""
    column = read_table(Path(asked["table"]))["text"]
    texts = column.slice(0, asked["rows"]).to_pylist()
    predictor = snapfit.load(asked["bundle"], device="cpu")
    wanted = predictor.predict(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = predictor.predict([texts[i] for i in order])
    found: dict[str, list[tuple[Any, Any]]] = {
        "another order": [(wanted[i], one) for i, one in zip(order, shuffled, strict=True)],
        "one at a time": [(wanted[i], predictor.predict(texts[i])) for i in range(0, len(texts), ALONE)],
        "predict_stream": [
            (a, b.label) for a, b in zip(wanted, predictor.predict_stream(texts, chunk=100), strict=True)
        ],
        "evaluate": list(zip(wanted, _by_evaluation(predictor, texts, wanted), strict=True)),
    }
    found["snapfit predict"] = list(zip(wanted, _by_command(asked, texts), strict=True))
    given = [one for one in wanted if one not in (None, [])]
    return {
        "rows": len(texts),
        "answered": len(given),
        "differences": {path: sum(a != b for a, b in pairs) for path, pairs in found.items()},
        "compared": {path: len(pairs) for path, pairs in found.items()},
    }


def _by_evaluation(predictor: Predictor, texts: list[str], wanted: list[Any]) -> list[Any]:
    """What an evaluation counts, of rows whose labels are the answers, or any where there is none."""
    labels = [predictor.names[0] if one is None else one for one in wanted]
    table = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    found: list[Any] = []
    evaluate_bundle(
        predictor,
        read_records(table, text="text", label="label", task=predictor.task),
        on_piece=lambda piece: found.extend(piece.outcomes.answers.decisions(predictor.names)),
    )
    return found


def _by_command(asked: dict[str, Any], texts: list[str]) -> list[Any]:
    """What the command writes, of a table that is read part by part."""
    table = Path(asked["work"]) / f"{asked['name']}-texts.jsonl"
    out = Path(asked["work"]) / f"{asked['name']}-answers.parquet"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    parts.WHOLE_BYTES, parts.PART_ROWS = 0, 1_000
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        code = snapfit_command(["predict", asked["bundle"], str(table), "--out", str(out)])
    finally:
        sys.stdout = stdout
    assert code == 0
    answers: pa.ChunkedArray = pq.read_table(out)["predicted"]
    return list(answers.to_pylist())


if __name__ == "__main__":
    print(json.dumps(compared(json.loads(sys.argv[1]))))
