"""Write ``docs/rules.md`` from the closed list of rules: ``python docs/rules.py``."""

from __future__ import annotations

from pathlib import Path

from koinon.rules import RULES

PAGE = Path(__file__).with_name("rules.md")


def page() -> str:
    """The page: every rule that can refuse something, and what it says."""
    rows = "\n".join(f"| `{rule}` | {text} |" for rule, text in sorted(RULES.items()))
    return (
        "# Rules\n\n"
        "Every refusal names one of these words: on the terminal after `rule:`, in JSON and in Python as `rule`.\n"
        "This page is made from `koinon/rules.py` by `make docs`.\n\n"
        f"| rule | what it says |\n|---|---|\n{rows}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
