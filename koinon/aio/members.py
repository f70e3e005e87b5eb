"""Who is who: institutions and their people."""

from __future__ import annotations

import time
from collections.abc import Collection

from koinon import credential
from koinon.aio.audit import Audit
from koinon.aio.session import Session
from koinon.errors import NotFound
from koinon.names import PersonId
from koinon.v1.audit_pb2 import Receipt
from koinon.v1.identity_pb2 import (
    GiveNotice,
    Institution,
    KeyPurpose,
    KeyRecord,
    Person,
    RegisterPerson,
    RevokeKey,
    RevokePerson,
    Role,
    RotateKey,
    UpdateEndpoints,
    WithdrawNotice,
)
from koinon.v1.services_pb2 import (
    ListInstitutionsRequest,
    ListKeysRequest,
    ListPeopleRequest,
    PreviewNoticeRequest,
    PreviewNoticeResponse,
)
from koinon.v1.transaction_pb2 import Operation
from koinon.words import number, numbers


class Members:
    """``client.members``."""

    def __init__(self, session: Session, audit: Audit) -> None:
        self._session = session
        self._audit = audit

    async def institutions(self) -> list[Institution]:
        """All institutions, ascending by id."""
        connection = self._session.connection
        response = await connection.call(connection.members.ListInstitutions, ListInstitutionsRequest())
        return list(response.institutions)

    async def people(self, institution: str = "") -> list[Person]:
        """People of one institution, or of all; ids and keys only, as their institutions chose them."""
        connection = self._session.connection
        response = await connection.call(connection.members.ListPeople, ListPeopleRequest(institution=institution))
        return list(response.people)

    async def register(self, person_id: str, public_key: bytes, roles: Collection[str]) -> Person:
        """Register a person of one's own institution under an Ed25519 key. Operators only. Raises Refused."""
        person = Person(id=str(PersonId.parse(person_id)), public_key=public_key, roles=numbers(Role, roles, "role"))
        await self._session.submit(Operation(register_person=RegisterPerson(person=person)))
        return await self._person(person_id)

    async def revoke(self, person_id: str, reason: str) -> Person:
        """Refuse everything new from a person's key; what it signed stays accountable. Raises Refused, NotFound."""
        await self._session.submit(Operation(revoke_person=RevokePerson(person_id=person_id, reason=reason)))
        return await self._person(person_id)

    async def move(self, *, rpc_address: str = "", peer_address: str = "", mpc_address: str = "") -> Institution:
        """Announce where one's institution's node is reached from now on; what is not given stays. Operators only.

        Raises InvalidInput, Refused, NotFound.
        """
        now = (await self._own()).descriptor
        moved = UpdateEndpoints(
            rpc_address=rpc_address or now.rpc_address,
            peer_address=peer_address or now.peer_address,
            mpc_address=mpc_address or now.mpc_address,
        )
        await self._session.submit(Operation(update_endpoints=moved))
        return await self._own()

    async def preview_leaving(self, blocks: int) -> PreviewNoticeResponse:
        """What would change if one's institution left so many blocks from now, or why it may not. Raises NotFound."""
        connection, own = self._session.connection, PersonId.parse(self._session.person).institution
        request = PreviewNoticeRequest(institution=own, blocks=blocks)
        return await connection.call(connection.members.PreviewNotice, request)

    async def leave(self, height: int, reason: str) -> Institution:
        """Give notice: one's institution leaves at the end of the block of this height. Operators only.

        ``preview_leaving`` says what ends then. Raises Refused.
        """
        await self._session.submit(Operation(give_notice=GiveNotice(height=height, reason=reason)))
        return await self._own()

    async def stay(self, reason: str) -> Institution:
        """Withdraw one's institution's notice. Operators only. Raises Refused."""
        await self._session.submit(Operation(withdraw_notice=WithdrawNotice(reason=reason)))
        return await self._own()

    async def rotate_key(self, purpose: str, key: bytes) -> None:
        """Name a new key: ``person`` for one's own; ``validator``, ``node``, ``sealing`` (32 bytes) or ``tls``
        (a certificate, DER) for the institution's, operators only. Raises Refused.
        """
        operation = RotateKey(purpose=number(KeyPurpose, purpose, "purpose"), key=key)
        await self._session.submit(Operation(rotate_key=operation))

    async def revoke_key(self, purpose: str, reason: str) -> None:
        """End a key of the institution before it has another. Operators only. Raises Refused."""
        operation = RevokeKey(purpose=number(KeyPurpose, purpose, "purpose"), reason=reason)
        await self._session.submit(Operation(revoke_key=operation))

    async def keys(self, owner: str) -> list[KeyRecord]:
        """Every key that an institution or a person ever had, oldest first. Raises NotFound."""
        connection = self._session.connection
        response = await connection.call(connection.members.ListKeys, ListKeysRequest(owner=owner))
        return list(response.keys)

    async def credential(self, person_id: str) -> credential.Document:
        """A W3C Verifiable Credential of a person's roles, signed with one's own key (koinon.credential).

        For operators, about people of their own institution. Its evidence are receipts for both registrations.
        Raises NotFound, PermissionRefused, Corrupt.
        """
        own = str(self._session.person)
        evidence = [await self._registration(str(PersonId.parse(person_id))), await self._registration(own)]
        now_ms = time.time_ns() // 1_000_000
        return credential.issue(evidence[0], evidence[1], self._session.key, self._session.genesis, now_ms)

    async def _registration(self, person_id: str) -> Receipt:
        """A receipt for the last registration of a person that is not revoked."""
        person = await self._person(person_id)
        if person.revoked:
            raise NotFound(f"the key of {person_id} was revoked", hint="register a new key first")
        subject = f"person:{person_id}"
        for record in await self._audit.list(subject, kind="person.registered", newest_first=True):
            if record.subject == subject:  # and not one that it registered somebody else by
                return await self._audit.receipt(record.index)
        raise NotFound(f"no record registers {person_id}", hint="operators see every record")

    async def _own(self) -> Institution:
        own = PersonId.parse(self._session.person).institution
        for institution in await self.institutions():
            if institution.descriptor.id == own:
                return institution
        raise NotFound(f"{own} is no member", hint="koinon member list shows who is")

    async def _person(self, person_id: str) -> Person:
        for person in await self.people(PersonId.parse(person_id).institution):
            if person.id == person_id:
                return person
        raise NotFound(f"there is no person {person_id}", hint="koinon member list shows everyone")
