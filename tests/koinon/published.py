"""What others published, from pinned packages: schemas, shapes, contexts, vocabularies. Nothing is fetched."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pyshacl
from pyld import BUNDLED_CONTEXTS, FrozenDocumentLoader, jsonld
from rdflib import DCAT, DCTERMS, FOAF, ODRL2, PROV, RDF, RDFS, SDO, SH, SKOS, XSD, Dataset, Graph, URIRef
from rdflib.namespace import DefinedNamespace
from referencing import Registry, Resource

Document = dict[str, Any]

# requirements/schemas.txt: byte for byte the files of the Dataspace Protocol 2025-1 and of DCAT-AP 3.0.1.
_FILES = Path(sys.prefix) / "schemas" / "httk" / "serve" / "dsp" / "schemas"
_DSPACE = "https://w3id.org/dspace/2025/1"
CATALOG = f"{_DSPACE}/catalog/catalog-schema.json"
UNMAPPED = "urn:unmapped:"
"""What a context has no meaning for gets one here, where it would silently be dropped."""

VOCABULARIES: tuple[type[DefinedNamespace], ...] = (DCAT, DCTERMS, FOAF, ODRL2, PROV, RDF, RDFS, SDO, SKOS, XSD)
"""Closed lists of terms, which rdflib generates from the published vocabularies."""


def protocol_errors(document: Document) -> set[str]:
    """What the Dataspace Protocol's JSON schema finds wrong with a catalog."""
    return _errors(_protocol()[CATALOG].contents, document, _protocol())


def prov_json_errors(document: Document) -> set[str]:
    """What the JSON schema of the W3C member submission finds wrong with a PROV-JSON document.

    Its demands on times stand outside ``properties``, and bind nobody; the package's reader makes them.
    """
    text = (resources.files("prov.tests") / "schemas" / "prov-json.schema.json").read_text("utf-8")
    return _errors(json.loads(text), document)


def dcat_ap_violations(graph: Graph) -> set[tuple[str, str]]:
    """What DCAT-AP's SHACL shapes find wrong: the path, and the constraint that it breaks."""
    conforms, report, _ = pyshacl.validate(graph, shacl_graph=_shapes())
    found = {
        (str(report.value(result, SH.resultPath)), str(report.value(result, SH.sourceConstraintComponent)))
        for result in report.objects(None, SH.result)
    }
    assert conforms != bool(found)
    return {(path, constraint.removeprefix(str(SH))) for path, constraint in found}


def graph(document: Document) -> Graph:
    """A JSON-LD document as triples. Raises what pyld does, also for a context that is none of these."""
    options = {"documentLoader": _loader(), "expandContext": {"@vocab": UNMAPPED}, "format": "application/n-quads"}
    made, found = Graph(), Dataset(default_union=True)
    found.parse(data=jsonld.to_rdf(document, options), format="nquads")
    for subject, predicate, value, _ in found.quads():
        made.add((subject, predicate, value))
    return made


def terms(made: Graph) -> Iterator[str]:
    """Every IRI that stands where a vocabulary's term does: predicates, types, values, types of literals."""
    for _, predicate, value in made:
        yield str(predicate)
        if isinstance(value, URIRef):
            yield str(value)
        elif kind := getattr(value, "datatype", None):
            yield str(kind)


def undefined(made: Graph) -> set[str]:
    """Terms that are in the name space of a published vocabulary, but not in the vocabulary; and the unmapped.

    What DCAT-AP's shapes speak of is defined, too: rdflib's list of DCAT is older than version 3.
    """
    newer = {str(path) for path in _shapes().objects(None, SH.path)}
    found = set()
    for term in set(terms(made)) - newer:
        owner = next((vocabulary for vocabulary in VOCABULARIES if term.startswith(str(vocabulary))), None)
        if term.startswith(UNMAPPED) or (owner is not None and URIRef(term) not in owner):
            found.add(term)
    return found


def _errors(schema: Document, document: Document, registry: Registry[Any] | None = None) -> set[str]:
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    made = validator(schema, registry=registry or Registry(), format_checker=validator.FORMAT_CHECKER)
    return {f"{error.json_path}: {error.message}" for error in made.iter_errors(document)}


@cache
def _protocol() -> Registry[Any]:
    schemas = [json.loads(path.read_text("utf-8")) for path in sorted(_files().glob("*/*-schema.json"))]
    return Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas)


@cache
def _shapes() -> Graph:
    """DCAT-AP 3.0.1's shapes, without two that it names and does not have."""
    shapes = Graph().parse(_files() / "dcat-ap" / "dcat-ap-SHACL.ttl")
    for shape in set(shapes.objects(None, SH.property)):
        if (shape, None, None) not in shapes:
            shapes.remove((None, SH.property, shape))
    return shapes


@cache
def _loader() -> Any:
    """The protocol's contexts, and those that pyld carries: credentials among them. Every other is refused."""
    contexts = {f"{_DSPACE}/context.jsonld": "dspace.jsonld", f"{_DSPACE}/odrl-profile.jsonld": "odrl.jsonld"}
    paths = {address: _files() / "context" / name for address, name in contexts.items()}
    return FrozenDocumentLoader({**BUNDLED_CONTEXTS, **paths})


def _files() -> Path:
    assert _FILES.is_dir(), f"{_FILES} is missing: make test installs it (requirements/install.sh)"
    return _FILES
