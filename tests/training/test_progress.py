"""Progress: what it gives for a checkpoint is what it takes back, and decides the same from there on."""

import json
import math

import pytest
import torch

import tiny
from snapfit.training.evaluation import BestWeights
from snapfit.training.guard import Guard
from snapfit.training.progress import Progress


def higher(new: float, old: float) -> bool:
    return new > old


def fresh() -> Progress:
    return Progress(BestWeights(higher), Guard(5), 1)


def far_on(*, nll: float) -> Progress:
    """A training that had an evaluation, a rollback and memory that ran out."""
    progress = fresh()
    progress.step, progress.epoch, progress.position, progress.tokens = 40, 2, 7, 12_345
    progress.micro_batches, progress.seconds, progress.evaluated = 4, 12.34567, False
    progress.best.offer(tiny.classifier("bert", "mean"), 0.75, 30, nll=nll)
    progress.best.offer(tiny.classifier("bert", "mean"), 0.5, 40, nll=nll)
    progress.guard.saw(0.5)
    progress.guard.count(9, "x")
    progress.guard.slow_down()
    return progress


def test_a_new_training_begins_at_the_start_with_nothing_due() -> None:
    values = fresh().to_dict()
    assert values["evaluated"] is True
    assert (values["step"], values["epoch"], values["position"], values["micro_batches"]) == (0, 0, 0, 1)
    assert values["best"] == {"value": None, "step": 0, "evaluations_since": 0, "nll": None}


@pytest.mark.parametrize("nll", [0.4, math.inf])
def test_what_is_given_is_taken_back(nll: float) -> None:
    progress, restored = far_on(nll=nll), fresh()
    values = json.loads(json.dumps(progress.to_dict(), allow_nan=False))
    restored.restore(values, progress.best.weights)
    assert restored.to_dict() == progress.to_dict()
    assert restored.seconds == 12.346
    assert restored.evaluated is False
    assert (restored.best.value, restored.best.step, restored.best.evaluations_since) == (0.75, 30, 1)
    assert restored.best.weights.keys() == progress.best.weights.keys()
    for one, other in ((progress, restored), (restored, progress)):
        model = tiny.classifier("bert", "mean", seed=1)
        one.best.put_into(model)
        assert all(torch.equal(tensor, other.best.weights[name]) for name, tensor in model.state_dict().items())
    for value, its_nll in ((0.75, 0.5), (0.75, 0.3), (0.8, 9.0)):
        offers = [
            one.best.offer(tiny.classifier("bert", "mean"), value, 50, nll=its_nll) for one in (progress, restored)
        ]
        assert offers[0] == offers[1]


@pytest.mark.parametrize("missing", ["step", "tokens", "seconds", "evaluated", "best", "guard"])
def test_a_state_that_lacks_something_is_told(missing: str) -> None:
    values = far_on(nll=0.4).to_dict()
    del values[missing]
    with pytest.raises(KeyError, match=missing):
        fresh().restore(values, {})
