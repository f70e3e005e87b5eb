"""A ledger as a node writes it: real blocks, certificates and contracts, on any store, decided without a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from koinon import canonical
from koinon.envelope import identify, sign
from koinon.v1 import consensus_pb2 as pb
from koinon.v1.audit_pb2 import AuditRecord
from koinon.validators import ValidatorSet
from node.application import Application
from node.ledger import blocks
from node.ledger.blocks import ChainState
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.validator_history import ValidatorHistory
from tests.contracts import consortium
from tests.contracts.consortium import access_request, key, operation, publication

BLOCK_MS = 500


class RecordedLedger:
    """The consortium of tests.contracts. Every call of ``decide`` adds a block, signed by all."""

    def __init__(self, store: KeyValueStore) -> None:
        self.store = store
        self.genesis = consortium.genesis()
        self.app = Application(store, self.genesis)
        self.blocks = BlockStore(store)
        info = self.app.info()
        initial = ValidatorSet.of(info.validators)
        self.validators = ValidatorHistory(store, initial)
        self.chain = ChainState.genesis(self.app.chain_id, self.genesis.time_ms, initial, info.hashes)
        self.validators_to_come: tuple[pb.Validator, ...] = ()  # by order of a test, where contracts do not change them
        self._commit: pb.Commit | None = None
        self._nonce = 0

    def envelope(self, sender: str, *messages: Any) -> bytes:
        self._nonce += 1
        operations = [operation(message) for message in messages]
        nonce = self._nonce.to_bytes(16, "big")
        return sign(self.app.chain_id, operations, key(sender), self.chain.time_ms + 60_000, nonce)

    def decide(self, *envelopes: bytes) -> None:
        """What an engine does once consensus has decided (node.engine)."""
        proposer = self.chain.validators.members[self.chain.height % len(self.chain.validators)].institution
        block = blocks.build(self.chain, envelopes, [], self._commit, proposer)
        blocks.verify(self.chain, block)
        header = block.header
        finalized = self.app.finalize_block(block.decided())
        if self.validators_to_come:
            finalized = replace(finalized, validators=self.validators_to_come)
        self._commit = self._certificate(block.header.height, block.value.block_hash, header.time_ms + BLOCK_MS)
        self.chain = self.chain.after(block, finalized)
        writes = [*finalized.writes, *self.blocks.writes(header.height, block.value.block, self._commit)]
        self.store.write([*writes, (b"m/chain", self.chain.to_bytes())], sync=False)
        self.app.commit()
        self.validators.on_committed(header.height, block, finalized)

    def _certificate(self, height: int, block_hash: bytes, time_ms: int) -> pb.Commit:
        signed = canonical.vote_bytes(self.app.chain_id, pb.VOTE_TYPE_PRECOMMIT, height, 0, block_hash, time_ms)
        return pb.Commit(
            height=height,
            block_hash=block_hash,
            signatures=[
                pb.CommitSignature(
                    institution=member.institution,
                    time_ms=time_ms,
                    signature=key(f"{member.institution} validator").sign(signed),
                )
                for member in self.chain.validators
            ],
        )

    # --- a little history

    def tell(self) -> tuple[str, bytes]:
        """Publications, access, a revocation, an empty block; the token's id and the id of a rejected transaction."""
        self.decide(self.envelope("um/operator", publication("um.ercp.indo_rct")))
        self.decide(
            self.envelope("iu/operator", publication("iu.ercp.indo_rct")),
            refused := self.envelope("um/analyst", publication("um.ercp.mine")),
            self.envelope("uk/operator", publication("uk.ercp.indo_rct")),
        )
        self.decide(self.envelope("um/analyst", access_request("iu.ercp.indo_rct")))
        token = next(record.subject for record in self.records() if record.kind == "token.granted").partition(":")[2]
        self.decide()
        return token, identify(refused)

    def records(self) -> list[AuditRecord]:
        found = (self.app.record(index) for index in range(self.app.audit_log.size))
        return [record for record in found if record is not None]
