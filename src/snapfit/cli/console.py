"""What a person sees of a run: journal events as lines, with a live progress bar on a terminal.

Elsewhere (a pipe, a file) plain lines are written, never a carriage return.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from snapfit.cli.lines import clock, recipe_lines, verdict_lines
from snapfit.core.errors import visible

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_LEFT = 11  # width of the word that begins a line
_LINES_A_COUNT = 10  # lines that tell of work done piece by piece, evenly spread
_LINES_A_RUN = 20  # step lines that level "info" shows at most, evenly spread


class Console:
    """Renders journal events and results; hand it to `train` as the listener.

    stream: where to write. level: debug, info, warning or error; what is below it is left out.
    quiet: like level "error". Results (`result`) are always written.
    """

    def __init__(self, stream: TextIO, *, level: str = "info", quiet: bool = False) -> None:
        self._stream = stream
        self._level = LEVELS["error" if quiet else level]
        self._rich = _terminal(stream)
        self._progress: Progress | None = None
        self._pace = Pace()
        self._recipe: Mapping[str, Mapping[str, Any]] = {}
        self._run = ""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one journal event."""
        render = _RENDERERS.get(event["kind"])
        if render is not None:
            render(self, event)

    def note(self, word: str, text: str | Text, *, level: str = "info") -> None:
        """A line that begins with a word of its own, if the level is shown."""
        if LEVELS[level] >= self._level:
            style = "yellow" if level == "warning" else "bold cyan"
            self._write(word, text, style)

    def rows(self, word: str, lines: Sequence[str | Text], *, level: str = "info") -> None:
        """Several lines, the word before the first."""
        for i, line in enumerate(lines):
            self.note(word if i == 0 else "", line, level=level)

    def result(self, word: str, lines: Sequence[str | Text] | str | Text, *, style: str = "bold green") -> None:
        """Lines that are shown whatever the level: what the command was run for. style: of the word, for rich."""
        for i, line in enumerate([lines] if isinstance(lines, str | Text) else lines):
            self._write(word if i == 0 else "", line, style)

    def progress(self, word: str, done: int, total: int) -> None:
        """How many rows are done: a bar on a terminal, nothing elsewhere."""
        if self._rich is None or self._level > LEVELS["info"]:
            return
        if self._progress is None:
            self._show_bar(word, total, 0)
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done)
        if done >= total:
            self.close()

    @property
    def is_terminal(self) -> bool:
        """Whether styles are shown."""
        return self._rich is not None

    @contextmanager
    def counting(self, word: str, total: int) -> Iterator[Callable[[], None]]:
        """Gives what to call after each of `total` pieces of work; a bar shows it, a few lines where there is none."""
        done = 0

        def one_more() -> None:
            nonlocal done
            done += 1
            if self._progress is not None:
                self._progress.update(self._progress.task_ids[0], completed=done)
            elif done * _LINES_A_COUNT // total > (done - 1) * _LINES_A_COUNT // total:
                self.note(word, f"{done:,} of {total:,}")

        self._show_bar(word, total, 0)
        try:
            yield one_more
        finally:
            self.close()

    def close(self) -> None:
        """Take the progress bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _write(self, word: str, text: str | Text, style: str) -> None:
        lines: Iterable[str | Text] = [text] if isinstance(text, Text) else map(visible, text.split("\n"))
        for i, line in enumerate(lines):
            self._write_line("" if i else word, line, style)

    def _show_bar(self, word: str, total: int, done: int) -> None:
        if self._rich is not None and self._level <= LEVELS["info"]:
            self._progress = Progress(
                TextColumn(word.ljust(_LEFT - 1)),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._rich,
                transient=True,
            )
            self._progress.add_task(word, total=total, completed=done, figures="")
            self._progress.start()

    def _write_line(self, word: str, text: str | Text, style: str) -> None:
        left = word.ljust(_LEFT)
        if self._rich is None:
            self._stream.write(f"{left}{text}".rstrip() + "\n")
            self._stream.flush()
            return
        self._rich.print(Text.assemble((left, style), text), soft_wrap=True, highlight=False)

    # ---------------------------------------------------------------- events

    def _data(self, event: Mapping[str, Any]) -> None:
        if self._run != event["run"]:  # a run that goes on has been named before
            self._name_run(event["run"])
        self.note("data", event["found"])
        rows = ", ".join(f"{split} {count:,} rows" for split, count in event["rows"].items())
        outputs = "" if event["task"] == "regression" else f"; {event['n_labels']:,} labels"
        self.note("", f"{rows}{outputs}")
        self.note("split", event["split"])
        if event["process"]:
            self.note("machine", "; ".join(f"{name} {what}" for name, what in sorted(event["process"].items())))

    def _notice(self, event: Mapping[str, Any]) -> None:
        self.note("notice", event["text"], level="warning")

    def _working(self, event: Mapping[str, Any]) -> None:
        self.note("working", event["text"])

    def _show_recipe(self, event: Mapping[str, Any]) -> None:
        self._recipe = event["recipe"]
        self.rows("recipe", recipe_lines(event["recipe"], event["reasons"], every=self._level == 0))

    def _weights(self, event: Mapping[str, Any]) -> None:
        first, *rest = event["lines"]
        self.rows("weights", [first.removeprefix("weights: "), *(line.strip() for line in rest)])

    def _groups(self, event: Mapping[str, Any]) -> None:
        self.rows("groups", event["lines"])

    def _engine(self, event: Mapping[str, Any]) -> None:
        self.rows("engine", event["lines"])

    def _name_run(self, run: str) -> None:
        self._run = run
        self.note("run", run)

    def _resume(self, event: Mapping[str, Any]) -> None:
        self._name_run(event["run"])
        for one in event["skipped"]:
            self.note("skipped", f"checkpoint {one['checkpoint']}: {one['why']}", level="warning")
        if event["checkpoint"] is None:
            self.note("resume", "no checkpoint yet: from the start")
        else:
            self.note("resume", f"from checkpoint {event['checkpoint']}, after step {event['step']:,}")
        for change in event["changes"]:
            self.note("changed", change, level="warning")

    def _folds(self, event: Mapping[str, Any]) -> None:
        few, many = min(event["rows"]), max(event["rows"])
        rows = f"{few:,} rows" if few == many else f"{few:,} to {many:,} rows"
        text = f"{event['folds']}, of {rows} each, which are held out in turn; duplicates are kept together"
        out = f"; {event['left_out']:,} rows are in none: their label has no other text" if event["left_out"] else ""
        self.note("folds", text + out)

    def _folds_go_on(self, event: Mapping[str, Any]) -> None:
        self._name_run(event["run"])
        self.note("resume", f"{event['finished']} of {event['folds']} folds are finished")

    def _fold(self, event: Mapping[str, Any]) -> None:
        self.close()
        does = {"begin": "begins", "go on": "goes on", "nothing": "is finished"}[event["does"]]
        self.note("fold", f"{event['fold']} of {event['folds']} {does}; it holds out {event['held_out']:,} rows")

    def _out_of_fold(self, event: Mapping[str, Any]) -> None:
        self.close()
        values = "  ".join(f"{name} {value:.4f} ± {event['sd'][name]:.4f}" for name, value in event["mean"].items())
        self.note("held out", values)

    def _complete(self, event: Mapping[str, Any]) -> None:
        self.note("complete", f"{event['run']} has done all its {event['steps']:,} steps; nothing is left to do")

    def _start(self, event: Mapping[str, Any]) -> None:
        self._pace = Pace(total=event["total_steps"], start=event["time"], first=event["step"])
        done = f", {event['step']:,} of them done" if event["step"] else ""
        self.note("train", f"{event['total_steps']:,} steps over {event['rows']:,} rows{done}")
        word = f"fold {event['fold']} of {event['folds']}" if "fold" in event else "train"
        self._show_bar(word, event["total_steps"], event["step"])

    def _step(self, event: Mapping[str, Any]) -> None:
        self._pace.take(event)
        rate = self._recipe.get("optim", {}).get("lr")
        learning = event["lr_multiplier"] * rate if isinstance(rate, (int, float)) else None
        loss = event["loss"] if isinstance(event["loss"], (int, float)) else float("nan")
        figures = f"loss {loss:.4f}"
        figures += f"  lr {learning:.2e}" if learning is not None else f"  lr x {event['lr_multiplier']:.3f}"
        figures += f"  {self._pace.tokens_per_second:,.0f} tokens/s  {clock(self._pace.seconds_left)} left"
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=event["number"], figures=figures)
        if self._level == 0 or (self._progress is None and self._pace.line_due(event["number"])):
            width = len(f"{event['total_steps']:,}")
            self.note("step", f"{event['number']:>{width},}/{event['total_steps']:,}  {figures}")

    def _evaluation(self, event: Mapping[str, Any]) -> None:
        metrics = event["metrics"]
        names = [event["metric"], *(name for name in metrics if name != event["metric"])]
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
        best = "  * best" if event["best"] else ""
        self.note(event["split"], f"after step {event['step']:,}  {values}{best}")

    def _member(self, event: Mapping[str, Any]) -> None:
        self.note("member", f"the weights after step {event['step']:,} are kept: {_KEPT_AS[event['why']]}")

    def _round(self, event: Mapping[str, Any]) -> None:
        start = "the anchor's weights" if event["star"] else "these weights"
        self.note("round", f"after step {event['step']:,} a short cycle begins from {start}")

    def _left_basin(self, event: Mapping[str, Any]) -> None:
        text = (
            f"after step {event['step']:,}: {event['why']}; it is not kept, and the rates of the rounds after it are "
        )
        self.note("too hot", f"{text}multiplied by {event['restart_factor']:g}", level="warning")

    def _student(self, event: Mapping[str, Any]) -> None:
        self.close()
        n = event["teachers"]
        teachers = f"{n} sets of weights say" if n > 1 else "one set of weights says"
        learns = f"{event['steps']:,} steps over what {teachers} of {event['rows']:,} texts"
        self.note("student", f"begins with {event['start']}; {learns}")

    def _verdict(self, event: Mapping[str, Any]) -> None:
        self.close()
        self.rows("verdict", verdict_lines(event))

    def _checkpoint(self, event: Mapping[str, Any]) -> None:
        waited = f"training waited for {event['blocked_seconds']:.2f} of {event['seconds']:.2f} s"
        self.note("saved", f"{event['folder']}; {waited}", level="info" if event["step"] else "debug")

    def _checkpoint_failed(self, event: Mapping[str, Any]) -> None:
        self.note("not saved", f"after step {event['step']:,}: {event['error']}", level="warning")

    def _fault(self, event: Mapping[str, Any]) -> None:
        self.note("skipped", f"step {event['step']:,}: {event['why']}; {event['action']}", level="warning")

    def _rollback(self, event: Mapping[str, Any]) -> None:
        text = f"to step {event['step']:,}, from step {event['from_step']:,}: {event['why']}; "
        self.note("back", f"{text}rates are multiplied by {event['rate_factor']:g} from here on", level="warning")

    def _memory(self, event: Mapping[str, Any]) -> None:
        text = f"step {event['step']:,}: memory ran out; steps are cut into {event['micro_batches']} parts from here on"
        self.note("memory", text, level="warning")

    def _collapsed(self, event: Mapping[str, Any]) -> None:
        self.note("collapsed", f"after step {event['step']:,} {event['text']}", level="warning")

    def _interrupted(self, event: Mapping[str, Any]) -> None:
        self.close()
        self.note("stopped", f"after step {event['step']:,} of {event['total_steps']:,}", level="warning")

    def _early_stop(self, event: Mapping[str, Any]) -> None:
        self.close()
        self.note("stopped", f"no gain since step {event['best_step']:,}; ended at step {event['step']:,}")

    def _decision(self, event: Mapping[str, Any]) -> None:
        self.close()
        self.rows("decides", event["lines"])
        if any(not one["reached"] for one in event["report"].get("refusals", ())):
            self.note("notice", "what was asked for cannot be reached; see above", level="warning")

    def _final(self, event: Mapping[str, Any]) -> None:
        self.close()


class Pace:
    """How fast steps go, from the step events of a run.

    total: steps of the run. start: the time of its start event, seconds. first: steps done before it.
    """

    def __init__(self, *, total: int = 1, start: float = 0.0, first: int = 0) -> None:
        self._total, self._start, self._first = total, start, first
        self._tokens_before: int | None = None
        self._shown = 0.0
        self.tokens_per_second = self.seconds_left = 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take note of a step event; `tokens_seen` in it counts every step so far, reported or not."""
        seconds = max(event["time"] - self._start, 1e-9)
        if self._tokens_before is None:
            self._tokens_before = event["tokens_seen"] - event["tokens"] if self._first else 0
        self.tokens_per_second = (event["tokens_seen"] - self._tokens_before) / seconds
        done = max(event["number"] - self._first, 1)
        self.seconds_left = seconds / done * (self._total - event["number"])

    def line_due(self, number: int) -> bool:
        """Whether a line about this step is due, so that a whole run has about _LINES_A_RUN of them."""
        share = number / self._total
        due = number == 1 or share >= 1.0 or share - self._shown >= 1.0 / _LINES_A_RUN
        if due:
            self._shown = share
        return due


_KEPT_AS = {
    "anchor": "the anchor of the rounds",
    "cycle": "a cycle ends",
    "best": "among the best evaluations",
}

_RENDERERS: dict[str, Callable[[Console, Mapping[str, Any]], None]] = {
    "resume": Console._resume,
    "complete": Console._complete,
    "data": Console._data,
    "folds": Console._folds,
    "folds_go_on": Console._folds_go_on,
    "fold": Console._fold,
    "out_of_fold": Console._out_of_fold,
    "notice": Console._notice,
    "working": Console._working,
    "recipe": Console._show_recipe,
    "weights": Console._weights,
    "groups": Console._groups,
    "engine": Console._engine,
    "start": Console._start,
    "step": Console._step,
    "evaluation": Console._evaluation,
    "member": Console._member,
    "round": Console._round,
    "left_basin": Console._left_basin,
    "student": Console._student,
    "verdict": Console._verdict,
    "checkpoint": Console._checkpoint,
    "checkpoint_failed": Console._checkpoint_failed,
    "fault": Console._fault,
    "rollback": Console._rollback,
    "memory": Console._memory,
    "collapsed": Console._collapsed,
    "interrupted": Console._interrupted,
    "early_stop": Console._early_stop,
    "decision": Console._decision,
    "final": Console._final,
}


def calm_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal; what the user has set stays."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def _terminal(stream: TextIO) -> RichConsole | None:
    """rich's console for a stream that is a terminal; None for a pipe, a file or a terminal without
    control.
    """
    if not stream.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return None
    return RichConsole(file=stream)
