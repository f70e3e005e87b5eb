"""The catalog for others: DCAT 3 as the Dataspace Protocol 2025-1 wants it, offers in ODRL, columns as in Croissant.

JSON-LD whose context is the protocol's own and nothing else, since its schema allows no other; what it has no short
names for is written under prefixes that it defines (dct, dcat, odrl) or with full IRIs. Everything has a name like
``urn:koinon:<chain>:<kind>:<name>``. Dates are block times. Pure: the same entries give the same text.

The protocol wants the address of a service as a text, and its context leaves it one; DCAT-AP 3.0.1 wants an IRI. No
document can be both, so whoever writes one chooses.

https://www.w3.org/TR/vocab-dcat-3/ · https://w3id.org/dspace/2025/1 · https://www.w3.org/TR/odrl-model/ ·
https://semiceu.github.io/DCAT-AP/releases/3.0.1 · http://mlcommons.org/croissant/1.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from koinon.v1.catalog_pb2 import (
    ACCESS_MODE_AUTO,
    DATASET_STATUS_PUBLISHED,
    AccessPolicy,
    Column,
    ColumnType,
    Dataset,
    TaskOperation,
    Taxonomy,
    Theme,
    Verification,
    VerificationOutcome,
)
from koinon.v1.identity_pb2 import MEMBER_STATUS_ACTIVE, Institution, InstitutionDescriptor
from koinon.v1.points_pb2 import Price, PriceUnit
from koinon.words import word

Node = dict[str, Any]
"""A JSON-LD node."""

CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"
CROISSANT = "http://mlcommons.org/croissant/"
SCHEMA = "https://schema.org/"
_FOAF = "http://xmlns.com/foaf/0.1/"
_PROV = "http://www.w3.org/ns/prov#"
_DQV = "http://www.w3.org/ns/dqv#"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
_TERM = "urn:koinon:term:"  # what no published vocabulary has a word for
_FORMAT = f"{_TERM}joint-computation"  # nothing is transferred: the data stay, and are computed on

DATA_TYPES: Mapping[int, str] = {
    ColumnType.COLUMN_TYPE_BOOLEAN: "Boolean",
    ColumnType.COLUMN_TYPE_INTEGER: "Integer",
    ColumnType.COLUMN_TYPE_DECIMAL: "Float",
    ColumnType.COLUMN_TYPE_TEXT: "Text",
    ColumnType.COLUMN_TYPE_DATE: "Date",
    ColumnType.COLUMN_TYPE_TIMESTAMP: "DateTime",
}
"""schema.org's types, which are Croissant's, by the type of a column."""


def catalog(
    chain_id: str,
    datasets: Iterable[Dataset],
    institutions: Iterable[Institution],
    taxonomy: Taxonomy,
    *,
    dcat_ap: bool = False,
) -> Node:
    """The whole catalog as one document: the service of every active member, and every dataset that it publishes.

    In the protocol's form, or with ``dcat_ap`` in that of DCAT-AP.
    """
    members = {item.descriptor.id: item.descriptor for item in institutions if item.status == MEMBER_STATUS_ACTIVE}
    themes = {theme.code: _theme(chain_id, theme) for theme in taxonomy.themes}
    services = {name: _service(chain_id, member, dcat_ap=dcat_ap) for name, member in members.items()}
    entries = [
        _dataset(chain_id, item, members[item.publisher], themes, services[item.publisher])
        for item in published(datasets)
        if item.publisher in members
    ]
    document: Node = {
        "@context": [CONTEXT],
        "@id": urn(chain_id, "catalog", "all"),
        "@type": "Catalog",
        "participantId": urn(chain_id, "consortium", "all"),
        "dct:title": _text(f"Catalog of the consortium {chain_id}"),
        "dct:description": _text("Data that stay where they are, described for joint computation."),
        "dct:publisher": _agent(chain_id, "consortium", "all", chain_id),
        "dcat:themeTaxonomy": {
            "@id": urn(chain_id, "taxonomy", str(taxonomy.version)),
            "@type": f"{_SKOS}ConceptScheme",
            "dct:title": _text(taxonomy.title or chain_id),
        },
    }
    if services:
        document["service"] = list(services.values())
    if entries:
        document["dataset"] = entries
    return document


def published(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Those that can be used, ascending by name."""
    found = [dataset for dataset in datasets if dataset.status == DATASET_STATUS_PUBLISHED]
    return sorted(found, key=lambda dataset: dataset.published.name)


def urn(chain_id: str, kind: str, name: str) -> str:
    """The name of a thing of this consortium, for the rest of the world."""
    return f"urn:koinon:{chain_id}:{kind}:{name}"


def moment(time_ms: int) -> str:
    """A time as xsd:dateTime."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _dataset(
    chain_id: str, dataset: Dataset, publisher: InstitutionDescriptor, themes: Mapping[str, Node], service: Node
) -> Node:
    entry = dataset.published
    name = f"{entry.name}:{dataset.version}"
    node: Node = {
        "@id": urn(chain_id, "dataset", name),
        "@type": "Dataset",
        "dct:identifier": dataset.uid,
        "dct:title": _text(entry.title),
        "dct:description": _text(entry.description or entry.title),
        "dct:publisher": _agent(chain_id, "institution", publisher.id, publisher.title),
        "dct:issued": _typed(moment(dataset.released_at_ms), "xsd:dateTime"),
        "dcat:version": str(dataset.version),
        "dcat:keyword": list(entry.keywords),
        # An entry may outlive its theme, which then has no other name than its code.
        "dcat:theme": [themes.get(code) or _theme(chain_id, Theme(code=code)) for code in entry.themes],
        "dct:bibliographicCitation": entry.citation,
        "dct:rights": _rights(entry.license),
        "hasPolicy": [_offer(urn(chain_id, "offer", name), entry.policy, entry.price)],
        "distribution": [
            {
                "@type": "Distribution",
                "format": _FORMAT,  # once as the protocol reads it, once with what DCAT-AP wants known of it
                "dct:format": {"@id": _FORMAT, "@type": "dct:MediaTypeOrExtent"},
                "accessService": service,
                "dcat:accessURL": {"@id": service["@id"]},
            }
        ],
        f"{_DQV}hasQualityAnnotation": [_annotation(chain_id, made) for made in dataset.verifications],
        f"{CROISSANT}recordSet": [_record_set(urn(chain_id, "rows", name), entry.columns)],
    }
    return {key: value for key, value in node.items() if value not in ("", [], None)}


def _offer(offer_id: str, policy: AccessPolicy, price: Price) -> Node:
    """What a request within the policy may get; an ODRL offer has its target from where it stands."""
    operations = [word(TaskOperation, operation) for operation in policy.operations]
    permission: Node = {
        "action": "use",
        "constraint": [
            _constraint("odrl:count", "lteq", _integer(policy.max_uses)),
            _constraint("odrl:elapsedTime", "lteq", _typed(_seconds(policy.max_duration_ms), "xsd:duration")),
            _constraint(f"{_TERM}operation", "isAnyOf", operations),
            _constraint(f"{_TERM}minimum-cohort", "gteq", _integer(policy.min_cohort)),
        ],
    }
    duties: list[Node] = []
    if policy.mode != ACCESS_MODE_AUTO:
        duties.append({"action": "odrl:obtainConsent"})
    if price.unit:
        per = f"per {word(PriceUnit, price.unit)}"
        if price.period_ms:
            per += f" of {_seconds(price.period_ms)}"
        paid = _constraint("odrl:payAmount", "eq", _integer(price.points))
        duties.append({"action": "odrl:compensate", "constraint": [{**paid, "odrl:unit": f"points {per}"}]})
    if duties:
        permission["duty"] = duties
    return {
        "@id": offer_id,
        "@type": "Offer",
        "profile": f"{_TERM}profile",  # ODRL asks whoever uses words of its own to say so
        "permission": [permission],
        "prohibition": [{"action": "odrl:distribute"}],  # rows never leave their owner
    }


def _constraint(left: str, operator: str, right: object) -> Node:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def _service(chain_id: str, member: InstitutionDescriptor, *, dcat_ap: bool) -> Node:
    address = f"grpcs://{member.rpc_address}"
    return {
        "@id": urn(chain_id, "service", member.id),
        "@type": "DataService",
        **({"dcat:endpointURL": {"@id": address}} if dcat_ap else {"endpointURL": address}),
        "dct:title": _text(f"Node of {member.title or member.id}"),
    }


def _theme(chain_id: str, theme: Theme) -> Node:
    return {
        "@id": theme.uri or urn(chain_id, "theme", theme.code),
        "@type": f"{_SKOS}Concept",
        f"{_SKOS}prefLabel": _text(theme.label or theme.code),
    }


def _agent(chain_id: str, kind: str, name: str, title: str) -> Node:
    return {"@id": urn(chain_id, kind, name), "@type": f"{_FOAF}Agent", f"{_FOAF}name": title or name}


def _annotation(chain_id: str, made: Verification) -> Node:
    """Who checked it, how, and what came out."""
    return {
        "@type": f"{_DQV}QualityCertificate",
        "dct:type": {"@id": f"{_TERM}{word(VerificationOutcome, made.outcome)}"},
        "dct:description": _text(made.method),
        "dct:created": _typed(moment(made.made_at_ms), "xsd:dateTime"),
        f"{_PROV}wasAttributedTo": {"@id": urn(chain_id, "institution", made.institution)},
        "dct:identifier": f"sha256:{made.evidence_digest.hex()}",
    }


def _record_set(record_set_id: str, columns: Sequence[Column]) -> Node:
    """The columns in Croissant's words, with full IRIs."""
    return {
        "@id": record_set_id,
        "@type": f"{CROISSANT}RecordSet",
        f"{CROISSANT}field": [
            {
                "@id": f"{record_set_id}:{column.name}",
                "@type": f"{CROISSANT}Field",
                f"{SCHEMA}name": column.name,
                f"{SCHEMA}description": column.description or column.name,
                f"{CROISSANT}dataType": {"@id": f"{SCHEMA}{DATA_TYPES.get(column.type, 'Text')}"},
                **({f"{SCHEMA}unitText": column.unit} if column.unit else {}),
            }
            for column in columns
        ],
    }


def _text(value: str) -> Node:
    return {"@value": value, "@language": "en"}


def _typed(value: str, data_type: str) -> Node:
    return {"@value": value, "@type": data_type}


def _integer(value: int) -> Node:
    return _typed(str(value), "xsd:integer")


def _seconds(time_ms: int) -> str:
    """A length of time as xsd:duration."""
    return f"PT{time_ms // 1000}S"


def _rights(license_text: str) -> Node | None:
    """A licence is free text here, so it is a statement of rights there."""
    if not license_text:
        return None
    return {"@type": "dct:RightsStatement", "http://www.w3.org/2000/01/rdf-schema#label": license_text}
