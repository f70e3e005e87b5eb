"""Write the pages that are made from the code: ``make docs``.

``rules.md`` from the closed list of rules, ``commands.md`` from the commands' own help, ``metrics.md`` from the
instruments of a node, ``states.md`` from the transition tables, ``roles.md`` from the table of permissions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from governance.permissions import PERMISSIONS
from koinon.cli import main
from koinon.rules import RULES
from node.contracts.transitions import MACHINES, Machine
from node.metrics import Metrics

DIRECTORY = Path(__file__).parent
WIDTH = 100


def rules() -> str:
    """Every rule that can refuse something, and what it says."""
    rows = "\n".join(f"| `{rule}` | {text} |" for rule, text in sorted(RULES.items()))
    return (
        "# Rules\n\n"
        "Every refusal names one of these words: on the terminal in brackets after the error, in Python as `rule`.\n"
        "This page is made from `koinon/rules.py` by `make docs`.\n\n"
        f"| rule | what it says |\n|---|---|\n{rows}\n"
    )


def commands() -> str:
    """Every command's help."""
    parts = [f"## {path}\n\n```text\n{text}\n```\n" for path, text in _helps(main, "koinon", None)]
    return (
        "# Commands\n\n"
        "Every command takes `--profile` and `--json`, before or after its name.\n"
        "This page is made from the commands' own `--help` by `make docs`.\n\n" + "\n".join(parts)
    )


def metrics() -> str:
    """Everything that monitoring can read."""
    rows = "\n".join(
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.text} |"
        for row in Metrics().rows
    )
    return (
        "# Metrics\n\n"
        'A node tells Prometheus how it does once `config.toml` names a port: `metrics = "7403"` in `[listen]` is\n'
        "port 7403 of this machine. [operator.md](operator.md) says how to set it up. The port knows no\n"
        "authentication and names the members, but no person, dataset, transaction or query.\n"
        "This page is made from `node/metrics.py` by `make docs`.\n\n"
        f"| metric | type | labels | what it tells |\n|---|---|---|---|\n{rows}\n\n"
        "Prometheus' own `process_*` metrics are there too: processor time, memory, open files.\n"
    )


def states() -> str:
    """Every state machine of the ledger, drawn."""
    parts = [f"## {machine.subject}\n\n{_drawing(machine)}\n" for machine in MACHINES]
    return (
        "# States\n\n"
        "What the ledger manages moves between states by these transitions and by no others (rule `wrong-state`).\n"
        "Each is the kind of the audit record that it leaves. Drawn from `node/contracts/transitions.py`, the tables\n"
        "that the code runs, by `make docs`.\n\n" + "\n".join(parts)
    )


def roles() -> str:
    """Who may do what."""
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {'; '.join(str(permission) for permission in permissions)} |"
        for name, permissions in PERMISSIONS.items()
    )
    return (
        "# Roles\n\n"
        "What changes the ledger is signed by somebody who may: a person (operator, analyst, regulator), a device\n"
        "(gateway, feeder) or an institution's node. Everything else is refused (rule `permission`).\n"
        "This page is made from `governance/permissions.py`, the table that the code asks, by `make docs`.\n\n"
        f"| to | a person, device or node that is |\n|---|---|\n{rows}\n"
    )


def _drawing(machine: Machine) -> str:
    moves = [(kind, before, after) for kind, row in machine.transitions.items() for before, after in row.items()]
    if not any(after for _, _, after in moves):
        kinds = ", ".join(f"`{kind}`" for kind in machine.transitions)
        return f"No states, only changes: {kinds}."
    going_on = {before for _, before, _ in moves}
    reached = dict.fromkeys(after for _, _, after in moves)
    lines = [f"    {before or '[*]'} --> {after}: {kind}" for kind, before, after in moves]
    lines += [f"    {state} --> [*]" for state in reached if state not in going_on]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```"


def _helps(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    name = path.rpartition(" ")[2]
    with click.Context(
        command, parent=parent, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH
    ) as context:
        yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                if found is not None:
                    yield from _helps(found, f"{path} {child}", context)


PAGES = {"rules.md": rules, "commands.md": commands, "metrics.md": metrics, "states.md": states, "roles.md": roles}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DIRECTORY / page).write_text(make(), encoding="utf-8")
