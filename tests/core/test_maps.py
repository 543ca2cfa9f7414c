"""Mapped files: pages come in when they are read and go when they are given back; the content stays."""

import mmap
import sys
from pathlib import Path

import pytest

from snapfit.core.maps import map_file, release_pages, watch

SIZE = 16 * 2**20


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return path


def resident_kb() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and madvise are Linux's")
def test_pages_are_given_back_and_read_again(large_file: Path) -> None:
    mapped = map_file(large_file)
    before = resident_kb()
    total = sum(mapped[place] for place in range(0, SIZE, 512))
    assert resident_kb() - before > SIZE // 1024 // 2
    release_pages()
    assert resident_kb() - before < SIZE // 1024 // 4
    assert sum(mapped[place] for place in range(0, SIZE, 512)) == total


def test_a_mapping_that_was_closed_is_no_matter(large_file: Path) -> None:
    with open(large_file, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    watch(mapped)
    mapped.close()
    release_pages()


def test_an_empty_file_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ValueError, match="empty"):
        map_file(tmp_path / "empty")
