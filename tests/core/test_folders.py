"""Staged folders, manifests, and removal."""

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from snapfit.core import folders
from snapfit.core.errors import BadInput, WorkFailed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files with a manifest."""
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"first")
    (folder / "deep" / "b.txt").write_bytes(b"second")
    (folder / "empty").write_bytes(b"")
    folders.write_manifest(folder)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "runs" / "first"
    with folders.staged_folder(final) as staged:
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
        with folders.staged_folder(final) as staged:
            (staged / "new").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_midway()
    assert names(final) == ["old"]
    assert names(tmp_path) == ["first"]
    with folders.staged_folder(final) as staged:
        (staged / "new").write_text("")
    assert names(final) == ["new"]
    assert names(tmp_path) == ["first"]


def test_a_staged_folder_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadInput, match="is a file"), folders.staged_folder(tmp_path / "file"):
        pass
    with pytest.raises(WorkFailed, match="could not write"), folders.staged_folder(tmp_path / "file" / "below"):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_staged_folders_of_many_threads_leave_one_whole(tmp_path: Path) -> None:
    final, errors = tmp_path / "cache", []

    def write(number: int) -> None:
        try:
            for _ in range(5):
                with folders.staged_folder(final) as staged:
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
    folders.verify_manifest(folder)
    folders.write_manifest(folder)
    folders.verify_manifest(folder)


def test_hidden_files_are_nobodys_business(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / ".DS_Store").write_text("x")
    folders.verify_manifest(folder)


def test_every_change_is_found(folder: Path) -> None:
    def fails(message: str, *, hashes: bool = False) -> None:
        with pytest.raises(BadInput, match=message):
            folders.verify_manifest(folder, hashes=hashes)

    (folder / "deep" / "b.txt").write_bytes(b"SECOND")
    folders.verify_manifest(folder, hashes=False)
    fails("'deep/b.txt' .* was changed", hashes=True)
    (folder / "deep" / "b.txt").write_bytes(b"sec")
    fails("has 3 bytes where MANIFEST.json says 6")
    (folder / "deep" / "b.txt").unlink()
    fails("'deep/b.txt', which .* names, is missing")
    folders.write_manifest(folder)
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
        folders.verify_manifest(folder)


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
        folders.verify_manifest(folder)


def test_links_and_pipes(folder: Path, tmp_path: Path) -> None:
    (folder / "inside").symlink_to("a.txt")
    folders.write_manifest(folder)
    folders.verify_manifest(folder)
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
        for check in (folders.write_manifest, folders.verify_manifest):
            with pytest.raises(BadInput, match=message):
                check(folder)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInput, match="is a pipe"):
        folders.write_manifest(folder)


def test_known_hashes_are_taken_as_given(folder: Path) -> None:
    folders.write_manifest(folder, known={"a.txt": "0" * 64})
    with pytest.raises(BadInput, match=r"'a.txt' in .* was changed"):
        folders.verify_manifest(folder)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_replaced_folder_leaves_nothing_behind(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:  # a system without that call
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    for text in ("old", "new"):
        with folders.staged_folder(tmp_path / "x") as staged:
            (staged / text).write_text(text)
    assert names(tmp_path) == ["x"]
    assert names(tmp_path / "x") == ["new"]


def test_removal_and_leftovers(tmp_path: Path) -> None:
    for name in ("gone", "kept", ".kept.0123456789ab.staging", ".mine.staging", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.0123456789ab.tmp").write_text("half")
    folders.remove_folder(tmp_path / "gone")
    assert names(tmp_path) == [".file.0123456789ab.tmp", ".git", ".kept.0123456789ab.staging", ".mine.staging", "kept"]
    folders.remove_leftovers(tmp_path)
    folders.remove_leftovers(tmp_path / "nowhere")
    assert names(tmp_path) == [".git", ".mine.staging", "kept"]
    with pytest.raises(WorkFailed, match="could not remove"):
        folders.remove_folder(tmp_path / "gone")
