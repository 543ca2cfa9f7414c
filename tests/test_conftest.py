"""The leak police of conftest.py: it passes clean tests, names what leaks, and keeps the next test clean."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = """
import os, random
import numpy as np
import pytest

def test_environment(): os.environ["LEAK"] = "1"
def test_removed_variable(): del os.environ["HF_HUB_OFFLINE"]
def test_working_folder(tmp_path): os.chdir(tmp_path)
def test_dtype():
    import torch
    torch.set_default_dtype(torch.float64)
def test_threads():
    import torch
    torch.set_num_threads(torch.get_num_threads() + 1)
def test_deterministic():
    import torch
    torch.use_deterministic_algorithms(True)
"""

CLEAN = """
import os, random
import numpy as np
import pytest

def test_monkeypatch(monkeypatch, tmp_path):
    monkeypatch.setenv("LEAK", "1")
    monkeypatch.chdir(tmp_path)
@pytest.mark.parametrize("turn", [1, 2])
def test_seeded(turn):
    import torch
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    test_seeded.first = getattr(test_seeded, "first", drawn)
    assert drawn == test_seeded.first
def test_nothing_is_left():
    import torch
    assert "LEAK" not in os.environ
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
def test_settings_of_the_caller_are_gone():
    assert [name for name in os.environ if name.startswith("SNAPFIT_")] == ["SNAPFIT_CACHE"]
def test_real_data(real_data): pass
"""


def run_inner(folder: Path, tests: str) -> str:
    """What pytest says of these tests under a copy of the conftest."""
    (folder / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text("utf-8"), "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = real_data\n", "utf-8")
    (folder / "test_inner.py").write_text(tests, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environment |= {"SNAPFIT_TRAIN_EPOCHS": "3", "SNAPFIT_REAL_DATA": str(folder / "nowhere")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rA", "test_inner.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run_inner(tmp_path_factory.mktemp("inner"), LEAKS + CLEAN)


@pytest.mark.parametrize(
    ("test", "named"),
    [
        ("environment", "environment: LEAK (None -> '1')"),
        ("removed_variable", "environment: HF_HUB_OFFLINE ('1' -> None)"),
        ("working_folder", "working folder:"),
        ("dtype", "torch default dtype: 'torch.float32' -> 'torch.float64'"),
        ("threads", "torch threads:"),
        ("deterministic", "torch deterministic algorithms: False -> True"),
    ],
)
def test_a_leak_is_named(report: str, test: str, named: str) -> None:
    (line,) = (line for line in report.splitlines() if line.startswith(f"ERROR test_inner.py::test_{test} "))
    assert named in line or f"the test left changed {named}" in report


def test_clean_tests_pass_and_meet_nothing_of_the_leaks(report: str) -> None:
    for test in (
        "monkeypatch",
        "seeded[1]",
        "seeded[2]",
        "nothing_is_left",
        "settings_of_the_caller_are_gone",
    ):
        assert f"PASSED test_inner.py::test_{test}\n" in report
    assert "6 errors" in report
    assert "failed" not in report.splitlines()[-1]


def test_absent_real_data_says_where_it_looked(report: str) -> None:
    assert "the real data sets are not at" in report
    assert "SNAPFIT_REAL_DATA" in report
