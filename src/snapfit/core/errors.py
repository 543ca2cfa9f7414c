"""Every error that snapfit raises on purpose, each with the exit code that the command line returns for it.

SnapfitError          1
├── BadInput          2   something that the caller gave: found, expected, fix
│   └── MissingExtra  2   an optional dependency is not installed
├── WorkFailed        1   the work itself failed
└── Interrupted     130   the work was stopped; 143 when it was not by Ctrl-C
"""

import difflib
from collections.abc import Iterable


class SnapfitError(Exception):
    """Base of all errors raised on purpose; anything else that escapes is a defect of snapfit."""

    exit_code = 1


class BadInput(SnapfitError):
    """The caller gave something that cannot be used.

    found: what was there, quoted, with its place (file, row, key).
    expected: what would have been right.
    fix: what to do next, as a command or an edit.
    """

    exit_code = 2

    def __init__(self, found: str, expected: str, fix: str) -> None:
        self.found, self.expected, self.fix = found, expected, fix
        super().__init__(f"{found}\n  expected: {expected}\n  fix: {fix}")


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
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
