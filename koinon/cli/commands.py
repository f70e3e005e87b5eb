"""Every command of the base install."""

from __future__ import annotations

import click

from koinon.cli import (  # these add to koinon member, catalog and access
    applications,  # noqa: F401
    curation,  # noqa: F401
    identities,  # noqa: F401
    negotiation,  # noqa: F401
)
from koinon.cli.access import access
from koinon.cli.audit import audit
from koinon.cli.catalog import catalog
from koinon.cli.demand import demand
from koinon.cli.dispute import dispute
from koinon.cli.governance import gov
from koinon.cli.keys import key
from koinon.cli.member import member
from koinon.cli.points import points
from koinon.cli.query import query
from koinon.cli.stall import why_stalled
from koinon.cli.status import status
from koinon.cli.task import task

COMMANDS: tuple[click.Command, ...] = (
    status,
    why_stalled,
    catalog,
    access,
    demand,
    query,
    task,
    dispute,
    points,
    audit,
    member,
    gov,
    key,
)
