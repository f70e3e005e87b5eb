"""Exports of the catalog: what is in them, and from where. That they are valid is tested in test_published.py."""

from __future__ import annotations

import json

from koinon.v1.points_pb2 import PRICE_UNIT_USE, Price
from tests.contracts.consortium import publication
from tests.koinon.exported import BARE, FULL, OF_A_FORMER_MEMBER, WITHDRAWN, entry, export


def test_only_what_can_be_used_is_exported_and_of_members_who_serve() -> None:
    document = export(FULL, WITHDRAWN, OF_A_FORMER_MEMBER, BARE)
    assert [item["@id"] for item in document["dataset"]] == [
        "urn:koinon:test-0011:dataset:iu.a.bare:3",
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
    assert (made["dct:type"]["@id"], made["dct:description"]["@value"]) == ("urn:koinon:term:contested", "by eye")
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
        "odrl:count": ("lteq", {"@value": "100", "@type": "xsd:integer"}),
        "odrl:elapsedTime": ("lteq", {"@value": "PT1000S", "@type": "xsd:duration"}),
        "urn:koinon:term:operation": ("isAnyOf", ["count", "sum", "avg", "group_by"]),
        "urn:koinon:term:minimum-cohort": ("gteq", {"@value": "5", "@type": "xsd:integer"}),
    }
    consent, pay = permission["duty"]
    assert consent == {"action": "odrl:obtainConsent"}
    assert pay["constraint"][0]["rightOperand"]["@value"] == "5"
    assert pay["constraint"][0]["odrl:unit"] == "points per period of PT86400S"
    auto = export(entry(publication("um.a.auto", price=Price(unit=PRICE_UNIT_USE, points=7))))["dataset"][0]
    assert [duty["action"] for duty in auto["hasPolicy"][0]["permission"][0]["duty"]] == ["odrl:compensate"]
    free = export(entry(publication("um.a.free")))["dataset"][0]
    assert "duty" not in free["hasPolicy"][0]["permission"][0]


def test_the_same_entries_give_the_same_text() -> None:
    assert json.dumps(export(FULL, BARE)) == json.dumps(export(BARE, FULL))
