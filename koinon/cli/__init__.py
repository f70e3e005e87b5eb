"""The ``koinon`` command."""

from __future__ import annotations

from koinon.cli.app import App
from koinon.cli.commands import COMMANDS

main = App(COMMANDS)
"""Entry point of the ``koinon`` command: parses ``sys.argv``, exits with the code of the error's class."""
