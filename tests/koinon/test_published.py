"""Whatever leaves for other programs is valid by what others published: schemas, shapes, contexts, vocabularies.

Each is then broken, so that it is known what a validator sees.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import mlcroissant
import prov.model
import pytest
from mlcroissant import ValidationError
from pyld.jsonld import JsonLdError
from rdflib import SDO, Graph, URIRef

from koinon import credential, croissant, dcat
from koinon import prov as provenance
from koinon.v1.catalog_pb2 import Dataset
from node.receipts import Receipts
from node.store.memory import MemoryStore
from tests.contracts.consortium import genesis, key
from tests.koinon import published
from tests.koinon.exported import BARE, CHAIN, FULL, export
from tests.koinon.published import Document
from tests.node.recorded_ledger import RecordedLedger

ENDPOINT = ("http://www.w3.org/ns/dcat#endpointURL", "NodeKindConstraintComponent")
OURS = "urn:koinon:v1#"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:rdflib.*")  # rdflib 7.6 uses what it deprecates
Change = Callable[[Document], object]


@pytest.fixture(autouse=True)
def _nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a validator reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def ledger() -> RecordedLedger:
    made = RecordedLedger(MemoryStore())
    made.tell()
    made.decide()
    return made


@pytest.fixture(scope="module")
def history(ledger: RecordedLedger) -> Document:
    return copied(provenance.document(ledger.app.chain_id, ledger.records()))


@pytest.fixture(scope="module")
def issued(ledger: RecordedLedger) -> Document:
    receipts = Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)
    analyst, operator = (
        receipts.record(record.index)
        for name in ("um/analyst", "um/operator")
        for record in ledger.records()
        if record.kind == "person.registered" and record.subject == f"person:{name}"
    )
    return copied(credential.issue(analyst, operator, key("um/operator"), genesis(), 1_700_000_100_000))


def copied(document: Document, change: Change = lambda _: None) -> Document:
    made: Document = json.loads(json.dumps(document))
    change(made)
    return made


# The Dataspace Protocol 2025-1


@pytest.mark.parametrize("datasets", [[], [BARE], [FULL, BARE]], ids=["none", "bare", "all"])
def test_a_catalog_is_valid_in_the_dataspace_protocol(datasets: list[Dataset]) -> None:
    assert published.protocol_errors(export(*datasets)) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda catalog: catalog.pop("participantId"),
        lambda catalog: catalog["@context"].insert(0, {"@vocab": "urn:x:"}),
        lambda catalog: catalog.update(dataset=[]),
        lambda catalog: catalog["dataset"][0].pop("hasPolicy"),
        lambda catalog: catalog["dataset"][0]["hasPolicy"][0].update(target="urn:x"),
        lambda catalog: catalog["dataset"][0]["hasPolicy"][0]["permission"][0].update(action=["use"]),
        lambda catalog: catalog["dataset"][0]["hasPolicy"][0]["permission"][0]["constraint"][0].update(operator="="),
        lambda catalog: catalog["dataset"][0]["hasPolicy"][0]["permission"][0]["constraint"][0].update(rightOperand=5),
        lambda catalog: catalog["dataset"][0]["distribution"][0].pop("format"),
        lambda catalog: catalog["service"][0].pop("endpointURL"),
    ],
)
def test_the_protocols_schema_sees_a_break(change: Change) -> None:
    assert published.protocol_errors(copied(export(FULL), change))


# DCAT-AP 3.0.1


@pytest.mark.parametrize("datasets", [[], [BARE], [FULL, BARE]], ids=["none", "bare", "all"])
def test_a_catalog_is_valid_in_dcat_ap(datasets: list[Dataset]) -> None:
    assert published.dcat_ap_violations(published.graph(export(*datasets, dcat_ap=True))) == set()


def test_one_property_parts_the_protocol_from_dcat_ap() -> None:
    assert published.dcat_ap_violations(published.graph(export(FULL, BARE))) == {ENDPOINT}
    errors = published.protocol_errors(export(dcat_ap=True))
    assert errors == {f"$.service[{at}]: 'endpointURL' is a required property" for at in range(2)}


@pytest.mark.parametrize(
    "change",
    [
        lambda catalog: catalog.pop("dct:title"),
        lambda catalog: catalog.pop("dct:publisher"),
        lambda catalog: catalog["dct:publisher"].update({"@type": "urn:koinon:other"}),
        lambda catalog: catalog["dcat:themeTaxonomy"].pop("dct:title"),
        lambda catalog: catalog["dataset"][0].pop("dct:description"),
        lambda catalog: catalog["dataset"][0].update({"dct:issued": {"@id": "urn:koinon:day"}}),
        lambda catalog: catalog["dataset"][0]["dcat:theme"][0].pop("@type"),
        lambda catalog: catalog["dataset"][0]["distribution"][0].pop("dcat:accessURL"),
        lambda catalog: catalog["dataset"][0]["distribution"][0].pop("dct:format"),
        lambda catalog: catalog["dataset"][0]["distribution"][0].update(accessService="urn:koinon:elsewhere"),
        lambda catalog: catalog["service"][0].pop("dct:title"),
    ],
)
def test_the_shapes_see_a_break(change: Change) -> None:
    assert published.dcat_ap_violations(published.graph(copied(export(FULL, dcat_ap=True), change)))


# DCAT 3, ODRL, DCMI, FOAF, SKOS, PROV, schema.org


@pytest.mark.parametrize("dcat_ap", [False, True])
def test_every_term_of_a_catalog_is_one_of_its_vocabulary(dcat_ap: bool) -> None:
    made = published.graph(export(FULL, BARE, dcat_ap=dcat_ap))
    assert published.undefined(made) == set()
    known = tuple(str(vocabulary) for vocabulary in published.VOCABULARIES)
    assert {term for term in published.terms(made) if not term.startswith((*known, "urn:koinon:", "grpcs://"))} == {
        # rdflib has no list of these; mlcroissant knows the first five, https://www.w3.org/TR/vocab-dqv/ the next two
        *(f"{dcat.CROISSANT}{name}" for name in ("RecordSet", "recordSet", "Field", "field", "dataType")),
        *(f"http://www.w3.org/ns/dqv#{name}" for name in ("hasQualityAnnotation", "QualityCertificate")),
        "https://w3id.org/dspace/2025/1/participantId",
        "https://example.org/HEAL",
    }


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda offer: offer.update(permissions=[]), set()),  # empty: nothing is said
        (lambda offer: offer.update(permited={"action": "use"}), {"urn:unmapped:permited"}),
        (lambda offer: offer["permission"][0].update(action="borrow"), {"urn:unmapped:borrow"}),
        (lambda offer: offer["permission"][0].update(action="odrl:borrow"), {"http://www.w3.org/ns/odrl/2/borrow"}),
        (
            lambda offer: offer["permission"][0]["constraint"][0].update(leftOperand="odrl:counts"),
            {"http://www.w3.org/ns/odrl/2/counts"},
        ),
        (lambda offer: offer.update({"dct:made": "x"}), {"http://purl.org/dc/terms/made"}),
    ],
)
def test_a_term_that_is_none_is_seen(change: Change, found: set[str]) -> None:
    document = copied(export(FULL), lambda catalog: change(catalog["dataset"][0]["hasPolicy"][0]))
    assert published.undefined(published.graph(document)) == found


# Croissant 1.0


@pytest.mark.parametrize("dataset", [FULL, BARE], ids=["full", "bare"])
def test_a_dataset_is_a_croissant(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    card = copied(croissant.dataset(CHAIN, dataset, "UM"))
    read = mlcroissant.Dataset(jsonld=card).metadata
    assert (read.ctx.issues.errors, read.ctx.issues.warnings) == (set(), set())
    assert not caplog.records, "it would say that the context is not the specification's"
    assert {"name", "description", "url", "creator"} < set(card), "mandatory, though the validator lets it pass"
    assert [field.name for field in read.record_sets[0].fields] == [column.name for column in dataset.published.columns]


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.pop("@type"),
        lambda card: card.update(conformsTo="http://mlcommons.org/croissant/0.1"),
        lambda card: card.pop("isLiveDataset"),  # then a checksum of the table is wanted, which nobody may have
        lambda card: card["distribution"][0].pop("encodingFormat"),
        lambda card: card["recordSet"][0]["field"][0].update(dataType="sc:Decimal"),
        lambda card: card["recordSet"][0]["field"][0]["source"]["fileObject"].update({"@id": "another"}),
    ],
)
def test_croissants_validator_sees_a_break(change: Change) -> None:
    with pytest.raises(ValidationError):
        mlcroissant.Dataset(jsonld=copied(croissant.dataset(CHAIN, FULL, "UM"), change))


def test_a_catalog_and_a_croissant_tell_the_same_of_columns() -> None:
    columns = [_columns(published.graph(document)) for document in (export(FULL), croissant.dataset(CHAIN, FULL, "UM"))]
    assert columns[0] == columns[1]
    assert len(columns[0]) == len(FULL.published.columns)


def _columns(made: Graph) -> set[tuple[str, str]]:
    kind, data_type = URIRef(f"{dcat.CROISSANT}Field"), URIRef(f"{dcat.CROISSANT}dataType")
    return {(str(made.value(it, SDO.name)), str(made.value(it, data_type))) for it in made.subjects(None, kind)}


# PROV-JSON


def test_a_history_is_valid_prov(history: Document) -> None:
    assert published.prov_json_errors(history) == set()
    read = prov.model.ProvDocument.deserialize(content=json.dumps(history), format="json")
    assert len(read.records) == sum(len(made) for kind, made in history.items() if kind != "prefix")
    triples = Graph().parse(data=read.serialize(format="rdf", rdf_format="turtle"), format="turtle")  # PROV-O
    assert published.undefined(triples) == set()


def _first(kind: str, change: Callable[[dict[str, Any]], object]) -> Change:
    return lambda history: change(next(iter(history[kind].values())))


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history.update(wasSeen={}),
        lambda history: history["prefix"].update(k=5),
        _first("wasAssociatedWith", lambda made: made.pop("prov:activity")),
        _first("wasGeneratedBy", lambda made: made.pop("prov:entity")),
        _first("actedOnBehalfOf", lambda made: made.update({"prov:delegate": 7})),
        _first("wasDerivedFrom", lambda made: made.pop("prov:usedEntity")),
    ],
)
def test_the_schema_of_prov_sees_a_break(history: Document, change: Change) -> None:
    assert published.prov_json_errors(copied(history, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history["prefix"].pop("koinon"),
        _first("activity", lambda made: made.update({"prov:startTime": "yesterday"})),
    ],
)
def test_the_reader_of_prov_sees_a_break(history: Document, change: Change) -> None:
    with pytest.raises((prov.Error, Warning)):
        prov.model.ProvDocument.deserialize(content=json.dumps(copied(history, change)), format="json")


# Verifiable Credentials 2.0


def test_a_credential_means_what_its_context_says(issued: Document) -> None:
    made = published.graph(issued)
    assert published.undefined(made) == set()
    terms = set(published.terms(made))
    ours = {"KoinonMembership", "KoinonReceipt", "person", "institution", "roles", "chain", "of", "receipt"}
    assert {term.removeprefix(OURS) for term in terms if term.startswith(OURS)} == ours
    theirs = {"VerifiableCredential", "credentialSubject", "evidence", "issuer", "validFrom"}
    assert {
        term.rpartition("#")[2] for term in terms if term.startswith("https://www.w3.org/2018/credentials#")
    } == theirs
    proof = {"DataIntegrityProof", "cryptosuite", "proofPurpose", "proofValue", "verificationMethod", "assertionMethod"}
    assert proof < {term.rpartition("#")[2] for term in terms if term.startswith("https://w3id.org/security#")}


@pytest.mark.parametrize(
    "change",
    [
        lambda issued: issued.update({"@context": ["https://www.w3.org/ns/credentials/v3"]}),  # not published
        lambda issued: issued["@context"].append({"VerifiableCredential": "urn:koinon:v1#Other"}),  # protected
        lambda issued: issued["proof"].update({"type": "DataIntegrityProof", "proofPurpose": {"@id": 5}}),
    ],
)
def test_the_context_of_credentials_sees_a_break(issued: Document, change: Change) -> None:
    with pytest.raises(JsonLdError):
        published.graph(copied(issued, change))
