"""Faults put into made-up tables: a check names every planted row, of every kind, and nothing is wrong before."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import snapfit
import toys
from snapfit.checks.kinds import KINDS

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="a source distribution has no benchmarks")
QUIET: dict[str, Any] = {"plan": False, "encoder": None, "near_similarity": None}
SUFFIXES = ("csv", "tsv", "jsonl")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules in question, by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("planted", "check")})


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(toys.encoder_folder(tmp_path_factory.mktemp("encoder")))


def sound_tables() -> dict[str, list[Any]]:
    """Different texts of three labels, none of which a single word tells."""
    rows = {row["text"]: row for row in toys.single_rows(500) if len(row["text"]) > 24}
    chosen = list(rows.values())[:300]
    return {"train": chosen[:240], "valid": chosen[240:]}


def kinds() -> list[str]:
    """Those of PLANTS, which are read where there are benchmarks."""
    text = (BENCHMARKS / "planted.py").read_text("utf-8") if BENCHMARKS.exists() else ""
    return [kind for kind in KINDS if f'    "{kind}": ' in text]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_an_error_before(modules: SimpleNamespace, suffix: str, tmp_path: Path, encoder: str) -> None:
    paths, lines = modules.planted.write(tmp_path, sound_tables(), suffix)
    report = snapfit.check(paths["train"], valid=paths["valid"], plan=False, encoder=encoder)
    assert report.levels["error"] == 0
    assert len(lines["train"]) == report.tables["train"]["usable"] == 240


@pytest.mark.parametrize("kind", kinds())
def test_every_planted_row_is_named(modules: SimpleNamespace, kind: str, tmp_path: Path, encoder: str) -> None:
    suffix = SUFFIXES[sorted(KINDS).index(kind) % 3]
    if kind.startswith("near"):
        pytest.importorskip("rensa")
    one = modules.planted.plant(kind, sound_tables())
    paths, lines = modules.planted.write(tmp_path, one.tables, suffix)
    options = QUIET | one.options
    if options["encoder"] is True:
        options["encoder"] = encoder
    report = snapfit.check(paths["train"], valid=paths["valid"], **options)
    (found,) = (f for f in report.findings if (f.kind, f.split) == (kind, one.split))
    named = modules.check.named(found, one.split)
    assert {lines[one.split][row] for row in one.rows} <= named
    assert one.rows or kind in ("sorted_rows", "imbalance")


def test_the_plain_count_is_that_of_the_check(modules: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "mrpc"
    folder.mkdir()
    rows = ["a\tb\t1", "A \tb\t0", "c\td\t1", "c\td\t0", "e\tf\t1"]
    (folder / "train.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n", "utf-8")
    (folder / "test.tsv").write_text("sentence1\tsentence2\tlabel\nc\td\t1\ng\th\t0\n", "utf-8")
    counted = modules.check.counted({"train": folder / "train.tsv", "test": folder / "test.tsv"})
    assert counted["rows"] == {"duplicate_text train": [1, 3], "duplicate_text test": [], "leak test": [0]}
    assert counted["identical"] == {"duplicate_text train": 1, "duplicate_text test": 0, "leak test": 1}
    assert counted["conflicting_texts"] == 1
    assert modules.check.row_lines(folder / "train.tsv") == [2, 3, 4, 5, 6]


def test_edits_keep_texts_and_chains_are_seeded(modules: SimpleNamespace) -> None:
    import random

    texts = [list(modules.check.markov_texts(5, random.Random(3))) for _ in range(2)]
    assert texts[0] == texts[1]
    assert all(5 <= len(text.split()) <= 14 for text in texts[0])
    assert all(modules.check.edited("a b", random.Random(i)) for i in range(50))
