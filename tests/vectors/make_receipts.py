"""Makes receipts/: a small chain's genesis, receipts that hold, and receipts that must not, each for one reason.

Run it as ``python tests/vectors/make_receipts.py`` after a *deliberate* change of a format, and change the
digest in tests/koinon/test_receipt.py. Keys come from fixed seeds, so every run makes the same bytes.

The chain: ``case iu uk um`` decide blocks 1 to 9; after block 9 ``osu`` takes the place of ``case``; after
block 19 ``um`` gets power 3. Each block adds two audit records, and the genesis added four.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

from koinon import canonical, merkle, receipt
from koinon import genesis as genesis_file
from koinon.json_form import render
from koinon.keys import SealingKey, SigningKey
from koinon.v1.audit_pb2 import AuditRecord, Receipt, SignedHeader
from koinon.v1.consensus_pb2 import (
    VOTE_TYPE_PRECOMMIT,
    VOTE_TYPE_PREVOTE,
    Commit,
    CommitSignature,
    Header,
    Validator,
)
from koinon.v1.identity_pb2 import ROLE_OPERATOR, Genesis, InstitutionDescriptor, Person
from koinon.validators import ValidatorSet

DIRECTORY = Path(__file__).with_name("receipts")
GENESIS_RECORDS = 4
START_MS = 1_763_000_000_000

Case = tuple[str, str, str]
"""A file's name, what verifying it must say ("holds", "malformed", "step 5"), and its text."""


def signing_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def certificate(institution: str) -> bytes:
    """Something in the form of DER: an outer SEQUENCE; receipts do not look inside."""
    content = b"certificate of " + institution.encode()
    return b"\x30" + bytes([len(content)]) + content


def make_genesis(chain_name: str = "ercp") -> Genesis:
    return genesis_file.join(
        chain_name,
        START_MS,
        [
            InstitutionDescriptor(
                id=institution,
                title=institution.upper(),
                validator_key=signing_key(institution).public_key,
                node_key=signing_key(f"{institution} node").public_key,
                sealing_key=SealingKey(hashlib.sha256(institution.encode()).digest()).public_key,
                tls_certificate=certificate(institution),
                peer_address=f"{institution}.example:7001",
                rpc_address=f"{institution}.example:7002",
                mpc_address=f"{institution}.example:7003",
                power=1,
                people=[
                    Person(
                        id=f"{institution}/operator",
                        public_key=signing_key(f"{institution}/operator").public_key,
                        roles=[ROLE_OPERATOR],
                    )
                ],
            )
            for institution in ("um", "iu", "uk", "case")
        ],
    )


GENESIS = make_genesis()
CHAIN = genesis_file.chain_id(GENESIS)


def validator_set(**powers: int) -> ValidatorSet:
    return ValidatorSet.of(
        Validator(institution=name, public_key=signing_key(name).public_key, power=power)
        for name, power in sorted(powers.items())
    )


FIRST = validator_set(um=1, iu=1, uk=1, case=1)
SECOND = validator_set(um=1, iu=1, uk=1, osu=1)
THIRD = validator_set(um=3, iu=1, uk=1, osu=1)


def validators_at(height: int) -> ValidatorSet:
    return FIRST if height < 10 else SECOND if height < 20 else THIRD


def record_of(index: int) -> AuditRecord:
    height = max(0, (index - GENESIS_RECORDS) // 2 + 1)
    return AuditRecord(
        index=index,
        height=height,
        time_ms=START_MS + 1000 * height,
        transaction_id=hashlib.sha256(b"%d" % index).digest(),
        kind="dataset.published",
        actor="um/operator",
        subject="dataset:um.ercp.indo_rct",
        to_state="published",
    )


RECORDS = [record_of(index).SerializeToString(deterministic=True) for index in range(60)]


def header_at(height: int) -> Header:
    size = GENESIS_RECORDS + 2 * (height - 1)  # what was executed before this block
    return Header(
        chain_id=CHAIN,
        height=height,
        time_ms=START_MS + 1000 * height,
        previous_block_hash=hashlib.sha256(b"block %d" % (height - 1)).digest(),
        last_commit_hash=hashlib.sha256(b"commit").digest(),
        transactions_root=merkle.EMPTY_ROOT,
        evidence_root=merkle.EMPTY_ROOT,
        validators_hash=validators_at(height).hash(),
        next_validators_hash=validators_at(height + 1).hash(),
        results_root=merkle.EMPTY_ROOT,
        state_commitment=hashlib.sha256(b"state").digest(),
        audit_root=merkle.root(RECORDS[:size]),
        audit_size=size,
        proposer="um",
    )


def sign(
    header: Header,
    validators: ValidatorSet,
    signers: list[str] | None = None,
    *,
    chain: str = CHAIN,
    vote_type: int = VOTE_TYPE_PRECOMMIT,
    height: int | None = None,
) -> SignedHeader:
    """The header with precommits of ``signers`` (all, unless said), over whatever it says."""
    data = header.SerializeToString(deterministic=True)
    block = canonical.block_hash(data)
    height = header.height if height is None else height
    time_ms = header.time_ms + 7
    return SignedHeader(
        header=data,
        commit=Commit(
            height=height,
            round=1,
            block_hash=block,
            signatures=[
                CommitSignature(
                    institution=name,
                    time_ms=time_ms,
                    signature=signing_key(name).sign(canonical.vote_bytes(chain, vote_type, height, 1, block, time_ms)),
                )
                for name in (signers or [member.institution for member in validators])
            ],
        ),
        validators=validators.to_proto(),
    )


def signed_at(height: int) -> SignedHeader:
    return sign(header_at(height), validators_at(height))


def make_receipt(index: int, height: int) -> Receipt:
    """The receipt for a record, as an honest node makes it from the block at ``height``."""
    head = header_at(height)
    hashes = [merkle.leaf_hash(record) for record in RECORDS[: head.audit_size]]
    return Receipt(
        record=RECORDS[index],
        index=index,
        tree_size=head.audit_size,
        path=merkle.inclusion_proof(index, head.audit_size, merkle.subtrees(hashes)),
        head=signed_at(height),
        validator_changes=[signed_at(change) for change in (9, 19) if change < height],
        genesis_hash=genesis_file.genesis_hash(GENESIS).hex(),
    )


def good() -> Iterator[tuple[str, Receipt]]:
    yield "first-block", make_receipt(0, 1)
    yield "same-validators", make_receipt(9, 9)
    yield "after-one-change", make_receipt(10, 10)
    yield "after-two-changes", make_receipt(31, 25)
    yield "last-record", make_receipt(51, 25)
    quorum = make_receipt(9, 7)
    quorum.head.CopyFrom(sign(header_at(7), FIRST, ["case", "iu", "um"]))
    yield "bare-quorum", quorum
    heavy = make_receipt(9, 25)
    heavy.head.CopyFrom(sign(header_at(25), THIRD, ["iu", "uk", "um"]))
    yield "quorum-by-power", heavy
    skipping = make_receipt(31, 25)
    del skipping.validator_changes[0]
    yield "change-skipped", skipping


# Each of these spoils an honest receipt for record 12, proved by block 15, after one change of validators.


def other_network(spoilt: Receipt) -> None:
    spoilt.genesis_hash = genesis_file.genesis_hash(make_genesis("other")).hex()


def no_genesis_hash(spoilt: Receipt) -> None:
    spoilt.genesis_hash = ""


def other_network_in_disguise(spoilt: Receipt) -> None:
    """Signed by the right validators, for another chain."""
    other = genesis_file.chain_id(make_genesis("other"))
    header = header_at(15)
    header.chain_id = other
    spoilt.head.CopyFrom(sign(header, SECOND, chain=other))


def header_of_another_chain(spoilt: Receipt) -> None:
    header = header_at(15)
    header.chain_id = "other-0000000000000000"
    spoilt.head.CopyFrom(sign(header, SECOND))


def record_changed(spoilt: Receipt) -> None:
    record = record_of(12)
    record.detail = "forged"
    spoilt.record = record.SerializeToString(deterministic=True)


def index_changed(spoilt: Receipt) -> None:
    spoilt.index = 13


def index_beyond_the_log(spoilt: Receipt) -> None:
    spoilt.index = spoilt.tree_size


def path_too_short(spoilt: Receipt) -> None:
    del spoilt.path[-1]


def path_too_long(spoilt: Receipt) -> None:
    spoilt.path.append(bytes(32))


def path_of_another_record(spoilt: Receipt) -> None:
    del spoilt.path[:]
    spoilt.path.extend(make_receipt(13, 15).path)


def node_as_leaf(spoilt: Receipt) -> None:
    """An inner node passed off as a record, with the upper part of a true path (RFC 6962 hashes them apart)."""
    spoilt.record = merkle.leaf_hash(RECORDS[12]) + merkle.leaf_hash(RECORDS[13])
    del spoilt.path[0]
    spoilt.index = 6


def size_changed(spoilt: Receipt) -> None:
    spoilt.tree_size -= 1


def head_missing(spoilt: Receipt) -> None:
    spoilt.ClearField("head")


def head_changed(spoilt: Receipt) -> None:
    header = header_at(15)
    header.audit_root = bytes(32)
    spoilt.head.header = header.SerializeToString(deterministic=True)


def head_signed_for_another_block(spoilt: Receipt) -> None:
    """Header and block hash agree, the signatures are for the honest block."""
    header = header_at(15)
    header.audit_root = bytes(32)
    spoilt.head.header = header.SerializeToString(deterministic=True)
    spoilt.head.commit.block_hash = canonical.block_hash(spoilt.head.header)


def too_few_signatures(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["iu", "um"]))


def exactly_two_thirds(spoilt: Receipt) -> None:
    """Power 4 of 6: more than two thirds are needed."""
    spoilt.CopyFrom(make_receipt(12, 25))
    spoilt.head.CopyFrom(sign(header_at(25), THIRD, ["osu", "um"]))


def one_signer_counted_twice(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["iu", "um", "um"]))


def signers_out_of_order(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["um", "uk", "osu", "iu"]))


def signature_of_a_stranger(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["iu", "um", "zz"]))


def signature_of_a_former_validator(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, ["case", "iu", "um"]))


def signature_forged(spoilt: Receipt) -> None:
    signature = spoilt.head.commit.signatures[2]
    signature.signature = signing_key("mallory").sign(b"anything")


def signature_time_changed(spoilt: Receipt) -> None:
    spoilt.head.commit.signatures[0].time_ms += 1


def prevotes_for_precommits(spoilt: Receipt) -> None:
    """Prevotes of a quorum decide nothing."""
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, vote_type=VOTE_TYPE_PREVOTE))


def round_changed(spoilt: Receipt) -> None:
    spoilt.head.commit.round = 2


def header_of_another_height(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), SECOND, height=16))


def header_is_noise(spoilt: Receipt) -> None:
    """Signed by a quorum, yet no header: another version's, perhaps."""
    data = b"\xff" * 20
    block = canonical.block_hash(data)
    for item in spoilt.head.commit.signatures:
        signed = canonical.vote_bytes(CHAIN, VOTE_TYPE_PRECOMMIT, 15, 1, block, item.time_ms)
        item.signature = signing_key(item.institution).sign(signed)
    spoilt.head.header = data
    spoilt.head.commit.block_hash = block


def validators_invented(spoilt: Receipt) -> None:
    """Everything fits, but mallory plays all the validators."""
    mallory = ValidatorSet.of([Validator(institution="mallory", public_key=signing_key("mallory").public_key, power=1)])
    header = header_at(5)
    header.validators_hash = header.next_validators_hash = mallory.hash()
    spoilt.CopyFrom(make_receipt(9, 5))
    spoilt.head.CopyFrom(sign(header, mallory))


def power_invented(spoilt: Receipt) -> None:
    spoilt.head.CopyFrom(sign(header_at(15), validator_set(um=9, iu=1, uk=1, osu=1), ["iu", "um"]))


def validators_out_of_order(spoilt: Receipt) -> None:
    members = list(reversed(spoilt.head.validators))
    del spoilt.head.validators[:]
    spoilt.head.validators.extend(members)


def header_names_other_validators(spoilt: Receipt) -> None:
    header = header_at(15)
    header.validators_hash = FIRST.hash()
    spoilt.head.CopyFrom(sign(header, SECOND))


def change_left_out(spoilt: Receipt) -> None:
    del spoilt.validator_changes[:]


def change_signed_by_the_new_set(spoilt: Receipt) -> None:
    """Those who come cannot let themselves in."""
    spoilt.validator_changes[0].CopyFrom(sign(header_at(9), FIRST, ["iu", "um"]))


def change_that_changes_nothing(spoilt: Receipt) -> None:
    spoilt.validator_changes.insert(0, signed_at(8))


def changes_swapped(spoilt: Receipt) -> None:
    spoilt.CopyFrom(make_receipt(12, 25))
    first, second = deepcopy(spoilt.validator_changes[0]), deepcopy(spoilt.validator_changes[1])
    spoilt.validator_changes[0].CopyFrom(second)
    spoilt.validator_changes[1].CopyFrom(first)


def change_skipped_with_one_voucher(spoilt: Receipt) -> None:
    """Of the four that the genesis names, one signed it: less than more than a third."""
    spoilt.CopyFrom(make_receipt(31, 25))
    strangers = validator_set(um=1, mit=1, osu=1, ucl=1)
    header = header_at(19)
    header.validators_hash = strangers.hash()
    del spoilt.validator_changes[:]
    spoilt.validator_changes.append(sign(header, strangers))


def voucher_for_the_next_block(spoilt: Receipt) -> None:
    """Block 9 names who signs block 10: nobody else may, whoever vouches."""
    spoilt.CopyFrom(make_receipt(31, 25))
    header = header_at(10)
    header.validators_hash, header.next_validators_hash = FIRST.hash(), THIRD.hash()
    spoilt.validator_changes[1].CopyFrom(sign(header, FIRST))


def change_after_the_head(spoilt: Receipt) -> None:
    """A head that comes before the block that changed the validators."""
    header = header_at(15)
    header.height = 9
    spoilt.head.CopyFrom(sign(header, SECOND))


def record_names_another_place(spoilt: Receipt) -> None:
    place_record(spoilt, record_of(13).SerializeToString(deterministic=True))


def record_from_the_future(spoilt: Receipt) -> None:
    record = record_of(12)
    record.height = 15
    place_record(spoilt, record.SerializeToString(deterministic=True))


def record_is_noise(spoilt: Receipt) -> None:
    place_record(spoilt, b"\xff" * 20)


def place_record(spoilt: Receipt, record: bytes) -> None:
    """Let a quorum sign a log whose record 12 is this one: what only a broken ledger would do."""
    header = header_at(15)
    records = [*RECORDS[:12], record, *RECORDS[13 : header.audit_size]]
    header.audit_root = merkle.root(records)
    hashes = [merkle.leaf_hash(item) for item in records]
    spoilt.record = record
    del spoilt.path[:]
    spoilt.path.extend(merkle.inclusion_proof(12, len(records), merkle.subtrees(hashes)))
    spoilt.head.CopyFrom(sign(header, SECOND))


BAD: list[tuple[int, Callable[[Receipt], None]]] = [
    (1, other_network),
    (1, no_genesis_hash),
    (2, change_signed_by_the_new_set),
    (2, change_that_changes_nothing),
    (2, changes_swapped),
    (2, change_skipped_with_one_voucher),
    (2, voucher_for_the_next_block),
    (3, other_network_in_disguise),
    (3, header_of_another_chain),
    (3, head_missing),
    (3, head_changed),
    (3, head_signed_for_another_block),
    (3, too_few_signatures),
    (3, exactly_two_thirds),
    (3, one_signer_counted_twice),
    (3, signers_out_of_order),
    (3, signature_of_a_stranger),
    (3, signature_of_a_former_validator),
    (3, signature_forged),
    (3, signature_time_changed),
    (3, prevotes_for_precommits),
    (3, round_changed),
    (3, header_of_another_height),
    (3, header_is_noise),
    (3, validators_invented),
    (3, power_invented),
    (3, validators_out_of_order),
    (3, header_names_other_validators),
    (3, change_left_out),
    (3, change_after_the_head),
    (4, size_changed),
    (5, record_changed),
    (5, index_changed),
    (5, index_beyond_the_log),
    (5, path_too_short),
    (5, path_too_long),
    (5, path_of_another_record),
    (5, node_as_leaf),
    (6, record_names_another_place),
    (6, record_from_the_future),
    (6, record_is_noise),
]


def malformed() -> Iterator[tuple[str, str]]:
    text = receipt.render(make_receipt(0, 1))
    table = json.loads(text)
    yield "empty", ""
    yield "cut-short", text[:-3]
    yield "no-object", "[]\n"
    yield "other-format", json.dumps(table | {"format": "koinon-receipt/2"}, indent=1)
    yield "unknown-key", json.dumps(table | {"comment": "trust me"}, indent=1)
    yield "key-twice", text.replace('"record":', '"index": 1,\n  "index": 0,\n  "record":')
    yield "number-in-quotes", json.dumps(table | {"tree_size": "4"}, indent=1)
    yield "number-too-large", json.dumps(table | {"tree_size": 2**64}, indent=1)
    yield "number-with-fraction", json.dumps(table | {"tree_size": 4.0}, indent=1)
    yield "not-base64", json.dumps(table | {"record": "#"}, indent=1)
    yield "loose-base64", json.dumps(table | {"record": "AB=="}, indent=1)
    yield "text-for-list", json.dumps(table | {"path": "AAAA"}, indent=1)
    yield "list-for-object", json.dumps(table | {"head": []}, indent=1)
    yield "null", json.dumps(table | {"head": None}, indent=1)
    yield "not-a-number", json.dumps(table | {"index": float("nan")}, indent=1)


def cases() -> Iterator[Case]:
    """All files but the genesis."""
    for name, made in good():
        yield f"good-{name}.json", "holds", receipt.render(made)
    for step, spoil in BAD:
        spoilt = make_receipt(12, 15)
        spoil(spoilt)
        yield f"bad-{spoil.__name__.replace('_', '-')}.json", f"step {step}", receipt.render(spoilt)
    for name, text in malformed():
        yield f"malformed-{name}.json", "malformed", text


def files() -> dict[str, str]:
    """Every file's text by name; ``expected.json`` says what verifying each must say."""
    made = list(cases())
    return {
        "genesis.json": render(GENESIS, genesis_file.FORMAT),
        "expected.json": json.dumps({name: outcome for name, outcome, _ in made}, indent=1) + "\n",
        **{name: text for name, _, text in made},
    }


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for file in DIRECTORY.iterdir():
        file.unlink()
    for name, text in files().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")
