"""The READMEs do what they say: every command and Python block in them runs, and the file map is complete.

Commands follow "$ " in console blocks; blocks of one README run in order, in one empty folder with the examples.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh-CN.md")
NO_COMMANDS = ("answers.py", "app.py", "console.py", "evaluation_lines.py", "lines.py")
"""Files of cli/ that are in the map; the others are a command each."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(readme: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block that names a language."""
    return BLOCK.findall((ROOT / readme).read_text("utf-8"))


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environment}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [env.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    n_run = 0
    for language, content in blocks(READMES[0]):
        if language == "python":
            commands = [[sys.executable, "-c", content]]
        elif language == "console":
            commands = [shlex.split(line[2:]) for line in content.splitlines() if line.startswith("$ ")]
            commands = [[sys.executable, "-m", *command] for command in commands]
            assert all(command[2] == "snapfit" for command in commands)
        else:
            continue
        for command in commands:
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            n_run += 1
    assert n_run >= 5


def test_every_readme_has_the_same_blocks() -> None:
    """So what was run of one is true of all; comments are in each one's language."""
    one, *others = ([_without_comments(*block) for block in blocks(readme)] for readme in READMES)
    assert all(other == one for other in others)


def _without_comments(language: str, content: str) -> tuple[str, str]:
    if language == "python":
        return language, ast.unparse(ast.parse(content))
    return language, re.sub(r" +# .*", "", content) if language == "sh" else content


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES)
def test_scripts_named_in_it_run(readme: str) -> None:
    lines = [line for language, text in blocks(readme) if language == "sh" for line in text.splitlines()]
    scripts = sorted({line.split()[0] for line in lines})
    assert scripts == ["scripts/demo", "scripts/test"]
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK)
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("scripts/demo makes .venv; it is tried where the tests already run in it, as under scripts/test")
    if readme == "README.md":  # scripts/test is what runs this test
        done = run([str(ROOT / "scripts/demo"), "--quick", "--out", str(ROOT / "runs/readme-test")], ROOT)
        shutil.rmtree(ROOT / "runs/readme-test", ignore_errors=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("readme", READMES)
def test_the_file_map_names_each_file_once(readme: str) -> None:
    source = ROOT / "src/snapfit"
    mapped, folder = [], source
    for within, name in re.findall(r"^  (  )?(\S+)", mapped_lines(readme), re.MULTILINE):
        if name.endswith("/"):
            folder = source / name
        else:
            mapped.append((folder if within else source) / name)
    own_name = {"__init__.py", "__main__.py"}
    wanted = {
        path
        for path in (*source.rglob("*.py"), *source.rglob("*.c"))
        if path.name not in own_name and (path.parent.name != "cli" or path.name in NO_COMMANDS)
    }
    assert sorted(mapped) == sorted({*wanted, source / "__init__.py"})


def mapped_lines(readme: str) -> str:
    """What the map says of src/snapfit."""
    (found,) = re.findall(r"^src/snapfit/\n(.*?)^\S", (ROOT / readme).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / readme).read_text("utf-8")):
        assert (ROOT / target).exists(), f"{readme} links to {target}"
