"""Bad files and bad options, each through the command line: one clear error, exit code 2, nothing left behind."""

import io
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

import bad_folders
import trained
from bad_explanations import EXPLANATIONS
from bad_folders import BUNDLES, ENCODERS, EVALUATIONS, PREDICTIONS, USAGE
from bad_runs import RUN_USAGE, RUNS
from bad_tables import GOOD, SETTINGS, TABLES, Case
from snapfit.cli.app import main

# ---------------------------------------------------------------- the test


@pytest.fixture(scope="module", autouse=True)
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Built once; see `trained.workplace`."""
    folder = trained.workplace(tmp_path_factory.mktemp("workplace"))
    bad_folders.WORKPLACE.append(folder)
    yield folder
    bad_folders.WORKPLACE.clear()


def _listing(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def _refused(
    case: Case, workplace: Path, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> str:
    """Set the case up, run it, and return its error after checking what holds for all."""
    for name, content in case.files.items():
        path = folder / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    if case.prepare is not None:
        case.prepare(folder)
    places = {
        "{encoder}": "encoder",
        "{bundle}": "single/bundle",
        "{run}": "single",
        "{pairs}": "pairs/bundle",
    }
    arguments = [str(workplace / places[part]) if part in places else part for part in case.arguments]
    patch.chdir(folder)
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(case.stdin)))
    before = _listing(folder)
    capture.readouterr()
    code = main(arguments)
    error = capture.readouterr().err
    assert code == 2, error
    assert error.startswith("error: ")
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert _listing(folder) == before
    for word in case.words:
        assert word.lower() in error.lower(), error
    return error


CASES = [*TABLES, *SETTINGS, *ENCODERS, *BUNDLES, *EVALUATIONS, *PREDICTIONS, *EXPLANATIONS, *RUNS]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_error(
    case: Case,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = _refused(case, workplace, tmp_path, monkeypatch, capsys)
    assert error.count("\n  expected: ") == 1
    assert error.count("\n  fix: ") == 1


@pytest.mark.parametrize("case", [*USAGE, *RUN_USAGE])
def test_bad_usage_is_one_line_and_where_to_look(
    case: Case,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = _refused(case, workplace, tmp_path, monkeypatch, capsys)
    assert len(error.splitlines()) == 2
    assert error.splitlines()[1].startswith("  fix: see snapfit")


def test_a_mark_at_the_beginning_is_no_mistake(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    (tmp_path / "g.csv").write_bytes(GOOD.replace("food", "食物").encode("gb18030"))
    quick = ["--encoder", str(workplace / "encoder"), "--epochs", "0.3", "--quiet"]
    assert main(["train", "t.csv", *quick]) == 0
    assert main(["train", "g.csv", *quick, "--encoding", "gb18030"]) == 0


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("SNAPFIT_TRAIN_EPOCHS", "-1", "train.epochs"),
        ("SNAPFIT_TRAIN_EPOCH", "1", "did you mean train.epochs"),
        ("SNAPFIT_SPEED", "1", "SNAPFIT_SPEED"),
    ],
)
def test_bad_environment_names_the_variable(
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    word: str,
) -> None:
    monkeypatch.setenv(name, value)
    bad = Case(["train", "t.csv", "--encoder", "{encoder}"], [word, name], {"t.csv": GOOD})
    _refused(bad, workplace, tmp_path, monkeypatch, capsys)
