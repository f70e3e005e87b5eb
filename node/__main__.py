"""`python -m node run --home HOME`: the node's commands where the console script is not at hand."""

from koinon.cli.app import App
from node.cli import genesis, init, run

App([init, genesis, run]).main()
