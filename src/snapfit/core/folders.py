"""Folders that are either whole or absent: staging, manifests with SHA-256, removal that leaves no halves.

A folder is filled beside its final name, every file synced, and renamed. One that ships or is resumed from carries
MANIFEST.json, which names every file in it: what the manifest does not name is refused, and so is whatever would
lead a reader out of the folder.
"""

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.core.files import (
    cannot_write,
    make_folder,
    read_json,
    sha256_file,
    sibling,
    sync_folder,
    write_json_atomic,
)

MANIFEST = "MANIFEST.json"
MANIFEST_FORMAT = 1
_RENAME_TRIES = 10
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{12}\.(tmp|staging|old)")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def staged_folder(final: str | Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the name `final` only when the block ends without an error.

    On success every file is synced and the folder renamed; a folder that already had the name is replaced
    only then. On an error the staged folder is removed and whatever was at `final` is untouched.
    Raises BadInput when `final` is a file, WorkFailed when the folder cannot be written.
    """
    target = Path(os.path.realpath(final))
    if target.exists() and not target.is_dir():
        raise BadInput(f"{final} is a file", "the name of a folder to write", "remove the file or choose another name")
    staged = sibling(target, "staging")
    try:
        make_folder(target.parent)
        staged.mkdir()
    except OSError as error:
        raise cannot_write(final, error) from error
    try:
        yield staged
        try:
            _sync_tree(staged)
            _replace_folder(staged, target)
        except OSError as error:
            raise cannot_write(final, error) from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder so that it disappears at once and whole, also when the removal is cut short.

    Raises WorkFailed when it cannot be renamed; what then cannot be deleted stays under a hidden name.
    """
    old = sibling(folder, "old")
    try:
        os.rename(folder, old)
        sync_folder(folder.parent)
    except OSError as error:
        raise WorkFailed(f"could not remove {folder}: {error.strerror or error}") from error
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Delete what interrupted writes and removals left in `parent` under hidden names of this module's own making.

    Call it only where nobody else can be writing.
    """
    for path in parent.iterdir() if parent.is_dir() else ():
        if is_leftover(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether an interrupted write or removal of this module or of `files.py` left `path` behind."""
    return _LEFTOVER.fullmatch(path.name) is not None


def list_files(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its relative path with "/", in sorted order.

    Names that begin with "." are skipped with all below them: version control and file managers leave such
    files, and nothing of snapfit's is called so. Raises BadInput for a symbolic link to a folder or to
    anything outside, for pipes, sockets and devices, and for a folder that cannot be read.
    """
    root = os.path.realpath(folder)
    files: dict[str, Path] = {}
    for where, folders, names in os.walk(root, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*folders, *names]:
            path = Path(where, name)
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                _check_link(path, root, relative)
            elif not (path.is_file() or path.is_dir()):
                raise _bad_folder(f"{relative!r} in {folder} is a pipe, a socket or a device")
            if not name.startswith(".") and not path.is_dir():
                files[relative] = path
    return dict(sorted(files.items()))


def write_manifest(folder: str | Path, *, known: Mapping[str, str] | None = None) -> None:
    """Write MANIFEST.json: the size and SHA-256 of every other file below `folder`. Call it last.

    known: SHA-256 by relative path of files that were hashed as they were written; they are not read again.
    Raises BadInput for what `list_files` refuses, WorkFailed when a file cannot be read or the manifest written.
    """
    known = known or {}
    folder = Path(folder)
    files = {name: path for name, path in list_files(folder).items() if name != MANIFEST}
    for name in files:
        _check_name(name, folder / MANIFEST)
    try:
        entries = {
            name: {"bytes": path.stat().st_size, "sha256": known.get(name) or sha256_file(path)}
            for name, path in files.items()
        }
    except OSError as error:
        raise cannot_write(folder / MANIFEST, error) from error
    write_json_atomic(folder / MANIFEST, {"format": MANIFEST_FORMAT, "files": entries})


def verify_manifest(folder: str | Path, *, hashes: bool = True) -> None:
    """Check that `folder` holds exactly the files that its MANIFEST.json names, unchanged.

    hashes: False compares names and sizes only, which is instant. Raises BadInput naming the first file that
    is missing, unexpected or changed, or the entry of the manifest that is malformed or points out of the
    folder.
    """
    folder = Path(folder)
    files = list_files(folder)
    if files.pop(MANIFEST, None) is None:
        raise _bad_folder(f"{folder} has no {MANIFEST}")
    entries = _manifest_entries(folder / MANIFEST)
    for name in entries:
        if name not in files:
            raise _bad_folder(f"{name!r}, which {folder / MANIFEST} names, is missing")
    for name in files:
        if name not in entries:
            raise _bad_folder(f"{name!r} in {folder} is not named in {MANIFEST}")
    for name, (size, digest) in entries.items():
        n_bytes = files[name].stat().st_size
        if n_bytes != size:
            raise _bad_folder(f"{name!r} in {folder} has {n_bytes} bytes where {MANIFEST} says {size}")
        if hashes and sha256_file(files[name]) != digest:
            raise _bad_folder(f"{name!r} in {folder} was changed: its SHA-256 is not the one in {MANIFEST}")


# ---------------------------------------------------------------- parts


def _manifest_entries(path: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 by relative path, every entry checked."""
    manifest = read_json(path)
    if not isinstance(manifest, Mapping) or not isinstance(manifest.get("files"), Mapping):
        raise _bad_folder(f"{path} is not a manifest")
    if manifest.get("format") != MANIFEST_FORMAT:
        found = f"{path} has format {manifest.get('format')!r}"
        raise BadInput(found, f"format {MANIFEST_FORMAT}", "pip install -U snapfit, or write the folder again")
    entries: dict[str, tuple[int, str]] = {}
    for name, entry in manifest["files"].items():
        _check_name(name, path)
        size, digest = (entry.get("bytes"), entry.get("sha256")) if isinstance(entry, Mapping) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(digest, str) or len(digest) != 64:
            raise _bad_folder(f"the entry {name!r} of {path} lacks a size or a SHA-256")
        entries[name] = (size, digest)
    return entries


def _refuse_unreadable(error: OSError) -> None:
    """What os.walk would pass over in silence: a manifest must not leave out what could not be listed."""
    if not isinstance(error, FileNotFoundError):
        found = f"{error.filename} cannot be read ({error.strerror or error})"
        raise BadInput(found, "a folder that can be read", "check its permissions and the disk") from error


def _check_name(name: str, manifest: Path) -> None:
    """Refuse every spelling of a path that is not the plain one of a file below the folder, on any system."""
    parts = name.split("/")
    if (
        any(part in ("", ".", "..") or part.startswith(".") for part in parts)
        or any(character in name for character in "\\:\0")
        or PurePosixPath(name).is_absolute()
    ):
        raise _bad_folder(f"{manifest} names {name!r}, which is not a plain path below the folder")


def _check_link(path: Path, root: str, relative: str) -> None:
    target = os.path.realpath(path)
    if os.path.commonpath([root, target]) != root:
        raise _bad_folder(f"{relative!r} in {root} is a link out of the folder")
    if not os.path.isfile(target):
        raise _bad_folder(f"{relative!r} in {root} is a link to what is not a file")


def _replace_folder(staged: Path, target: Path) -> None:
    """Give `staged` the name `target`; an older folder of that name is swapped out, so that one is always there."""
    for _ in range(_RENAME_TRIES):
        try:
            os.rename(staged, target)
        except OSError:
            if not target.exists():
                raise
        else:
            sync_folder(target.parent)
            return
        if _exchange(staged, target):
            sync_folder(target.parent)
            shutil.rmtree(staged, ignore_errors=True)  # the older one
            return
        with_old = sibling(target, "old")
        try:  # no exchange on this system: for a moment the name is free
            os.rename(target, with_old)
        except FileNotFoundError:
            continue
        try:
            os.rename(staged, target)
        except OSError:
            if not target.exists():
                os.rename(with_old, target)
                raise
            shutil.rmtree(with_old, ignore_errors=True)  # another process was quicker: its folder is replaced in turn
            continue
        sync_folder(target.parent)
        shutil.rmtree(with_old, ignore_errors=True)
        return
    raise OSError(errno.EBUSY, "other processes keep writing it")


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step, where the system can (Linux); returns whether it did."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _sync_tree(folder: Path) -> None:
    for where, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        sync_folder(Path(where))


def _raise(error: OSError) -> None:
    """Where os.walk would pass over what it cannot list."""
    raise error


def _bad_folder(found: str) -> BadInput:
    expected = "exactly the files that its manifest names, unchanged"
    return BadInput(found, expected, "copy the folder again from where it was made, following links (cp -rL)")
