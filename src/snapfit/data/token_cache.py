"""Token ids on disk, so that the same texts under the same tokenizer are tokenised once.

An entry is a folder of plain numpy arrays, which is memory-mapped: opening it costs nothing, and many
processes share its pages. It is named by a hash of everything that its content depends on, appears whole or
not at all, and is checked before use; a cache that is damaged or cannot be written only costs time.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import tokenizers

from snapfit.core.errors import SnapfitError
from snapfit.core.folders import list_files, staged_folder, verify_manifest, write_manifest
from snapfit.data.tokenizer import Texts, TextTokenizer, TokenIds

FORMAT = 1
_ARRAYS = ("ids", "offsets", "second_start")
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
    folder = cache_dir / "tokens" / _key(tokenizer, pair=pairs is not None, content_hash=content_hash)
    found = _read(folder, len(texts), tokenizer)
    if found is not None:
        return found
    tokens = tokenizer.encode(texts, pairs)
    try:
        _write(folder, tokens)
    except (OSError, SnapfitError):
        return tokens
    return _read(folder, len(texts), tokenizer) or tokens


def _key(tokenizer: TextTokenizer, *, pair: bool, content_hash: str) -> str:
    """What an entry is called: SHA-256 of all that decides its content."""
    parts = {
        "format": FORMAT,
        "tokenizers": tokenizers.__version__,
        "tokenizer": tokenizer.identity,
        "max_tokens": tokenizer.max_tokens,
        "pad_id": tokenizer.pad_id,
        "pair": pair,
        "content": content_hash,
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write(folder: Path, tokens: TokenIds) -> None:
    with staged_folder(folder) as staged:
        for name in _ARRAYS:
            np.save(staged / f"{name}.npy", getattr(tokens, name), allow_pickle=False)
        write_manifest(staged)


def _read(folder: Path, n: int, tokenizer: TextTokenizer) -> TokenIds | None:
    """The entry of `n` rows, memory-mapped; None when it is absent or anything about it is not right."""
    try:
        size = sum(path.stat().st_size for path in list_files(folder).values())
        if not size:
            return None
        verify_manifest(folder, hashes=size <= _HASHED_BYTES)
        ids, offsets, second_start = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in _ARRAYS
        )
    except (OSError, ValueError, SnapfitError):
        return None
    sound = (
        ids.dtype == tokenizer.id_dtype
        and offsets.dtype == np.int64
        and second_start.dtype.kind == "u"
        and ids.ndim == 1
        and offsets.shape == (n + 1,)
        and second_start.shape == (n,)
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and bool((np.diff(offsets) >= second_start).all())
    )
    return TokenIds(ids, offsets, second_start) if sound else None
