"""Where the rows of a table are, for messages: as lines of a file where it has lines.

A Place is what the table is called, and whoever tells of its rows asks it for their names.
"""

from collections.abc import Callable, Iterable, Sequence

Locate = Callable[[Sequence[int]], list[str]]
"""Numbers of rows, from 0 and ascending, to their names, such as "line 7". May read a file again: an error is due."""
_SHOWN = 5


class Place(str):
    """What a table is called in messages.

    first: of a piece of a table, the number of its first row in the whole, from 0. locate: names rows of the whole.
    """

    first: int = 0
    locate: Locate | None = None

    @classmethod
    def of(cls, name: str, *, first: int = 0, locate: Locate | None = None) -> "Place":
        """A place of this name; what is not stated is that of `name`, where it is a place."""
        place = cls(name)
        place.first = first
        place.locate = locate or getattr(name, "locate", None)
        return place


def rows_at(where: str, rows: Iterable[int]) -> str:
    """Some rows of a table in words: "line 7", or "3 rows: line 7, line 9, line 12".

    where: a Place, or a name, for rows that are told by their numbers. rows: in the piece that `where` is, from 0.
    """
    first = where.first if isinstance(where, Place) else 0
    numbers = [first + int(row) for row in rows]
    locate = where.locate if isinstance(where, Place) and where.locate is not None else by_number
    names = locate(numbers[:_SHOWN])
    if len(numbers) == 1:
        return names[0]
    return f"{len(numbers):,} rows: {', '.join(names)}{', ...' if len(numbers) > _SHOWN else ''}"


def by_number(rows: Sequence[int]) -> list[str]:
    """Names of rows that have no lines: their numbers, from 1."""
    return [f"row {row + 1}" for row in rows]
