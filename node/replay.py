"""Offline verification of a whole ledger: everything is derived again from the genesis, and compared.

Per block, in this order:

1. it is in form, and its header commits to its transactions, evidence and last certificate (``malformed-block``);
2. it links to the block before, and its header is byte for byte what the replayed state makes of it: time, validators,
   results, state commitment, root and size of the audit log (``invalid-block``, naming the first field that differs);
3. its certificate holds more than two thirds of the validators at that height (``commit-certificate``);
4. it is executed by node.application, every signature verified anew.

At the end all points there are must add up (``corrupt``): no header says so, since all members might be wrong alike.

Then, of a node's own directory, what it keeps beside the blocks is compared with what the replay made: state, audit
log, results, who voted when, and where the chain stands (``corrupt``, naming the first key that differs). What the last
block did is under no header yet: of an archive, only the replay says it. What its node had signed is the node's own: it
must be readable.

Nothing is believed but the genesis. The replay keeps its own state in ``scratch``, and changes nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from koinon.errors import Corrupt
from koinon.v1.identity_pb2 import Genesis
from koinon.validators import ValidatorSet, verify_commit
from node.abci import Finalized
from node.application import Application
from node.archive import Decided
from node.chain import CHAIN_KEY
from node.journal import last_signed
from node.ledger import blocks
from node.ledger.blocks import ChainState, ParsedBlock
from node.store.blocks import BlockStore
from node.store.kv import KeyValueStore
from node.store.validator_history import ValidatorHistory

OnProgress = Callable[[int, int], None]
"""Called after every block with its height and the number of transactions so far."""

_DERIVED = {
    b"s/": "the state",
    b"l/": "the audit log",
    b"t/": "the results of transactions",
    b"m/application": "where the application stands",
    b"v/": "who voted at which height",
    b"h/": "headers kept apart from their blocks",  # none: every block is whole
}


@dataclass(frozen=True, slots=True)
class Replayed:
    """A ledger that holds."""

    chain: ChainState
    transactions: int
    records: int  # of the audit log


def stored(store: KeyValueStore) -> Iterator[Decided]:
    """The blocks of a node's store from height 1 on. Raises Corrupt where one is missing."""
    kept = BlockStore(store)
    for height in range(1, kept.height() + 1):
        block, commit = kept.block(height), kept.commit(height)
        if block is None or commit is None:
            raise _diverges(height, "the block, or its certificate, is not there", "corrupt")
        yield Decided(block, commit)


def replay(
    genesis: Genesis, decided: Iterable[Decided], scratch: KeyValueStore, on_progress: OnProgress = lambda *_: None
) -> Replayed:
    """Steps 1 to 4 for every block; ``scratch``, empty at first, holds the derived ledger in the end.

    ``genesis`` is valid; blocks are not trusted. Raises Corrupt with height and rule of the first divergence, and what
    ``decided`` raises.
    """
    application = Application(scratch, genesis)
    info = application.info()
    initial = ValidatorSet.of(info.validators)
    chain = ChainState.genesis(application.chain_id, genesis.time_ms, initial, info.hashes)
    history = ValidatorHistory(scratch, initial)
    transactions = 0
    for item in decided:
        try:
            block = _verify(chain, item, application)
        except Corrupt as error:
            raise _diverges(chain.height + 1, error.message, error.rule) from error
        finalized = _execute(application, scratch, block)
        chain = chain.after(block, finalized)
        history.on_committed(chain.height, block, finalized)
        transactions += len(block.transactions)
        on_progress(chain.height, transactions)
    try:
        application.check_conservation()
    except Corrupt as error:
        raise _diverges(chain.height, error.message, error.rule) from error
    return Replayed(chain, transactions, application.audit_log.size)


def compare(store: KeyValueStore, scratch: KeyValueStore, chain: ChainState) -> None:
    """Does a node's store hold, beside its blocks, exactly what the replay derived? Raises Corrupt."""
    if store.get(CHAIN_KEY) != (chain.to_bytes() if chain.height else None):
        raise _differs(chain, "where the chain stands", CHAIN_KEY)
    for prefix, what in _DERIVED.items():
        for kept, derived in zip_longest(store.scan(prefix), scratch.scan(prefix)):
            if kept != derived:
                raise _differs(chain, what, min(entry[0] for entry in (kept, derived) if entry))
    last_signed(store)


def _verify(chain: ChainState, item: Decided, application: Application) -> ParsedBlock:
    """Steps 1 to 3. Raises Corrupt."""
    block = blocks.parse(item.block)
    blocks.verify(chain, block, application.validator_key)
    verify_commit(chain.chain_id, chain.validators, item.commit, block.value.block_hash, chain.height + 1)
    return block


def _execute(application: Application, scratch: KeyValueStore, block: ParsedBlock) -> Finalized:
    """Step 4."""
    finalized = application.finalize_block(block.decided())
    scratch.write(finalized.writes, sync=False)
    application.commit()
    return finalized


def _diverges(height: int, problem: str, rule: str) -> Corrupt:
    return Corrupt(
        f"the ledger diverges at height {height}: {problem}",
        rule=rule,
        hint="keep a copy for inquiry; a node whose ledger directory is removed fetches the ledger from its peers",
    )


def _differs(chain: ChainState, what: str, key: bytes) -> Corrupt:
    return _diverges(chain.height, f"{what} is not what the blocks make it, first at the key {key!r}", "corrupt")
