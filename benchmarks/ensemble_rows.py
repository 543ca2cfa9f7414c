"""What the ensemble table says of its runs: means over seeds, and differences to the single run of the same seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble_worker import AS_IT_COMES, CHOSEN, SINGLE, VOTE
from harness import mean_and_spread
from paired import right_answers
from snapfit.core.significance import mcnemar

Record = dict[str, Any]


def row_of(record: Record, answer: str) -> Record | None:
    """One answer of a run."""
    return next((row for row in record["rows"] if row["name"] == answer), None)


def pairs_of(records: Sequence[Record], of_set: Sequence[Record], answer: str) -> list[tuple[Record, Record]]:
    """(an answer, the single run's of the same seed), for each run that has both; a vote's against each single one."""
    singles = {record["seed"]: row_of(record, SINGLE) for record in of_set if record["kind"] == "plain"}
    found = []
    for record in records:
        row = row_of(record, answer)
        against = list(singles.values()) if record["seed"] == 0 else [singles.get(record["seed"])]
        found += [(row, single) for single in against if row is not None and single is not None]
    return found


def of_cell(records: Sequence[Record], of_set: Sequence[Record], answer: str) -> list[str]:
    """A row's cells behind data, training and answer."""
    rows = [row for record in records if (row := row_of(record, answer)) is not None]
    scale = 100
    metric, spread = mean_and_spread(scale * row["test"]["metric"] for row in rows)
    nll, nll_spread = mean_and_spread(row["test"]["error"] for row in rows)
    off, _ = mean_and_spread(row["test"]["calibration"] for row in rows)
    several = len(rows) > 1
    costs = sorted({row["cost"] for row in rows})
    cost = f"{costs[0]:g}x" if len(costs) == 1 else f"{costs[0]:g} to {costs[-1]:g}x"
    shown = [cost, f"{metric:.2f}" + (f" ± {spread:.2f}" if several else "")]
    shown += [f"{nll:.4f}" + (f" ± {nll_spread:.4f}" if several else ""), f"{off:.4f}"]
    pairs = pairs_of(records, of_set, answer)
    if not pairs or (answer == SINGLE and records[0]["kind"] == "plain"):
        return [*shown, "", "", "", str(len(rows))]
    points = scale * float(np.mean([row["test"]["metric"] - single["test"]["metric"] for row, single in pairs]))
    ratio = float(np.mean([row["test"]["error"] / single["test"]["error"] for row, single in pairs]))
    return [*shown, f"{points:+.2f}", f"{ratio:.3f}", _chance(pairs, records[0]["n_test"]), str(len(rows))]


def _chance(pairs: Sequence[tuple[Record, Record]], n: int) -> str:
    this, other = (right_answers([pair[i]["wrong"] for pair in pairs], n) for i in (0, 1))
    p = mcnemar(int((this & ~other).sum()), int((other & ~this).sum()))
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def spread_of(records: Sequence[Record], name: str, kind: str) -> dict[str, float] | None:
    """What the limits are held against, of one set and kind: `ratio` of the chosen answer's nll to the single run's,
    `points` by which its metric is better, and the share of the gap that a single model `closed`.

    The single model is the one of cost 1 that was made of several and has the least nll on the development split; the
    gap is that between the single run and the mean of several models with the least test nll.
    """
    of_set = [record for record in records if record["set"] == name]
    runs = [record for record in of_set if record["kind"] == kind]
    pairs = pairs_of(runs, of_set, CHOSEN)
    if not pairs:
        return None
    ratio = float(np.mean([row["test"]["error"] / single["test"]["error"] for row, single in pairs]))
    points = 100 * float(np.mean([row["test"]["metric"] - single["test"]["metric"] for row, single in pairs]))
    single = float(np.mean([one["test"]["error"] for _, one in pairs]))
    made = [
        [row for row in record["rows"] if row["name"] not in (AS_IT_COMES, SINGLE, CHOSEN, VOTE)] for record in runs
    ]
    alone = [min((row for row in rows if row["cost"] == 1), key=_dev, default=None) for rows in made]
    means = {row["name"] for rows in made for row in rows if row["cost"] > 1}
    best = min((_mean_error(made, mean) for mean in means), default=single)
    one = float(np.mean([row["test"]["error"] if row is not None else single for row in alone]))
    closed = (single - one) / (single - best) if single > best else 0.0
    return {"ratio": ratio, "points": points, "closed": closed}


def _dev(row: Record) -> float:
    return float(row["valid"]["error"])


def _mean_error(made: Sequence[Sequence[Record]], answer: str) -> float:
    return float(np.mean([row["test"]["error"] for rows in made for row in rows if row["name"] == answer]))
