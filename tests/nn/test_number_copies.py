"""Copies of weights: made anew exactly when the weights have changed."""

import pytest
import torch
from torch import Tensor

from snapfit.nn.number_copies import NumberCopy

HALF = torch.bfloat16


def weights() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(rows, 5) for rows in (2, 3, 2)]


@pytest.mark.parametrize("counted", [True, False])
def test_a_change_that_counts_is_seen(counted: bool) -> None:
    parts = weights()
    copy = NumberCopy(parts, counted=counted)
    first = copy.current(HALF, changing=False)
    assert torch.equal(first, torch.cat(parts).to(HALF))
    parts[1].mul_(2.0)
    assert torch.equal(copy.current(HALF, changing=False), torch.cat(parts).to(HALF))
    assert copy.current(HALF, changing=False) is first  # written anew in its place


def test_what_does_not_count_is_looked_for_while_weights_change() -> None:
    parts = weights()
    silent, trusted = (NumberCopy(parts, counted=counted) for counted in (False, True))
    old = trusted.current(HALF, changing=True).clone()
    silent.current(HALF, changing=True)
    parts[0].numpy()[:] = 7.0  # behind torch's back
    assert torch.equal(silent.current(HALF, changing=True), torch.cat(parts).to(HALF))
    assert torch.equal(trusted.current(HALF, changing=True), old)


def test_one_weight_in_the_right_precision_is_itself() -> None:
    (weight,) = weights()[:1]
    found = NumberCopy([weight], counted=True).current(torch.float32, changing=True)
    assert found.data_ptr() == weight.data_ptr()


def test_a_change_of_precision_makes_another_copy() -> None:
    parts = weights()
    copy = NumberCopy(parts, counted=True)
    for dtype in (HALF, torch.float32, HALF):
        assert torch.equal(copy.current(dtype, changing=False), torch.cat(parts).to(dtype))


def test_places_are_the_parts_of_a_fresh_copy_that_can_be_trusted() -> None:
    parts = weights()
    copy = NumberCopy(parts, counted=True)
    assert copy.places() == []  # there is none yet
    whole = copy.current(HALF, changing=False)
    for (weight, place), part in zip(copy.places(), parts, strict=True):
        assert weight is part
        part.zero_()
        place.zero_()
    copy.written()
    assert not whole.any()
    assert copy.current(HALF, changing=False) is whole
    parts[2].fill_(1.0)
    assert copy.places() == []  # stale: writing some of its weights would not make it right
    silent = NumberCopy(parts, counted=False)
    silent.current(HALF, changing=False)
    assert silent.places() == []
    wide = NumberCopy(parts, counted=True)
    wide.current(torch.float32, changing=False)
    assert wide.places() == []
