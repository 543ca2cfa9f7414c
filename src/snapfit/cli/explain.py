"""`snapfit explain`: which words made an answer what it is, in colours on a terminal, in marks elsewhere, as a page."""

import json
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from snapfit.cli.answers import write_json_line
from snapfit.cli.console import Console, calm_libraries
from snapfit.cli.predict import (
    BundleArgument,
    InputEncodingOption,
    PairColumnOption,
    TableArgument,
    TableFormatOption,
    TextColumnOption,
    check_place,
    read_rows,
)
from snapfit.core.errors import BadInput

if TYPE_CHECKING:
    from snapfit.runtime.bundle import Bundle
    from snapfit.runtime.explaining import Explainer, Wanted
    from snapfit.runtime.explanations import Check, Explanation, LabelExplanation

_FOR, _AGAINST = ("#c6dbef", "#6baed6", "#08519c"), ("#fee6ce", "#fd8d3c", "#a63603")
"""Blue and orange in three strengths: people who see no red, no green or no blue tell these apart."""
_INK = ("black", "black", "white")
_LONGEST_UNREAD = 40  # characters of what was not read, to be shown at either end


def explain(
    bundle: BundleArgument,
    table: TableArgument = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", metavar="TEXT", help="A text to explain; repeatable. Pairs: a tab between the two."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="auto, integrated_gradients, or occlusion, which needs no gradients.")
    ] = "auto",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="A label to explain; repeatable. Default: what is answered."),
    ] = None,
    top: Annotated[int, typer.Option(metavar="K", help="How many words of a text are named with their values.")] = 5,
    tokens: Annotated[bool, typer.Option("--tokens", help="Tokens in place of words.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Do it by both methods, and say how far they agree.")] = False,
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows of TABLE at most.")] = 20,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page; needs jinja2.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON lines, with all values.")] = None,
    text_column: TextColumnOption = None,
    pair_column: PairColumnOption = None,
    encoding: InputEncodingOption = "utf-8",
    table_format: TableFormatOption = "auto",
    as_json: Annotated[
        bool,
        typer.Option("--json", help="One JSON object as the last line: a summary, and without files all values."),
    ] = False,
) -> int:
    """Say which words made BUNDLE answer as it does, and what each added to the score or took from it.

    With --html, --out or --json all goes there, and the screen shows how far it has come.
    """
    calm_libraries()
    from snapfit.runtime.bundle import Bundle
    from snapfit.runtime.explaining import Wanted

    _check_usage(bundle, table, {"--top": top, "--rows": rows}, {"--html": html, "--out": out})
    wanted = Wanted(method, label or None, tokens, check)
    opened = Bundle.open(bundle)
    wanted.outputs(opened.label_set.names)
    columns, parts = read_rows(
        opened, table, text, (text_column, pair_column), encoding, table_format, command="explain"
    )
    items = list(islice((item for _, examples in parts for item in examples), rows + 1 if table else None))
    more = bool(table) and len(items) > rows
    job = _Job(opened, items[:rows] if more else items, wanted, html, out, top, numbered=bool(table), more=more)
    return job.run(as_json=as_json)


def _check_usage(bundle: Path, table: str | None, counts: dict[str, int], files: dict[str, Path | None]) -> None:
    """Refuse, before any work, numbers that cannot be and files that could not be written. Keys are the options."""
    for option, number in counts.items():
        if number < 1:
            raise BadInput(f"{option} {number}", "at least 1", f"leave {option} out for the default")
    for option, target in files.items():
        if target is not None:
            check_place(option, target, table, bundle)
            if target.is_dir():
                raise BadInput(f"{option} {target} is a folder", "a file", f"choose another name for {option}")
    html, out = files.values()
    if html is not None:
        from snapfit.runtime.explanation_page import check_engine

        check_engine()
        if out is not None and os.path.realpath(out) == os.path.realpath(html):
            raise BadInput(f"--html and --out are both {out}", "a file of its own for each", "choose another name")


@dataclass(frozen=True)
class _Job:
    """Texts to explain, and where what is found goes: to files, to --json, or else to the screen."""

    bundle: "Bundle"
    items: list[Any]
    wanted: "Wanted"
    html: Path | None
    out: Path | None
    top: int
    numbered: bool
    more: bool

    def run(self, *, as_json: bool) -> int:
        """Explain them, one after another."""
        from snapfit.core.files import open_atomic
        from snapfit.loading import load

        start, found = time.monotonic(), list[Any]()
        explainer = load(self.bundle.folder, verify=False).explainer(self.wanted)
        with Console(sys.stderr if as_json else sys.stdout) as console:
            if as_json or self.html or self.out:
                with nullcontext() if self.out is None else open_atomic(self.out) as file:
                    found = self._explained(explainer, console, file)
                self._write_page(found)
                for target in (self.html, self.out):
                    if target is not None:
                        seconds = f"{time.monotonic() - start:.1f} s"
                        console.result("wrote", f"{len(found):,} explanations to {target}, in {seconds}")
            else:
                self._show(explainer, console)
            if self.more:
                console.note("rows", f"only the first {len(self.items):,} of the table; --rows N takes more")
        if as_json:
            result: dict[str, Any] = {"rows": len(found), "more_rows": self.more, "method": explainer.method}
            result |= {name: None if path is None else str(path) for name, path in self._files()}
            result["seconds"] = round(time.monotonic() - start, 2)
            if self.out is None:
                result["explanations"] = [one.to_dict() for one in found]
            write_json_line(result)
        return 0

    def _files(self) -> list[tuple[str, Path | None]]:
        return [("html", self.html), ("out", self.out)]

    def _explained(self, explainer: "Explainer", console: Console, file: IO[bytes] | None) -> "list[Explanation]":
        found = []
        with console.counting("explain", len(self.items)) as one_more:
            for number, item in enumerate(self.items, 1):
                found.append(explainer.explain(item))
                if file is not None:
                    line = json.dumps({"row": number, **found[-1].to_dict()}, ensure_ascii=False, allow_nan=False)
                    file.write(line.encode() + b"\n")
                one_more()
        return found

    def _write_page(self, found: "list[Explanation]") -> None:
        if self.html is not None:
            from snapfit.runtime.explanation_page import write_page

            write_page(self.html, found, top=self.top)

    def _show(self, explainer: "Explainer", console: Console) -> None:
        for number, item in enumerate(self.items, 1):
            explanation = explainer.explain(item)
            if self.numbered:
                console.result("row", f"{number:,}")
            _show(console, explanation, top=self.top)
            if number == len(self.items):
                console.rows("legend", _legend(explanation, styled=console.is_terminal))


# ---------------------------------------------------------------- what a person sees


def _show(console: Console, explanation: "Explanation", *, top: int) -> None:
    from snapfit.runtime.explanations import LARGE_ERROR, visible

    console.result("answer", explanation.answer)
    for label in explanation.labels:
        score = "" if explanation.unit == "number" else f", score {label.score:.4f}"
        value, baseline = (explanation.number(one) for one in (label.value, label.baseline))
        added = "" if label.error is None else f"; the words add {explanation.number(label.value - label.baseline)}"
        console.result(
            "why",
            f"{visible(label.label)}{score}: {explanation.unit} {value}, with every word masked {baseline}{added}",
        )
        console.result("", _marked(explanation, label, top=top, styled=console.is_terminal))
        if label.check is not None:
            console.result("check", _agreement(label.check))
        if label.error is not None and label.error > LARGE_ERROR:
            console.note("notice", f"the values miss what they should add up to by {label.error:.1%}", level="warning")
    for one in explanation.unread:
        console.note("unread", f"{one.end - one.start:,} characters{_of_part(explanation, one.part)}", level="warning")


def _marked(explanation: "Explanation", label: "LabelExplanation", *, top: int, styled: bool) -> list[Text]:
    """The text or texts with the words marked: by colours where they are shown, else the strongest with their values;
    and these by themselves, strongest first.
    """
    from snapfit.runtime.explanations import segments, strengths, strongest, visible

    words = label.tokens or label.words
    named = strongest(words, top)
    strength = dict(zip(map(id, words), strengths(words), strict=True))
    lines = []
    for part in segments(explanation, label):
        line = Text()
        for segment in part:
            if segment.unread:
                line.append(_shortened(segment.text), "dim strike")
            elif segment.word is None or (styled and not strength[id(segment.word)]):
                line.append(segment.text)
            elif styled:
                line.append(segment.text, _style(strength[id(segment.word)]))
            elif any(segment.word is word for word in named):
                line.append(f"[{explanation.number(segment.word.value)} {segment.text}]")
            else:
                line.append(segment.text)
        lines.append(line)
    if styled and named:
        texts = [f"{explanation.number(word.value)} {visible(word.text or ''.join(word.tokens))}" for word in named]
        lines.append(Text("   ".join(texts)))
    return lines


def _style(strength: int) -> str:
    """Colours, and for terminals and people without them bold letters for a label and underlined ones against it."""
    colour = (_FOR if strength > 0 else _AGAINST)[abs(strength) - 1]
    return f"{_INK[abs(strength) - 1]} on {colour} {'bold' if strength > 0 else 'underline'}"


def _legend(explanation: "Explanation", *, styled: bool) -> list[str | Text]:
    """What the marks mean, and where they are from."""
    how = "integrated gradients" if explanation.method == "integrated_gradients" else "taking away one word at a time"
    unit = "the number" if explanation.unit == "number" else "the label's log-odds"
    if styled:
        told = Text.assemble((" added ", _style(3)), f" to {unit}, ", (" took ", _style(-3)), " from it")
    else:
        told = Text(f"[+0.10 word] added 0.10 to {unit}, [-0.10 word] took as much from it")
    return [told, f"by {how}, with {explanation.mask} for a word that is not there"]


def _agreement(check: "Check") -> str:
    other = check.method.replace("_", " ")
    if check.agreement is None:
        return f"{other}: too few words to compare"
    return f"{other} ranks the words alike to {check.agreement:.2f} (1: the same, 0: no relation)"


def _of_part(explanation: "Explanation", part: int) -> str:
    return f" of the {('first', 'second')[part]} text" if len(explanation.texts) > 1 else ""


def _shortened(text: str) -> str:
    if len(text) <= 2 * _LONGEST_UNREAD:
        return text
    return f"{text[:_LONGEST_UNREAD]} … {text[-_LONGEST_UNREAD:]}"
