"""The shell around the commands: help without heavy imports, exit codes, and streams that go away."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from snapfit.cli.app import main
from snapfit.version import __version__

COMMANDS = ("train", "find-lr", "evaluate", "predict", "explain", "inspect", "demo")
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path, workplace: Path) -> Start:
    """start(*arguments) -> a snapfit process, in a fresh folder."""

    def start(*arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
        paths = os.pathsep.join(path for path in sys.path if path)
        return subprocess.Popen(
            [sys.executable, "-m", "snapfit.cli.app", *map(str, arguments)],
            stdin=options.pop("stdin", subprocess.PIPE),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"},
            **options,
        )

    return start


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_and_its_json(run: Any, command: str) -> None:
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert f"snapfit {command}" in outcome.out
    assert "--json" in outcome.out


def test_help_lists_the_commands_and_where_to_start(run: Any) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert all(f"  {command} " in outcome.out for command in COMMANDS)
    assert "snapfit demo --quick" in outcome.out


def test_no_command_shows_the_help_and_fails(run: Any) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "Usage: snapfit" in outcome.out


def test_version(run: Any) -> None:
    assert run("--version") == (0, f"snapfit {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["train"], ["inspect", "a", "b"]])
def test_help_and_usage_errors_load_nothing_heavy(arguments: Sequence[str]) -> None:
    code = (
        "import sys\n"
        "from snapfit.cli.app import main\n"
        f"code = main({list(arguments)!r})\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(99 if heavy else code)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=False)
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "Missing argument 'TRAIN'"),
        (["trian", "a.csv"], "No such command 'trian'"),
        (["train", "a.csv", "--epoch", "3"], "--epochs"),
        (["train", "a.csv", "--json=3"], "--json"),
        (["train", "a.csv", "b.csv"], "unexpected extra argument"),
        (["inspect"], "Missing argument 'PATH'"),
        (["evaluate", "bundle"], "Missing argument 'TABLE'"),
        (["find-lr"], "Missing argument 'TABLE'"),
        (["find-lr", "a.csv", "--steps", "many"], "--steps"),
    ],
)
def test_usage_errors_are_one_line_and_a_fix(run: Any, arguments: Sequence[str], message: str) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    first, fix = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert message.lower() in first.lower()
    assert fix.startswith("  fix: see snapfit")


def test_a_reader_that_goes_away_ends_the_command_quietly(start: Start, workplace: Path) -> None:
    reading, writing = os.pipe()
    process = start("predict", workplace / "single/bundle", workplace / "test.csv", stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate()
    assert process.returncode == 141
    assert err == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
@pytest.mark.parametrize("options", [["--format", "csv"], ["--json"]])
def test_a_full_disk_is_a_clear_failure(start: Start, workplace: Path, options: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = start("predict", workplace / "single/bundle", "--text", "bread", *options, stdout=full)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("error: ")
    assert "No space left on device" in err.decode()
    assert b"Traceback" not in err


def test_interrupt_while_reading_is_130(start: Start, workplace: Path) -> None:
    process = start("predict", workplace / "single/bundle", "-")
    assert process.stdin is not None
    assert process.stderr is not None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # it waits for its standard input
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err == b"error: interrupted\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_training_with_its_state_saved(
    start: Start, run: Any, tmp_path: Path, workplace: Path, number: signal.Signals
) -> None:
    long = ["--epochs", "100000", "--set", "log.level=debug", "--set", "train.evaluations_per_epoch=1"]
    encoder = workplace / "encoder"
    process = start("train", workplace / "train.csv", "--encoder", encoder, "--out", "run", *long)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"step "):
            break
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 143), err.decode()
    assert b"stopped    after step" in out
    assert b"snapfit train --resume run" in out + err
    result = json.loads(run("inspect", tmp_path / "run", "--json").out)
    assert result["resume"]["does"] == "go on"
    if number == signal.SIGINT:
        assert f"by signal {int(number)}".encode() in out
        assert err == b""
        assert run("predict", tmp_path / "run/bundle", "--text", "bread").code == 0
    else:
        assert err.startswith(b"error: stopped after step")
        assert result["bundle"] is None


def test_main_returns_codes_and_never_exits(run: Any) -> None:
    assert main(["--version"]) == 0
    assert main(["predict", "nowhere"]) == 2


@pytest.mark.parametrize(
    "command", ["predict {0}/single/bundle --text a", "train {0}/train.csv", "find-lr {0}/train.csv", "demo --quick"]
)
def test_without_torch_the_extra_is_named(workplace: Path, tmp_path: Path, command: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from snapfit.cli.app import main\n"
        f"sys.exit(main({command.format(workplace).split()!r}))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == "  fix: pip install 'snapfit[train]'"
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_and_returns_the_code() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-m", "snapfit", "train"], capture_output=True, env=env, check=False)
    assert done.returncode == 2
    assert b"Missing argument" in done.stderr
