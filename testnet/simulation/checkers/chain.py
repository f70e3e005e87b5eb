"""One chain: the same blocks everywhere, each after its predecessor, each certified by those who vote at its height."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from koinon.v1 import consensus_pb2 as pb
from node.abci import AppHashes, AppInfo
from testnet.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_PRECOMMIT = 2


class Chain:
    """What was decided, as far as any correct node has said."""

    def __init__(self, chain_id: str, validators: Sequence[pb.Validator]) -> None:
        self.decided: dict[int, bytes] = {}  # height: block hash
        self.rounds: dict[int, int] = {}  # height: round in which it was decided
        self.voters: dict[int, dict[str, pb.Validator]] = {}  # height: who votes on it
        self._chain_id = chain_id
        self._headers: dict[int, pb.Header] = {}
        self._hashes: dict[int, AppHashes] = {}  # after the block at this height
        self._verified: set[bytes] = set()  # digests of signatures that hold
        self._genesis = {validator.institution: validator for validator in validators}
        self.voters[1] = self.voters[2] = self._genesis

    def check(
        self,
        node: SimNode,
        height: int,
        block: pb.Block,
        commit: pb.Commit,
        hashes: AppHashes,
        validators: Iterable[pb.Validator],
    ) -> bool:
        """A block that ``node`` executed, and what came of it. Returns whether it is the first to say so."""
        block_hash = hashlib.sha256(b"koinon/v1/header\0" + block.header).digest()
        if self.decided.setdefault(height, block_hash) != block_hash:
            raise Violation(f"agreement: {node.name} decides another block {height}")
        if self._hashes.setdefault(height, hashes) != hashes:
            raise Violation(f"{node.name} has another state, log or results after block {height}")
        voters = {validator.institution: validator for validator in validators}
        if self.voters.setdefault(height + 2, voters) != voters:
            raise Violation(f"{node.name} has other validators at height {height + 2}")
        self._check_certificate(node, height, block_hash, commit)
        if height in self._headers:
            return False
        self._check_header(height, pb.Header.FromString(block.header))
        self.rounds[height] = commit.round
        return True

    def check_state(self, node: SimNode, info: AppInfo) -> None:
        """What a process begins with that has it from a snapshot is what the block at its height made."""
        known = self._hashes.get(info.height, info.hashes)
        if info.hashes != known:
            raise Violation(f"{node.name} begins with another state, log or results than block {info.height} left")
        voters = {validator.institution: validator for validator in info.validators}
        if self.voters.get(info.height + 2, voters) != voters:
            raise Violation(f"{node.name} begins with other validators than block {info.height} left")

    def state_commitment(self, height: int) -> bytes:
        """Of the state after the block at this height, as all say."""
        return self._hashes[height].state_commitment

    def _check_certificate(self, node: SimNode, height: int, block_hash: bytes, commit: pb.Commit) -> None:
        if (commit.height, commit.block_hash) != (height, block_hash):
            raise Violation(f"{node.name} stores a certificate of another block at {height}")
        voters = self.voters[height]
        signers = [item.institution for item in commit.signatures]
        if signers != sorted(set(signers)):
            raise Violation(f"the certificate of block {height} at {node.name} names a signer twice")
        if not voters.keys() >= set(signers):
            raise Violation(f"the certificate of block {height} at {node.name} names who does not vote then: {signers}")
        if 3 * sum(voters[name].power for name in signers) <= 2 * sum(voter.power for voter in voters.values()):
            raise Violation(f"the certificate of block {height} at {node.name} has no two thirds: {signers}")
        for item in commit.signatures:
            signed = vote_bytes(self._chain_id, _PRECOMMIT, height, commit.round, block_hash, item.time_ms)
            if not self.holds(voters[item.institution].public_key, signed, item.signature):
                raise Violation(f"block {height} at {node.name}: {item.institution} did not sign")

    def holds(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Whether a signature holds; asked of every node's copy, verified once."""
        digest = hashlib.sha256(public_key + signature + message).digest()
        if digest not in self._verified:
            try:
                VerifyKey(public_key).verify(message, signature)
            except (BadSignatureError, ValueError):
                return False
            self._verified.add(digest)
        return True

    def _check_header(self, height: int, header: pb.Header) -> None:
        self._headers[height] = header
        before = self._headers.get(height - 1)
        previous_hash = self.decided.get(height - 1, bytes(32))
        if (header.height, header.chain_id, header.previous_block_hash) != (height, self._chain_id, previous_hash):
            raise Violation(f"block {height} does not follow block {height - 1}")
        named = header.validators_hash, header.next_validators_hash
        if named != (validators_hash(self.voters[height]), validators_hash(self.voters[height + 1])):
            raise Violation(f"block {height} names other validators than block {height - 2} made")
        if header.proposer not in self.voters[height]:
            raise Violation(f"block {height} was proposed by {header.proposer}, who does not vote then")
        if before is not None:
            if header.time_ms <= before.time_ms:
                raise Violation(f"time stands still at block {height}")
            did = self._hashes[height - 1]
            stated = header.results_root, header.state_commitment, header.audit_root, header.audit_size
            if stated != (did.results_root, did.state_commitment, did.audit_root, did.audit_size):
                raise Violation(f"the header of block {height} does not state what block {height - 1} did")

    def finish(self, nodes: Sequence[SimNode]) -> None:
        """Chains are prefixes of one chain; checked at every block, and here once more as a whole."""
        chains = sorted((node.committed for node in nodes), key=len)
        for shorter, longer in pairwise(chains):
            if longer[: len(shorter)] != shorter:
                raise Violation("agreement: two correct nodes hold different chains")


def vote_bytes(chain: str, vote_type: int, height: int, round_: int, block: bytes, time_ms: int) -> bytes:
    """docs: the bytes of a vote, restated."""
    return b"".join(
        (
            b"koinon/v1/vote\0",
            _field(chain.encode()),
            vote_type.to_bytes(1, "big"),
            height.to_bytes(8, "big"),
            round_.to_bytes(4, "big"),
            _field(block),
            time_ms.to_bytes(8, "big", signed=True),
        )
    )


def validators_hash(voters: dict[str, pb.Validator]) -> bytes:
    parts = [
        _field(name.encode()) + _field(voters[name].public_key) + voters[name].power.to_bytes(8, "big")
        for name in sorted(voters)
    ]
    return hashlib.sha256(b"koinon/v1/validators\0" + b"".join(parts)).digest()


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
