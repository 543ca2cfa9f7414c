"""The table `ensemble`: single weights, averages, soups, snapshots, votes and a student, at equal total steps.

Each kind of training is one process; everything that can be made of what it leaves is taken from it. Candidates, their
temperatures and the choice come from the development split; the test split is scored once with each set of weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ensemble_rows import of_cell, spread_of
from ensemble_worker import in_a_process, logits_file
from regime_table import OfDataSets, Place, Record, Run
from subsets import BANKING, BANKING_QUICK, CLINC_HALF, EMOTION, GOEMOTIONS_10K, DataSet, Files

SEEDS = (1, 2, 3)
VOTERS = (1, 2, 3, 4)
STUDENT_EPOCHS = 1.0
ABOUT = f"""Every kind of training takes the same number of optimizer steps: `plain` is the default recipe, which keeps
its best evaluations, an exponential average (time constant a tenth of the run) and the mean over the last fifth;
`equal cycles` are four cosine cycles with full restarts (Huang et al. 2017); `sequence` and `star` are an anchor and
three short rounds, begun from where the last one ended, or all from the anchor; `student` is a plain run that is
{STUDENT_EPOCHS:g} epoch shorter and a student of its weights for that epoch, for which its members also score the
training texts once. The vote is the mean of four plain runs, at four times the steps.

All scores have a temperature that was fitted on the development split, the single weights' too; `as it comes` is the
single run without one. `chosen` is what the rule of the verdict takes. Less than the single run
is better for the nll. Differences are to the single run of the same seed; McNemar's test is on the answers that only
one of the two has right."""


@dataclass(frozen=True)
class Kind:
    """A kind of training. settings: beyond the default recipe. student: whether its last epoch is a student's."""

    name: str
    settings: Record = field(default_factory=dict)
    student: bool = False


_FREE = {"ensemble.members": 6, "ensemble.ema_share": 0.1, "ensemble.tail_share": 0.2}
_ROUNDS = {"ensemble.members": 6, "ensemble.rounds": 3}
KINDS = (
    Kind("plain", _FREE),
    Kind("student", {"ensemble.members": 6}, student=True),
    Kind("star", {**_ROUNDS, "ensemble.restart": "anchor"}),
    Kind("sequence", {**_ROUNDS, "ensemble.restart": "last"}),
    Kind("equal cycles", {"ensemble.members": 4, "schedule.shape": "cosine_restarts", "schedule.cycles": 4}),
)
_ONE_SEED = ("emotion", "goemotions-10000")
SETS = (
    replace(BANKING, name="banking77", epochs=5),
    replace(CLINC_HALF, epochs=5),
    EMOTION,
    GOEMOTIONS_10K,
)


class EnsembleTable(OfDataSets):
    """See `regime_table.Table`."""

    name = "ensemble"
    title = "Ensembles, soups and students at equal steps"
    about = ABOUT
    header = [
        *("data", "training", "answer", "cost", "test metric", "test nll", "calibration error"),
        *("metric less single, points", "nll to single", "McNemar p", "seeds"),
    ]

    def runs(self, *, quick: bool, seeds: Sequence[int] | None) -> list[Run]:
        """Seed after seed, kind after kind; the vote, which needs a seed more, last."""
        sets = (replace(BANKING_QUICK, epochs=4),) if quick else SETS
        listed = []
        for seed in seeds or SEEDS[: 1 if quick else None]:
            few = seeds is None and seed != SEEDS[0]
            asked = [one for one in sets if not (few and one.name in _ONE_SEED)]
            for kind in KINDS:
                named = {"kind": kind, "seed": seed}
                listed += [Run(f"{one.name} {kind.name} {seed}", {"set": one, **named}) for one in asked]
        voters = VOTERS[: 2 if quick else None]
        listed += [Run(f"{one.name} vote of {len(voters)}", {"set": one, "voters": voters}) for one in sets]
        return listed

    def run(self, run: Run, place: Place) -> Record:
        """One training and all that comes of it, or a vote of several."""
        one: DataSet = run.asked["set"]
        files = self._files[one.name]
        about = {"set": one.name, "split": files.about}
        if "voters" in run.asked:
            parts = []
            for seed in run.asked["voters"]:
                asked = self._asked(one, KINDS[0], seed, files)
                if not Path(asked["keep"]).exists():
                    in_a_process(asked, place.work)
                parts.append(asked["keep"])
            answer = in_a_process({"vote": parts}, place.work)
            return {**about, "kind": f"vote of {len(parts)}", "seed": 0, **answer}
        kind, seed = run.asked["kind"], run.asked["seed"]
        return {
            **about,
            "kind": kind.name,
            "seed": seed,
            **in_a_process(self._asked(one, kind, seed, files), place.work),
        }

    def _asked(self, one: DataSet, kind: Kind, seed: int, files: Files) -> Record:
        settings: Record = {"train.patience": None, "train.seed": seed, "train.threads": 1, **kind.settings}
        epochs = float(one.epochs or 0)
        if kind.student:
            settings |= {"ensemble.student_epochs": STUDENT_EPOCHS}
            epochs -= STUDENT_EPOCHS
        settings["train.epochs"] = epochs
        tables = {"train": str(files.train), "valid": str(files.valid), "test": str(files.test)}
        return {**tables, "settings": settings, "keep": str(logits_file(one.name, files.rows, settings))}

    def line(self, record: Record) -> str:
        """What came of a run."""
        chosen = next(row for row in record["rows"] if row["name"] == "chosen")
        test = chosen["test"]
        return f"{chosen['is']}: {record['metric']} {test['metric']:.4f}, nll {test['error']:.4f}"

    def rows(self, records: Sequence[Record]) -> list[list[str]]:
        """Data set by data set, kind by kind, answer by answer."""
        rows = []
        for name in dict.fromkeys(record["set"] for record in records):
            of_set = [record for record in records if record["set"] == name]
            for kind in dict.fromkeys(record["kind"] for record in of_set):
                found = [record for record in of_set if record["kind"] == kind]
                for answer in dict.fromkeys(row["name"] for record in found for row in record["rows"]):
                    rows.append([name, kind, answer, *of_cell(found, of_set, answer)])
        return rows

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """For each kind of training: on how many sets what it chose has at most 0.9 times the single run's nll, the
        largest ratio, the largest loss of the metric in points, and on how many sets an answer of cost 1 closes half of
        the gap between the single run's nll and the best answer's.
        """
        found: dict[str, float] = {}
        for kind in (one.name for one in KINDS):
            of_kind = [spread_of(records, name, kind) for name in dict.fromkeys(r["set"] for r in records)]
            of_kind = [one for one in of_kind if one is not None]
            if not of_kind:
                continue
            found[f"{kind} sets"] = len(of_kind)
            found[f"{kind} sets with a tenth less nll"] = sum(one["ratio"] <= 0.9 for one in of_kind)
            found[f"{kind} largest nll ratio"] = max(one["ratio"] for one in of_kind)
            found[f"{kind} largest loss in points"] = max(-one["points"] for one in of_kind)
            found[f"{kind} sets with half the gap closed"] = sum(one["closed"] >= 0.5 for one in of_kind)
        return found

    def notes(self, records: Sequence[Record]) -> list[str]:
        """Splits, steps, and what was chosen how often."""
        if not records:
            return []
        lines = list(dict.fromkeys(record["split"] for record in records))
        for name in dict.fromkeys(record["set"] for record in records):
            trained = [r for r in records if r["set"] == name and "steps" in r]
            steps = sorted({r["steps"] for r in trained})
            lines.append(f"{name}: {', '.join(f'{one:,}' for one in steps)} steps a run")
        chosen: dict[str, int] = {}
        for record in records:
            for row in record["rows"]:
                if row["name"] == "chosen" and row.get("is"):
                    chosen[row["is"]] = chosen.get(row["is"], 0) + 1
        told = ", ".join(f"{name} {n} times" for name, n in sorted(chosen.items(), key=lambda one: -one[1]))
        return [*lines, f"chosen by the rule: {told}"]


TABLE = EnsembleTable(SETS)
