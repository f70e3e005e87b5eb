"""Pages that are made from the code are up to date, and the closed list of rules is closed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from koinon.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("koinon", "governance", "mpc", "node", "testnet")


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.parent != ROOT / "koinon" / "v1" and path != ROOT / "koinon" / "rules.py":
                yield path, ast.parse(path.read_text("utf-8"))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _chosen(value: ast.expr) -> Iterator[str]:
    """The texts that an expression may be, as far as it names them itself."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _chosen(value.body)
        yield from _chosen(value.orelse)
    elif isinstance(value, ast.BoolOp):
        for part in value.values:
            yield from _chosen(part)


def _named_rules(tree: ast.AST) -> Iterator[str]:
    """Words given as ``rule=…`` or ``default_rule = …``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "rule":
            yield from _chosen(node.value)
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "default_rule" for target in targets):
                yield from _chosen(node.value)


def test_every_rule_named_in_the_code_is_in_the_list() -> None:
    unknown = {
        (path.name, rule) for path, tree in _trees() for rule in _named_rules(tree) if rule and rule not in RULES
    }
    assert unknown == set()


def test_every_rule_in_the_list_is_used() -> None:
    used = {text for _, tree in _trees() for text in _texts(tree)}
    assert sorted(set(RULES) - used) == []


@pytest.mark.parametrize("page", ["rules.md", "commands.md", "metrics.md", "states.md", "roles.md"])
def test_the_page_is_up_to_date(page: str) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (ROOT / "docs" / page).read_text("utf-8") == generate.PAGES[page](), "run: make docs"
