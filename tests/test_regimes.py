"""The benchmarks' own arithmetic: rows that are drawn, rates that match, tests on pairs, and what tables make of runs.

Numbers are held against scipy, a closed form, or the parameter groups of a tiny encoder.
"""

import argparse
import importlib
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import tiny
import toys
from snapfit.core.recipe import Recipe
from snapfit.nn.classifier import Classifier
from snapfit.nn.families import depth_reader
from snapfit.training.param_groups import plan_groups

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="a source distribution has no benchmarks")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules in question, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    names = "harness paired subsets regime_table regime_training regime_schedules regime_rates regime_peer"
    names += " ensemble_worker ensemble_rows regime_ensemble regimes"
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names.split()})


# ---------------------------------------------------------------- rows that are drawn

LABELS = [f"c{i % 7 if i % 3 else 0}" for i in range(700)]


def test_so_many_rows_of_each_class(modules: SimpleNamespace) -> None:
    rows = modules.subsets.draw_per_class(LABELS, 10, seed=3)
    assert Counter(LABELS[i] for i in rows) == dict.fromkeys(set(LABELS), 10)
    assert np.all(np.diff(rows) > 0)
    assert np.array_equal(rows, modules.subsets.draw_per_class(LABELS, 10, seed=3))
    assert not np.array_equal(rows, modules.subsets.draw_per_class(LABELS, 10, seed=4))
    with pytest.raises(ValueError, match="are wanted"):
        modules.subsets.draw_per_class([*LABELS, "rare"], 2, seed=3)


@pytest.mark.parametrize("count", [1, 50, 137, 699, 700])
def test_a_stratified_draw_has_every_class_to_one_row(modules: SimpleNamespace, count: int) -> None:
    rows = modules.subsets.draw_stratified(LABELS, count, seed=0)
    assert len(np.unique(rows)) == len(rows) == count
    found, whole = Counter(LABELS[i] for i in rows), Counter(LABELS)
    assert all(abs(found[label] - whole[label] * count / len(LABELS)) < 1 for label in whole)


def test_a_stratified_draw_refuses_more_rows_than_there_are(modules: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="701 rows of 700"):
        modules.subsets.draw_stratified(LABELS, 701, seed=0)


def test_development_rows_are_not_trained_on(modules: SimpleNamespace) -> None:
    place = {"name": "toy", "folder": "", "train": "", "test": ""}
    few = modules.subsets.DataSet(**place, a_class=10, dev_a_class=5)
    carved = modules.subsets.DataSet(**place, rows=400)
    own = modules.subsets.DataSet(**place, rows=400, valid="dev.tsv")
    for data_set, n_train, n_dev in ((few, 70, 35), (carved, 360, 40), (own, 400, 0)):
        train, dev = data_set.drawn(LABELS)
        assert (len(train), len(dev)) == (n_train, n_dev)
        assert not set(train) & set(dev)
    assert np.array_equal(np.union1d(*carved.drawn(LABELS)), own.drawn(LABELS)[0])


def test_the_files_of_a_set_hold_the_rows_drawn(modules: SimpleNamespace, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "data" / "toy").mkdir(parents=True)
    for name, rows in (("train", 60), ("test", 9)):
        lines = [f"{name} {i}\t{'ab'[i % 2]}" for i in range(rows)]
        (tmp_path / "data" / "toy" / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", "utf-8")
    toy = modules.subsets.DataSet("toy", "toy", "train.tsv", "test.tsv", a_class=5, dev_a_class=3)
    files = modules.subsets.write(toy, tmp_path / "data", tmp_path / "work")
    train, dev = toy.drawn(["ab"[i % 2] for i in range(60)])
    assert pq.read_table(files.train)["text"].to_pylist() == [f"train {i}" for i in train]
    assert pq.read_table(files.valid)["text"].to_pylist() == [f"train {i}" for i in dev]
    assert files.test == tmp_path / "data" / "toy" / "test.tsv"
    assert "10 of 60 rows to train on, 6 development rows (carved out of train), 9 test rows" in files.about
    assert files == modules.subsets.write(toy, tmp_path / "data", tmp_path / "work")


# ---------------------------------------------------------------- tests on pairs


def test_the_bootstrap_draws_rows(modules: SimpleNamespace) -> None:
    values = np.random.default_rng(0).choice([-100 / 3, 0.0, 0.0, 0.0, 100 / 3], size=2_000)
    low, high = modules.paired.bootstrap_interval(values, resamples=20_000, seed=1)
    error = 1.959964 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.04)
    means = [np.random.default_rng(i).choice(values, len(values)).mean() for i in range(2_000)]
    assert (low, high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.12)
    assert modules.paired.bootstrap_interval(values, seed=5) == modules.paired.bootstrap_interval(values, seed=5)
    assert modules.paired.bootstrap_interval(np.zeros(10)) == (0.0, 0.0)


def test_a_comparison_counts_pairs(modules: SimpleNamespace) -> None:
    this = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    other = np.array([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
    found = modules.paired.compare(this, other)
    assert (found.this_only, found.other_only, found.points) == (3, 1, 25.0)
    assert found.low <= found.points <= found.high
    assert found.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    swapped = modules.paired.compare(other, this)
    assert (swapped.points, swapped.this_only, swapped.p) == (-25.0, 1, found.p)
    with pytest.raises(ValueError, match="shapes"):
        modules.paired.compare(this, other[:1])


def test_wrong_rows_come_back(modules: SimpleNamespace) -> None:
    for wrong in ([], [0], [2, 3, 9]):
        marked = np.isin(np.arange(10), wrong)
        text = modules.paired.rows_as_text(marked)
        assert text == " ".join(map(str, wrong))
        assert np.array_equal(modules.paired.rows_from_text(text, 10), marked)


# ---------------------------------------------------------------- rates that match


def group_rates(model: Classifier, *, lr: float, layer_ratio: float) -> dict[str, float]:
    """The encoder's rates by depth, as the parameter groups have them."""
    depth = depth_reader(model.config, model.encoder_prefix)
    plan = plan_groups(model, depth, lr=lr, head_lr_factor=1.0, layer_ratio=layer_ratio, weight_decay=0.0)
    return {group.name: group.lr for group in plan.groups if not group.head}


@pytest.mark.parametrize("ratio", [1.0, 0.57, 0.25, 0.09])
def test_matched_rates_have_one_geometric_mean(modules: SimpleNamespace, ratio: float) -> None:
    model = tiny.classifier("bert")
    reference = group_rates(model, lr=2e-4, layer_ratio=0.5)
    layers = len(reference) - 1
    top = modules.regime_rates.matched_rate(ratio, rate=2e-4, at_ratio=0.5, layers=layers)
    matched = group_rates(model, lr=top, layer_ratio=ratio)
    assert set(matched) == set(reference)
    means = [math.exp(np.mean(np.log(list(rates.values())))) for rates in (reference, matched)]
    assert means[1] == pytest.approx(means[0], rel=1e-12)
    assert modules.regime_rates.mean_rate(top, ratio, layers) == pytest.approx(means[0], rel=1e-12)


def test_of_one_layer_all_rates_are_the_top_one(modules: SimpleNamespace) -> None:
    assert modules.regime_rates.matched_rate(0.1, rate=2e-4, at_ratio=0.5, layers=1) == 2e-4


# ---------------------------------------------------------------- tables


def record(name: str, cell: str, seed: int, wrong: list[int]) -> dict[str, Any]:
    """What a training would have left, of ten test rows."""
    share = 1 - len(wrong) / 10
    recipe = {"optim.lr": 2e-4, "optim.layer_ratio": 0.5, "optim.head_lr_factor": 20.0}
    recipe |= {"train.precision": "fp32", "model.pooling": "mean"}
    where = {"set": name, "cell": cell, "seed": seed, "rows": "0", "split": f"{name}: ten rows"}
    scored = {"accuracy": share, "nll": 1 - share, "dev_accuracy": share, "dev_nll": 0.0, "bundle_accuracy": share}
    answers = {"wrong": " ".join(map(str, wrong)), "n_test": 10}
    return {**where, **scored, **answers, "steps": 7, "best_step": 7, "recipe": recipe, "layers": 6}


def test_a_table_holds_every_cell_against_the_default(modules: SimpleNamespace) -> None:
    table = modules.regime_schedules.TABLE
    names = list(modules.regime_schedules.SHAPES)
    wrong = {"linear": [0, 1], "wsd": [0]}
    records = [record("toy", name, seed, wrong.get(name, [0, 2, 3])) for seed in (1, 2) for name in names]
    rows = {row[1]: row for row in table.rows(records)}
    assert all(len(row) == len(table.header) for row in rows.values())
    assert rows["wsd"][3] == "**90.00** ± 0.00"
    assert rows["linear (default)"][5:9] == [""] * 4
    assert rows["wsd"][5] == "+10.00"
    assert rows["wsd"][7:] == ["2 : 0", "0.500", "2", "7"]
    assert rows["cosine"][7] == "2 : 4"
    figures = table.figures(records)
    assert figures == pytest.approx({"toy default below best": 10.0, "toy seeds": 2, "toy steps apart": 0})
    assert table.figures(records[:-1])["toy seeds"] == 1
    assert table.figures([one for one in records if one["cell"] != "cosine"]) == {}
    assert table.rows([]) == []


def test_the_default_of_the_recipe_is_marked(modules: SimpleNamespace) -> None:
    defaults = [cell for cell in modules.regime_schedules.cells() if cell.default]
    assert [cell.settings["schedule.shape"] for cell in defaults] == [Recipe().schedule.shape]
    for cell in (*modules.regime_schedules.cells(), *modules.regime_rates.cells()):
        Recipe().with_values(cell.settings)
    good = record("toy", "recipe", 1, [])
    modules.regime_rates.check_default(good)
    with pytest.raises(RuntimeError, match="default recipe has rate"):
        modules.regime_rates.check_default({**good, "layers": 12})


def test_keys_of_runs_are_one_each_and_quick_ones_others(modules: SimpleNamespace) -> None:
    for table in modules.regimes.TABLES.values():
        full = [run.key for run in table.runs(quick=False, seeds=None)]
        quick = [run.key for run in table.runs(quick=True, seeds=None)]
        assert len(set(full)) == len(full) > len(quick) > 0
        assert not set(full) & set(quick)
        some = [run.key for run in table.runs(quick=False, seeds=[1])]
        assert set(some) < set(full)


def test_the_peer_table_pairs_seeds(modules: SimpleNamespace) -> None:
    peer = modules.regime_peer
    records = []
    for seed, theirs in ((1, 0.7), (2, 0.8)):
        mine = {"accuracy": theirs + 0.01 * seed, "nll": 1.0}
        parts = {part: mine for system, part in peer.PARTS if system == peer.OURS}
        records.append({"system": peer.OURS, "seed": seed, "measured": parts})
        records.append({"system": peer.PEER, "seed": seed, "measured": {peer.ALL: {"accuracy": theirs, "nll": 1.5}}})
    figures = peer.TABLE.figures(records)
    assert figures == pytest.approx({"accuracy less torchensemble": 1.5, "nll less": -0.5, "seeds": 2})
    rows = peer.TABLE.rows(records)
    assert rows[1][4:] == ["+1.50 ± 0.50", "-0.5000 ± 0.0000", "2"]
    assert peer.TABLE.figures(records[:1]) == {}


def test_the_toy_cycles_end_where_the_snapshots_are_due(modules: SimpleNamespace) -> None:
    peer = modules.regime_peer
    inputs, targets = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 4)
    rows = torch.utils.data.TensorDataset(inputs, targets)
    found = peer.snapshots(model, torch.utils.data.DataLoader(rows, batch_size=10), 6, 3, inputs)
    assert [one.shape for one in found] == [(40, 4)] * 3
    with torch.no_grad():
        assert np.array_equal(found[-1], model(inputs).double().numpy())
    assert not np.array_equal(found[0], found[1])


# ---------------------------------------------------------------- runs, one after another and continued


class Squares:
    """A table of three runs, of which one fails unless it is mended."""

    name = title = about = "squares"
    header = ["n", "square"]
    mended = False

    def runs(self, *, quick: bool, seeds: Any) -> list[Any]:
        return [SimpleNamespace(key=str(n), asked={"n": n}) for n in (1, 2, 3)]

    def absent(self, place: Any) -> str | None:
        return None if place.data.exists() else "numbers are absent"

    def prepare(self, runs: Any, place: Any) -> list[str]:
        return [f"to do: {[run.key for run in runs]}"]

    def run(self, run: Any, place: Any) -> dict[str, Any]:
        if run.asked["n"] == 2 and not self.mended:
            raise RuntimeError("two is odd")
        return {"n": run.asked["n"], "square": run.asked["n"] ** 2}

    def line(self, record: Any) -> str:
        return f"square {record['square']}"

    def rows(self, records: Any) -> list[list[str]]:
        return [[str(one["n"]), str(one["square"])] for one in records]

    def figures(self, records: Any) -> dict[str, float]:
        return {}

    def notes(self, records: Any) -> list[str]:
        return ["whole numbers"]


def test_a_run_that_failed_is_done_again_and_no_other(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    regimes, squares, path = modules.regimes, Squares(), tmp_path / "results.json"
    monkeypatch.setitem(regimes.TABLES, "squares", squares)
    arguments = argparse.Namespace(quick=False, seeds=None, jobs=2)

    def measure(data: Path) -> list[str]:
        place = modules.regime_table.Place(data, tmp_path)
        return regimes.measure("squares", modules.harness.Results(path), place, arguments)

    assert measure(tmp_path / "nowhere") == []
    assert "squares: not measured: numbers are absent" in capsys.readouterr().out
    assert measure(tmp_path) == ["squares: 2: two is odd"]
    assert sorted(json.loads(path.read_text("utf-8"))["runs"]) == ["squares: 1", "squares: 3"]
    squares.mended = True
    capsys.readouterr()
    assert measure(tmp_path) == []
    assert "to do: ['2']" in capsys.readouterr().out
    page = "\n".join(regimes.page(modules.harness.Results(path)))
    assert "## squares" in page
    assert "| 2 | 4      |" in page
    assert "- whole numbers\n- load of the machine" in page
    assert regimes.page(modules.harness.Results(None)) == []


@pytest.mark.slow
def test_a_training_in_a_process_of_its_own(modules: SimpleNamespace, tmp_path: Path) -> None:
    """What it says of the test split is what the rows that it names say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = {}
    for seed, (name, n) in enumerate({"train": 60, "valid": 20, "test": 30}.items()):
        tables[name] = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(toys.single_rows(n, seed=seed)), tables[name])
    files = modules.subsets.Files(**tables, rows="0", about="toys")
    settings = {"model.encoder": str(toys.encoder_folder(tmp_path / "encoder")), "train.epochs": 1}
    found = modules.regime_training.train_alone(files, settings, 1, tmp_path)
    assert found["n_test"] == 30
    assert found["bundle_accuracy"] == pytest.approx(1 - len(found["wrong"].split()) / 30)
    assert found["accuracy"] == pytest.approx(found["bundle_accuracy"])
    assert (found["layers"], found["recipe"]["train.epochs"]) == (3, 1.0)
    with pytest.raises(RuntimeError, match=r"there is no setting 'train\.epoch'"):
        modules.regime_training.train_alone(files, {"train.epoch": 1}, 1, tmp_path)


# ---------------------------------------------------------------- what is made of one run


def answer(name: str, metric: float, error: float, *, cost: float = 1.0, dev: float | None = None, **more: Any) -> Any:
    measured = {"metric": metric, "error": error, "calibration": 0.01}
    valid = {**measured, "error": error if dev is None else dev}
    return {"name": name, "cost": cost, "valid": valid, "test": measured, "wrong": "0 1", **more}


def ensemble_runs() -> list[dict[str, Any]]:
    """Two seeds: a plain run whose student and soup close three quarters of the gap to the mean's nll, and a vote."""
    runs = []
    for seed in (1, 2):
        shift = 0.01 * seed
        rows = [
            answer("as it comes", 0.90, 0.60),
            answer("single", 0.90 + shift, 0.40),
            answer("uniform soup", 0.91, 0.33, dev=0.30),
            answer("greedy soup", 0.91, 0.20, dev=0.35),
            answer("mean of all", 0.92, 0.30, cost=4.0),
            answer("chosen", 0.92 + shift, 0.36, **{"is": "uniform soup"}),
        ]
        runs.append({"set": "toy", "kind": "plain", "seed": seed, "rows": rows, "n_test": 10, "metric": "accuracy"})
    vote = [answer("vote", 0.93, 0.20, cost=4.0), answer("chosen", 0.93, 0.20, cost=4.0, **{"is": ""})]
    runs.append({"set": "toy", "kind": "vote of 2", "seed": 0, "rows": vote, "n_test": 10, "metric": "accuracy"})
    return runs


def test_an_answer_is_held_against_the_single_run_of_its_seed(modules: SimpleNamespace) -> None:
    runs = ensemble_runs()
    cells = modules.ensemble_rows.of_cell(runs[:2], runs, "chosen")
    assert cells[0] == "1x"
    assert cells[1].startswith("93.50")
    assert cells[4:] == ["+2.00", "0.900", "1.000", "2"]
    vote = modules.ensemble_rows.of_cell(runs[2:], runs, "vote")
    assert vote[4:6] == ["+1.50", "0.500"]
    assert modules.ensemble_rows.of_cell(runs[:2], runs, "single")[4:7] == ["", "", ""]


def test_what_the_limits_are_held_against(modules: SimpleNamespace) -> None:
    found = modules.ensemble_rows.spread_of(ensemble_runs(), "toy", "plain")
    assert found["ratio"] == pytest.approx(0.9)
    assert found["points"] == pytest.approx(2.0)
    assert found["closed"] == pytest.approx(0.7)  # (0.40 - 0.33) / (0.40 - 0.30): the soup that the dev split prefers
    assert modules.ensemble_rows.spread_of(ensemble_runs(), "toy", "star") is None
    figures = modules.regime_ensemble.TABLE.figures(ensemble_runs())
    assert figures["plain sets with a tenth less nll"] == 1
    assert figures["plain largest loss in points"] == pytest.approx(-2.0)


def test_the_ensemble_table_lists_every_run_once_and_tells_of_all(modules: SimpleNamespace) -> None:
    table = modules.regime_ensemble.TABLE
    keys = [run.key for run in table.runs(quick=False, seeds=None)]
    assert len(keys) == len(set(keys)) == 5 * (3 + 3 + 1 + 1) + 4
    rows = table.rows(ensemble_runs())
    assert [row[2] for row in rows[:2]] == ["as it comes", "single"]
    assert all(len(row) == len(table.header) for row in rows)
    told = [{**run, "split": "toy: 10 rows", "steps": 8} for run in ensemble_runs()]
    assert "chosen by the rule: uniform soup 2 times" in table.notes(told)


def test_a_student_takes_its_epoch_from_the_run(modules: SimpleNamespace) -> None:
    table, place = modules.regime_ensemble.TABLE, modules.subsets.Files(*map(Path, "abc"), "rows", "about")
    plain, student = (
        next(kind for kind in modules.regime_ensemble.KINDS if kind.name == name) for name in ("plain", "student")
    )
    one = modules.regime_ensemble.SETS[0]
    asked = [table._asked(one, kind, 3, place)["settings"] for kind in (plain, student)]
    assert asked[0]["train.epochs"] == asked[1]["train.epochs"] + asked[1]["ensemble.student_epochs"]
    for settings in asked:
        Recipe().with_values(settings)
