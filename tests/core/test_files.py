"""Atomic files, staged folders, manifests and bounded JSON."""

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core import files
from snapfit.core.errors import BadInput, WorkFailed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files with a manifest."""
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"first")
    (folder / "deep" / "b.txt").write_bytes(b"second")
    (folder / "empty").write_bytes(b"")
    files.write_manifest(folder)
    return folder


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


def test_sha256_of_more_than_one_block(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_file(tmp_path / "x") == files.sha256_bytes(data) == expected


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "first"
    with files.staged_folder(final) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "x").write_text("1")
        assert not final.exists()
        assert staged.parent == final.parent
    assert (final / "sub" / "x").read_text() == "1"
    assert names(final.parent) == ["first"]


def test_a_staged_folder_replaces_only_when_complete(tmp_path: Path) -> None:
    final = tmp_path / "first"
    final.mkdir()
    (final / "old").write_text("")

    def stop_midway() -> None:
        with files.staged_folder(final) as staged:
            (staged / "new").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_midway()
    assert names(final) == ["old"]
    assert names(tmp_path) == ["first"]
    with files.staged_folder(final) as staged:
        (staged / "new").write_text("")
    assert names(final) == ["new"]
    assert names(tmp_path) == ["first"]


def test_a_staged_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadInput, match="is a file"), files.staged_folder(tmp_path / "file"):
        pass
    with pytest.raises(WorkFailed, match="could not write"), files.staged_folder(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_staged_folders_of_many_threads_leave_one_whole(tmp_path: Path) -> None:
    final, errors = tmp_path / "cache", []

    def write(number: int) -> None:
        try:
            for _ in range(5):
                with files.staged_folder(final) as staged:
                    (staged / "a").write_text(str(number))
                    (staged / "b").write_text(str(number))
        except WorkFailed as error:  # allowed only when others won ten times in a row
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) < 4
    assert names(tmp_path) == ["cache"]
    assert (final / "a").read_text() == (final / "b").read_text()


def test_the_manifest_names_every_other_file(folder: Path) -> None:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["format"] == 1
    assert list(manifest["files"]) == ["a.txt", "deep/b.txt", "empty"]
    assert manifest["files"]["a.txt"] == {"bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest()}
    files.verify_manifest(folder)
    files.write_manifest(folder)
    files.verify_manifest(folder)


def test_hidden_files_are_nobodys_business(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / ".DS_Store").write_text("x")
    files.verify_manifest(folder)


def test_every_change_is_found(folder: Path) -> None:
    def fails(message: str, *, hashes: bool = False) -> None:
        with pytest.raises(BadInput, match=message):
            files.verify_manifest(folder, hashes=hashes)

    (folder / "deep" / "b.txt").write_bytes(b"SECOND")
    files.verify_manifest(folder, hashes=False)
    fails("'deep/b.txt' .* was changed", hashes=True)
    (folder / "deep" / "b.txt").write_bytes(b"sec")
    fails("has 3 bytes where MANIFEST.json says 6")
    (folder / "deep" / "b.txt").unlink()
    fails("'deep/b.txt', which .* names, is missing")
    files.write_manifest(folder)
    (folder / "more").write_text("")
    fails("'more' in .* is not named")
    (folder / "more").unlink()
    (folder / "MANIFEST.json").unlink()
    fails("has no MANIFEST.json")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up", "deep/../a.txt", "./a.txt", "deep//b.txt", "", "C:/x", "deep\\b.txt", "a\0"],
)
def test_a_manifest_cannot_point_elsewhere(folder: Path, name: str) -> None:
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": "0" * 64}
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match="not a plain path"):
        files.verify_manifest(folder)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ([], "is not a manifest"),
        ({"format": 1}, "is not a manifest"),
        ({"format": 2, "files": {}}, "has format 2"),
        ({"format": 1, "files": {"a.txt": {"bytes": True, "sha256": "0" * 64}}}, "lacks a size"),
        ({"format": 1, "files": {"a.txt": {"bytes": 5}}}, "lacks a size or a SHA-256"),
        ({"format": 1, "files": {"a.txt": 5}}, "lacks a size or a SHA-256"),
    ],
)
def test_a_malformed_manifest(folder: Path, manifest: object, message: str) -> None:
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(BadInput, match=message):
        files.verify_manifest(folder)


def test_links_and_pipes(folder: Path, tmp_path: Path) -> None:
    (folder / "inside").symlink_to("a.txt")
    files.write_manifest(folder)
    files.verify_manifest(folder)
    (folder / "inside").unlink()
    outside = tmp_path / "outside"
    outside.write_bytes(b"")
    for name, target, message in [
        ("out", outside, "is a link out of the folder"),
        ("loop", folder, "is a link to what is not a file"),
        ("gone", folder / "none", "is a link to what is not a file"),
        (".hidden", outside, "is a link out of the folder"),
    ]:
        (folder / name).symlink_to(target)
        for check in (files.write_manifest, files.verify_manifest):
            with pytest.raises(BadInput, match=message):
                check(folder)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInput, match="is a pipe"):
        files.write_manifest(folder)
