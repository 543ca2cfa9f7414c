"""The rules of the house, proven on the source: tiers, sizes, no pickle, no heavy imports where none belong.

Each rule is a function from modules to complaints. It is run on the package, where it must find nothing, and
on a bad sample, where it must find something: a rule that cannot fail proves nothing.
"""

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest

import snapfit

SOURCE = Path(__file__).resolve().parents[1] / "src" / "snapfit"

TIERS = tuple("version core data checks runtime nn loading training ship study snapfit cli __main__".split())
"""In order: a module imports from its own tier and those before it. "snapfit" is the package's __init__."""

LIGHT_TIERS = TIERS[: TIERS.index("nn")]
HEAVY = {"torch", "transformers"}
BARE_INSTALL = {"numpy", "pyarrow", "tokenizers", "safetensors", "pydantic", "yaml", "typer", "rich"}
UNSAFE = {"pickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Import:
    """One imported name: `target` is dotted, `level` says where the statement stands."""

    target: str
    line: int
    level: str
    """module, type_checking or function."""

    @property
    def root(self) -> str:
        return self.target.split(".")[0]


@dataclass(frozen=True)
class Module:
    """One file of the package, parsed. name: dotted; a package's __init__ carries the package's name."""

    name: str
    source: str
    is_package: bool = False
    known: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of all modules, to tell `from package import module` from `from module import name`."""

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def tier(self) -> str:
        return tier_of(self.name)

    @cached_property
    def imports(self) -> list[Import]:
        found: list[Import] = []
        self._collect(self.tree, "module", found)
        return found

    def _collect(self, node: ast.AST, level: str, found: list[Import]) -> None:
        for child in ast.iter_child_nodes(node):
            found.extend(Import(target, child.lineno, level) for target in self._targets(child))
            if isinstance(child, Function | ast.Lambda):
                self._collect(child, "function", found)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                self._collect(child, "type_checking", found)
            else:
                self._collect(child, level, found)

    def _targets(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = self._base(node)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in self.known else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = self.name.split(".")[: None if self.is_package and node.level == 1 else -node.level + self.is_package]
        return ".".join([*above, node.module] if node.module else above)


def tier_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "snapfit"


def read_package() -> list[Module]:
    paths = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["snapfit", *path.relative_to(SOURCE).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        paths[".".join(parts[:-1] if is_package else parts)] = (path, is_package)
    known = frozenset(paths)
    return [Module(name, path.read_text("utf-8"), is_package, known) for name, (path, is_package) in paths.items()]


def sample(**sources: str) -> list[Module]:
    """Modules for a proof: "core__errors" stands for snapfit.core.errors, "snapfit" for the package."""
    dotted = {f"snapfit.{key}".replace("__", ".") if key != "snapfit" else key: key for key in sources}
    known = frozenset(dotted)
    return [Module(name, sources[key], name == "snapfit", known) for name, key in dotted.items()]


# ---------------------------------------------------------------- the rules


def unknown_tiers(modules: Sequence[Module]) -> Iterator[str]:
    yield from (f"{module.name} is in no tier" for module in modules if module.tier not in TIERS)


def imports_against_the_order(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.name == "snapfit" or module.tier not in TIERS:
            continue
        for found in module.imports:
            if found.root == "snapfit":
                target = tier_of(found.target)
                if target not in TIERS or TIERS.index(target) > TIERS.index(module.tier):
                    yield f"{module.name}:{found.line} imports {found.target}, a later tier"


def cycles(modules: Sequence[Module]) -> Iterator[str]:
    """The package's own __init__ is left out: it names everything, lazily (see `eager_package`)."""
    graph = {
        module.name: {found.target for found in module.imports if found.root == "snapfit"} - {module.name}
        for module in modules
        if module.name != "snapfit"
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield "a cycle: " + " -> ".join(error.args[1])


def eager_package(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.name == "snapfit":
            for found in module.imports:
                if found.level == "module" and not is_stdlib(found) and found.target != "snapfit.version":
                    yield f"snapfit/__init__.py:{found.line} imports {found.target} at once"


def heavy_imports(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.tier in (*LIGHT_TIERS, "snapfit"):
            for found in module.imports:
                if found.root in HEAVY:
                    yield f"{module.name}:{found.line} imports {found.target}; {module.tier} must do without"


def imports_beyond_the_bare_install(modules: Sequence[Module]) -> Iterator[str]:
    """The bare install predicts: its tiers and the command line load with the base dependencies alone."""
    for module in modules:
        if module.tier in (*LIGHT_TIERS, "loading", "snapfit", "cli"):
            for found in module.imports:
                known = is_stdlib(found) or found.root == "snapfit" or found.root in BARE_INSTALL
                if found.level == "module" and not known:
                    yield f"{module.name}:{found.line} imports {found.target}, which the bare install lacks"


def unsafe_imports(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for found in module.imports:
            if found.root in UNSAFE:
                yield f"{module.name}:{found.line} imports {found.target}, which can run code from a file"


def unsafe_calls(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call):
                yield from (f"{module.name}:{node.lineno} {fault}" for fault in _call_faults(node))
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if _constant(key) == "trust_remote_code" and _constant(value) is not False:
                        yield f"{module.name}:{node.lineno} may trust remote code"
            elif isinstance(node, ast.ImportFrom) and node.module == "torch" and _names(node, "load"):
                yield f"{module.name}:{node.lineno} hides torch.load behind another name"


def _call_faults(call: ast.Call) -> Iterator[str]:
    keywords = {keyword.arg: _constant(keyword.value) for keyword in call.keywords}
    if ast.unparse(call.func) == "torch.load" and keywords.get("weights_only") is not True:
        yield "calls torch.load without weights_only=True"
    if keywords.get("trust_remote_code", False) is not False:
        yield "may trust remote code"
    if keywords.get("allow_pickle", False) is not False:
        yield "allows pickles in an array file"


def _names(node: ast.ImportFrom, name: str) -> bool:
    return name in (alias.name for alias in node.names)


def _constant(node: ast.expr | None) -> object:
    """The value of a literal; `...` for anything that is worked out while running."""
    return node.value if isinstance(node, ast.Constant) else ...


def long_files(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        n_lines = len(module.source.splitlines())
        if n_lines > MAX_FILE_LINES:
            yield f"{module.name} has {n_lines} lines, {MAX_FILE_LINES} at most"


def long_functions(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if n_lines > MAX_FUNCTION_LINES:
                    yield f"{module.name}.{node.name} has {n_lines} lines, {MAX_FUNCTION_LINES} at most"


def filled_packages(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.is_package and module.name != "snapfit" and module.source.strip():
            yield f"{module.name}/__init__.py is not empty"


def utils(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if {"utils", "util", "helpers", "misc", "common"} & set(module.name.split(".")):
            yield f"{module.name} says nothing of what is in it"


def missing_docstrings(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.source.strip() and not (ast.get_docstring(module.tree) or "").strip():
            yield f"{module.name} does not open with what it is for"


def is_stdlib(found: Import) -> bool:
    return found.root in sys.stdlib_module_names


Rule = Callable[[Sequence[Module]], Iterator[str]]

PROOFS: list[tuple[Rule, list[Module]]] = [
    (unknown_tiers, sample(helpers__thing="")),
    (imports_against_the_order, sample(core__a="from snapfit.data.b import c", data__b="")),
    (imports_against_the_order, sample(data__a="def f():\n    import snapfit.nn.b", nn__b="")),
    (imports_against_the_order, sample(core__a="from ..data import b", data__b="")),
    (imports_against_the_order, sample(training__a="import snapfit")),
    (
        imports_against_the_order,
        sample(core__a="import importlib\nimportlib.import_module('snapfit.cli.app')"),
    ),
    (
        imports_against_the_order,
        sample(core__a="if TYPE_CHECKING:\n    from snapfit.nn.b import c", nn__b=""),
    ),
    (
        cycles,
        sample(core__a="from snapfit.core.b import x", core__b="def f():\n    from snapfit.core import a"),
    ),
    (cycles, sample(core__a="from . import b", core__b="from .c import x", core__c="from .a import y")),
    (eager_package, sample(snapfit="from snapfit.core.errors import BadInput")),
    (eager_package, sample(snapfit="try:\n    import torch\nexcept ImportError:\n    torch = None")),
    (heavy_imports, sample(core__a="import torch.nn as nn")),
    (
        heavy_imports,
        sample(runtime__a="class A:\n    def f(self):\n        from transformers import AutoModel"),
    ),
    (heavy_imports, sample(data__a="__import__('torch')")),
    (imports_beyond_the_bare_install, sample(runtime__a="import onnxruntime")),
    (imports_beyond_the_bare_install, sample(cli__a="import torch")),
    (unsafe_imports, sample(nn__a="import pickle")),
    (unsafe_imports, sample(nn__a="def f():\n    from joblib import load")),
    (unsafe_imports, sample(nn__a="import shelve as s, json")),
    (unsafe_calls, sample(nn__a="torch.load(path)")),
    (unsafe_calls, sample(nn__a="torch.load(path, weights_only=False)")),
    (unsafe_calls, sample(nn__a="torch.load(path, weights_only=flag)")),
    (unsafe_calls, sample(nn__a="from torch import load")),
    (unsafe_calls, sample(nn__a="AutoModel.from_pretrained(name, trust_remote_code=True)")),
    (unsafe_calls, sample(nn__a="AutoModel.from_pretrained(name, trust_remote_code=flag)")),
    (unsafe_calls, sample(nn__a="options = {'trust_remote_code': True}")),
    (unsafe_calls, sample(data__a="np.load(path, allow_pickle=True)")),
    (long_files, sample(core__a="x = 1\n" * (MAX_FILE_LINES + 1))),
    (long_functions, sample(core__a="def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES)),
    (long_functions, sample(core__a="class A:\n  async def f(self):\n" + "    x = 1\n" * MAX_FUNCTION_LINES)),
    (
        filled_packages,
        [Module("snapfit.core", "from snapfit.core.errors import BadInput\n", is_package=True)],
    ),
    (utils, sample(core__utils="")),
    (missing_docstrings, sample(core__a="x = 1")),
]

ACCEPTED = sample(
    snapfit='"""A package."""\nfrom typing import TYPE_CHECKING\nfrom snapfit.version import __version__\n'
    "if TYPE_CHECKING:\n    from snapfit.core.a import x\n",
    version='"""A version."""',
    core__a='"""A."""\nimport json\nimport numpy as np\nnp.load(path, allow_pickle=False)\n',
    data__b='"""B."""\nfrom snapfit.core import a\nfrom snapfit.core.a import x\n',
    nn__c='"""C."""\nimport torch\nfrom snapfit.data.b import y\ntorch.load(path, weights_only=True)\n',
    loading='"""L."""\ndef load():\n    from snapfit.nn.c import z\n',
    cli__d='"""D."""\nimport snapfit\ndef f():\n    import torch\n',
)
RULES = list(dict.fromkeys(rule for rule, _ in PROOFS))


def rule_name(rule: object) -> str | None:
    return getattr(rule, "__name__", None)


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    modules = read_package()
    assert len(modules) > 20
    assert list(rule(modules)) == []


@pytest.mark.parametrize(("rule", "bad"), PROOFS, ids=rule_name)
def test_the_rule_finds_a_fault(rule: Rule, bad: list[Module]) -> None:
    assert list(rule(bad))


@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_the_rule_accepts_what_is_right(rule: Rule) -> None:
    assert list(rule(ACCEPTED)) == []


# ---------------------------------------------------------------- what really happens on import


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    search = os.pathsep.join([str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["snapfit", "snapfit.runtime.predictor", "snapfit.cli.app", "snapfit.data.demo", "snapfit.ship.checking"],
)
def test_importing_it_loads_neither_torch_nor_transformers(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "snapfit" in loaded
    assert not loaded & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    assert "torch" in loaded_by("import sys, types; sys.modules['torch.nn'] = types.ModuleType('torch.nn')")


def test_public_names_are_sorted_and_resolve() -> None:
    assert snapfit.__all__ == sorted(set(snapfit.__all__))
    assert dir(snapfit) == snapfit.__all__
    assert [name for name in snapfit.__all__ if getattr(snapfit, name, None) is None] == []
    assert not hasattr(snapfit, "no_such_name")


def test_public_names_are_told_to_type_checkers() -> None:
    (package,) = (module for module in read_package() if module.name == "snapfit")
    told = {
        alias.asname or alias.name
        for node in ast.walk(package.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snapfit.")
        for alias in node.names
    }
    assert set(snapfit.__all__) <= told
