"""Certificates of members come from the members: none of them changes anything for the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from koinon.errors import InvalidFile
from node import tls
from node.peer_link import Member
from tests.node.test_peers import Node
from tests.waiting import until

MADE = tls.pem_to_der(tls.create_identity("um").certificate)


def test_what_we_make_is_a_root() -> None:
    assert tls.pem_to_der(tls.root(MADE, "um")) == MADE


def test_nothing_that_differs_from_it_by_a_bit_is_one() -> None:
    for position in range(len(MADE)):
        for bit in range(8):
            changed = bytearray(MADE)
            changed[position] ^= 1 << bit
            with pytest.raises(InvalidFile):
                tls.root(bytes(changed), "um")


@pytest.mark.parametrize("der", [b"", b"\x30\x00", MADE[:-1], MADE + b"\x00"])
def test_nor_anything_else(der: bytes) -> None:
    with pytest.raises(InvalidFile):
        tls.root(der, "um")


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("name", ["certificate.pem", "key.pem"])
def test_a_damaged_file_of_the_own_identity_is_named_or_harmless(name: str, tmp_path: Path) -> None:
    made = tls.create_identity("um")
    whole = {"certificate.pem": made.certificate, "key.pem": made.key}
    paths = [tmp_path / each for each in whole]
    for path in paths:
        path.touch(0o600)
        path.write_bytes(whole[path.name])
    refused = 0
    for position in range(len(whole[name])):
        changed = bytearray(whole[name])
        changed[position] ^= 1 << position % 7
        (tmp_path / name).write_bytes(changed)
        try:
            tls.read_identity(*paths)
        except InvalidFile:
            refused += 1
    assert refused > len(whole[name]) / 2


def test_nobody_has_a_root_with_the_name_of_another() -> None:
    with pytest.raises(InvalidFile):
        tls.root(MADE, "case")


@pytest.mark.parametrize(
    "certificate",
    [
        tls.pem_to_der(tls.create_identity("um").certificate),  # TLS would find this one where um shows its own
        MADE.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x0a"),  # a version that there is not
        MADE.replace(b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x13"),  # an extension twice
    ],
)
async def test_a_member_cannot_shut_others_out_by_its_certificate(certificate: bytes) -> None:
    um, iu = Node("um"), Node("iu")
    hostile = Member("case", "127.0.0.1:1", certificate)
    members = [hostile, iu.member, um.member]  # as the ledger lists them
    try:
        for node in (um, iu):
            await node.peers.start(node.address, members)
        await until(lambda: um.linked("iu") and iu.linked("um"))
    finally:
        for node in (um, iu):
            await node.peers.stop()


async def test_a_node_that_has_not_heard_of_its_new_certificate_is_let_in_with_the_former() -> None:
    um, iu = Node("um"), Node("iu")
    new = tls.pem_to_der(tls.create_identity("um").certificate)
    rotated = dataclasses.replace(um.member, certificate=new, former=um.member.certificate)
    try:
        await um.peers.start(um.address, [iu.member, um.member])
        await iu.peers.start(iu.address, [iu.member, rotated])
        await until(lambda: um.linked("iu") and iu.linked("um"))
    finally:
        for node in (um, iu):
            await node.peers.stop()
