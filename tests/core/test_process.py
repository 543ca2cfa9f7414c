"""Process settings: the user's own are kept, and nothing is set when it is too late."""

import subprocess
import sys
from pathlib import Path

import pytest

from snapfit.core.process import SPIN_COUNT, core_quota, keep_freed_memory, processor, settle_process

ASK = """
import os, sys
{before}
from snapfit.core.process import settle_process
print(sorted(settle_process()), os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_NUM_THREADS"))
"""


def asked(before: str) -> str:
    """What a fresh process answers, without this process's own OpenMP settings."""
    script = ASK.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin"}
    )
    return done.stdout.strip()


def test_a_fresh_process_gets_a_short_wait() -> None:
    assert f" {SPIN_COUNT} " in asked("")


@pytest.mark.parametrize(("setting", "then"), [("OMP_WAIT_POLICY='active'", " None 3"), ("GOMP_SPINCOUNT='7'", " 7 3")])
def test_what_the_user_set_stays(setting: str, then: str) -> None:
    answer = asked(f"os.environ.update({setting}, OMP_NUM_THREADS='3')")
    assert answer.endswith(then)
    assert "OpenMP" not in answer
    assert "threads" not in answer


def test_nothing_is_set_once_torch_is_loaded() -> None:
    import torch  # noqa: F401

    environment: dict[str, str] = {}
    settled = settle_process(environment)
    assert environment == {}
    assert "OpenMP" not in settled


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_allocator_takes_the_setting() -> None:
    assert keep_freed_memory()


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", None), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("what", None), ("", None)],
)
def test_a_containers_share(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="ascii")
    assert core_quota(tmp_path) == cores


def test_no_container(tmp_path: Path) -> None:
    assert core_quota(tmp_path) is None


def test_a_processor_is_told_by_its_model_and_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast 1\ncpu MHz\t: 2000.1\nflags\t: avx2\n\nprocessor\t: 1\n")
    assert processor(cpuinfo) == "model name\t: Fast 1\nflags\t: avx2"
    assert processor(tmp_path / "absent") == processor(tmp_path / "absent") != ""
    assert processor() == processor()
