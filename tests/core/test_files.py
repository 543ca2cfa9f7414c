"""Atomic files, staged folders, manifests and bounded JSON."""

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core import files
from snapfit.core.errors import BadInput, WorkFailed


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_makes_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    files.write_bytes_atomic(tmp_path / "new" / "x", b"\x00\xff")
    assert (tmp_path / "new" / "x").read_bytes() == b"\x00\xff"
    assert names(tmp_path / "new") == ["x"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")

    def write_half() -> None:
        with files.open_atomic(tmp_path / "x") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert (tmp_path / "x").read_text() == "old"
    assert names(tmp_path) == ["x"]


def test_text_keeps_its_line_ends_and_characters(tmp_path: Path) -> None:
    files.write_text_atomic(tmp_path / "x", "é\r\n中\n")
    assert (tmp_path / "x").read_bytes() == "é\r\n中\n".encode()
    with pytest.raises(WorkFailed, match="not valid Unicode"):
        files.write_text_atomic(tmp_path / "x", "\ud800")


def test_a_replaced_file_keeps_its_mode_and_a_link_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.write_text_atomic(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    files.write_bytes_atomic(pipe, b"through")
    reader.join()
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_writing_where_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a folder"):
        files.write_bytes_atomic(tmp_path, b"")
    with pytest.raises(WorkFailed, match="could not write"):
        files.write_bytes_atomic(tmp_path / "file" / "below", b"")


def test_json_is_written_in_order_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json_atomic(path, {"z": "中", "a": [1, 2.5, None]})
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": "中",\n  "a": [')
    assert path.read_bytes().endswith(b"}\n")
    assert files.read_json(path) == {"z": "中", "a": [1, 2.5, None]}
    with pytest.raises(WorkFailed):
        files.write_json_atomic(path, {"loss": float("nan")})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(value=json_values)
def test_json_survives_the_way(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "x"
    files.write_json_atomic(path, value)
    assert files.read_json(path) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1 column 1"),
        (b'{"a": 1,}', "line 1 column"),
        (b'{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[-Infinity]", "Infinity is not JSON"),
        (b'["\xff"]', r"is not UTF-8 \(byte 2\)"),
        (b"[" * 200_000, "x.json"),
        (b" " * 200 + b"1", "more than 100 bytes"),
    ],
)
def test_json_that_cannot_be_trusted(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=message):
        files.read_json(path, max_bytes=100 if b"1" in data[200:] else files.MAX_JSON_BYTES)


def test_json_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(BadInput, match="cannot be read"):
        files.read_json(tmp_path)


def test_names_that_are_no_unicode_are_written_in_escapes(tmp_path: Path) -> None:
    value = {"path": "caf\udce9.csv", "text": "é"}
    files.write_json_atomic(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_bytes().isascii()
    assert files.read_json(tmp_path / "a.json") == value


def test_sha256_of_more_than_one_block(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_file(tmp_path / "x") == files.sha256_bytes(data) == expected
