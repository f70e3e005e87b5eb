"""Themes: how the members classify datasets and demands, as the ledger knows it."""

from __future__ import annotations

from collections.abc import Sequence

from governance import taxonomy
from koinon.errors import Refused
from koinon.v1.catalog_pb2 import Taxonomy
from node.contracts import tables
from node.ledger.state import State


def current(state: State) -> Taxonomy:
    """What the members decided on last, or the default."""
    return tables.TAXONOMY.find(state, "") or taxonomy.DEFAULT


def check_known(state: State, codes: Sequence[str]) -> None:
    """Does the taxonomy have these themes? Raises Refused with rule ``unknown-theme``."""
    if not codes:
        return
    known = {theme.code for theme in current(state).themes}
    for code in codes:
        if code not in known:
            raise Refused(f"there is no theme {code}", rule="unknown-theme", hint="koinon catalog themes lists them")


def with_wider(state: State, codes: Sequence[str]) -> list[str]:
    """These themes and every wider one, ascending."""
    return taxonomy.with_wider(current(state), codes) if codes else []
