"""Files that are either whole or absent: atomic writes, staged folders, manifests with SHA-256, bounded JSON.

A file is written beside its final name, synced and renamed, so a reader (or a power cut) sees the old file or
the new one. A folder is staged the same way. A folder that ships carries MANIFEST.json, which names every
file in it: what the manifest does not name is refused, and so is whatever would lead a reader out of the
folder.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn

from snapfit.core.errors import BadInput, WorkFailed

MANIFEST = "MANIFEST.json"
MANIFEST_FORMAT = 1
MAX_JSON_BYTES = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024
_RENAME_TRIES = 10


# ---------------------------------------------------------------- writing one file


@contextmanager
def open_atomic(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file to write, which takes the name `path` only when the block ends without an error.

    Folders on the way are created. A symbolic link is written through. What is not a regular file, such as
    /dev/stdout or a pipe, is written directly, since it must not be replaced.
    Raises WorkFailed when the file cannot be written, BadInput when `path` is a folder.
    """
    final = Path(os.path.realpath(path))
    if final.is_dir():
        raise BadInput(f"{path} is a folder", "the name of a file to write", "add a file name to the path")
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as special:
                yield special
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        staged = _sibling(final, "tmp")
        try:
            with open(staged, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if final.exists():
                os.chmod(staged, stat.S_IMODE(final.stat().st_mode))
            os.replace(staged, final)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _sync_folder(final.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_bytes_atomic(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` so that it is there whole or not at all. Raises as `open_atomic` does."""
    with open_atomic(path) as file:
        file.write(data)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, line ends as given. Raises as `open_atomic` does, WorkFailed for lone
    surrogates.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise WorkFailed(f"could not write {path}: the text is not valid Unicode ({error.reason})") from error
    write_bytes_atomic(path, data)


def write_json_atomic(path: str | Path, obj: Any) -> None:
    """Write `obj` as JSON: keys in the given order, indent 2, characters as they are, a newline at the end.

    Raises WorkFailed for NaN and infinities, which JSON does not have, and as `write_text_atomic` does.
    """
    try:
        text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError as error:
        raise WorkFailed(f"could not write {path}: {error}") from error
    write_text_atomic(path, text + "\n")


# ---------------------------------------------------------------- reading and hashing


def read_json(path: str | Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value in a JSON file.

    max_bytes: a larger file is refused before it is read. Raises BadInput when the file is missing, too
    large, not UTF-8, not JSON, holds NaN or infinities, or names a key twice (which reader wins would be
    chance).
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        found = f"{path} cannot be read ({error.strerror or error})"
        raise BadInput(found, "a readable JSON file", "check the path and its permissions") from error
    if len(data) > max_bytes:
        raise _bad_json(path, f"has more than {max_bytes} bytes")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _bad_json(path, f"is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise _bad_json(path, f"line {error.lineno} column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise _bad_json(path, str(error)) from error


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of `data`, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits; memory use does not grow with the file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------- folders


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
    staged = _sibling(target, "staging")
    try:
        staged.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(final, error) from error
    try:
        yield staged
        try:
            _sync_tree(staged)
            _replace_folder(staged, target)
        except OSError as error:
            raise _cannot_write(final, error) from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def list_files(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its relative path with "/", in sorted order.

    Names that begin with "." are skipped with all below them: version control and file managers leave such
    files, and nothing of snapfit's is called so. Raises BadInput for a symbolic link to a folder or to
    anything outside, and for pipes, sockets and devices.
    """
    root = os.path.realpath(folder)
    files: dict[str, Path] = {}
    for where, folders, names in os.walk(root):
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


def write_manifest(folder: str | Path) -> None:
    """Write MANIFEST.json: the size and SHA-256 of every other file below `folder`. Call it last.

    Raises BadInput for what `list_files` refuses.
    """
    folder = Path(folder)
    files = {name: path for name, path in list_files(folder).items() if name != MANIFEST}
    for name in files:
        _check_name(name, folder / MANIFEST)
    entries = {name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for name, path in files.items()}
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


def _sibling(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{kind}")


def _replace_folder(staged: Path, target: Path) -> None:
    """Rename `staged` to `target`, moving an older folder away first; another process may be doing the
    same.
    """
    for _ in range(_RENAME_TRIES):
        old = _move_away(target)
        try:
            os.rename(staged, target)
        except OSError:
            if target.exists():  # another process was quicker: its folder is replaced in turn
                _remove(old)
                continue
            if old is not None:
                os.rename(old, target)
            raise
        _sync_folder(target.parent)
        _remove(old)
        return
    raise OSError(errno.EBUSY, "other processes keep writing it")


def _move_away(target: Path) -> Path | None:
    old = _sibling(target, "old")
    try:
        os.rename(target, old)
    except FileNotFoundError:
        return None
    return old


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        _sync_folder(Path(where))


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system lets a folder be synced."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {key!r} stands twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _cannot_write(path: str | Path, error: OSError) -> WorkFailed:
    return WorkFailed(f"could not write {path}: {error.strerror or error}")


def _bad_json(path: str | Path, what: str) -> BadInput:
    return BadInput(f"{path}: {what}", "one JSON value", "restore the file, or write it again")


def _bad_folder(found: str) -> BadInput:
    expected = "exactly the files that its manifest names, unchanged"
    return BadInput(found, expected, "copy the folder again from where it was made, following links (cp -rL)")
