"""`snapfit train --resume`, `--accept-changes` and `--continue-from`: printed lines, exit codes, JSON."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import toys
import trained
from resuming import SHORT, flip, listing, told_to_end
from scene import Scene, make_scene
from snapfit.core.errors import Interrupted

STOPPED_AT, TOTAL = 5, 12


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), 48, **SHORT)


@pytest.fixture(scope="module")
def stopped(scene: Scene) -> Path:
    """A run that was told to end after its fifth step; copied, never written to."""
    with pytest.raises(Interrupted):
        scene.train(scene.folder / "stopped", listener=told_to_end(STOPPED_AT))
    return scene.folder / "stopped"


@pytest.fixture(scope="module")
def complete(scene: Scene) -> Path:
    """A run that was not interrupted; copied, never written to."""
    return scene.train(scene.folder / "complete").run


@pytest.fixture
def begun(run: Any, stopped: Path) -> Path:
    """A copy of the stopped run in the working folder, which `run` changed to."""
    return Path(shutil.copytree(stopped, "begun"))


@pytest.fixture
def done(run: Any, complete: Path) -> Path:
    """A copy of the complete run in the working folder."""
    return Path(shutil.copytree(complete, "done"))


def line_of(text: str, word: str) -> str:
    """The one line that begins with a word, without it."""
    (line,) = [line for line in text.splitlines() if line.split(" ")[0] == word]
    return line.removeprefix(word).strip()


def command(scene: Scene) -> list[str]:
    """The command line of the scene's training, without a place for the run."""
    settings = [f"{key.replace('__', '.')}={value}" for key, value in SHORT.items()]
    sets = [word for setting in settings for word in ("--set", setting)]
    folder = scene.folder
    return ["train", f"{folder}/train.csv", "--test", f"{folder}/test.csv", "--encoder", f"{folder}/encoder", *sets]


# ---------------------------------------------------------------- going on


def test_what_is_told_when_a_run_goes_on(run: Any, begun: Path) -> None:
    outcome = run("train", "--resume", begun)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    assert outcome.out.startswith("run        begun\n")
    assert line_of(outcome.out, "resume") == f"from checkpoint step-{STOPPED_AT:06d}, after step {STOPPED_AT}"
    assert line_of(outcome.out, "train").startswith(f"{TOTAL} steps over 43 rows, {STOPPED_AT} of them done")
    assert "saved      step-000008; training waited for" in outcome.out
    assert "skipped" not in outcome.out
    assert "changed" not in outcome.out
    assert line_of(outcome.out, "bundle") == "begun/bundle"
    assert "snapfit predict begun/bundle --text" in outcome.out


def test_json_of_a_resumed_and_of_a_complete_run(run: Any, begun: Path) -> None:
    for step, complete in ((STOPPED_AT, False), (None, True)):
        outcome = run("train", "--resume", begun, "--json")
        assert outcome.code == 0, outcome.err
        (line,) = outcome.out.splitlines()
        result = json.loads(line)
        assert (result["run"], result["bundle"]) == ("begun", "begun/bundle")
        assert (result["resumed_from"], result["already_complete"], result["steps"]) == (step, complete, TOTAL)
        assert set(result["metrics"]) == {"valid", "test"}
        assert ("nothing is left to do" in outcome.err) == complete


def test_a_complete_run_says_so(run: Any, done: Path) -> None:
    before = listing(done)
    outcome = run("train", "--resume", done)
    assert outcome.code == 0
    assert line_of(outcome.out, "complete") == f"done has done all its {TOTAL} steps; nothing is left to do"
    assert line_of(outcome.out, "bundle") == "done/bundle"
    assert "metrics" in outcome.out
    assert "time" not in outcome.out
    assert listing(done) == before
    quiet = run("train", "--resume", done, "--quiet")
    assert quiet.code == 0
    assert [line.split()[0] for line in quiet.out.splitlines() if not line.startswith(" ")] == ["metrics", "bundle"]


def test_one_command_begins_and_goes_on(run: Any, scene: Scene) -> None:
    first = run(*command(scene), "--resume", "run")
    assert first.code == 0, first.err
    assert "resume" not in first.out
    again = run(*command(scene), "--resume", "run")
    assert again.code == 0
    assert "nothing is left to do" in again.out


def test_a_damaged_checkpoint_is_told(run: Any, begun: Path) -> None:
    flip(begun / "checkpoints" / f"step-{STOPPED_AT:06d}" / "model.safetensors")
    outcome = run("train", "--resume", begun)
    assert outcome.code == 0
    assert line_of(outcome.out, "skipped").startswith(f"checkpoint step-{STOPPED_AT:06d}: 'model.safetensors' in")
    assert line_of(outcome.out, "resume") == "from checkpoint step-000004, after step 4"


def test_without_checkpoints_it_begins_again(run: Any, begun: Path) -> None:
    shutil.rmtree(begun / "checkpoints")
    outcome = run("train", "--resume", begun)
    assert outcome.code == 0
    assert line_of(outcome.out, "resume") == "no checkpoint yet: from the start"


# ---------------------------------------------------------------- changes


def test_changes_are_told_when_they_are_accepted(run: Any, begun: Path) -> None:
    before = listing(begun)
    refused = run("train", "--resume", begun, "--epochs", "3")
    assert refused.code == 2
    assert "train.epochs was 2.0, is 3.0" in refused.err
    assert "--accept-changes" in refused.err
    assert refused.out == ""
    assert listing(begun) == before
    accepted = run("train", "--resume", begun, "--epochs", "3", "--accept-changes", "--set", "checkpoint.keep=1")
    assert accepted.code == 0, accepted.err
    changes = [line.removeprefix("changed").strip() for line in accepted.out.splitlines() if line.startswith("changed")]
    assert changes == ["train.epochs was 2.0, is 3.0", "checkpoint.keep was 2, is 1"]
    assert line_of(accepted.out, "train").startswith("18 steps")


def test_the_environment_counts_and_a_flag_wins_over_it(run: Any, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPFIT_TRAIN_EPOCHS", "3")
    refused = run("train", "--resume", begun)
    assert refused.code == 2
    assert "train.epochs was 2.0, is 3.0" in refused.err
    assert run("train", "--resume", begun, "--epochs", "2", "--quiet").code == 0


def test_other_data_is_refused_whatever_is_accepted(run: Any, begun: Path) -> None:
    table = trained.write_csv(Path("other.csv"), toys.single_rows(48, seed=9))
    before = listing(begun)
    outcome = run("train", table, "--resume", begun, "--accept-changes")
    assert outcome.code == 2
    assert "cannot be continued: the SHA-256 of the texts in the train table was" in outcome.err
    assert listing(begun) == before


# ---------------------------------------------------------------- being stopped


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_stopped_run_says_how_it_goes_on(
    run: Any, begun: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    import snapfit

    plain = snapfit.train

    def with_signal(*arguments: Any, listener: Any, **options: Any) -> snapfit.TrainResult:
        """The same, with a signal from outside after the seventh step."""

        def listen(event: dict[str, Any]) -> None:
            listener(event)
            if event["kind"] == "step" and event["number"] == 7:
                os.kill(os.getpid(), number)

        return plain(*arguments, listener=listen, **options)

    monkeypatch.setattr(snapfit, "train", with_signal)
    outcome = run("train", "--resume", begun)
    assert outcome.code == code
    if number == signal.SIGINT:
        assert "by signal 2, after step 7; the bundle is whole" in outcome.out
        assert "snapfit train --resume begun" in outcome.out
    else:
        assert "stopped after step 7 of 12; go on with: snapfit train --resume begun" in outcome.err
    assert not (begun / "result.json").exists()
    monkeypatch.setattr(snapfit, "train", plain)
    again = run("train", "--resume", begun, "--json")
    assert json.loads(again.out)["resumed_from"] == 7


# ---------------------------------------------------------------- what is in the way, and training further


def test_out_says_what_is_there(run: Any, scene: Scene, begun: Path, done: Path) -> None:
    for folder, state in ((begun, "an unfinished run"), (done, "a finished run")):
        before = listing(folder)
        outcome = run(*command(scene), "--out", folder)
        assert outcome.code == 2
        assert f"{folder} exists already: {state}" in outcome.err
        assert f"continue it with `snapfit train --resume {folder}`, or choose another with --out" in outcome.err
        assert listing(folder) == before


def test_a_bundle_is_trained_further(run: Any, scene: Scene, done: Path) -> None:
    outcome = run(
        "train", scene.folder / "train.csv", "--continue-from", done / "bundle", "--epochs", "1", "--out", "more"
    )
    assert outcome.code == 0, outcome.err
    assert line_of(outcome.out, "notice") == "of the head of done/bundle 3 labels are kept, 0 are new, 0 are left out"
    assert "fresh  0: none" in outcome.out
    assert line_of(outcome.out, "bundle") == "more/bundle"
    shown = run("inspect", "more", "--json")
    assert json.loads(shown.out)["complete"] is True
