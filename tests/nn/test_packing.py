"""Packing: real tokens alone and back again, and what attention takes at once."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snapfit.nn.packing import MAX_BUCKETS, Packing, collect, spread


def mask_of(lengths: list[int], width: int | None = None) -> Tensor:
    width = width or max(lengths)
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def packing_of(lengths: list[int], width: int | None = None) -> Packing:
    packing = Packing.of(mask_of(lengths, width))
    assert packing is not None
    return packing


LENGTHS = [[4], [3, 3, 3], [1, 5, 2, 5, 3], [9, 8, 7, 6, 5, 4, 3, 2, 1], list(range(1, 40)), [2, 2, 30]]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("extra", [0, 3])
def test_packing_and_padding_again_changes_nothing(lengths: list[int], extra: int) -> None:
    width = max(lengths) + extra
    packing = packing_of(lengths, width)
    padded = torch.randn(len(lengths), width, 2) * mask_of(lengths, width).unsqueeze(-1)
    packed = packing.pack(padded)
    assert packed.shape == (1, sum(lengths), 2)
    assert torch.equal(packing.pad(packed), padded)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_filled_up_to_a_multiple_nothing_else_changes(lengths: list[int]) -> None:
    plain, filled = packing_of(lengths), Packing.of(mask_of(lengths), multiple=8)
    assert filled is not None
    total = sum(lengths)
    padded = torch.randn(len(lengths), max(lengths), 2) * mask_of(lengths).unsqueeze(-1)
    packed = filled.pack(padded)
    assert packed.shape[1] == -(-total // 8) * 8 == filled.starts[-1]
    assert torch.equal(packed[:, :total], plain.pack(padded))
    assert torch.equal(filled.pad(packed), padded)
    assert filled.filling == packed.shape[1] - total
    assert filled.buckets[-1].tokens.stop == packed.shape[1]
    source = torch.randn(packed[0].shape, dtype=torch.float64, requires_grad=True)
    places, size = filled.places, len(lengths) * max(lengths)
    assert torch.autograd.gradcheck(lambda x: spread(x, places, size), (source,))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_buckets_take_every_token_once_in_order(lengths: list[int]) -> None:
    packing = packing_of(lengths)
    taken = [i for bucket in packing.buckets for i in range(bucket.tokens.start, bucket.tokens.stop)]
    assert taken == list(range(sum(lengths)))
    assert sum(bucket.rows for bucket in packing.buckets) == len(lengths)
    assert len(packing.buckets) <= MAX_BUCKETS
    assert packing.lengths.tolist() == sorted(lengths)
    start = 0
    for bucket in packing.buckets:
        inside = packing.lengths[start : start + bucket.rows]
        assert bucket.width == inside.max()
        assert (bucket.places is None) == (inside.min() == inside.max())
        if bucket.places is not None:
            real = bucket.mask()
            assert real is not None
            assert real.view(bucket.rows, bucket.width).sum(1).tolist() == inside.tolist()
        start += bucket.rows


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0, 1, 1]]),
        torch.tensor([[1, 0, 1]]),
        torch.tensor([[1, 1, 1], [0, 0, 0]]),
        torch.ones(0, 4, dtype=torch.int64),
    ],
    ids=["padded on the left", "a hole", "an empty row", "no rows"],
)
def test_what_cannot_be_packed_is_not(mask: Tensor) -> None:
    assert Packing.of(mask) is None


def test_spread_and_collect_have_the_right_gradients() -> None:
    torch.manual_seed(0)
    places = torch.tensor([4, 0, 2])
    source = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spread(x, places, 6), (source,))
    wide = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: collect(x, places), (wide,))


def test_random_batches() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 12, size=rng.integers(1, 20)).tolist()
        packing = packing_of(lengths)
        ids = torch.arange(len(lengths) * packing.width).view(len(lengths), packing.width)
        packed = packing.pack(ids)[0].tolist()
        order = np.argsort(lengths, kind="stable")
        assert packed == [int(ids[row, i]) for row in order for i in range(lengths[row])]
