"""Rows to show: the first few by some order, with their texts shortened, so that memory is bounded.

Which rows are kept depends on their keys and numbers alone, not on how the table was cut.
"""

from typing import Any

from snapfit.data.records import Records

MOST_CHARACTERS = 200


def shortened(text: str) -> str:
    """A text of at most MOST_CHARACTERS."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def texts_of_row(records: Records, place: int) -> dict[str, str]:
    """The text of the row at `place` and, of a pair, its second text, shortened."""
    found = {"text": shortened(records.texts[place].as_py())}
    if records.pairs is not None:
        found["pair"] = shortened(records.pairs[place].as_py())
    return found


class Foremost:
    """The `most` examples of the highest keys, of equal keys those of the lowest rows. Attribute: n_offered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[float, int, dict[str, Any]]] = []

    def would_take(self, key: float, row: int) -> bool:
        """Whether an example of this key and row number is among the foremost so far."""
        return len(self._kept) < self._most or (-key, row) < self._kept[-1][:2]

    def take(self, key: float, row: int, example: dict[str, Any]) -> None:
        """Keep an example that `would_take` accepts."""
        self._kept = sorted([*self._kept, (-key, row, example)], key=lambda one: one[:2])[: self._most]

    def to_list(self) -> list[dict[str, Any]]:
        """The examples, the foremost first, each with its row, counted from 1 after the header."""
        return [{"row": row + 1, **example} for _, row, example in self._kept]
