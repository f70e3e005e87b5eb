"""Datasets as Croissant 1.0 metadata (http://mlcommons.org/croissant/1.0), one document each.

Tools for machine learning read columns, types, licence and citation. The table itself is named and not linked, since it
never leaves its owner: its file object is live, so that no checksum of the content is wanted; what the ledger has is a
salted commitment.
"""

from __future__ import annotations

from typing import Any

from koinon import dcat
from koinon.v1.catalog_pb2 import Column, Dataset

_TERMS = (
    "citeAs column equivalentProperty extract field fileProperty fileObject fileSet format includes isLiveDataset "
    "jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source "
    "subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": dcat.SCHEMA,
    "cr": dcat.CROISSANT,
    "rai": f"{dcat.CROISSANT}RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": dcat.SCHEMA,
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
} | {term: f"cr:{term}" for term in _TERMS.split()}
"""The context that the specification gives for version 1.0."""


def dataset(chain_id: str, entry: Dataset, publisher: str) -> dcat.Node:
    """One dataset; ``publisher`` is its institution's title."""
    published = entry.published
    name = dcat.urn(chain_id, "dataset", f"{published.name}:{entry.version}")
    node: dcat.Node = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": published.name,
        "description": published.description or published.title,
        "alternateName": published.title,
        "identifier": entry.uid,
        "url": name,
        "version": f"{entry.version}.0.0",
        "datePublished": dcat.moment(entry.released_at_ms),
        "license": published.license or "not stated: ask the publisher",
        "citeAs": published.citation or f"{publisher}: {published.title}",
        "keywords": list(published.keywords),
        "creator": {"@type": "sc:Organization", "name": publisher, "url": _institution(chain_id, entry)},
        "isLiveDataset": True,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "table",
                "name": "table",
                "description": "It stays with its owner, and is computed on there.",
                "contentUrl": name,
                "encodingFormat": "application/octet-stream",
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "field": [_field(column) for column in published.columns],
            }
        ],
    }
    return {key: value for key, value in node.items() if value != []}


def _field(column: Column) -> dcat.Node:
    described = column.description or column.name
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column.name}",
        "name": column.name,
        "description": f"{described} [{column.unit}]" if column.unit else described,
        "dataType": f"sc:{dcat.DATA_TYPES.get(column.type, 'Text')}",
        "source": {"fileObject": {"@id": "table"}, "extract": {"column": column.name}},
    }


def _institution(chain_id: str, entry: Dataset) -> str:
    return dcat.urn(chain_id, "institution", entry.publisher)
