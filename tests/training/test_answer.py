"""What a training answers with: shares and temperatures that fit, and one temperature where one model answers."""

from typing import Any

import numpy as np
import pytest
import torch

from snapfit.core.combining import combine
from snapfit.core.errors import BadInput
from snapfit.core.scores import logits_to_scores
from snapfit.training.answer import Answer
from snapfit.training.verdict import Team

OTHER = {"weight": torch.zeros(1)}


@pytest.mark.parametrize("task", ["single", "multi"])
def test_one_models_temperatures_are_one(task: Any) -> None:
    team = Team(({},), shares=(1.0,), temperatures=(2.0,), temperature=1.5)
    logits = np.random.default_rng(0).normal(size=(20, 4))
    wanted = combine([logits], team.temperatures, task, team.temperature, shares=team.shares)
    assert logits_to_scores(logits, task, team.last_temperature) == pytest.approx(wanted, abs=1e-9)
    assert not Answer("step 40", temperatures=(2.0,)).is_mean


def test_of_several_the_last_is_the_means() -> None:
    assert Answer("mean of all", (OTHER,), (0.75, 0.25), (2.0, 0.5)).is_mean
    assert Team((OTHER, OTHER), (0.75, 0.25), (2.0, 0.5), 1.5).last_temperature == 1.5


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"others": (OTHER,)}, "1 shares and 1 temperatures for 2 models"),
        ({"shares": (0.5, 0.5)}, "2 shares"),
        ({"temperatures": ()}, "0 temperatures"),
        ({"others": (OTHER,), "shares": (0.5, 0.4), "temperatures": (1.0, 1.0)}, "the shares"),
        ({"others": (OTHER,), "shares": (1.5, -0.5), "temperatures": (1.0, 1.0)}, "the shares"),
        ({"temperatures": (0.0,)}, "the temperatures"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], found: str) -> None:
    with pytest.raises(BadInput, match=found):
        Answer("x", **values)
