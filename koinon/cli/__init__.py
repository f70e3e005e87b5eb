"""The ``koinon`` command."""

from __future__ import annotations

import os

# gRPC's C core would write its own lines between ours; failures arrive as typed errors anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from koinon.cli.app import App
from koinon.cli.commands import COMMANDS

main = App(COMMANDS)
"""Entry point of the ``koinon`` command: parses ``sys.argv``, exits with the code of the error's class."""
