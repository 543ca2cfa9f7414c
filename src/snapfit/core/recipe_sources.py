"""Where settings come from: a YAML file, the environment, `--set key=value`. Each with its place, for error
messages.

Everything that was written as text stays text here, and the field that it is for decides what it means. So
`3e-5` is a rate, `no` and `007` are the labels or columns of those names, and YAML 1.1's surprises never get
a chance.
"""

import numbers
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from snapfit.core.errors import BadInput

PREFIX = "SNAPFIT_"
NOT_SETTINGS = frozenset({"SNAPFIT_CACHE", "SNAPFIT_KERNELS", "SNAPFIT_REAL_DATA"})
"""Environment variables with the prefix that are read elsewhere."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_DEPTH = 8


@dataclass(frozen=True)
class Given:
    """One setting as it was given.

    key: "section.key" where it could be told, else what was written. value: text, None, or lists and mappings
    of these. origin: where it stood, as an error message says it.
    """

    key: str
    value: Any
    origin: str


def read_recipe_file(path: str | Path) -> list[Given]:
    """The settings of a YAML file of sections, in its order.

    Raises BadInput with the line when it is missing, not UTF-8, not YAML, no mapping, or names something
    twice.
    """
    root = _compose(_read_text(path), str(path))
    if root is None or (isinstance(root, yaml.ScalarNode) and _plain(root, str(path)) is None):
        return []
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(
            f"{path} is a recipe, but holds {_kind(root)}",
            "sections with settings, such as 'optim:' and, indented below it, 'lr: 3e-5'",
            f"correct {path}",
        )
    given: list[Given] = []
    for section, node, line in _entries(root, str(path)):
        if isinstance(node, yaml.MappingNode):
            given += (
                Given(f"{section}.{key}", _plain(child, str(path)), f"{path}, line {below}")
                for key, child, below in _entries(node, str(path))
            )
        elif _plain(node, str(path)) is not None:  # a section whose lines are all commented out is fine
            given.append(Given(section, _plain(node, str(path)), f"{path}, line {line}"))
    return given


def read_environment(environment: Mapping[str, str], sections: Iterable[str]) -> list[Given]:
    """The settings in variables named SNAPFIT_<SECTION>_<KEY>; an empty variable counts as not set."""
    given: list[Given] = []
    names = {section.upper(): section for section in sections}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or not text:
            continue
        head, _, rest = variable.removeprefix(PREFIX).partition("_")
        key = f"{names.get(head, head.lower())}.{rest.lower()}" if rest else head.lower()
        origin = f"the environment variable {variable}"
        given.append(Given(key, parse_text(text, origin), origin))
    return given


def read_overrides(overrides: Iterable[str]) -> list[Given]:
    """The settings of texts such as "optim.lr=3e-5"; of several for one key the last counts."""
    given: dict[str, Given] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise BadInput(f"--set {override!r}", "--set SECTION.KEY=VALUE", "for example: --set optim.lr=3e-5")
        origin = f"--set {override}"
        given.pop(key.strip(), None)
        given[key.strip()] = Given(key.strip(), parse_text(text, origin), origin)
    return list(given.values())


def parse_text(text: str, origin: str) -> Any:
    """A value given as text: YAML where it opens a quote, a list or a mapping, else as it stands.

    As it stands, because a delimiter may be any character, and most of those that delimit mean something in
    YAML.
    """
    if text.strip()[:1] not in ("[", "{", "'", '"'):
        return text
    node = _compose(text, origin)
    return None if node is None else _plain(node, origin)


def plain_value(value: Any) -> Any:
    """A value given in Python as one that a file could hold: numpy's numbers and paths turned into plain
    ones.

    Raises ValueError for truth values and bytes: settings are text and numbers, and True is not meant as 1.
    """
    if isinstance(value, (bool, bytes)) or type(value).__name__ in ("bool_", "bool"):
        raise ValueError("neither text nor a number")
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        return [plain_value(entry) for entry in value]
    if isinstance(value, Mapping):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    return value


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Sections of settings as YAML in the given order, lists on one line."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text whose line breaks YAML would change is quoted with escapes."""
    quoted = any(character in text for character in "\r\n\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quoted else None)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    list, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", "a recipe in YAML", "check the path") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}",
            "a recipe in YAML, saved as UTF-8",
            "save the file as UTF-8",
        ) from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "a recipe in YAML", "check the path") from None


def _compose(text: str, origin: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        place, problem = origin, str(getattr(error, "problem", None) or error).splitlines()[0]
        if (mark := getattr(error, "problem_mark", None)) is not None:
            place = f"{origin}, line {mark.line + 1}, column {mark.column + 1}"
        raise BadInput(f"{place}: not YAML: {problem}", "YAML", "correct it there") from None
    return node


def _entries(node: yaml.MappingNode, origin: str) -> Iterator[tuple[str, yaml.Node, int]]:
    """(key, value, line) of a mapping, whose keys must be words and differ."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise BadInput(f"{origin}, line {line}: {_kind(key)} as a key", "a word", "correct it there")
        if key.value in seen:
            raise BadInput(
                f"{origin}, line {line}: {key.value!r} again, after line {seen[key.value]}",
                "every name once",
                "take one of the two out",
            )
        seen[key.value] = line
        yield key.value, value, line


def _plain(node: yaml.Node, origin: str, depth: int = 0) -> Any:
    """A node as text, None, or lists and mappings of these."""
    if depth > _DEPTH:  # a YAML alias may even contain itself
        line = node.start_mark.line + 1
        raise BadInput(f"{origin}, line {line}: nested too deeply", "a plain value", "correct it there")
    if isinstance(node, yaml.MappingNode):
        return {key: _plain(value, origin, depth + 1) for key, value, _ in _entries(node, origin)}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value, origin, depth + 1) for value in node.value]
    null = isinstance(node, yaml.ScalarNode) and not node.style and node.value in _NULLS
    return None if null else node.value


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"the text {node.value[:40]!r}"
