"""Case files: gathered, verified, forged in every way; as W3C PROV and as a page, with hostile texts in them."""

from __future__ import annotations

import html.parser
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from koinon import case as cases
from koinon import genesis as genesis_file
from koinon import page, prov, trail
from koinon.cli import main
from koinon.errors import Corrupt, InvalidFile
from koinon.receipt import VerifiedRecord, single, verify
from koinon.v1.access_pb2 import RevokeToken
from koinon.v1.audit_pb2 import AuditRecord, CaseFile
from node.receipts import Receipts
from node.store.memory import MemoryStore
from tests.node.recorded_ledger import RecordedLedger

HOSTILE = "</td><script>alert(1)</script><img src=x onerror='y'>\u202e\"&"

# PROV-JSON member submission, section 3: which attributes a relation must have, and of which kind each is.
RELATIONS = {
    "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
    "used": {"prov:activity": "activity", "prov:entity": "entity"},
    "wasAssociatedWith": {"prov:activity": "activity", "prov:agent": "agent"},
    "actedOnBehalfOf": {"prov:delegate": "agent", "prov:responsible": "agent"},
    "wasDerivedFrom": {"prov:generatedEntity": "entity", "prov:usedEntity": "entity", "prov:activity": "activity"},
    "specializationOf": {"prov:specificEntity": "entity", "prov:generalEntity": "entity"},
}


@pytest.fixture(scope="module")
def ledger() -> RecordedLedger:
    made = RecordedLedger(MemoryStore())
    token, _ = made.tell()
    made.decide(made.envelope("iu/operator", RevokeToken(token_id=token, reason="over")))
    made.decide()
    return made


def gather(ledger: RecordedLedger, subject: str) -> CaseFile:
    scope = cases.scope(subject, [record for record in ledger.records() if cases.concerns(record, [subject])])
    indices = [record.index for record in ledger.records() if cases.concerns(record, scope)]
    made = Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)
    return CaseFile(subject=subject, scope=scope, proved=made.records(indices, 0))


@pytest.fixture
def case(ledger: RecordedLedger) -> CaseFile:
    (token,) = {record.subject for record in ledger.records() if record.kind == "token.granted"}
    return gather(ledger, token)


def test_a_case_verifies_from_its_file(ledger: RecordedLedger, case: CaseFile) -> None:
    proved = cases.verify(cases.parse(cases.render(case)), ledger.genesis)
    assert [record.kind for record in proved.records] == ["access.granted", "token.granted", "token.revoked"]
    assert proved.tree_size == ledger.app.audit_log.size


@pytest.mark.parametrize("subject", ["dataset:iu.ercp.indo_rct", "person:um/analyst", "institution:iu"])
def test_everything_that_concerns_a_subject_is_in_its_case(ledger: RecordedLedger, subject: str) -> None:
    kind, _, name = subject.partition(":")
    proved = cases.verify(gather(ledger, subject), ledger.genesis)
    assert list(proved.records) == [item for item in ledger.records() if (kind, name) in trail.dimensions(item)]


def test_every_record_of_a_case_is_a_receipt(ledger: RecordedLedger, case: CaseFile) -> None:
    for position in range(len(case.proved.records)):
        assert isinstance(verify(single(case.proved, position), ledger.genesis), VerifiedRecord)


def _drop(position: int) -> Callable[[CaseFile], object]:
    return lambda case: case.proved.records.pop(position)


def _rename(case: CaseFile) -> None:
    case.subject = "dataset:iu.ercp.indo_rct"


def _swap(case: CaseFile) -> None:
    first = case.proved.records.pop(0)
    case.proved.records.append(first)


def _twice(case: CaseFile) -> None:
    case.proved.records.append(case.proved.records[-1])


def _edit(case: CaseFile) -> None:
    case.proved.records[0].record = case.proved.records[0].record.replace(b"um/", b"iu/")


def _elsewhere(case: CaseFile) -> None:
    case.proved.records[0].index += 1


def _shrink(case: CaseFile) -> None:
    case.proved.tree_size -= 1


def _widen(case: CaseFile) -> None:
    case.scope.append("token:" + "f" * 32)


@pytest.mark.parametrize(
    ("forge", "step"),
    [
        (_drop(1), 9),  # the grant: then the end comes from nowhere
        (_rename, 7),
        (_widen, 7),
        (_swap, 5),
        (_twice, 5),
        (_edit, 5),
        (_elsewhere, 5),
        (_shrink, 4),
    ],
)
def test_a_forged_case_is_refused_at_its_step(
    ledger: RecordedLedger, case: CaseFile, forge: Callable[[CaseFile], object], step: int
) -> None:
    forge(case)
    with pytest.raises(Corrupt, match=f"^step {step}: "):
        cases.verify(case, ledger.genesis)


def test_a_case_without_its_last_change_holds_and_claims_no_more(
    ledger: RecordedLedger, case: CaseFile, tmp_path: Path
) -> None:
    """A token whose revocation was cut off: the file proves what came before, and says so."""
    assert AuditRecord.FromString(case.proved.records.pop().record).kind == "token.revoked"
    (tmp_path / "case.json").write_text(cases.render(case))
    genesis_file.save(tmp_path / "genesis.json", ledger.genesis)
    command = ["audit", "verify", str(tmp_path / "case.json"), "--genesis", str(tmp_path / "genesis.json")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.stderr
    assert "before the last change of state no other is missing" in result.output
    assert "missing before the last one shown" in page.render(cases.verify(case, ledger.genesis), file_name="case.json")


def test_a_foreign_record_is_refused(ledger: RecordedLedger, case: CaseFile) -> None:
    made = Receipts(ledger.app, ledger.blocks, ledger.validators, ledger.genesis)
    indices = [0, *(item.index for item in case.proved.records)]
    case.proved.CopyFrom(made.records(indices, 0))
    with pytest.raises(Corrupt, match="step 8: record 0"):
        cases.verify(case, ledger.genesis)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "koinon-receipt/1"}', '{"format": "koinon-case/1", "x": 1}'])
def test_what_is_no_case_is_an_invalid_file(text: str) -> None:
    with pytest.raises(InvalidFile):
        cases.parse(text)


def test_prov_declares_whatever_it_relates(ledger: RecordedLedger) -> None:
    document = prov.document(ledger.app.chain_id, ledger.records())
    assert set(document) <= {"prefix", "entity", "activity", "agent", *RELATIONS}
    for relation, needed in RELATIONS.items():
        assert document[relation]
        for values in document[relation].values():
            for attribute, kind in needed.items():
                assert values[attribute] in document[kind], (relation, attribute)
    names = [name for kind in ("entity", "activity", "agent") for name in document[kind]]
    assert all(name.startswith("k:") and " " not in name for name in names)
    assert len(document["activity"]) == ledger.app.audit_log.size


def test_the_states_of_a_subject_are_revisions_of_one_another(ledger: RecordedLedger) -> None:
    (token,) = {record.subject for record in ledger.records() if record.kind == "token.granted"}
    about = [record.index for record in ledger.records() if record.subject == token]
    document = prov.document(ledger.app.chain_id, ledger.records())
    name = token.replace(":", "/")
    derived = document["wasDerivedFrom"][f"_:d{about[1]}"]
    assert derived["prov:generatedEntity"] == f"k:{name}/at/{about[1]}"
    assert derived["prov:usedEntity"] == f"k:{name}/at/{about[0]}"


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags = set[str]()
        self.attributes = set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_page_runs_and_loads_nothing_whatever_its_texts_say(ledger: RecordedLedger, case: CaseFile) -> None:
    proved = cases.verify(case, ledger.genesis)
    hostile = AuditRecord(
        kind=HOSTILE, actor=HOSTILE, subject=HOSTILE, related=[HOSTILE], to_state=HOSTILE, detail=HOSTILE
    )
    text = page.render(
        cases.VerifiedCase(HOSTILE, (HOSTILE,), (*proved.records, hostile), proved.tree_size, proved.proof),
        file_name=HOSTILE,
    )
    read = _Tags()
    read.feed(text)
    assert read.tags.isdisjoint({"script", "img", "link", "iframe", "a", "form", "object"})
    assert read.attributes == {"lang", "charset", "http-equiv", "content"}
    assert "\u202e" not in text
    assert "default-src 'none'" in text
    assert prov.document(HOSTILE, [hostile])["activity"]
