"""Token ids on disk, so that the same texts under the same tokenizer are tokenised once.

An entry is a folder of plain numpy arrays, which is memory-mapped: opening it costs nothing, and many
processes share its pages. It is named by a hash of everything that its content depends on, appears whole or
not at all, and is checked before use; a cache that is damaged or cannot be written only costs time.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import tokenizers

from snapfit.core.errors import SnapfitError
from snapfit.core.files import cannot_write
from snapfit.core.folders import list_files, staged_folder, verify_manifest, write_manifest
from snapfit.core.maps import watch
from snapfit.data.tokenizer import EncodedChunk, Texts, TextTokenizer, TokenIds

FORMAT = 2
_ARRAYS = ("ids", "offsets", "second_start", "uncut")
_HASHED_BYTES = 256 * 1024 * 1024  # up to here comparing SHA-256 takes less than a second


def default_cache_dir() -> Path | None:
    """$SNAPFIT_CACHE, or ~/.cache/snapfit; None where there is no home folder."""
    named = os.environ.get("SNAPFIT_CACHE")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "snapfit"
    except RuntimeError:
        return None


def cached_token_ids(
    tokenizer: TextTokenizer,
    texts: Texts,
    pairs: Texts | None,
    *,
    cache_dir: Path | None,
    content_hash: str,
) -> TokenIds:
    """As `tokenizer.encode(texts, pairs)`, from the cache where it has them.

    cache_dir: None tokenises without a cache; a folder that is absent is made. content_hash: of texts and
    pairs, as `Records.content_hash` gives it. The arrays may be memory-mapped and read-only.
    Raises what `encode` raises, and nothing on account of the cache.
    """
    if cache_dir is None:
        return tokenizer.encode(texts, pairs)
    folder = cache_dir / "tokens" / entry_name(tokenizer, pair=pairs is not None, content_hash=content_hash)
    found = read_entry(folder, len(texts), tokenizer)
    if found is not None:
        return found
    tokens = tokenizer.encode(texts, pairs)
    assert tokens.uncut is not None  # which a tokenizer always tells
    try:
        write_entry(folder, [(tokens.ids, tokens.lengths, tokens.second_start, tokens.uncut)], tokenizer)
    except (OSError, SnapfitError):
        return tokens
    return read_entry(folder, len(texts), tokenizer) or tokens


def entry_name(tokenizer: TextTokenizer, *, pair: bool, content_hash: str) -> str:
    """What an entry is called: SHA-256 of all that decides its content."""
    parts = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "tokenizer": tokenizer.identity,
        "max_tokens": tokenizer.max_tokens,
        "pad_id": tokenizer.pad_id,
        "policy": tokenizer.policy.cuts_by(),
        "pair": pair,
        "content": content_hash,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def write_entry(folder: Path, chunks: Iterable[EncodedChunk], tokenizer: TextTokenizer) -> None:
    """Write the rows as an entry, which appears whole or not at all; ids go to the file as they come.

    chunks: as `TextTokenizer.encode_chunks` gives them, one at least. Raises WorkFailed when it cannot be written.
    """
    lengths = [np.zeros(1, dtype=np.int64)]
    seconds: list[np.ndarray] = []
    uncut: list[np.ndarray] = []
    with staged_folder(folder) as staged:
        try:
            with open(staged / "ids.npy", "wb") as file:
                header = _array_header(file, tokenizer.id_dtype, 0)
                for ids, counts, second_start, whole in chunks:
                    ids.tofile(file)
                    lengths.append(counts)
                    seconds.append(second_start)
                    uncut.append(whole)
                offsets = np.cumsum(np.concatenate(lengths))
                file.seek(0)
                if _array_header(file, tokenizer.id_dtype, int(offsets[-1])) != header:
                    raise OSError(errno.EIO, "numpy's header has changed its size")
            np.save(staged / "offsets.npy", offsets, allow_pickle=False)
            np.save(staged / "second_start.npy", np.concatenate(seconds), allow_pickle=False)
            np.save(staged / "uncut.npy", np.concatenate(uncut), allow_pickle=False)
        except OSError as error:
            raise cannot_write(folder, error) from error
        write_manifest(staged)


def _array_header(file: IO[bytes], dtype: "np.dtype[Any]", size: int) -> int:
    """Write the header of a flat array; returns its bytes, the same for every size: numpy leaves room for growth."""
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, fields)
    return file.tell()


def read_entry(folder: Path, n: int, tokenizer: TextTokenizer) -> TokenIds | None:
    """The entry of `n` rows, memory-mapped; None when it is absent or anything about it is not right."""
    try:
        size = sum(path.stat().st_size for path in list_files(folder).values())
        if not size:
            return None
        verify_manifest(folder, hashes=size <= _HASHED_BYTES)
        ids, offsets, second_start, uncut = (_mapped(folder / f"{name}.npy") for name in _ARRAYS)
    except (OSError, ValueError, SnapfitError):
        return None
    sound = (
        ids.dtype == tokenizer.id_dtype
        and offsets.dtype == np.int64
        and second_start.dtype.kind == "u"
        and ids.ndim == 1
        and offsets.shape == (n + 1,)
        and second_start.shape == (n,)
        and uncut.dtype == np.uint32
        and uncut.ndim == 2
        and len(uncut) == n
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and bool((np.diff(offsets) >= second_start).all())
    )
    return TokenIds(ids, offsets, second_start, tokenizer.window_tokens, uncut) if sound else None


def _mapped(path: Path) -> np.ndarray:
    array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    if getattr(array, "_mmap", None) is not None:
        watch(array._mmap)
    return np.asarray(array)
