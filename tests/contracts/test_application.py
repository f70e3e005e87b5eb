"""The application at its boundary: admission, all or none, proposals, restarts, and the hashes it answers for."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest

from koinon import canonical, merkle
from koinon.envelope import InvalidTransaction, verify
from koinon.errors import Corrupt, InvalidFile
from koinon.limits import MAX_BLOCK_BYTES, MAX_ENVELOPE_BYTES, MAX_EXPIRY_MS, MAX_REFUSAL
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import WithdrawDataset
from koinon.v1.consensus_pb2 import (
    VOTE_TYPE_PRECOMMIT,
    DuplicateProposal,
    DuplicateVote,
    Evidence,
    Vote,
)
from koinon.v1.identity_pb2 import ROLE_ANALYST, RegisterPerson, RevokePerson
from koinon.v1.task_pb2 import FailTask
from koinon.v1.transaction_pb2 import (
    TRANSACTION_STATUS_COMMITTED,
    TRANSACTION_STATUS_REJECTED,
    Envelope,
    Operation,
    TransactionBody,
)
from node import application, verified
from node.abci import DecidedBlock
from node.application import Application
from node.ledger.lthash import LtHash
from node.store.memory import MemoryStore
from tests.contracts.consortium import BLOCK_MS, START_MS, Consortium, access_request, genesis, key, person, publication


def published(consortium: Consortium, name: str = "um.a.t") -> bytes:
    return consortium.envelope("um/operator", publication(name))


def repacked(data: bytes, change: Callable[[Envelope], object]) -> bytes:
    envelope = Envelope.FromString(data)
    change(envelope)
    return envelope.SerializeToString(deterministic=True)


def signed_body(consortium: Consortium, body: bytes) -> bytes:
    """An envelope around any bytes, with a good signature over them."""
    signer = key("um/operator")
    signature = signer.sign(canonical.transaction_bytes(consortium.chain_id, body))
    return Envelope(body=body, public_key=signer.public_key, signature=signature).SerializeToString()


def body(consortium: Consortium, **fields: object) -> bytes:
    whole = {
        "chain_id": consortium.chain_id,
        "nonce": bytes(16),
        "expires_at_ms": consortium.time_ms + 60_000,
        "operations": [Operation(withdraw_dataset=WithdrawDataset(name="um.a.t", reason="x"))],
    }
    return TransactionBody(**(whole | fields)).SerializeToString()  # type: ignore[arg-type]


def revoked(consortium: Consortium) -> bytes:
    consortium.do("iu/operator", RevokePerson(person_id="iu/analyst", reason="left"))
    return consortium.envelope("iu/analyst", access_request("um.a.t"))


def replayed(consortium: Consortium) -> bytes:
    data = published(consortium)
    consortium.decide(data)
    return data


# Name: (how it is made, the rule that refuses it).
BAD_TRANSACTIONS: dict[str, tuple[Callable[[Consortium], bytes], str]] = {
    "empty": (lambda c: b"", "malformed-transaction"),
    "noise": (lambda c: b"\xff" * 100, "malformed-transaction"),
    "truncated": (lambda c: published(c)[:-1], "malformed-transaction"),
    "trailing garbage": (lambda c: published(c) + b"\x50\x01", "malformed-transaction"),
    "oversized": (lambda c: bytes(MAX_ENVELOPE_BYTES + 1), "oversized-transaction"),
    "wrong chain": (
        lambda c: c.envelope("um/operator", publication("um.a.t"), chain_id="test-0123456789abcdef"),
        "wrong-chain",
    ),
    "another's key": (
        lambda c: repacked(published(c), lambda e: setattr(e, "public_key", key("iu/operator").public_key)),
        "bad-signature",
    ),
    "changed body": (
        lambda c: repacked(published(c), lambda e: setattr(e, "body", e.body.replace(b"trial", b"trick"))),
        "bad-signature",
    ),
    "changed signature": (
        lambda c: repacked(published(c), lambda e: setattr(e, "signature", bytes(64))),
        "bad-signature",
    ),
    "short key": (
        lambda c: repacked(published(c), lambda e: setattr(e, "public_key", b"k")),
        "malformed-transaction",
    ),
    "no operations": (lambda c: signed_body(c, body(c, operations=[])), "malformed-transaction"),
    "an empty operation": (lambda c: signed_body(c, body(c, operations=[Operation()])), "malformed-transaction"),
    "an operation of later": (lambda c: signed_body(c, body(c) + b"\x22\x03\xfa\x06\x00"), "malformed-transaction"),
    "too many operations": (
        lambda c: signed_body(c, body(c, operations=[Operation(withdraw_dataset=WithdrawDataset(name="um.a.t"))] * 65)),
        "oversized-transaction",
    ),
    "short nonce": (lambda c: signed_body(c, body(c, nonce=b"1")), "malformed-transaction"),
    "no expiry": (lambda c: signed_body(c, body(c, expires_at_ms=0)), "malformed-transaction"),
    "expired": (lambda c: c.envelope("um/operator", publication("um.a.t"), expires_in_ms=0), "transaction-expired"),
    "expiring too far ahead": (
        lambda c: c.envelope("um/operator", publication("um.a.t"), expires_in_ms=2 * MAX_EXPIRY_MS),
        "expiry-too-far",
    ),
    "unknown key": (lambda c: c.envelope("um/nobody", publication("um.a.t")), "unknown-key"),
    "a validator's key": (lambda c: c.envelope("um validator", publication("um.a.t")), "unknown-key"),
    "revoked key": (revoked, "revoked-key"),
    "replayed": (replayed, "replayed-transaction"),
}


@pytest.mark.parametrize("name", BAD_TRANSACTIONS)
def test_a_bad_transaction_is_kept_out_everywhere(consortium: Consortium, name: str) -> None:
    make, rule = BAD_TRANSACTIONS[name]
    data = make(consortium)
    app = consortium.app
    time_ms = consortium.time_ms + BLOCK_MS
    refusal = app.check_tx(data)
    assert refusal is not None
    assert refusal.rule == rule
    assert refusal.message
    assert refusal.hint
    good = published(consortium, "um.a.other")
    assert app.prepare_proposal(1, time_ms, [data, good], MAX_BLOCK_BYTES) == [good]
    proposal = app.process_proposal(1, time_ms, [good, data])
    assert proposal is not None
    assert proposal.rule == rule
    # No honest validator lets it into a block; were it in one, it would be remembered at most, at every node alike.
    before = effects(consortium)
    result = consortium.decide(data).results[0]
    assert (result.status, result.refusal.rule) == (TRANSACTION_STATUS_REJECTED, rule)
    assert effects(consortium) == before


def effects(consortium: Consortium) -> dict[bytes, bytes]:
    """What transactions did; not which they were."""
    return {name: value for name, value in state(consortium).items() if not name.startswith(b"s/seen/")}


def state(consortium: Consortium) -> dict[bytes, bytes]:
    """All but who was seen to vote last, which every block may change."""
    return {name: value for name, value in consortium.store.scan(b"s/") if not name.startswith(b"s/last-sign/")}


def test_a_block_time_at_the_expiry_is_too_late(consortium: Consortium) -> None:
    data = consortium.envelope("um/operator", publication("um.a.t"), expires_in_ms=1_000)
    assert consortium.app.check_tx(data) is None
    assert consortium.app.prepare_proposal(1, consortium.time_ms + 1_000, [data], MAX_BLOCK_BYTES) == []
    assert consortium.app.prepare_proposal(1, consortium.time_ms + 999, [data], MAX_BLOCK_BYTES) == [data]


def test_a_replay_does_not_change_what_became_of_the_original(consortium: Consortium) -> None:
    data = published(consortium)
    transaction_id = consortium.decide(data).results[0].transaction_id
    again = consortium.decide(data, data)
    assert [result.refusal.rule for result in again.results] == ["replayed-transaction"] * 2
    info = consortium.app.transaction(transaction_id)
    assert info is not None
    assert (info.status, info.height, len(info.created)) == (TRANSACTION_STATUS_COMMITTED, 1, 1)


def test_a_replay_is_refused_after_a_restart_too(consortium: Consortium) -> None:
    decided = [published(consortium, f"um.a.t{number}") for number in range(3)]
    for data in decided:
        consortium.decide(data)
    restarted = Application(consortium.store, consortium.genesis)
    for data in decided:
        refusal = restarted.check_tx(data)
        assert refusal is not None
        assert refusal.rule == "replayed-transaction"
    assert restarted.check_tx(published(consortium, "um.a.u")) is None


def test_twice_in_one_block_counts_once(consortium: Consortium) -> None:
    data = published(consortium)
    first, second = consortium.decide(data, data).results
    assert (first.status, second.refusal.rule) == (TRANSACTION_STATUS_COMMITTED, "replayed-transaction")


def test_a_refused_transaction_cannot_be_tried_again(consortium: Consortium) -> None:
    data = consortium.envelope("um/analyst", access_request("um.a.t"))
    assert consortium.decide(data).results[0].refusal.rule == "not-found"
    consortium.publish("um.a.t")
    assert consortium.decide(data).results[0].refusal.rule == "replayed-transaction"


def test_seen_ids_are_forgotten_when_they_expire(consortium: Consortium) -> None:
    before = state(consortium)
    consortium.decide(consortium.envelope("um/analyst", access_request("um.a.none"), expires_in_ms=10_000))
    assert len(state(consortium)) == len(before) + 1
    consortium.wait(9_000 - 1)
    assert len(state(consortium)) == len(before) + 1
    consortium.wait(1)
    assert state(consortium) == before


def test_a_blocks_ids_are_kept_until_the_last_has_expired(consortium: Consortium) -> None:
    before = state(consortium)
    consortium.decide(
        *(
            consortium.envelope("um/analyst", access_request("um.a.none"), expires_in_ms=expires_in_ms)
            for expires_in_ms in (10_000, 20_000, 15_000)
        )
    )
    consortium.wait(19_000 - 1)
    assert len(state(consortium)) == len(before) + 1
    consortium.wait(1)
    assert state(consortium) == before


def test_a_batch_is_applied_all_or_none(consortium: Consortium) -> None:
    before = state(consortium)
    finalized = consortium.decide(
        consortium.envelope(
            "um/operator",
            RegisterPerson(person=person("um/new", ROLE_ANALYST)),
            publication("um.a.t"),
            publication("iu.a.t"),  # not um's
        )
    )
    assert finalized.results[0].refusal.rule == "permission"
    assert finalized.results[0].created == []
    assert finalized.records == ()
    after = state(consortium)
    assert {name for name in after if after[name] != before.get(name)} == {
        name for name in after if name.startswith(b"s/seen/")
    }
    assert set(before) <= set(after)


def test_a_batch_in_order_sees_its_own_effects(consortium: Consortium) -> None:
    result = consortium.send(
        "um/operator", publication("um.a.t"), publication("um.a.t"), WithdrawDataset(name="um.a.t", reason="wrong")
    )
    assert result.status == TRANSACTION_STATUS_COMMITTED
    assert result.created[0] == result.created[1] != ""
    assert result.created[2] == ""
    assert consortium.app.dataset("um.a.t").version == 2


def test_the_transactions_of_a_block_do_not_disturb_one_another(consortium: Consortium) -> None:
    bad = consortium.envelope("um/operator", publication("um.a.bad"), publication("iu.a.t"))
    results = consortium.decide(published(consortium, "um.a.one"), bad, published(consortium, "um.a.two")).results
    assert [result.status for result in results] == [
        TRANSACTION_STATUS_COMMITTED,
        TRANSACTION_STATUS_REJECTED,
        TRANSACTION_STATUS_COMMITTED,
    ]
    assert [dataset.published.name for dataset in consortium.app.datasets()] == ["um.a.one", "um.a.two"]


def test_a_key_revoked_earlier_in_the_block_is_refused(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    revocation = consortium.envelope("iu/operator", RevokePerson(person_id="iu/analyst", reason="left"))
    request = consortium.envelope("iu/analyst", access_request("um.a.t"))
    assert consortium.app.process_proposal(1, consortium.time_ms + 1, [revocation, request]) is None
    assert [result.refusal.rule for result in consortium.decide(revocation, request).results] == ["", "revoked-key"]


def test_a_long_name_makes_no_long_result(consortium: Consortium) -> None:
    refusal = consortium.send("um/operator", WithdrawDataset(name="x" * 50_000, reason="x")).refusal
    assert refusal.rule == "invalid-name"
    assert len(refusal.message) <= MAX_REFUSAL


def test_refusals_do_not_depend_on_the_unicode_tables_of_python(consortium: Consortium) -> None:
    later = chr(0x1FAE8)  # printable since Unicode 15: repr() of Python 3.11 and 3.12 differ
    assert "\\U0001fae8" in consortium.send("um/operator", WithdrawDataset(name=later, reason="x")).refusal.message


# --- proposals


def test_a_proposal_keeps_order_and_bounds(consortium: Consortium) -> None:
    candidates = [published(consortium, f"um.a.t{index}") for index in range(5)]
    app, time_ms = consortium.app, consortium.time_ms + 1
    assert app.prepare_proposal(1, time_ms, [*candidates, candidates[0]], MAX_BLOCK_BYTES) == candidates
    size = len(candidates[0]) * 3 + 1
    assert app.prepare_proposal(1, time_ms, candidates, size) == candidates[:3]
    twice = app.process_proposal(1, time_ms, [candidates[0], candidates[0]])
    assert twice is not None
    assert twice.rule == "replayed-transaction"


def test_what_a_proposal_held_is_refused_once_a_block_decided_it(consortium: Consortium) -> None:
    data, app = published(consortium), consortium.app
    assert app.process_proposal(1, consortium.time_ms + 1, [data]) is None
    assert consortium.decide(data).results[0].status == TRANSACTION_STATUS_COMMITTED
    refusal = app.process_proposal(2, consortium.time_ms + 1, [data])
    assert refusal is not None
    assert refusal.rule == "replayed-transaction"
    assert consortium.decide(data).results[0].refusal.rule == "replayed-transaction"


def test_what_was_admitted_to_one_proposal_is_judged_anew_in_another_block(consortium: Consortium) -> None:
    """In the block that was proposed so it is not judged twice."""
    data, app = consortium.envelope("um/operator", publication("um.a.t"), expires_in_ms=1_500), consortium.app
    other = published(consortium)
    assert app.process_proposal(1, consortium.time_ms + 1_000, [data, other]) is None
    results = consortium.decide(data, other, after_ms=2_000).results
    assert [result.refusal.rule for result in results] == ["transaction-expired", ""]
    assert app.process_proposal(2, consortium.time_ms + 1, [other]) is not None
    assert consortium.decide(other, data, after_ms=1).results[0].refusal.rule == "replayed-transaction"


def test_records_are_the_same_in_the_last_block_and_read_from_the_log(consortium: Consortium) -> None:
    consortium.publish("um.a.t", "um.a.u")
    fresh = consortium.records()
    consortium.wait(1)
    assert consortium.records() == fresh
    assert [record.index for record in fresh] == list(range(len(fresh)))


def test_a_proposal_is_bounded_in_operations(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "MAX_BLOCK_OPERATIONS", 5)
    request = access_request("um.a.t")
    candidates = [consortium.envelope("um/analyst", request, request) for _ in range(3)]
    app, time_ms = consortium.app, consortium.time_ms + 1
    assert app.prepare_proposal(1, time_ms, candidates, MAX_BLOCK_BYTES) == candidates[:2]
    full = app.process_proposal(1, time_ms, candidates)
    assert full is not None
    assert full.rule == "oversized-block"


def test_whatever_is_prepared_is_accepted(consortium: Consortium) -> None:
    good = [published(consortium, f"um.a.t{index}") for index in range(3)]
    bad = [make(consortium) for make, _ in BAD_TRANSACTIONS.values()]
    mixed = [data for pair in zip(bad, good * 10, strict=False) for data in pair]
    time_ms = consortium.time_ms + 1
    assert (
        consortium.app.process_proposal(1, time_ms, consortium.app.prepare_proposal(1, time_ms, mixed, MAX_BLOCK_BYTES))
        is None
    )


def test_a_signature_is_verified_once_between_pool_and_block(consortium: Consortium) -> None:
    data = published(consortium)
    with patch.object(verified, "verify", wraps=verify) as calls:
        consortium.app.check_tx(data)
        consortium.app.check_tx(data)
        consortium.app.prepare_proposal(1, consortium.time_ms + 1, [data], MAX_BLOCK_BYTES)
        consortium.app.process_proposal(1, consortium.time_ms + 1, [data])
        consortium.decide(data)
    assert calls.call_count == 1


def test_an_invalid_envelope_is_not_remembered_as_valid(consortium: Consortium) -> None:
    forged = repacked(published(consortium), lambda e: setattr(e, "signature", bytes(64)))
    for _ in range(2):
        refusal = consortium.app.check_tx(forged)
        assert refusal is not None
    with pytest.raises(InvalidTransaction):
        verify(consortium.chain_id, forged)


# --- what is answered for


def test_hashes_are_those_of_the_content(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    consortium.token("um.a.t")
    finalized = consortium.decide(published(consortium, "um.a.t"), published(consortium, "iu.a.t"))
    hashes = consortium.app.info().hashes
    assert hashes == finalized.hashes
    assert hashes.results_root == merkle.root([result.SerializeToString() for result in finalized.results])
    records = [consortium.app.audit_log.record(index) or b"" for index in range(consortium.app.audit_log.size)]
    assert hashes.audit_size == len(records)
    assert hashes.audit_root == merkle.root(records)
    lthash = LtHash()
    for name, value in consortium.store.scan(b"s/"):
        lthash.add(name, value)
    assert hashes.state_commitment == lthash.digest()


def test_records_say_when_and_by_whom(consortium: Consortium) -> None:
    finalized = consortium.decide(published(consortium))
    (record,) = finalized.records
    assert record == AuditRecord(
        index=consortium.app.audit_log.size - 1,
        height=1,
        time_ms=START_MS + BLOCK_MS,
        transaction_id=finalized.results[0].transaction_id,
        kind="dataset.published",
        actor="um/operator",
        subject="dataset:um.a.t",
        related=["institution:um"],
        to_state="published",
        detail="version 1: Indomethacin to prevent pancreatitis",
    )
    assert consortium.app.record(record.index) == record
    assert consortium.app.record(record.index + 1) is None


def test_a_restart_goes_on_where_it_was(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    again = Application(consortium.store, consortium.genesis)
    assert again.info() == consortium.app.info()
    assert again.time_ms == consortium.time_ms
    consortium.app = again
    consortium.token("um.a.t")


def test_a_block_whose_writes_never_reached_the_disk_did_not_happen(consortium: Consortium) -> None:
    block = DecidedBlock(1, consortium.time_ms + 1, bytes(32), "um", (published(consortium),))
    once = consortium.app.finalize_block(block)
    again = Application(consortium.store, consortium.genesis)
    assert again.info().height == 0
    assert again.finalize_block(block) == once


def test_every_node_reaches_the_same_state(consortium: Consortium) -> None:
    consortium.publish("um.a.t", "iu.a.t")
    tokens = {name: consortium.token(name) for name in ("um.a.t", "iu.a.t")}
    task = consortium.do("um/analyst", consortium.submission(tokens))
    consortium.accept_all(task)
    consortium.complete_all(task)
    consortium.wait(10**7)
    other = Consortium(MemoryStore(), consortium.genesis)
    for block in consortium.blocks:
        other.replay(block)
    assert other.app.info() == consortium.app.info()
    assert dict(other.store.scan(b"")) == dict(consortium.store.scan(b""))


def test_another_genesis_is_refused(consortium: Consortium) -> None:
    with pytest.raises(InvalidFile) as caught:
        Application(consortium.store, genesis(("aa", "bb")))
    assert caught.value.rule == "invalid-genesis"


def test_a_damaged_standing_is_named(consortium: Consortium) -> None:
    consortium.store.write([(b"m/application", b"short")], sync=True)
    with pytest.raises(Corrupt):
        Application(consortium.store, consortium.genesis)


def test_a_disk_that_fails_is_no_refusal(consortium: Consortium) -> None:
    """Else this node alone would reject what the others apply."""
    consortium.publish("um.a.t")
    data = consortium.envelope("um/analyst", access_request("um.a.t"))

    class Failing(MemoryStore):
        def get(self, key: bytes) -> bytes | None:
            if key.startswith(b"s/dataset/"):
                raise Corrupt("a damaged block")
            return consortium.store.get(key)

    consortium.app._store = Failing()
    with pytest.raises(Corrupt):
        consortium.decide(data)


def test_height_zero_is_on_record(consortium: Consortium) -> None:
    kinds = [record.kind for record in consortium.records()]
    assert kinds == ["institution.joined"] * 4 + ["person.registered"] * 12
    assert {record.actor for record in consortium.records()} == {"ledger"}
    assert {person.id for person in consortium.app.people("um")} == {"um/operator", "um/analyst", "um/regulator"}
    assert all(not institution.descriptor.people for institution in consortium.app.institutions())


def test_evidence_is_recorded_once(consortium: Consortium) -> None:
    vote = Vote(type=VOTE_TYPE_PRECOMMIT, height=7, round=1, institution="uk", block_hash=b"a" * 32)
    other = Vote(type=VOTE_TYPE_PRECOMMIT, height=7, round=1, institution="uk", block_hash=b"b" * 32)
    consortium.wait(1)  # everybody was seen: uk can be spared
    votes = Evidence(duplicate_vote=DuplicateVote(first=vote, second=other))
    proposals = Evidence(duplicate_proposal=DuplicateProposal(height=7, round=1, institution="uk"))
    stranger = Evidence(duplicate_proposal=DuplicateProposal(height=7, round=1, institution="xx"))
    first = consortium.decide(evidence=(votes, votes, proposals, stranger, Evidence()))
    assert [(record.kind, record.subject, record.detail) for record in first.records] == [
        ("evidence.recorded", "institution:uk", "signed two precommits at height 7, round 1"),
        ("institution.suspended", "institution:uk", "signed two precommits at height 7, round 1"),
        ("evidence.recorded", "institution:uk", "signed two proposals at height 7, round 1"),
    ]
    assert consortium.decide(evidence=(votes,)).records == ()


def test_the_history_of_a_fixed_scene_is_frozen(consortium: Consortium) -> None:
    """Changing what a transaction does breaks every ledger in use: do it on purpose, and say so in the changelog."""
    consortium.publish("um.a.t", "iu.a.t")
    tokens = {name: consortium.token(name) for name in ("um.a.t", "iu.a.t")}
    stopped, task = (consortium.do("um/analyst", consortium.submission(tokens)) for _ in range(2))
    consortium.accept_all(stopped)
    consortium.do("iu", FailTask(task_id=stopped, rule="expression-failed", reason="a value"))
    consortium.accept_all(task)
    consortium.refused("um/regulator", publication("um.a.u"))
    consortium.complete_all(task)
    consortium.do("um/operator", WithdrawDataset(name="um.a.t", reason="over"))
    hashes = consortium.app.info().hashes
    assert hashes.audit_root.hex() == "e5eb1388d2faf4d6276008f31ff2a24488ad5462be93af6201292cf5e65362bc"
    assert hashes.state_commitment.hex() == "f7af73bc5431ea868bda254eb308312848c376a118cb831525f9d6f09996fe16"
