"""The page of rules is made from the code, and the closed list is closed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

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


def _named_rules(tree: ast.AST) -> Iterator[str]:
    """Words given as ``rule=…`` or ``default_rule = …``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "rule":
            yield from _texts(node.value)
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "default_rule" for target in targets):
                yield from _texts(node.value)


def test_every_rule_named_in_the_code_is_in_the_list() -> None:
    unknown = {
        (path.name, rule) for path, tree in _trees() for rule in _named_rules(tree) if rule and rule not in RULES
    }
    assert unknown == set()


def test_every_rule_in_the_list_is_used() -> None:
    used = {text for _, tree in _trees() for text in _texts(tree)}
    assert sorted(set(RULES) - used) == []


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("docs_rules", ROOT / "docs" / "rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "rules.md").read_text("utf-8") == module.page(), "run: make docs"
