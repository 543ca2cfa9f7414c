"""What a setting may be and what was found instead, in words, derived from its type so that the two never
part.
"""

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_LONGEST = 60


def allowed_values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type of a setting in words: "a number above 0, or auto"."""
    *rest, last = _alternatives(annotation, metadata)
    return f"{', '.join(rest)}, or {last}" if rest else last


def named_values(annotation: Any) -> tuple[str, ...]:
    """The words among what a type allows."""
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return tuple(word for part in get_args(annotation) for word in named_values(part))
    return ()


def allows_none(annotation: Any) -> bool:
    """Whether a type allows None."""
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def shown(value: Any) -> str:
    """A value as an error quotes it: at most one short line."""
    text = "empty" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def written(value: Any) -> str:
    """A value as it is given on the command line."""
    if value is None:
        return "none"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _alternatives(annotation: Any, metadata: Sequence[Any]) -> Iterator[str]:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _alternatives(parts[0], [*parts[1:], *metadata])
    elif origin in (Union, UnionType):
        for part in sorted(parts, key=lambda part: part is NoneType):
            yield from _alternatives(part, metadata)
    elif origin is Literal:
        yield from map(str, parts)
    elif origin is tuple:
        yield f"a list of {len(parts)}, each {allowed_values(parts[0])}"
    elif origin is dict:
        yield f"a mapping of names, each to {allowed_values(parts[1])}"
    elif annotation is NoneType:
        yield "none"
    else:
        noun = {int: "a whole number", float: "a number", str: "text that is not empty"}[annotation]
        yield f"{noun}{_range(metadata)}"


def _range(metadata: Sequence[Any]) -> str:
    """The limits in a type's metadata: " from 0 to below 1", " above 0", or nothing."""
    bounds = [bound for entry in metadata for bound in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    limit = {
        name: getattr(bound, name)
        for bound in bounds
        for name in ("ge", "gt", "le", "lt")
        if getattr(bound, name, None) is not None
    }
    low = f" from {limit['ge']:g}" if "ge" in limit else f" above {limit['gt']:g}" if "gt" in limit else ""
    if "lt" in limit:
        return f"{low} to below {limit['lt']:g}"
    if "le" in limit:
        return f"{low} to {limit['le']}" if "ge" in limit else f"{low}, at most {limit['le']:g}"
    return f"{low} up" if "ge" in limit else low
