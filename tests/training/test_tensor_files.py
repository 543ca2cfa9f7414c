"""Files of tensors: read by safetensors itself, hashed right, the same bytes for the same tensors."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from snapfit.core.errors import BadInput
from snapfit.core.files import sha256_file
from snapfit.training.tensor_files import _DTYPES, read_tensors, write_tensors

SHAPES = st.lists(st.integers(0, 4), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(sorted(_DTYPES, key=str)), SHAPES), max_size=6))
def test_safetensors_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, layout: list[tuple[torch.dtype, list[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("tensors")
    tensors = {f"layer.{i}/é": torch.randint(0, 2, shape).to(dtype) for i, (dtype, shape) in enumerate(layout)}
    digest = write_tensors(folder / "one", tensors)
    assert digest == sha256_file(folder / "one")
    assert write_tensors(folder / "two", dict(reversed(tensors.items()))) == digest
    for found in (load_file(folder / "one"), read_tensors(folder / "one")):
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


def test_large_files_are_written_in_parts(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3_000_001), "b": torch.arange(5)}
    assert write_tensors(tmp_path / "x", tensors) == sha256_file(tmp_path / "x")
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor("a"), tensors["a"])


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {})
    with pytest.raises(FileExistsError):
        write_tensors(tmp_path / "x", {})


def test_what_is_no_file_of_tensors(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * 100)
    for name in ("x", "missing"):
        with pytest.raises(BadInput, match=name):
            read_tensors(tmp_path / name)
