"""The compiled kernels against torch's own operators, and where they cannot be built."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snapfit.nn import kernels as module
from snapfit.nn.kernels import DropoutKey, Kernels

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).abs().max()) <= TOLERANCE[dtype] * max(1.0, float(expected.abs().max()))


def starts_of(lengths: list[int]) -> Tensor:
    return torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))))


def attention_by_torch(qkv: Tensor, bias: Tensor, lengths: list[int], heads: int, scale: float) -> Tensor:
    features = qkv.shape[1] // 3
    parts = []
    for rows in (qkv + bias).split(lengths):
        q, k, v = (part.view(len(rows), heads, -1).transpose(0, 1) for part in rows.split(features, 1))
        parts.append(((q @ k.transpose(1, 2) * scale).softmax(-1) @ v).transpose(0, 1).reshape(len(rows), features))
    return torch.cat(parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [8, 16, 32, 40, 64])
@pytest.mark.parametrize("lengths", [[1], [3, 17, 16, 1, 5], [33, 2], [100]])
def test_attention(kernels: Kernels, dtype: torch.dtype, width: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    heads, scale = 3, width**-0.5
    qkv = torch.randn(sum(lengths), 3 * heads * width).to(dtype)
    bias, gradient = torch.randn(qkv.shape[1]), torch.randn(sum(lengths), heads * width).to(dtype)
    wide = qkv.float().requires_grad_(True)
    expected = attention_by_torch(wide, bias, lengths, heads, scale)
    expected.backward(gradient.float())
    found = kernels.attention(qkv, bias, starts_of(lengths), heads, scale)
    assert close(found, expected, dtype)
    result = kernels.attention_gradient(qkv, bias, starts_of(lengths), heads, scale, gradient)
    assert close(result, wide.grad, dtype)


def test_attention_of_large_scores_stays_finite(kernels: Kernels) -> None:
    qkv = torch.full((4, 3 * 16), 60.0)
    found = kernels.attention(qkv, torch.zeros(48), starts_of([4]), 1, 1.0)
    assert torch.allclose(found, torch.full((4, 16), 60.0))
    gradient = kernels.attention_gradient(qkv, torch.zeros(48), starts_of([4]), 1, 1.0, torch.ones(4, 16))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 8), (5, 33), (70, 384)])
def test_norm(kernels: Kernels, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    y, more = (torch.randn(shape).to(dtype) for _ in range(2))
    residual, own = torch.randn(shape), torch.randn(shape)
    gradient = own + more.float()
    bias, gamma, beta = (torch.randn(shape[1]) for _ in range(3))
    wide = [tensor.float().requires_grad_(True) for tensor in (y, bias, residual, gamma, beta)]
    expected = F.layer_norm(wide[2] + wide[0] + wide[1], shape[1:], wide[3], wide[4], 1e-5)
    expected.backward(gradient)
    normal = y.clone()
    found, narrow, inverse = kernels.norm(normal, bias, residual, (gamma, beta, 1e-5), DropoutKey())
    assert close(found, expected, torch.float32)
    assert torch.equal(narrow, found.to(dtype))
    through, dropped, sums = kernels.norm_gradient(normal, own, more, inverse, gamma, DropoutKey())
    assert torch.equal(through.to(dtype), dropped)
    alone = kernels.norm_gradient(normal, gradient, None, inverse, gamma, DropoutKey())
    assert all(torch.equal(left, right) for left, right in zip(alone, (through, dropped, sums), strict=True))
    # The normalised rows that a gradient is taken from are themselves rounded, and eight of them are few.
    for part, tensor in ((through, wide[2]), (sums[0], wide[3]), (sums[1], wide[4]), (sums[2], wide[1])):
        assert close(part, tensor.grad, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_norm_drops_is_dropped_from_its_gradient(kernels: Kernels, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    shape, p = (400, 96), 0.25
    key = DropoutKey.draw(p)
    y, zeros, ones = torch.ones(shape, dtype=dtype), torch.zeros(shape[1]), torch.ones(shape[1])
    residual, gradient = torch.randn(shape), torch.randn(shape)
    normal = y.clone()
    found, _, inverse = kernels.norm(normal, zeros, residual, (ones, zeros, 1e-5), key)
    through, dropped, sums = kernels.norm_gradient(normal, gradient, None, inverse, ones, key)
    kept = dropped != 0
    assert abs(1 - kept.double().mean() - p) < 4 * (p * (1 - p) / kept.numel()) ** 0.5
    assert close(dropped, torch.where(kept, through / (1 - p), 0), dtype)
    expected = F.layer_norm(residual + torch.where(kept, 1 / (1 - p), 0.0), shape[1:], eps=1e-5)
    assert close(found, expected, dtype)
    assert close(sums[2], dropped.float().sum(0), dtype)


def test_keys_are_a_function_of_the_seed_and_differ() -> None:
    torch.manual_seed(1)
    first = [DropoutKey.draw(0.1) for _ in range(5)]
    torch.manual_seed(1)
    assert [DropoutKey.draw(0.1) for _ in range(5)] == first
    assert len({key.key for key in first}) == 5
    assert DropoutKey.draw(0.0) == DropoutKey(0, 1.0, 0)
    assert first[0].threshold == round(0.1 * 2**32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_and_column_sums(kernels: Kernels, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    u, bias = (4 * torch.randn(37, 65)).to(dtype), torch.randn(65)
    wide, wide_bias = u.float().requires_grad_(True), bias.clone().requires_grad_(True)
    expected = F.gelu(wide + wide_bias)
    gradient = torch.randn(37, 65).to(dtype)
    expected.backward(gradient.float())
    assert close(kernels.gelu(u, bias), expected, dtype)
    mine = gradient.clone()
    sums = kernels.gelu_gradient(mine, u, bias)
    assert close(mine, wide.grad, dtype)
    assert close(sums, wide_bias.grad, dtype)
    assert close(kernels.column_sums(u), u.float().sum(0), torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(kernels: Kernels, value: float) -> None:
    for dtype in DTYPES:
        u = torch.zeros(4, 32, dtype=dtype)
        u[2, 3] = value
        assert not kernels.gelu(u, torch.zeros(32)).isfinite().all()
        normal = u.clone()
        norm = (torch.ones(32), torch.zeros(32), 1e-5)
        out, _, _ = kernels.norm(normal, torch.zeros(32), torch.ones(4, 32), norm, DropoutKey())
        assert not out[2].isfinite().all()
        mixed = kernels.attention(torch.cat([u, u, u], 1), torch.zeros(96), starts_of([4]), 2, 0.25)
        assert not mixed.isfinite().all()


def test_sums_of_squares(kernels: Kernels) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(5), torch.randn(9000), torch.randn(70_000).bfloat16(), torch.zeros(0)]
    expected = [float(tensor.double().square().sum()) for tensor in tensors]
    assert kernels.sums_of_squares(tensors) == pytest.approx(expected, rel=1e-6)
    assert kernels.sums_of_squares([torch.tensor([float("nan")])])[0] != 0


def test_memory_that_is_not_there_is_an_error(kernels: Kernels) -> None:
    """In a process that may take no more: an attention over one row of 20,000 tokens wants gigabytes meanwhile."""
    script = """
import resource, torch
kernels = load_kernels()
qkv, bias, starts = torch.zeros(20_000, 96), torch.zeros(96), torch.tensor([0, 20_000])
kernels.attention(qkv[:64], bias, torch.tensor([0, 64]), 1, 1.0)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 200_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    kernels.attention(qkv, bias, starts, 1, 1.0)
except MemoryError as error:
    print(error)
"""
    assert fresh(script) == "a kernel got no memory"


# ---------------------------------------------------------------- building


def fresh(script: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", f"from snapfit.nn.kernels import *\n{script}"],
        *(),
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    return done.stdout.strip()


ASK = "print(load_kernels() is None, why_no_kernels())"


def test_they_can_be_switched_off() -> None:
    assert fresh(ASK, SNAPFIT_KERNELS="off") == "True SNAPFIT_KERNELS is off"


def test_without_a_compiler_there_are_none(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("never built here")
    assert fresh(ASK, PATH=str(tmp_path), SNAPFIT_CACHE=str(tmp_path)) == "True there is no C compiler"


def test_a_compiler_that_fails_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("never built here")
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    broken.chmod(0o755)
    answer = fresh(ASK, CC=str(broken), SNAPFIT_CACHE=str(tmp_path / "cache"))
    assert answer == f"True {broken} did not build them: no such luck"
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []


def test_they_are_built_once(kernels: Kernels, tmp_path: Path) -> None:
    environment = {"SNAPFIT_CACHE": str(tmp_path)}
    assert fresh(ASK, **environment) == "False"
    (built,) = (tmp_path / "kernels").iterdir()
    stamp = built.stat().st_mtime_ns
    assert fresh(ASK, **environment) == "False"
    assert built.stat().st_mtime_ns == stamp
    assert built.name == f"kernels-{kernels.identity[:32]}.so"


def test_a_cache_that_is_damaged_or_cannot_be_written_only_costs_time(kernels: Kernels, tmp_path: Path) -> None:
    damaged = tmp_path / "kernels" / f"kernels-{kernels.identity[:32]}.so"
    damaged.parent.mkdir()
    damaged.write_bytes(b"")
    assert fresh(ASK, SNAPFIT_CACHE=str(tmp_path)) == "False"
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    assert fresh(ASK, SNAPFIT_CACHE=str(in_the_way)) == "False"


def test_what_is_built_is_named_by_what_it_is_built_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = module._identity("true")
    for i, source in enumerate(module.SOURCES):
        changed = tmp_path / source.name
        changed.write_text(source.read_text() + "\n")
        with monkeypatch.context() as patch:
            patch.setattr(module, "SOURCES", (*module.SOURCES[:i], changed, *module.SOURCES[i + 1 :]))
            assert module._identity("true") != before
