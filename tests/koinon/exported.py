"""Entries of a catalog, and their export as others read it: through JSON."""

from __future__ import annotations

import json
from typing import Any

from koinon import dcat
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TIMESTAMP,
    VERIFICATION_OUTCOME_CONTESTED,
    Column,
    Dataset,
    PublishDataset,
    Taxonomy,
    Theme,
    Verification,
)
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE, MEMBER_STATUS_REMOVED, Institution, InstitutionDescriptor
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, Price
from tests.contracts.consortium import START_MS, publication

CHAIN = "test-0011"
TAXONOMY = Taxonomy(
    title="Ours",
    themes=[Theme(code="HEAL", label="Health", uri="https://example.org/HEAL"), Theme(code="X", label="X")],
)
MEMBERS = [
    Institution(
        descriptor=InstitutionDescriptor(id=name, title=name.upper(), rpc_address=f"{name}.example:7400"), status=status
    )
    for name, status in (("iu", MEMBER_STATUS_ACTIVE), ("uk", MEMBER_STATUS_REMOVED), ("um", MEMBER_STATUS_ACTIVE))
]


def entry(published: PublishDataset, **changes: Any) -> Dataset:
    return Dataset(
        **{
            "published": published,
            "uid": "ab" * 16,
            "version": 3,
            "status": 1,
            "released_at_ms": START_MS,
            "publisher": published.name.partition(".")[0],
            **changes,
        }
    )


FULL = entry(
    publication(
        "um.a.t",
        auto=False,
        themes=["HEAL", "OLD", "X"],
        price=Price(unit=PRICE_UNIT_PERIOD, points=5, period_ms=86_400_000),
        license="CC-BY-4.0",
        citation="N Engl J Med 2012",
        columns=[Column(name="seen", type=COLUMN_TYPE_TIMESTAMP, description="When")],
    ),
    verifications=[
        Verification(
            institution="iu",
            outcome=VERIFICATION_OUTCOME_CONTESTED,
            method="by eye",
            made_at_ms=START_MS,
            evidence_digest=bytes(32),
        )
    ],
)
BARE = entry(PublishDataset(name="iu.a.bare", title="Bare", columns=[Column(name="x", type=COLUMN_TYPE_INTEGER)]))
WITHDRAWN = entry(publication("iu.a.gone"), status=2)
OF_A_FORMER_MEMBER = entry(publication("uk.a.left"))


def export(*datasets: Dataset, dcat_ap: bool = False) -> Any:
    return json.loads(json.dumps(dcat.catalog(CHAIN, datasets, MEMBERS, TAXONOMY, dcat_ap=dcat_ap)))
