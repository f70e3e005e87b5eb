"""Who voted at which height: what proofs of old blocks need, and what the ledger's state no longer says."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from koinon.errors import Corrupt, InvalidInput
from koinon.v1.consensus_pb2 import Validator, ValidatorSetRecord
from koinon.validators import ValidatorSet
from node.abci import Finalized, Write
from node.damage import damaged
from node.ledger.blocks import ChainState, ParsedBlock
from node.store.kv import KeyValueStore, height_key

_SETS = b"v/"


class ValidatorHistory:
    """One entry per change, by the first height at which the set votes. Listens to the engine.

    Entries are written after their block, without a sync. A crash between the two loses nothing: they vote two heights
    later at the earliest, so ``adopt`` finds them in the chain's state.
    """

    def __init__(self, store: KeyValueStore, initial: ValidatorSet) -> None:
        """``initial`` are the genesis'. Raises Corrupt."""
        self._store = store
        self._newest: tuple[Validator, ...] = ()
        if store.get(height_key(_SETS, 1)) is None:
            self._add(1, initial)

    def adopt(self, chain: ChainState) -> None:
        """Take in what the chain's state says about its last height and the two to come."""
        if chain.last_validators is not None:
            self._add(chain.height, chain.last_validators)
        self._add(chain.height + 1, chain.validators)
        self._add(chain.height + 2, chain.next_validators)

    def on_committed(self, height: int, block: ParsedBlock, finalized: Finalized) -> None:
        if finalized.validators != self._newest:
            self._add(height + 2, ValidatorSet.of(finalized.validators))
            self._newest = finalized.validators

    def at(self, height: int) -> ValidatorSet:
        """Who votes on this height, from 1 to the last block's plus 2. Raises Corrupt."""
        for _, data in self._store.scan(_SETS, start=height_key(_SETS, height), reverse=True):
            try:
                return ValidatorSet.of(ValidatorSetRecord.FromString(data).validators)
            except (DecodeError, InvalidInput) as error:
                raise self._damaged(height) from error
        raise self._damaged(height)

    def last_heights(self, before: int) -> list[int]:
        """Ascending: every height below ``before`` that was the last of a set."""
        starts = (int.from_bytes(key[len(_SETS) :], "big") for key, _ in self._store.scan(_SETS))
        return [start - 1 for start in starts if 1 < start <= before]

    def _add(self, height: int, validators: ValidatorSet) -> None:
        if height > 1 and self.at(height) == validators:
            return
        self._store.write([entry(height, validators)], sync=False)

    @staticmethod
    def _damaged(height: int) -> Corrupt:
        return damaged(f"the stored validators of height {height} are damaged")


def entry(height: int, validators: ValidatorSet) -> Write:
    """What to write for a set that votes from this height on."""
    record = ValidatorSetRecord(validators=validators.to_proto())
    return height_key(_SETS, height), record.SerializeToString(deterministic=True)
