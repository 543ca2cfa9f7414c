"""The compiled pieces of an encoder layer (kernels.c): built once a machine, called without copies.

They need a C compiler and Linux. Without them training runs on torch's own operators, and says so. The library is kept
in the cache under a name that hashes its source, the compiler and the processor, so nothing stale is ever loaded.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from snapfit.core.process import processor
from snapfit.data.token_cache import default_cache_dir

SOURCES = tuple(Path(__file__).with_name(name) for name in ("kernels.c", "kernels_layer.c"))
"""What is compiled, and what it includes."""
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-std=gnu11"),
    *("-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros", "-freciprocal-math"),
)
WIDE = ("-mprefer-vector-width=512",)
"""Tried first: registers of full width, where the compiler knows the flag."""
_SUFFIX = {torch.float32: "float", torch.bfloat16: "bf16"}
_SECONDS = 120


class Kernels:
    """The loaded library; every method writes where it is told to, and raises MemoryError where it needs too much.

    Tensors are contiguous, on the CPU, float32 or bf16 where `numbers` is said, float32 elsewhere.
    """

    def __init__(self, library: ctypes.CDLL, identity: str) -> None:
        self._library = library
        self.identity = identity
        library.adamw.restype = ctypes.c_int

    def attention(self, qkv: Tensor, bias: Tensor, starts: Tensor, heads: int, scale: float) -> Tensor:
        """qkv: numbers [tokens, 3 * features]; bias [3 * features]; starts: int64 [rows + 1], where each row begins.

        Returns the mixed values, numbers [tokens, features].
        """
        tokens, features = qkv.shape[0], qkv.shape[1] // 3
        out = qkv.new_empty((tokens, features))
        self._call("attention_forward", qkv, bias, starts, len(starts) - 1, heads, features // heads, scale, out)
        return out

    def attention_gradient(
        self, qkv: Tensor, bias: Tensor, starts: Tensor, heads: int, scale: float, gradient: Tensor
    ) -> Tensor:
        """The gradient of qkv, and so of its bias once it is summed over tokens; nothing but qkv is kept for it."""
        width, result = qkv.shape[1] // 3 // heads, torch.empty_like(qkv)
        self._call("attention_backward", qkv, bias, starts, len(starts) - 1, heads, width, scale, gradient, result)
        return result

    def norm(
        self,
        y: Tensor,
        bias: Tensor,
        residual: Tensor,
        norm: tuple[Tensor, Tensor, float],
        dropout: "DropoutKey",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """norm(residual + dropout(y + bias)); y: numbers [tokens, features]; norm: gamma, beta, epsilon.

        y becomes the normalised rows before gamma. Returns the rows in float32, the same as numbers, and 1 / standard
        deviation of each [tokens].
        """
        (rows, features), (gamma, beta, eps) = y.shape, norm
        out, inverse = torch.empty((rows, features)), torch.empty(rows)
        narrow = out if y.dtype == torch.float32 else torch.empty_like(y)
        self._call(
            *("norm_forward", y, bias, residual, gamma, beta, eps, rows, features),
            *(dropout.threshold, dropout.kept, dropout.key, out, None if narrow is out else narrow, inverse),
        )
        return out, narrow, inverse

    def norm_gradient(
        self,
        normal: Tensor,
        gradient: Tensor,
        more: Tensor | None,
        inverse: Tensor,
        gamma: Tensor,
        dropout: "DropoutKey",
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the residual (float32) and of y (numbers), and those of gamma, beta and bias as [3, features].

        normal: what `norm` made of y. gradient: of the rows, float32; more: numbers to be added to it, if any.
        """
        rows, features = normal.shape
        through, dropped, sums = torch.empty((rows, features)), torch.empty_like(normal), torch.empty((3, features))
        self._call(
            *("norm_backward", normal, gradient, more, inverse, gamma, rows, features),
            *(dropout.threshold, dropout.kept, dropout.key, through, dropped, sums),
        )
        return through, dropped, sums

    def gelu(self, u: Tensor, bias: Tensor) -> Tensor:
        """The exact gelu(u + bias), numbers [tokens, features]."""
        out = torch.empty_like(u)
        self._call("gelu_forward", u, bias, *u.shape, out)
        return out

    def gelu_gradient(self, gradient: Tensor, u: Tensor, bias: Tensor) -> Tensor:
        """Turns `gradient` into that of u; returns that of the bias."""
        sums = torch.empty(u.shape[1])
        self._call("gelu_backward", gradient, u, bias, *u.shape, sums)
        return sums

    def column_sums(self, x: Tensor) -> Tensor:
        """Sums over the rows of numbers [rows, features], in float32."""
        sums = torch.empty(x.shape[1])
        self._call("column_sums", x, *x.shape, sums)
        return sums

    def sums_of_squares(self, tensors: Sequence[Tensor]) -> list[float]:
        """Of each tensor's numbers, summed in blocks and joined in double."""
        n = len(tensors)
        sums = (ctypes.c_double * n)()
        _check(
            self._library.sums_of_squares(ctypes.c_long(n), _pointers(tensors), _sizes(tensors), _kinds(tensors), sums)
        )
        return list(sums)

    def adamw(
        self,
        state: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
        copies: Sequence[Tensor | None],
        rates: Sequence[float],
        decays: Sequence[float],
        factors: tuple[float, float, float, float, float],
        scale: float,
    ) -> bool:
        """A step over (weights, gradients, means, squares), gradients times `scale`; returns whether all stay finite.

        copies: of each weight, what becomes it in bf16, contiguous, or None.
        factors: beta1, beta2, epsilon, and the corrections 1 - beta1^t and 1 - beta2^t.
        """
        weights, gradients, means, squares = state
        n = len(weights)
        floats = ctypes.c_float * n
        finite: int = self._library.adamw(
            *(ctypes.c_long(n), _pointers(weights), _pointers(copies), _pointers(gradients), _kinds(gradients)),
            *(_pointers(means), _pointers(squares), _sizes(weights), floats(*rates), floats(*decays)),
            *(ctypes.c_float(value) for value in (*factors, scale)),
        )
        return bool(finite)

    def _call(self, name: str, first: Tensor, *arguments: "Tensor | int | float | None") -> None:
        """Call the function for the first tensor's dtype."""
        function = getattr(self._library, f"{name}_{_SUFFIX[first.dtype]}")
        _check(function(ctypes.c_void_p(first.data_ptr()), *map(_argument, arguments)))


@dataclass(frozen=True)
class DropoutKey:
    """What is dropped in one place of one step: an element whose hash with `key` is below `threshold`.

    threshold: of 2^32; 0 drops nothing. kept: the factor of what is not dropped.
    """

    threshold: int = 0
    kept: float = 1.0
    key: int = 0

    @classmethod
    def draw(cls, p: float) -> "DropoutKey":
        """A key from torch's generator, and so a function of its seed."""
        if p <= 0.0:
            return cls()
        threshold = min(round(p * 2**32), 2**32 - 1)
        return cls(threshold, 1.0 / (1.0 - p), int(torch.randint(2**32, (), dtype=torch.int64)))


@functools.cache
def load_kernels() -> Kernels | None:
    """The kernels, built if need be; None where they cannot be: see `why_no_kernels`."""
    return _load()[0]


def why_no_kernels() -> str:
    """Why `load_kernels` gives none; empty when it gives them."""
    return _load()[1]


@functools.cache
def _load() -> tuple[Kernels | None, str]:
    if sys.platform != "linux":
        return None, f"they are not built on {sys.platform}"
    if os.environ.get("SNAPFIT_KERNELS") == "off":
        return None, "SNAPFIT_KERNELS is off"
    compiler = next(
        (path for name in (os.environ.get("CC"), *COMPILERS) if name and (path := shutil.which(name))), None
    )
    if compiler is None:
        return None, "there is no C compiler"
    cache = default_cache_dir()
    with tempfile.TemporaryDirectory(prefix="snapfit-kernels-") as scratch:
        try:
            identity = _identity(compiler)
            kept = Path(scratch if cache is None else cache / "kernels") / f"kernels-{identity[:32]}.so"
            try:
                library = _library(compiler, kept)
            except OSError:  # a cache that is damaged or cannot be written only costs time
                library = _library(compiler, Path(scratch) / kept.name)
            return Kernels(library, identity), ""
        except (OSError, subprocess.SubprocessError) as error:
            return None, f"{compiler} did not build them: {_first_line(error)}"


def _library(compiler: str, place: Path) -> ctypes.CDLL:
    """The library at a place, built there if there is none."""
    if not place.exists():
        _build(compiler, place)
    return ctypes.CDLL(str(place))


def _build(compiler: str, place: Path) -> None:
    """Compile beside the final name and rename: a library is whole or absent, also when two processes build it."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.", suffix=".tmp")
    os.close(descriptor)
    try:
        command = [compiler, *FLAGS, str(SOURCES[0]), "-o", name, "-lm"]
        options = {"capture_output": True, "text": True, "timeout": _SECONDS}
        done = subprocess.run([*command, *WIDE], check=False, **options)  # type: ignore[call-overload]
        if done.returncode != 0:
            subprocess.run(command, check=True, **options)  # type: ignore[call-overload]
        os.rename(name, place)
    finally:
        Path(name).unlink(missing_ok=True)


def _identity(compiler: str) -> str:
    """SHA-256 of all that decides what is built."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = (*(source.read_text(encoding="utf-8") for source in SOURCES), version, processor(), *FLAGS, *WIDE)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _first_line(error: BaseException) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return str(text).strip().splitlines()[0] if str(text).strip() else type(error).__name__


def _check(status: int) -> None:
    if status != 0:
        raise MemoryError("a kernel got no memory")


def _argument(value: "Tensor | int | float | None") -> object:
    if isinstance(value, Tensor) or value is None:
        return ctypes.c_void_p(None if value is None else value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)


def _pointers(tensors: Sequence[Tensor | None]) -> object:
    return (ctypes.c_void_p * len(tensors))(*(None if tensor is None else tensor.data_ptr() for tensor in tensors))


def _sizes(tensors: Sequence[Tensor]) -> object:
    return (ctypes.c_long * len(tensors))(*(tensor.numel() for tensor in tensors))


def _kinds(tensors: Sequence[Tensor]) -> object:
    return ctypes.create_string_buffer(bytes(tensor.dtype == torch.bfloat16 for tensor in tensors), len(tensors))
