"""Exports of the catalog: what the Dataspace Protocol's, DCAT-AP's and Croissant's rules demand, written out again.

The published rules are not part of this repository. That exports pass them was seen with the protocol's JSON schemas of
2025-1, DCAT-AP 3.0.1's SHACL shapes (but for endpointURL, which the protocol's own context makes a text) and
mlcroissant 1.1; what follows are those of their demands that an export could violate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from koinon import croissant, dcat
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
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, PRICE_UNIT_USE, Price
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
BARE = entry(PublishDataset(name="uk.a.bare", title="Bare", columns=[Column(name="x", type=COLUMN_TYPE_INTEGER)]))
WITHDRAWN = entry(publication("iu.a.gone"), status=2)


def export(*datasets: Dataset) -> Any:
    return json.loads(json.dumps(dcat.catalog(CHAIN, datasets, MEMBERS, TAXONOMY)))


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)


@pytest.mark.parametrize("datasets", [[], [BARE], [FULL, BARE, WITHDRAWN]], ids=["none", "bare", "all"])
def test_a_catalog_of_the_dataspace_protocol(datasets: list[Dataset]) -> None:
    """catalog-schema, dataset-schema, contract-schema and context-schema of 2025-1."""
    document = export(*datasets)
    assert document["@context"] == ["https://w3id.org/dspace/2025/1/context.jsonld"]  # of texts alone
    assert document["@type"] == "Catalog"
    assert isinstance(document["@id"], str)
    assert isinstance(document["participantId"], str)
    assert "hasPolicy" not in document
    for name in ("dataset", "service"):
        assert document.get(name, [0]), "left out, or not empty"
    for dataset in document.get("dataset", []):
        assert dataset["@type"] == "Dataset"
        assert isinstance(dataset["@id"], str)
        assert dataset["hasPolicy"]
        for offer in dataset["hasPolicy"]:
            assert offer["@type"] == "Offer"
            assert isinstance(offer["@id"], str)
            assert "target" not in offer
            assert offer["permission"]
            for rule in (*offer["permission"], *offer["prohibition"]):
                assert isinstance(rule["action"], str)
        assert dataset["distribution"]
        for distribution in dataset["distribution"]:
            assert isinstance(distribution["format"], str)
            service = distribution["accessService"]
            assert isinstance(service, str) or service in document["service"]
    for service in document["service"]:
        assert service["@type"] == "DataService"
        assert re.fullmatch(r"grpcs://[a-z]+\.example:7400", service["endpointURL"])
    for node in nodes(document):
        if "leftOperand" in node:
            assert isinstance(node["leftOperand"], str)
            assert node["operator"] in {"eq", "gt", "gteq", "lteq", "isAnyOf", "lt", "neq"}
            assert isinstance(node["rightOperand"], (str, dict, list))  # never a number


def test_a_catalog_of_dcat_ap(  # 3.0.1: what it makes mandatory
) -> None:
    document = export(FULL, BARE)
    for node in (document, *document["dataset"]):
        assert node["dct:title"]["@value"]
        assert node["dct:description"]["@value"]
        assert node["dct:publisher"]["http://xmlns.com/foaf/0.1/name"]
    for dataset in document["dataset"]:
        assert dataset["distribution"][0]["dcat:accessURL"]["@id"]


def test_only_what_can_be_used_is_exported_and_of_members_who_serve() -> None:
    document = export(FULL, WITHDRAWN, BARE)
    assert [item["@id"] for item in document["dataset"]] == [
        "urn:koinon:test-0011:dataset:uk.a.bare:3",
        "urn:koinon:test-0011:dataset:um.a.t:3",
    ]
    assert [item["@id"].rpartition(":")[2] for item in document["service"]] == ["iu", "um"]


def test_everything_a_reader_needs_is_there() -> None:
    (dataset,) = export(FULL)["dataset"]
    assert [theme["@id"] for theme in dataset["dcat:theme"]] == [
        "https://example.org/HEAL",
        "urn:koinon:test-0011:theme:OLD",  # it left the taxonomy
        "urn:koinon:test-0011:theme:X",
    ]
    assert dataset["dct:issued"] == {"@type": "xsd:dateTime", "@value": "2023-11-14T22:13:20Z"}
    (made,) = dataset["http://www.w3.org/ns/dqv#hasQualityAnnotation"]
    assert (made["dct:type"], made["dct:description"]["@value"]) == ("contested", "by eye")
    (rows,) = dataset["http://mlcommons.org/croissant/recordSet"]
    types = [
        field["http://mlcommons.org/croissant/dataType"]["@id"]
        for field in rows["http://mlcommons.org/croissant/field"]
    ]
    assert types == ["https://schema.org/Text", "https://schema.org/Integer", "https://schema.org/DateTime"]


def test_an_offer_says_what_the_policy_and_the_price_say() -> None:
    (dataset,) = export(FULL)["dataset"]
    (permission,) = dataset["hasPolicy"][0]["permission"]
    limits = {item["leftOperand"]: (item["operator"], item["rightOperand"]) for item in permission["constraint"]}
    assert limits == {
        "odrl:count": ("lteq", "100"),
        "odrl:elapsedTime": ("lteq", "PT1000S"),
        "urn:koinon:term:operation": ("isAnyOf", ["count", "sum", "avg", "group_by"]),
        "urn:koinon:term:minimum-cohort": ("gteq", "5"),
    }
    consent, pay = permission["duty"]
    assert consent == {"action": "odrl:obtainConsent"}
    assert pay["constraint"][0]["rightOperand"]["@value"] == "5"
    assert pay["constraint"][0]["odrl:unit"] == "points per period of PT86400S"
    auto = export(entry(publication("um.a.auto", price=Price(unit=PRICE_UNIT_USE, points=7))))["dataset"][0]
    assert [duty["action"] for duty in auto["hasPolicy"][0]["permission"][0]["duty"]] == ["odrl:compensate"]
    free = export(entry(publication("um.a.free")))["dataset"][0]
    assert "duty" not in free["hasPolicy"][0]["permission"][0]


@pytest.mark.parametrize("dataset", [FULL, BARE], ids=["full", "bare"])
def test_a_croissant(dataset: Dataset) -> None:
    """Mandatory properties of specification 1.0, and what mlcroissant refuses."""
    document = json.loads(json.dumps(croissant.dataset(CHAIN, dataset, "UM")))
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for name in ("name", "description", "license", "url", "creator", "datePublished", "citeAs"):
        assert document[name], name
    assert re.fullmatch(r"\d+\.\d+\.\d+", document["version"])
    (table,) = document["distribution"]
    assert {"@id", "name", "contentUrl", "encodingFormat"} <= set(table)
    assert document["isLiveDataset"], "else a checksum of the content is demanded"
    (rows,) = document["recordSet"]
    assert len({field["@id"] for field in rows["field"]}) == len(dataset.published.columns)
    for field in rows["field"]:
        assert field["source"]["fileObject"]["@id"] == table["@id"]
        assert field["source"]["extract"]["column"] in {column.name for column in dataset.published.columns}
        assert field["dataType"].startswith("sc:")


def test_the_same_entries_give_the_same_text() -> None:
    assert json.dumps(export(FULL, BARE)) == json.dumps(export(BARE, FULL))
