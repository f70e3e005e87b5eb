"""Genesis files: what is read is what was written, and every way of being wrong is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon import canonical, genesis, json_form
from koinon.errors import InvalidFile
from koinon.keys import SealingKey, SigningKey
from koinon.limits import MAX_CERTIFICATE_BYTES, MAX_GENESIS_BYTES, MAX_POINTS, MAX_TITLE, MAX_TOTAL_POWER
from koinon.rules import RULES
from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_NODE,
    ROLE_OPERATOR,
    Genesis,
    InstitutionDescriptor,
    Parameters,
    Person,
)

GOOD = genesis.load(Path(__file__).parent.parent / "vectors" / "receipts" / "genesis.json")
TEXT = (Path(__file__).parent.parent / "vectors" / "receipts" / "genesis.json").read_text()


def refused(action: Callable[[], object]) -> InvalidFile:
    with pytest.raises(InvalidFile) as caught:
        action()
    assert caught.value.rule in RULES
    assert caught.value.hint
    return caught.value


def copy() -> Genesis:
    result = Genesis()
    result.CopyFrom(GOOD)
    return result


def load_text(tmp_path: Path, text: str) -> Genesis:
    path = tmp_path / "genesis.json"
    path.write_text(text)
    return genesis.load(path)


# --- what stays the same -------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    genesis.save(tmp_path / "genesis.json", GOOD)
    assert (tmp_path / "genesis.json").read_text() == TEXT
    assert genesis.load(tmp_path / "genesis.json") == GOOD


def test_layout_does_not_name_the_chain_and_everything_else_does(tmp_path: Path) -> None:
    name = genesis.chain_id(GOOD)
    assert name.startswith("ercp-")
    table = json.loads(TEXT)
    assert genesis.chain_id(load_text(tmp_path, json.dumps(table))) == name
    assert genesis.chain_id(load_text(tmp_path, json.dumps(table, indent=7, sort_keys=True))) == name
    table["parameters"]["heartbeat_ms"] += 1
    assert genesis.chain_id(load_text(tmp_path, json.dumps(table))) != name


def test_the_digest_is_frozen() -> None:
    assert genesis.genesis_hash(GOOD) == canonical.genesis_hash(genesis.genesis_bytes(GOOD))
    assert genesis.chain_id(GOOD) == "ercp-08d594949eababf8"


def test_joining_sorts(tmp_path: Path) -> None:
    descriptors = list(GOOD.institutions)
    assert genesis.join("ercp", GOOD.time_ms, reversed(descriptors)) == GOOD
    assert [member.institution for member in genesis.validators(GOOD)] == ["case", "iu", "uk", "um"]
    for descriptor in descriptors:
        genesis.save_descriptor(tmp_path / f"{descriptor.id}.json", descriptor)
    loaded = [genesis.load_descriptor(tmp_path / f"{descriptor.id}.json") for descriptor in descriptors]
    assert loaded == descriptors


def test_points_from_the_start_name_another_chain_and_are_read_again(tmp_path: Path) -> None:
    points = {"person:case/operator": 5, "fund:consortium": 2**62 - 5}
    rich = genesis.join("ercp", 1, GOOD.institutions, GOOD.parameters, points)
    assert [(account.id, account.points) for account in rich.points] == sorted(points.items())
    genesis.save(tmp_path / "genesis.json", rich)
    assert genesis.load(tmp_path / "genesis.json") == rich
    assert genesis.chain_id(rich) != genesis.chain_id(genesis.join("ercp", 1, GOOD.institutions, GOOD.parameters))


def test_one_institution_alone_is_a_network() -> None:
    genesis.validate(genesis.join("alone", 1, [GOOD.institutions[0]]))


def test_a_genesis_is_not_overwritten(tmp_path: Path) -> None:
    genesis.save(tmp_path / "genesis.json", GOOD)
    assert refused(lambda: genesis.save(tmp_path / "genesis.json", GOOD)).rule == "already-exists"


# --- what is refused -----------------------------------------------------------------------------------

BREAK: list[tuple[str, Callable[[Genesis], object]]] = [
    ("not a chain name", lambda g: setattr(g, "chain_name", "")),
    ("not a chain name", lambda g: setattr(g, "chain_name", "Ercp")),
    ("not a chain name", lambda g: setattr(g, "chain_name", "x" * 33)),
    ("no time", lambda g: setattr(g, "time_ms", 0)),
    ("no time", lambda g: setattr(g, "time_ms", -5)),
    ("0 validators", lambda g: g.ClearField("institutions")),
    ("occurs twice", lambda g: g.institutions.append(g.institutions[3])),
    ("case comes after um", lambda g: g.institutions.insert(0, g.institutions.pop())),
    ("title of case", lambda g: setattr(g.institutions[0], "title", "")),
    ("title of case", lambda g: setattr(g.institutions[0], "title", "x" * (MAX_TITLE + 1))),
    ("not an institution id", lambda g: setattr(g.institutions[0], "id", "Case")),
    ("not an address", lambda g: setattr(g.institutions[0], "rpc_address", "case.example")),
    ("not an address", lambda g: setattr(g.institutions[0], "mpc_address", "case.example:0")),
    ("not an address", lambda g: setattr(g.institutions[0], "peer_address", "case.example:65536")),
    ("not an address", lambda g: setattr(g.institutions[0], "peer_address", "")),
    ("validator key of case", lambda g: setattr(g.institutions[0], "validator_key", b"")),
    ("validator key of case", lambda g: setattr(g.institutions[0], "validator_key", bytes(32))),
    ("node key of case", lambda g: setattr(g.institutions[0], "node_key", bytes(31))),
    ("sealing key of case", lambda g: setattr(g.institutions[0], "sealing_key", bytes(33))),
    ("certificate of case", lambda g: setattr(g.institutions[0], "tls_certificate", b"")),
    ("certificate of case", lambda g: setattr(g.institutions[0], "tls_certificate", b"\x30\x05abc")),
    ("certificate of case", lambda g: setattr(g.institutions[0], "tls_certificate", b"\x31\x03abc")),
    ("no voting power", lambda g: setattr(g.institutions[0], "power", 0)),
    ("total voting power", lambda g: setattr(g.institutions[0], "power", MAX_TOTAL_POWER)),
    ("case has no operator", lambda g: g.institutions[0].ClearField("people")),
    ("case has no operator", lambda g: set_roles(g.institutions[0].people[0], [ROLE_ANALYST])),
    ("not a person id", lambda g: setattr(g.institutions[0].people[0], "id", "operator")),
    ("not a person of case", lambda g: setattr(g.institutions[0].people[0], "id", "um/operator")),
    ("case/operator occurs twice", lambda g: g.institutions[0].people.append(g.institutions[0].people[0])),
    ("key of case/operator", lambda g: setattr(g.institutions[0].people[0], "public_key", b"x")),
    ("roles of case/operator", lambda g: set_roles(g.institutions[0].people[0], [])),
    ("roles of case/operator", lambda g: set_roles(g.institutions[0].people[0], [ROLE_OPERATOR, ROLE_OPERATOR])),
    ("roles of case/operator", lambda g: set_roles(g.institutions[0].people[0], [ROLE_OPERATOR, ROLE_NODE])),
    ("roles of case/operator", lambda g: set_roles(g.institutions[0].people[0], [ROLE_OPERATOR, 99])),
    ("revoked from the start", lambda g: setattr(g.institutions[0].people[0], "revoked", True)),
    ("min_cohort_floor is 0", lambda g: setattr(g.parameters, "min_cohort_floor", 0)),
    ("min_committee is 2", lambda g: setattr(g.parameters, "min_committee", 2)),
    ("max_committee is 16", lambda g: setattr(g.parameters, "max_committee", 16)),
    ("accept_window_ms is -1", lambda g: setattr(g.parameters, "accept_window_ms", -1)),
    ("run_window_ms is 0", lambda g: setattr(g.parameters, "run_window_ms", 0)),
    ("heartbeat_ms is 1", lambda g: setattr(g.parameters, "heartbeat_ms", 1)),
    ("max_token_uses is 0", lambda g: setattr(g.parameters, "max_token_uses", 0)),
    ("max_token_duration_ms is 0", lambda g: setattr(g.parameters, "max_token_duration_ms", 0)),
    ("fund:other' has points", lambda g: g.points.add(id="fund:other", points=1)),
    ("institution:nobody' has points", lambda g: g.points.add(id="institution:nobody", points=1)),
    ("institution:case has 0 points", lambda g: g.points.add(id="institution:case")),
    ("institution:case has", lambda g: g.points.add(id="institution:case", points=MAX_POINTS + 1)),
    ("too many points", lambda g: give(g, {"institution:case": MAX_POINTS, "institution:um": 1})),
    ("not in ascending order", lambda g: give(g, {"institution:um": 1, "institution:case": 1})),
    ("exceeds max_committee", lambda g: g.parameters.MergeFrom(Parameters(min_committee=7, max_committee=5))),
]


def give(broken: Genesis, points: dict[str, int]) -> None:
    for account, number in points.items():
        broken.points.add(id=account, points=number)


def set_roles(person: Person, roles: list[Any]) -> None:
    person.ClearField("roles")
    person.roles.extend(roles)


@pytest.mark.parametrize(("told", "break_it"), BREAK)
def test_a_wrong_genesis_is_refused(told: str, break_it: Callable[[Genesis], object], tmp_path: Path) -> None:
    broken = copy()
    break_it(broken)
    assert told in refused(lambda: genesis.validate(broken)).message
    refused(lambda: genesis.save(tmp_path / "genesis.json", broken))
    assert list(tmp_path.iterdir()) == []


KEYS = ["validator_key", "node_key"]
ADDRESSES = ["peer_address", "rpc_address", "mpc_address"]


@pytest.mark.parametrize(
    ("mine", "theirs", "kind"),
    [(mine, theirs, "key") for mine in KEYS for theirs in KEYS]
    + [(mine, theirs, "address") for mine in ADDRESSES for theirs in ADDRESSES]
    + [("sealing_key", "sealing_key", "sealing key"), ("tls_certificate", "tls_certificate", "TLS certificate")],
)
def test_what_two_share_is_named_with_both(mine: str, theirs: str, kind: str) -> None:
    broken = copy()
    setattr(broken.institutions[0], mine, getattr(broken.institutions[3], theirs))
    message = refused(lambda: genesis.validate(broken)).message
    assert f"have the same {kind}" in message
    assert "case" in message
    assert "um" in message


def test_one_key_for_two_purposes_is_refused() -> None:
    broken = copy()
    broken.institutions[0].people[0].public_key = broken.institutions[0].node_key
    assert "the node of case and case/operator" in refused(lambda: genesis.validate(broken)).message


def test_a_descriptor_given_twice_is_named() -> None:
    descriptors = [*GOOD.institutions, GOOD.institutions[1]]
    assert "iu occurs twice" in refused(lambda: genesis.join("ercp", 1, descriptors)).message


@pytest.mark.parametrize("size", [2, 127, 128, 255, 256, MAX_CERTIFICATE_BYTES - 4, MAX_CERTIFICATE_BYTES])
def test_a_certificate_is_one_der_sequence_within_bounds(size: int) -> None:
    descriptor = copy().institutions[0]
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    descriptor.tls_certificate = b"\x30" + length + bytes(size)
    if size <= MAX_CERTIFICATE_BYTES - 4:
        genesis.validate_descriptor(descriptor)
        descriptor.tls_certificate += b"x"
    refused(lambda: genesis.validate_descriptor(descriptor))


# --- the text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "change"),
    [
        ("'comment' is not known", {"comment": "x"}),
        ("chain_name must be a text", {"chain_name": 5}),
        ("time_ms must be a whole number", {"time_ms": "5"}),
        ("time_ms must be a whole number", {"time_ms": 5.0}),
        ("time_ms must be a whole number", {"time_ms": True}),
        ("time_ms must be a whole number", {"time_ms": 2**63}),
        ("institutions must be a list", {"institutions": {}}),
        ("institutions[0] must be an object", {"institutions": [1]}),
        ("institutions[0].validator_key is not base64", {"institutions": [{"validator_key": "?"}]}),
        ("institutions[0].validator_key is not canonical base64", {"institutions": [{"validator_key": "AB=="}]}),
        ("institutions[0].people[0].roles[0] must be one of", {"institutions": [{"people": [{"roles": ["boss"]}]}]}),
        ("revoked must be true or false", {"institutions": [{"people": [{"revoked": 1}]}]}),
        ("'parameters.mincohort' is not known", {"parameters": {"mincohort": 1}}),
        ("parameters must be an object", {"parameters": None}),
        ("half a surrogate pair", {"chain_name": "\ud800"}),
        ('does not say "format": "koinon-genesis/1"', {"format": "koinon-genesis/2"}),
    ],
)
def test_a_text_that_does_not_fit_is_refused(tmp_path: Path, told: str, change: dict[str, Any]) -> None:
    text = json.dumps(json.loads(TEXT) | change)
    assert told in refused(lambda: load_text(tmp_path, text)).message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        TEXT + "x",
        TEXT.replace('"chain_name"', '"time_ms": 1, "chain_name"', 1),
        TEXT.replace('"time_ms": ', '"time_ms": NaN, "x": ', 1),
        "[" * 100_000,
        "x" * (MAX_GENESIS_BYTES + 1),
    ],
)
def test_a_text_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    refused(lambda: load_text(tmp_path, text))


def test_a_missing_file_and_a_binary_one_are_told(tmp_path: Path) -> None:
    refused(lambda: genesis.load(tmp_path / "absent.json"))
    refused(lambda: genesis.load(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in refused(lambda: genesis.load(tmp_path / "binary")).message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(field=st.sampled_from([field.name for field in InstitutionDescriptor.DESCRIPTOR.fields]), value=JSON)
def test_any_value_for_a_field_is_read_or_refused(field: str, value: Any) -> None:
    table = json.loads(TEXT)
    table["institutions"][0][field] = value
    try:
        made = json_form.parse(json.dumps(table), Genesis, genesis.FORMAT, "genesis file")
        genesis.validate(made)
    except InvalidFile as error:
        told = error
    else:
        return
    assert told.hint


def test_keys_made_by_koinon_are_accepted() -> None:
    """The check that a key is a point of the curve refuses none that was generated."""
    for _ in range(20):
        made = copy()
        made.institutions[0].validator_key = SigningKey.generate().public_key
        made.institutions[0].sealing_key = SealingKey.generate().public_key
        genesis.validate(made)
