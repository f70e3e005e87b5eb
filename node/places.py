"""Where a node reads and writes in its home: before any of it is opened, is each place what it must be?

What is not there is not looked at: whoever needs it makes it, or says that it is missing. A place that was replaced by
something else, or belongs to somebody else, does not mend itself; so all of them are InvalidFile, after which systemd
does not start the node again and again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from koinon.errors import InvalidFile
from node.config import Home
from node.credentials import NEXT, RETIRED

_ENTER = os.R_OK | os.X_OK
_CHANGE = _ENTER | os.W_OK
_ANEW = "the node makes it anew"


class _Place(NamedTuple):
    path: Path
    access: int  # that the node needs, as for os.access; with X_OK it is a directory
    without: str  # what is to be done, or happens, once what is there is gone


def check(home: Home) -> None:
    """May the node's files be opened? Raises InvalidFile."""
    for error in wrong(home):
        raise error


def wrong(home: Home) -> Iterator[InvalidFile]:
    """Every place that keeps a node, or whoever examines its ledger, from beginning; each with its remedy."""
    data = home.ledger.parent
    if os.geteuid() == 0 and data.exists() and (owner := data.stat().st_uid) != 0:
        yield InvalidFile(
            f"{data} belongs to another user (uid {owner}), whose node could not read what root writes there",
            rule="permission",
            hint=f"run this as that user: sudo -u '#{owner}' koinon ...; or give the home to root: chown -R",
        )
    for place in _places(home):
        if not os.path.lexists(place.path):
            continue
        directory = bool(place.access & os.X_OK)
        if not place.path.exists():
            yield InvalidFile(
                f"{place.path} is a link to {place.path.readlink()}, which is not there",
                hint=f"mount or restore that; or remove the link: {place.without}",
            )
        elif not (place.path.is_dir() if directory else place.path.is_file()):
            yield InvalidFile(
                f"{place.path} is {'no directory' if directory else 'a directory, and no file'}",
                hint=f"move it away: {place.without}",
            )
        elif not os.access(place.path, place.access & ~os.W_OK):
            yield InvalidFile(
                f"{place.path} cannot be read",
                hint=f"run this as the node's user, and let that user read it: ls -ld {place.path}",
            )
        elif not os.access(place.path, place.access):
            yield InvalidFile(
                f"{place.path} cannot be written",
                rule="disk-read-only",
                hint="give the node's user write permission there, or mount the disk for writing",
            )


def _places(home: Home) -> Iterator[_Place]:
    yield _Place(home.ledger.parent, _CHANGE, "the node fetches the ledger anew, and observes until it is safe to vote")
    yield _Place(home.ledger, _CHANGE, "the node fetches the ledger anew")
    yield _Place(home.wal, os.R_OK, "without it the node observes until it is safe to vote")
    yield _Place(home.read_model, os.R_OK | os.W_OK, _ANEW)
    for path in (home.ledger_building, home.ledger_restored, home.snapshots, home.chunks):
        yield _Place(path, _CHANGE, _ANEW)
    yield _Place(home.datasets, _ENTER, "restore the published files from your backup, or publish them again")
    yield _Place(home.outputs, _CHANGE, _ANEW)
    keys, certificates = home.key("node").parent, home.certificate.parent
    for path in (keys, keys / RETIRED, certificates, certificates / NEXT, certificates / RETIRED):
        yield _Place(path, _ENTER, "restore it from your backup")
