"""Memory-mapped files whose pages can be given back, so that reading a large one leaves nothing behind in memory.

The system counts the pages of a mapped file that were read as memory of the process until it needs them for something
else. Whoever walks through a large file calls `release_pages` from time to time; what is read again comes from the
system's cache or the disk.
"""

import mmap
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

_watched: "weakref.WeakSet[Any]" = weakref.WeakSet()
_lock = threading.Lock()
_n_touched = 0
_MOST_TOUCHED = 32


def map_file(path: Path) -> mmap.mmap:
    """A file mapped for reading, watched. Raises OSError, and ValueError for an empty file."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    watch(mapped)
    return mapped


def watch(mapped: mmap.mmap) -> None:
    """Have `release_pages` see to a mapping of a file that is only read, for as long as the mapping lives.

    Huge pages are asked not to be used for it: a row here and there would bring in megabytes around each.
    """
    advice = getattr(mmap, "MADV_NOHUGEPAGE", None)
    if advice is not None:
        with suppress(OSError):  # a kernel without them
            mapped.madvise(advice)
    with _lock:
        _watched.add(mapped)


def touched(n_places: int) -> None:
    """Count places that were read here and there in watched files; their pages are given back every so often.

    For each place the system may bring in up to two megabytes around it.
    """
    global _n_touched
    _n_touched += n_places  # threads may lose a count: it decides about nothing but when
    if _n_touched >= _MOST_TOUCHED:
        release_pages()


def release_pages() -> None:
    """Give back the pages of all watched files; does nothing where the system has no way to."""
    global _n_touched
    _n_touched = 0
    advice = getattr(mmap, "MADV_DONTNEED", None)
    if advice is None:
        return
    with _lock:
        mappings = list(_watched)
    for mapped in mappings:
        if not mapped.closed:
            mapped.madvise(advice)
