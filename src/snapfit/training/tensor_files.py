"""Tensors to safetensors files, hashed while they are written; and back.

safetensors' own writer hashes nothing and holds Python's interpreter lock while it writes; here another thread can
write hundreds of megabytes while training goes on. The files are those of the format, read by safetensors itself: all
of a file at once, or tensor by tensor.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from snapfit.core.errors import BadInput

_CHUNK_BYTES = 4 * 1024 * 1024
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors, which are contiguous and on the CPU, to a new file and sync it; returns the SHA-256.

    Equal tensors give equal bytes. Raises OSError when the file cannot be written, KeyError for a dtype that the
    format does not have.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that all are aligned
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        head = memoryview(len(text).to_bytes(8, "little") + text)
        for block in (head, *(_bytes(tensors[name]) for name in names)):
            for start in range(0, len(block), _CHUNK_BYTES):
                chunk = block[start : start + _CHUNK_BYTES]
                file.write(chunk)
                digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
        _forget_pages(file.fileno())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises BadInput when it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "a safetensors file", "copy it again") from error


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of safetensors files by name, each read from its file whenever it is asked for, on the CPU.

    No file stays open or in memory: what a tensor takes is free when nobody holds the tensor any more.
    Raises BadInput when a file cannot be read, then or later, or two of them hold a tensor of the same name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths: dict[str, Path] = {}
        for path in paths:
            with _opened(path) as file:
                names = list(file.keys())
            if twice := sorted(self._paths.keys() & set(names)):
                raise BadInput(f"{path} holds {twice[0]!r}, as another file does", "each tensor once", "copy it again")
            self._paths.update(dict.fromkeys(names, path))

    def __getitem__(self, name: str) -> Tensor:
        with _opened(self._paths[name]) as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file to read from. Raises BadInput when it cannot be read."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be read: {error}", "a safetensors file", "copy it again") from error


def _forget_pages(descriptor: int) -> None:
    """Free the memory that the system holds of a synced file: nobody reads it soon, and the next one takes its place.

    Else each checkpoint takes fresh pages, which costs more than writing it where memory was never used before.
    """
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # advice, and not for every kind of file
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _bytes(tensor: Tensor) -> memoryview:
    if tensor.numel() == 0:
        return memoryview(b"")
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
