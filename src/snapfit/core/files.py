"""Files that are either whole or absent: atomic writes, bounded JSON, hashes.

A file is written beside its final name, synced and renamed, so a reader (or a power cut) sees the old file or
the new one. Folders are in `folders.py`.
"""

import hashlib
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from snapfit.core.errors import BadInput, WorkFailed

MAX_JSON_BYTES = 64 * 1024 * 1024
_READ_BYTES = 1024 * 1024


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
        make_folder(final.parent)
        staged = sibling(final, "tmp")
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
        sync_folder(final.parent)
    except OSError as error:
        raise cannot_write(path, error) from error


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

    Text that is no Unicode, such as the names of files in another encoding, is written in JSON's escapes.
    Raises WorkFailed for NaN and infinities, which JSON does not have, and as `write_text_atomic` does.
    """
    try:
        text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(obj, indent=2, allow_nan=False)
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


# ---------------------------------------------------------------- parts


def sibling(path: Path, kind: str) -> Path:
    """A free hidden name beside `path`; kind: what is there for the time being, such as "tmp"."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{kind}")


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it that are missing, so that it survives a power cut. Raises OSError."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in made:
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
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


def cannot_write(path: str | Path, error: OSError) -> WorkFailed:
    """The error to raise when the system would not write `path`."""
    return WorkFailed(f"could not write {path}: {error.strerror or error}")


def _bad_json(path: str | Path, what: str) -> BadInput:
    return BadInput(f"{path}: {what}", "one JSON value", "restore the file, or write it again")
