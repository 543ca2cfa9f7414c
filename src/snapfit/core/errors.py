"""Every error that snapfit raises on purpose, each with the exit code that the command line returns for it.

SnapfitError          1
├── BadInput          2   something that the caller gave: found, expected, fix
│   └── MissingExtra  2   an optional dependency is not installed
├── WorkFailed        1   the work itself failed
└── Interrupted     130   the work was stopped; 143 when it was not by Ctrl-C
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal acts on, what turns the direction of a line, and halves of surrogate pairs."""
_LONGEST_WORD = 200
"""Characters of a word that may have been mistyped: comparing takes time that grows with their square."""


class SnapfitError(Exception):
    """Base of all errors raised on purpose; anything else that escapes is a defect of snapfit."""

    exit_code = 1


class BadInput(SnapfitError):
    """The caller gave something that cannot be used.

    found: what was there, quoted, with its place (file, row, key).
    expected: what would have been right.
    fix: what to do next, as a command or an edit.
    All three may hold names and cells as they are: the message shows them with control characters escaped.
    """

    exit_code = 2

    def __init__(self, found: str, expected: str, fix: str) -> None:
        self.found, self.expected, self.fix = found, expected, fix
        super().__init__(f"{visible(found)}\n  expected: {visible(expected)}\n  fix: {visible(fix)}")


class MissingExtra(BadInput):
    """A feature needs packages that the bare install does not bring.

    extra: the extra's name in pyproject.toml, such as "train".
    needs: the package that could not be imported.
    """

    def __init__(self, extra: str, needs: str) -> None:
        super().__init__(
            found=f"the package {needs!r} is not installed",
            expected=f"snapfit with its [{extra}] extra",
            fix=f"pip install 'snapfit[{extra}]'",
        )


class WorkFailed(SnapfitError):
    """The work began with good input and could not be finished; the message says why."""


class Interrupted(SnapfitError):
    """The work was asked to stop and did.

    exit_code: 130 after Ctrl-C, 143 when the process was told to end (see `interrupts.exit_code`).
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The entry of `known` that a mistyped `word` most likely meant, or None."""
    if len(word) > _LONGEST_WORD:
        return None
    matches = difflib.get_close_matches(word, [one for one in known if len(one) <= _LONGEST_WORD], n=1, cutoff=0.6)
    return matches[0] if matches else None


def visible(text: str) -> str:
    """A text on one line for a terminal or a log: control characters, line ends among them, are escaped as in Python.

    So are marks that turn the direction of writing, and halves of surrogate pairs, which no encoding has.
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def shown(value: Any, most: int = 60) -> str:
    """A value in quotes for a message, of a long text its beginning. most: characters that are shown, about."""
    if isinstance(value, str | bytes) and len(value) > most:
        return f"{value[:most]!r}... ({len(value):,} {'characters' if isinstance(value, str) else 'bytes'})"
    text = repr(value)
    return text if len(text) <= most + 2 else f"{text[:most]}..."


def listed(names: Iterable[str], most: int = 20) -> str:
    """Names in quotes for a message; of many the first ones, and how many there are."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more
