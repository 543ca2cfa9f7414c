"""Memory that runs out costs a training time and nothing else, until single rows do not fit."""

import sys
from pathlib import Path

import pytest

import snapfit.training.loop
from memory_runs_out import Shortage, run_out_of_memory, run_real_shortage, short_of_memory
from scene import make_scene
from snapfit.core.errors import WorkFailed


@pytest.mark.slow
def test_memory_that_runs_out_changes_nothing(tmp_path: Path) -> None:
    result = run_out_of_memory(tmp_path, trials=3, seed=1)
    assert result.bad == []


def test_single_rows_that_do_not_fit_end_the_run(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "stage", n_rows=24)
    shortage = Shortage(2, 0, MemoryError)
    with short_of_memory(shortage), pytest.raises(WorkFailed, match=r"step 2: memory ran out .* length\.max_tokens"):
        scene.train(tmp_path / "run", listener=shortage)


def test_an_error_that_is_none_of_memory_is_not_hidden(tmp_path: Path) -> None:
    scene = make_scene(tmp_path / "stage", n_rows=24)
    shortage = Shortage(2, 0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with short_of_memory(shortage), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        scene.train(tmp_path / "run", listener=shortage)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_a_process_that_gets_no_more_memory_goes_on(tmp_path: Path) -> None:
    result = run_real_shortage(tmp_path, trials=2, seed=1)
    assert result.bad == []


@pytest.mark.slow
def test_a_step_that_is_cut_down_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a step that is taken again leaves out its last row."""
    usual = snapfit.training.loop.micro_batches
    monkeypatch.setattr(
        snapfit.training.loop, "micro_batches", lambda rows, parts: usual(rows if parts == 1 else rows[:-1], parts)
    )
    result = run_out_of_memory(tmp_path, trials=1, seed=1)
    assert len(result.bad) == 1
    assert "a loss differs" in result.bad[0]
