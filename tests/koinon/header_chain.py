"""A chain of signed headers under changing validators, made from names: same names, same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from koinon import canonical
from koinon import genesis as genesis_file
from koinon.keys import SealingKey, SigningKey
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.consensus_pb2 import VOTE_TYPE_PRECOMMIT, Commit, CommitSignature, Header, Validator
from koinon.v1.identity_pb2 import ROLE_OPERATOR, Genesis, InstitutionDescriptor, Person
from koinon.validators import ValidatorSet

START_MS = 1_763_000_000_000
BLOCK_MS = 1_000

Answer = TypeVar("Answer")

_KEYS: dict[bytes, SigningKey] = {}  # by public key: every one ever made, forgers' too


def key(name: str) -> SigningKey:
    made = SigningKey(hashlib.sha256(name.encode()).digest())
    return _KEYS.setdefault(made.public_key, made)


def validators(**powers: int) -> ValidatorSet:
    """By institution. ``um_2=1`` is um with another key."""
    return ValidatorSet.of(
        Validator(institution=name.partition("_")[0], public_key=key(name).public_key, power=power)
        for name, power in sorted(powers.items())
    )


def make_genesis(members: ValidatorSet) -> Genesis:
    return genesis_file.join(
        "light",
        START_MS,
        [
            InstitutionDescriptor(
                id=member.institution,
                title=member.institution,
                validator_key=member.public_key,
                node_key=key(f"{member.institution} node").public_key,
                sealing_key=SealingKey(hashlib.sha256(member.institution.encode()).digest()).public_key,
                tls_certificate=b"\x30\x20" + hashlib.sha256(member.institution.encode()).digest(),
                peer_address=f"{member.institution}.example:1",
                rpc_address=f"{member.institution}.example:2",
                mpc_address=f"{member.institution}.example:3",
                power=member.power,
                people=[
                    Person(
                        id=f"{member.institution}/operator",
                        public_key=key(f"{member.institution}/operator").public_key,
                        roles=[ROLE_OPERATOR],
                    )
                ],
            )
            for member in members
        ],
    )


@dataclass
class HeaderChain:
    """``sets[h - 1]`` decides height h; the last set goes on for ever. A genesis, if given, names the first."""

    sets: Sequence[ValidatorSet]
    asked: list[int] = field(default_factory=list)  # heights that ``run`` answered
    genesis: Genesis = field(default_factory=Genesis)

    def __post_init__(self) -> None:
        if self.genesis == Genesis():
            self.genesis = make_genesis(self.sets[0])
        self.chain_id = genesis_file.chain_id(self.genesis)

    def validators_at(self, height: int) -> ValidatorSet:
        return self.sets[min(height, len(self.sets)) - 1]

    def header(self, height: int) -> Header:
        return Header(
            chain_id=self.chain_id,
            height=height,
            time_ms=START_MS + BLOCK_MS * (height - 1),
            validators_hash=self.validators_at(height).hash(),
            next_validators_hash=self.validators_at(height + 1).hash(),
            state_commitment=hashlib.sha256(b"state %d" % height).digest(),
            proposer=self.validators_at(height).members[0].institution,
        )

    def sign(
        self,
        header: Header,
        signing: ValidatorSet | None = None,
        names: Iterable[str] | None = None,
        *,
        height: int | None = None,
    ) -> SignedHeader:
        """The header under precommits of ``names`` (all, unless said) of ``signing`` (the right ones, unless said)."""
        height = header.height if height is None else height
        signing = signing or self.validators_at(height)
        data = header.SerializeToString(deterministic=True)
        block = canonical.block_hash(data)
        time_ms = header.time_ms + 5
        signed = canonical.vote_bytes(self.chain_id, VOTE_TYPE_PRECOMMIT, height, 0, block, time_ms)
        chosen = set(names) if names is not None else {member.institution for member in signing}
        return SignedHeader(
            header=data,
            commit=Commit(
                height=height,
                block_hash=block,
                signatures=[
                    CommitSignature(
                        institution=member.institution,
                        time_ms=time_ms,
                        signature=_KEYS[member.public_key].sign(signed),
                    )
                    for member in signing
                    if member.institution in chosen
                ],
            ),
            validators=signing.to_proto(),
        )

    def at(self, height: int) -> SignedHeader:
        return self.sign(self.header(height))

    def run(self, driver: Generator[int, SignedHeader, Answer]) -> Answer:
        """Answer whatever the driver asks, honestly."""
        try:
            height = next(driver)
            while True:
                self.asked.append(height)
                height = driver.send(self.at(height))
        except StopIteration as stop:
            answer: Answer = stop.value
            return answer
