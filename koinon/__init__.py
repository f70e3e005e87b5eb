"""Koinon: institutions that do not trust one another decide together and compute jointly.

::

    import koinon

    with koinon.connect("analyst.toml") as client:
        result = client.query("SELECT rx, COUNT(*) AS n FROM ercp.indo_rct GROUP BY rx")

``koinon.aio`` is the awaitable twin. Errors are koinon.errors.KoinonError and its children.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if not (3, 11) <= sys.version_info < (3, 16):
    raise ImportError(f"Koinon runs on Python 3.11 to 3.15; this is Python {sys.version_info[0]}.{sys.version_info[1]}")

if TYPE_CHECKING:
    from koinon import aio as aio
    from koinon.client import Client as Client
    from koinon.client import connect as connect
    from koinon.descriptor import ColumnNote as ColumnNote
    from koinon.descriptor import Descriptor as Descriptor
    from koinon.descriptor import Terms as Terms
    from koinon.errors import KoinonError as KoinonError
    from koinon.result import Result as Result

    __version__: str

# Imported when first used: nodes and workers share this package and need no client.
_HOMES = {
    "Client": "koinon.client",
    "ColumnNote": "koinon.descriptor",
    "Descriptor": "koinon.descriptor",
    "KoinonError": "koinon.errors",
    "Result": "koinon.result",
    "Terms": "koinon.descriptor",
    "connect": "koinon.client",
}

__all__ = ["Client", "ColumnNote", "Descriptor", "KoinonError", "Result", "Terms", "__version__", "aio", "connect"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("koinon")
    if name == "aio":
        return importlib.import_module("koinon.aio")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'koinon' has no attribute {name!r}")
