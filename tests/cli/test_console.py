"""The console: events as lines, levels, and a live bar on terminals alone."""

import io
import json
import os
import pty
import sys
from typing import Any

import pytest

from snapfit.cli.answers import answers_stream, write_json_line
from snapfit.cli.console import Console, Pace
from snapfit.cli.lines import aligned, byte_size, clock, fold_lines, metrics_lines, recipe_lines, suspect_lines
from snapfit.core.recipe import Recipe

STEP = {
    "kind": "step",
    "epoch": 0,
    "position": 0,
    "grad_norm": 1.0,
    "rows": 8,
    "tokens": 100,
    "total_steps": 100,
}
START = {"kind": "start", "time": 10.0, "total_steps": 100, "step": 0, "rows": 800}


def step(number: int, **changes: Any) -> dict[str, Any]:
    event = {**STEP, "number": number, "time": 10.0 + number, "loss": 0.5, "lr_multiplier": 0.5, **changes}
    return {**event, "tokens_seen": event["tokens"] * number}


def shown(events: list[dict[str, Any]], **options: Any) -> list[str]:
    stream = io.StringIO()
    with Console(stream, **options) as console:
        for event in events:
            console(event)
    return stream.getvalue().splitlines()


def test_step_lines_are_thinned_at_info_and_complete_at_debug() -> None:
    events = [START, *(step(i) for i in range(1, 101))]
    assert 15 <= len(shown(events)) <= 25
    assert len(shown(events, level="debug")) == 101
    assert shown(events, level="warning") == []
    assert shown(events, quiet=True) == []


def test_a_step_line_tells_loss_rate_speed_and_time_left() -> None:
    recipe = {"kind": "recipe", "recipe": {"optim": {"lr": 1e-4}}, "reasons": {}}
    *_, line = shown([recipe, START, step(50)])
    assert line == "step        50/100  loss 0.5000  lr 5.00e-05  100 tokens/s  0:50 left"


def test_a_loss_that_the_journal_could_not_write_is_nan() -> None:
    assert "loss nan" in shown([START, step(1, loss=None)])[-1]


def test_the_best_evaluation_is_marked_and_its_metric_comes_first() -> None:
    event = {"kind": "evaluation", "split": "valid", "step": 5, "metrics": {"nll": 1.0, "accuracy": 0.5}}
    best, not_best = shown([{**event, "metric": "accuracy", "best": best} for best in (True, False)])
    assert best == "valid      after step 5  accuracy 0.5000  nll 1.0000  * best"
    assert "best" not in not_best


def test_warnings_pass_the_level_warning() -> None:
    events = [
        {"kind": "notice", "text": "mind this"},
        {"kind": "working", "text": "reading big.csv"},
        {"kind": "interrupted", "step": 3, "total_steps": 9},
        {"kind": "early_stop", "step": 3, "best_step": 1},
        {"kind": "something new", "field": 1},
    ]
    assert len(shown(events, level="warning")) == 2
    assert len(shown(events)) == 4


def test_folds_are_told_of() -> None:
    events: list[dict[str, Any]] = [
        {"kind": "folds", "folds": 3, "rows": [10, 10, 9], "left_out": 2},
        {"kind": "folds_go_on", "run": "runs/x", "finished": 1, "folds": 3},
        {"kind": "fold", "fold": 1, "folds": 3, "held_out": 10, "does": "nothing"},
        {"kind": "fold", "fold": 2, "folds": 3, "held_out": 10, "does": "go on"},
        {"kind": "out_of_fold", "mean": {"accuracy": 0.9}, "sd": {"accuracy": 0.01}},
    ]
    assert shown(events) == [
        "folds      3, of 9 to 10 rows each, which are held out in turn; duplicates are kept together; "
        "2 rows are in none: their label has no other text",
        "run        runs/x",
        "resume     1 of 3 folds are finished",
        "fold       1 of 3 is finished; it holds out 10 rows",
        "fold       2 of 3 goes on; it holds out 10 rows",
        "held out   accuracy 0.9000 ± 0.0100",
    ]


def test_fold_lines_are_a_table_of_folds_mean_and_spread() -> None:
    report = {
        "folds": [{"fold": 1, "rows": 1_000, "metrics": {"accuracy": 0.9}}],
        "mean": {"accuracy": 0.9},
        "sd": {"accuracy": 0.0},
        "test": {"mean": {"accuracy": 0.8}, "sd": {"accuracy": 0.1}},
    }
    assert fold_lines(report) == [
        "             rows  accuracy",
        "fold 1      1,000    0.9000",
        "mean                 0.9000",
        "sd                   0.0000",
        "test, mean           0.8000",
        "test, sd             0.1000",
    ]
    assert fold_lines(report | {"test": None})[-1] == "sd               0.0000"


def test_suspect_lines_are_safe_to_show() -> None:
    suspects = [
        {
            "row": "7",
            "given": "a",
            "suggested": "b",
            "suggested_score": "0.912",
            "text": "\x1b[31mred\n\u202eback" + 80 * "x",
        },
        {"row": "12", "label": "x", "given": "present", "suggested": "absent", "suggested_score": "0.7", "text": "t"},
        {"row": "3", "given": "1.5", "suggested": "4.0", "deviations": "8.25", "text": "u"},
    ]
    first, *lines = suspect_lines({"suspected": 3, "labels": 1_200}, suspects, "run/label_errors.csv")
    assert first == "3 of 1,200 labels look wrong; all of them, likeliest first: run/label_errors.csv"
    assert [line.split()[:5] for line in lines] == [
        ["row", "7", "a", "->", "b"],
        ["row", "12", "x", "present", "->"],
        ["row", "3", "1.5", "->", "4.0"],
    ]
    assert [line.split("  ")[-2].strip() for line in lines[1:]] == ["0.70", "8.25"]
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith("…")
    assert suspect_lines({"suspected": 0, "labels": 9}, [], "f") == [
        "0 of 9 labels look wrong; all of them, likeliest first: f"
    ]


def test_recipe_lines_give_reasons_and_leave_defaults_out() -> None:
    recipe = Recipe().with_values({"optim.lr": 1e-4, "train.epochs": 3, "train.patience": None})
    lines = recipe_lines(recipe.to_dict(), {"train.epochs": "few rows"}, every=False)
    assert [" ".join(line.split()) for line in lines] == [
        "optim.lr = 0.0001 (given)",
        "train.epochs = 3.0 (few rows)",
        "train.patience = none (given)",
    ]
    assert len(recipe_lines(recipe.to_dict(), {}, every=True)) > 30


def test_columns_stand_under_one_another_also_with_wide_characters() -> None:
    assert aligned([("天气", "1"), ("weather", "20")], right=[1]) == ["天气      1", "weather  20"]
    assert aligned([]) == []
    assert metrics_lines({"valid": {"accuracy": 0.5}}) == ["       accuracy", "valid    0.5000"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(5, "5 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (3e9, "3.0 GB")])
def test_byte_size(size: float, text: str) -> None:
    assert byte_size(int(size)) == text


def test_pace_counts_the_tokens_of_steps_that_were_not_reported() -> None:
    pace = Pace(total=100, start=0.0)
    pace.take({"number": 10, "tokens_seen": 500, "time": 5.0})
    assert pace.tokens_per_second == pytest.approx(100.0)
    assert pace.seconds_left == pytest.approx(45.0)


def test_the_pace_of_a_resumed_run_is_that_of_its_own_steps() -> None:
    pace = Pace(total=100, start=0.0, first=60)
    pace.take({"number": 61, "tokens": 100, "tokens_seen": 6_100, "time": 1.0})
    pace.take({"number": 70, "tokens": 100, "tokens_seen": 7_000, "time": 10.0})
    assert pace.tokens_per_second == pytest.approx(100.0)
    assert pace.seconds_left == pytest.approx(30.0)


def test_a_run_that_goes_on_is_named_once() -> None:
    resume = {"kind": "resume", "run": "r", "step": 30, "checkpoint": "c", "skipped": [], "changes": []}
    data = {
        "kind": "data",
        "process": {},
        "run": "r",
        "found": "f",
        "rows": {"train": 3},
        "task": "single",
        "n_labels": 2,
        "split": "s",
    }
    assert [line for line in shown([resume, data]) if line.startswith("run ")] == ["run        r"]
    assert shown([data])[0] == "run        r"


def test_what_went_wrong_and_what_was_resumed_is_told() -> None:
    skipped = [{"checkpoint": "step-000040", "why": "it was changed"}]
    changes = ["train.epochs was 3, is 5"]
    resume = {"kind": "resume", "run": "r", "step": 30, "checkpoint": "step-000030"}
    events = [
        {**resume, "skipped": skipped, "changes": changes},
        {**resume, "checkpoint": None, "skipped": [], "changes": []},
        {"kind": "checkpoint", "step": 50, "folder": "step-000050", "blocked_seconds": 0.02, "seconds": 0.5},
        {"kind": "checkpoint_failed", "step": 60, "error": "no space"},
        {"kind": "fault", "step": 61, "why": "the loss is nan", "action": "its batch is skipped"},
        {"kind": "rollback", "step": 50, "from_step": 62, "why": "bad weights", "rate_factor": 0.5},
        {"kind": "memory", "step": 63, "micro_batches": 4, "rows": 8},
        {"kind": "collapsed", "step": 90, "text": "all rows are answered 'a'"},
        {"kind": "complete", "run": "r", "steps": 100},
    ]
    text = "\n".join(shown(events))
    for words in (
        "skipped    checkpoint step-000040: it was changed",
        "resume     from checkpoint step-000030, after step 30",
        "changed    train.epochs was 3, is 5",
        "resume     no checkpoint yet: from the start",
        "saved      step-000050; training waited for 0.02 of 0.50 s",
        "not saved  after step 60: no space",
        "skipped    step 61: the loss is nan; its batch is skipped",
        "back       to step 50, from step 62: bad weights; rates are multiplied by 0.5 from here on",
        "memory     step 63: memory ran out; steps are cut into 4 parts from here on",
        "collapsed  after step 90 all rows are answered 'a'",
        "complete   r has done all its 100 steps",
    ):
        assert words in text


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_live_bar_and_a_dumb_one_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for term, live in (("xterm", True), ("dumb", False)):
        monkeypatch.setenv("TERM", term)
        leader, follower = pty.openpty()
        with os.fdopen(follower, "w") as stream, Console(stream) as console:
            console(START)
            for i in range(1, 20):
                console(step(i))
            console.close()
            console.result("bundle", "here")
            stream.flush()
            written = ""
            while "here" not in written:  # a pseudo-terminal hands over what it has, a few kilobytes at most
                written += os.read(leader, 100_000).decode(errors="replace")
        os.close(leader)
        assert ("\x1b[" in written) is live
        assert ("step  " in written) is not live
        assert "here" in written


# ---------------------------------------------------------------- what a terminal would act on


def test_control_characters_of_names_and_cells_are_escaped() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.result("bundle", "a\x1b[31m\u202eb\r.csv")
    console.rows("labels", aligned([("label", "rows"), ("\x1b]0;t\x07", "1"), ("two\nlines", "2")]))
    console.note("notice", "first\nsecond\x9b")
    assert stream.getvalue() == (
        "bundle     a\\x1b[31m\\u202eb\\r.csv\n"
        "labels     label         rows\n"
        "           \\x1b]0;t\\x07  1\n"
        "           two\\nlines    2\n"
        "notice     first\n"
        "           second\\x9b\n"
    )


def test_the_line_of_json_is_the_same_value(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"label": "\x1b[31m\x7f\x9b\u202e\u2028é\ud800"}
    write_json_line(value)
    line = capsys.readouterr().out
    assert json.loads(line) == value
    assert line == '{"label": "\\u001b[31m\\u007f\\u009b\\u202e\\u2028é\\ud800"}\n'


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_answers_are_escaped_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = 'a\x1b[31m,"two\nlines",tab\there,\x9b,电影\n'.encode()
    for kind in (_Terminal, io.TextIOWrapper):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", kind(raw, encoding="utf-8"))
        stream = answers_stream()
        for i in range(0, len(cells), 3):  # in the middle of characters too
            stream.write(cells[i : i + 3])
        stream.flush()
        escaped = cells.replace(b"\x1b", b"\\x1b").replace(b"\xc2\x9b", b"\\x9b")
        assert raw.getvalue() == (escaped if kind is _Terminal else cells)


def test_work_that_is_counted_is_told_of_a_few_times() -> None:
    for total, lines in ((3, 3), (10, 10), (1000, 10)):
        stream = io.StringIO()
        with Console(stream) as console, console.counting("explain", total) as one_more:
            for _ in range(total):
                one_more()
        written = stream.getvalue().splitlines()
        assert len(written) == lines
        assert written[-1] == f"explain    {total:,} of {total:,}"
    stream = io.StringIO()
    with Console(stream, quiet=True) as console, console.counting("explain", 5) as one_more:
        one_more()
    assert stream.getvalue() == ""
