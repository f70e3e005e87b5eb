"""Keys: rotated and revoked by one transaction, each accountable for its span, never used by another."""

from __future__ import annotations

import hashlib

import pytest

from koinon.limits import CERTIFICATE_BLOCKS, MAX_NEW_VALIDATOR_KEYS, NEW_VALIDATOR_KEYS_BLOCKS
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_NODE,
    KEY_PURPOSE_PERSON,
    KEY_PURPOSE_SEALING,
    KEY_PURPOSE_TLS,
    KEY_PURPOSE_UNSPECIFIED,
    KEY_PURPOSE_VALIDATOR,
    BeginVoting,
    KeyPurpose,
    KeyRecord,
    RevokeKey,
    RotateKey,
    UpdateEndpoints,
)
from node.contracts import keys, rotation, tables
from node.ledger.state import State
from tests.contracts.consortium import Consortium, access_request, key, publication
from tests.contracts.decree import admit, decree, readmit, suspend

CERTIFICATE = b"\x30\x20" + hashlib.sha256(b"another certificate").digest()
MOVE = UpdateEndpoints(peer_address="a:1", rpc_address="a:2", mpc_address="a:3")


@pytest.fixture
def consortium() -> Consortium:
    """After a first block, so that everybody was seen to vote."""
    made = Consortium()
    made.wait(1)
    return made


def rotate(purpose: KeyPurpose.ValueType, name: str = "new") -> RotateKey:
    new = CERTIFICATE if purpose == KEY_PURPOSE_TLS else key(name).public_key
    return RotateKey(purpose=purpose, key=new)


def span(consortium: Consortium, owner: str, purpose: KeyPurpose.ValueType) -> list[tuple[int, int, str]]:
    """(from, until, end) of an owner's keys of one purpose, oldest first."""
    found: list[KeyRecord] = [
        record for record in keys.of_owner(consortium.app._new_state(), owner) if record.purpose == purpose
    ]
    return [(record.from_height, record.until_height, record.end) for record in found]


def test_a_validator_key_is_in_force_two_heights_later(consortium: Consortium) -> None:
    consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR))
    height = consortium.app.info().height
    by_name = {item.institution: item.public_key for item in consortium.app.info().validators}
    assert by_name["um"] == key("new").public_key
    assert span(consortium, "um", KEY_PURPOSE_VALIDATOR) == [(1, height + 2, "rotated"), (height + 2, 0, "")]
    app = consortium.app
    assert app.validator_key("um", height + 1) == key("um validator").public_key
    assert app.validator_key("um", height + 2) == key("new").public_key
    assert app.validator_key("nobody", height) is None


def test_other_keys_without_number_do_not_make_a_validator_key_dear(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing bounds sealing keys. One operator named thousands, and one more transaction took every node minutes."""
    for number in range(MAX_NEW_VALIDATOR_KEYS):
        consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR, f"{number}"))
    consortium.do("um/operator", *(rotate(KEY_PURPOSE_SEALING, f"sealing {number}") for number in range(64)))
    read: list[str] = []
    get = tables.KEYS.get

    def counted(state: State, name: str) -> KeyRecord:
        read.append(name)
        return get(state, name)

    monkeypatch.setattr(tables.KEYS, "get", counted)
    assert consortium.refused("um/operator", rotate(KEY_PURPOSE_VALIDATOR)) == "validator-keys"
    assert consortium.app.validator_key("um", 1) == key("um validator").public_key
    assert len(read) <= 2 * (1 + MAX_NEW_VALIDATOR_KEYS)


def test_a_node_key_changes_at_once_and_the_old_one_signs_no_more(consortium: Consortium) -> None:
    consortium.do("um/operator", rotate(KEY_PURPOSE_NODE))
    assert consortium.refused("um", MOVE) == "revoked-key"
    consortium.do("new", MOVE)


def test_a_person_rotates_its_own_key(consortium: Consortium) -> None:
    consortium.publish("um.a.t")
    for name in ("iu/analyst", "iu/regulator", "iu/operator"):
        consortium.do(name, rotate(KEY_PURPOSE_PERSON, f"{name} second"))
    assert consortium.refused("iu/analyst", access_request("um.a.t")) == "revoked-key"
    consortium.do("iu/analyst second", access_request("um.a.t"))
    assert [end for _, _, end in span(consortium, "iu/analyst", KEY_PURPOSE_PERSON)] == ["rotated", ""]


def test_a_new_certificate_stands_beside_the_old_one_until_that_is_revoked(consortium: Consortium) -> None:
    old = consortium.app.institution("um").descriptor.tls_certificate
    revoke = RevokeKey(purpose=KEY_PURPOSE_TLS, reason="the disk was sold")
    assert consortium.refused("um/operator", revoke) == "wrong-state"
    consortium.do("um/operator", rotate(KEY_PURPOSE_TLS))
    member = consortium.app.institution("um")
    assert (member.descriptor.tls_certificate, member.former_tls_certificate) == (CERTIFICATE, old)
    assert [until for _, until, _ in span(consortium, "um", KEY_PURPOSE_TLS)] == [0, 0]
    consortium.do("um/operator", revoke)
    assert not consortium.app.institution("um").former_tls_certificate
    assert [end for _, _, end in span(consortium, "um", KEY_PURPOSE_TLS)] == ["the disk was sold", ""]


def test_a_certificate_is_not_rotated_again_at_once(consortium: Consortium) -> None:
    """For every one all nodes make their ports anew: in a loop that would stop them."""
    third = RotateKey(purpose=KEY_PURPOSE_TLS, key=CERTIFICATE[:-1] + b"3")
    consortium.do("um/operator", rotate(KEY_PURPOSE_TLS))
    consortium.do("um/operator", RevokeKey(purpose=KEY_PURPOSE_TLS, reason="and again"))
    (_, (since, _, _)) = span(consortium, "um", KEY_PURPOSE_TLS)
    while consortium.app.info().height + 1 < since + CERTIFICATE_BLOCKS:
        assert consortium.refused("um/operator", third) == "certificate-blocks"
    consortium.do("um/operator", third)


def test_a_member_takes_a_few_new_validator_keys_and_then_no_more_for_long(
    consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every receipt proves each change of validators: one member in a loop would make all of them too large."""
    monkeypatch.setattr(rotation, "NEW_VALIDATOR_KEYS_BLOCKS", 20)
    assert NEW_VALIDATOR_KEYS_BLOCKS > 50_000
    for number in range(MAX_NEW_VALIDATOR_KEYS):
        consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR, f"key {number}"))
    assert consortium.refused("um/operator", rotate(KEY_PURPOSE_VALIDATOR, "another")) == "validator-keys"
    consortium.do("um/operator", RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen"))
    assert consortium.refused("um/operator", rotate(KEY_PURPOSE_VALIDATOR, "another")) == "validator-keys"
    consortium.do("iu/operator", rotate(KEY_PURPOSE_VALIDATOR, "of another member"))
    (_, (since, _, _), *_) = span(consortium, "um", KEY_PURPOSE_VALIDATOR)
    while consortium.app.info().height + 1 < since + 20:
        assert consortium.refused("um/operator", rotate(KEY_PURPOSE_VALIDATOR, "another")) == "validator-keys"
    consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR, "another"))


@pytest.mark.parametrize("purpose", [KEY_PURPOSE_VALIDATOR, KEY_PURPOSE_NODE, KEY_PURPOSE_SEALING])
def test_a_key_ever_used_is_nobodys_new_key(consortium: Consortium, purpose: KeyPurpose.ValueType) -> None:
    for taken in ("iu validator", "iu", "iu/analyst", "um", "um validator"):
        assert consortium.refused("um/operator", rotate(purpose, taken)) == "already-exists"
    consortium.do("um/operator", rotate(purpose))
    assert consortium.refused("iu/operator", rotate(purpose)) == "already-exists"


@pytest.mark.parametrize(
    "message",
    [
        RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=bytes(32)),
        RotateKey(purpose=KEY_PURPOSE_NODE, key=b"short"),
        RotateKey(purpose=KEY_PURPOSE_SEALING, key=b"short"),
        RotateKey(purpose=KEY_PURPOSE_TLS, key=b"not DER"),
        RotateKey(purpose=KEY_PURPOSE_PERSON, key=b"short"),
        RotateKey(purpose=KEY_PURPOSE_UNSPECIFIED, key=key("new").public_key),
        RotateKey(purpose=99, key=key("new").public_key),  # type: ignore[arg-type]
        RevokeKey(purpose=KEY_PURPOSE_PERSON, reason="gone"),
        RevokeKey(purpose=KEY_PURPOSE_NODE),
    ],
)
def test_bad_form_is_refused(consortium: Consortium, message: object) -> None:
    assert consortium.refused("um/operator", message) in ("invalid-genesis", "invalid-input")


def test_who_revokes_its_validator_key_observes_until_it_has_another(consortium: Consortium) -> None:
    revoke = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen")
    consortium.do("um/operator", revoke)
    assert "um" not in {item.institution for item in consortium.app.info().validators}
    assert consortium.refused("um/operator", revoke) == "wrong-state"
    height = consortium.app.info().height
    assert consortium.refused("um", BeginVoting(height=height)) == "wrong-state"
    consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR))
    consortium.do("um", BeginVoting(height=height))
    assert "um" in {item.institution for item in consortium.app.info().validators}


def test_revoking_a_validator_key_is_refused_where_the_others_could_not_decide(consortium: Consortium) -> None:
    consortium.silent = {"uk"}
    consortium.wait(60 * 5_000)
    consortium.wait(1)
    revoke = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen")
    assert consortium.refused("um/operator", revoke) == "no-live-quorum"
    consortium.do("um/operator", rotate(KEY_PURPOSE_VALIDATOR))  # a new one is the way then


# --- an observer takes up its power


def test_an_admitted_node_takes_up_its_power_once_it_has_caught_up(consortium: Consortium) -> None:
    decree(consortium, admit("osu", 3, power=1))
    height = consortium.app.info().height
    assert consortium.refused("osu node 3", BeginVoting(height=height + 5)) == "not-caught-up"
    consortium.do("osu node 3", BeginVoting(height=height))
    assert consortium.app.institution("osu").descriptor.power == 1
    assert consortium.refused("osu node 3", BeginVoting(height=height)) == "wrong-state"


def test_a_node_far_behind_does_not_begin_to_vote(consortium: Consortium) -> None:
    decree(consortium, admit("osu", 3))
    early = consortium.app.info().height
    for _ in range(1_000):
        consortium.wait(1)
    assert consortium.refused("osu node 3", BeginVoting(height=early)) == "not-caught-up"


def test_a_readmitted_member_votes_again_by_itself(consortium: Consortium) -> None:
    decree(consortium, suspend("um"))
    decree(consortium, readmit("um"))
    consortium.do("um", BeginVoting(height=consortium.app.info().height))
    assert consortium.app.institution("um").descriptor.power == 1
    consortium.do("um/operator", publication("um.a.t"))
