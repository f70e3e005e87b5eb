"""House rules that no linter knows, checked over every tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("koinon", "governance", "mpc", "node", "testnet", "bench")
GENERATED = ROOT / "koinon" / "v1"
MAX_LINES = 600  # a file is understood in one sitting
_FORBIDDEN = {
    "machine path": re.compile(r"(?<![\w.])/(?:work|root)/\w"),
    "package registry": re.compile(r"--(?:extra-)?index-url|https?://[^\s)\"']*(?:pypi|registry|mirror)"),
    "unfinished business": re.compile(r"\b(?:TODO|FIXME|XXX)\b"),
}


def _files(*suffixes: str) -> list[Path]:
    """Files that git tracks, or every one where this is no clone."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name] if not listed.returncode else ROOT.rglob("*")
    hidden = (".venv", ".git")
    return [
        path
        for path in paths
        if path.is_file() and path.suffix in suffixes and not set(hidden) & set(path.relative_to(ROOT).parts)
    ]


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in _files(".py"):
        if path.relative_to(ROOT).parts[0] in PACKAGES and GENERATED not in path.parents:
            yield path, ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize("what", _FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _files(".py", ".md", ".toml", ".sh", ".txt", ".proto", "")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _FORBIDDEN[what].search(line)
    ]
    assert found == []


def test_no_module_is_too_long_to_read() -> None:
    lengths = {path: path.read_text("utf-8").count("\n") for path, _ in _modules()}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > MAX_LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path, tree in _modules() if tree.body and not ast.get_docstring(tree)]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_nothing_unpickles_or_evaluates() -> None:
    """Bytes from outside are never code: not in our modules, whatever the libraries could do."""
    found = []
    for path, tree in _modules():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names.append(node.func.id)
            forbidden = {"pickle", "cPickle", "dill", "marshal", "shelve", "eval", "exec"} & {
                name.partition(".")[0] for name in names
            }
            if forbidden:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {forbidden}")
    assert found == []
