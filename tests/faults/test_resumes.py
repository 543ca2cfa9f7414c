"""A training that is continued after any of its steps ends bit for bit as an uninterrupted one."""

from pathlib import Path

import pytest

from kills import break_position
from resumes import CONFIGURATIONS, Configuration, run_resumes


@pytest.mark.slow
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda configuration: configuration.name)
def test_a_continued_training_ends_the_same(tmp_path: Path, configuration: Configuration) -> None:
    # Two threads on a busy machine wait for one another most of the time: one short resume does for every day.
    points = (28,) if configuration.settings.get("train__threads") == 2 else (7, 21)
    result = run_resumes(tmp_path, points=points, configurations=[configuration])
    assert result.trials == len(points)
    assert result.bad == []


def test_a_broken_resume_is_noticed(tmp_path: Path) -> None:
    """The negative control: the checkpoint tells another epoch, and its manifest agrees."""
    result = run_resumes(tmp_path, points=(14,), configurations=CONFIGURATIONS[:1], before_resume=break_position)
    assert len(result.bad) == 1
    assert "plain-order, step 14: other" in result.bad[0]
