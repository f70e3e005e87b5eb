"""Keeping up with the other members' nodes: where all stand, what was lost on the way, blocks for who is behind.

Peers are authenticated but not trusted: what they say about themselves decides only what we ask and answer, and
answers, being larger than questions, are few per peer and gossip interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from koinon.limits import MAX_BLOCK_BYTES, MAX_SYNC_BLOCKS
from koinon.v1 import peer_pb2
from node import gossip
from node.catch_up import Answer, Ask, CatchUp
from node.consensus.core import Core
from node.ledger.blocks import ChainState
from node.ports import Transport
from node.store.blocks import BlockStore

_ANSWERS_PER_INTERVAL = 4  # to one peer: up to 16 MB/s are read for it, or 400 small blocks/s
_IDLE_INTERVALS = 4  # while nothing is decided, speak only once in so many gossip intervals
_NEARLY_THERE_BLOCKS = 4  # a peer this little behind is sent the blocks without asking


class Neighbours:
    """One node's conversation with the others beside consensus itself."""

    def __init__(self, chain: ChainState, core: Core, transport: Transport, store: BlockStore) -> None:
        self._chain = chain
        self._core = core
        self._transport = transport
        self._store = store
        self._catch_up = CatchUp()
        self._waiting = False  # for a snapshot: blocks are not asked for meanwhile
        self._answers: Counter[str] = Counter()  # by peer, in this gossip interval
        self._interval = 0
        self._position = (0, 0, 0)  # at the last interval's end

    def turn_to(self, chain: ChainState) -> None:
        """The chain has grown to this."""
        self._chain = chain

    @property
    def _height(self) -> int:
        """The height to be decided."""
        return self._chain.height + 1

    # --- who is ahead

    def heard(self, peer: str, committed_height: int) -> None:
        """A peer says or shows that it has committed this height."""
        self._catch_up.heard(peer, committed_height)

    def are_ahead(self) -> bool:
        """Have peers of which one must be correct committed more than we?"""
        return self._catch_up.is_behind(self._chain.height, self._chain.validators)

    def credible_claim(self) -> int:
        """How far peers of which one must be correct say that they are."""
        return self._catch_up.credible_claim(self._chain.validators)

    def highest_claim(self) -> int:
        return self._catch_up.highest_claim()

    # --- speaking

    def interval_ended(self) -> None:
        """Say where we stand if nothing has moved, or once in a while; ask for blocks if we lack some."""
        self._answers.clear()
        self._interval += 1
        core, deciding = self._core, self._core.is_deciding(self._height)
        position = (self._height, core.round, core.step) if deciding else (self._height, 0, 0)
        stalled = deciding and position == self._position
        self._position = position
        if stalled or self._interval % _IDLE_INTERVALS == 0:
            self._transport.broadcast(self._status())
        if not self._waiting:
            self._send(self._catch_up.tick(self._chain.height))

    def greet(self, peer: str | None = None) -> None:
        """Say to one peer, or to all, where we stand, so that they can help."""
        if peer is None:
            self._transport.broadcast(self._status())
        else:
            self._transport.send(peer, self._status())

    def _status(self) -> peer_pb2.DeliverRequest:
        return gossip.round_status(self._height, self._core)

    # --- asking for blocks

    def ask(self) -> None:
        """Ask for more blocks, where it helps."""
        if not self._waiting:
            self._send(self._catch_up.asks(self._chain.height))

    def _send(self, asks: Iterable[Ask]) -> None:
        for ask in asks:
            request = peer_pb2.BlockRequest(from_height=ask.from_height, count=ask.count)
            self._transport.send(ask.peer, peer_pb2.DeliverRequest(block_request=request))

    def wait_for_snapshot(self, waiting: bool) -> None:
        """While waiting no blocks are asked for; when that is over they are asked for at once."""
        over = self._waiting and not waiting
        self._waiting = waiting
        if over:
            self._send(self._catch_up.tick(self._chain.height))

    def takes(self, peer: str, response: peer_pb2.BlockResponse) -> bool:
        """Were these blocks asked for? Then they will be given to ``arrived``."""
        taken = bool(response.blocks) and self._catch_up.takes(Answer.of(peer, response))
        if taken:
            self.ask()  # for the rest, where it came short
        return taken

    def arrived(self, answer: Answer) -> bool:
        """Keep an answer that was asked for until ``take``; False where it was not."""
        return self._catch_up.arrived(answer)

    def take(self) -> Answer | None:
        """Blocks that go on from ours, if they have come."""
        answer = self._catch_up.take(self._chain.height)
        if answer is not None and not self._waiting:  # ask for what comes behind it, while it is executed
            self._send(self._catch_up.asks(answer.end - 1))
        return answer

    def lacks(self, peer: str, first_height: int) -> None:
        """A peer keeps blocks from this height on only."""
        self._catch_up.lacks(peer, first_height)
        self.ask()

    def nobody_keeps_next(self) -> bool:
        """Do others say that they are ahead and no longer keep the next block, and does nobody send it?"""
        return self._catch_up.nobody_keeps(self._height, self._chain.validators)

    # --- answering

    def on_status(self, peer: str, status: peer_pb2.RoundStatus) -> None:
        """Send the peer what it lacks and we have."""
        self.heard(peer, status.height - 1)
        if status.height > self._height or not self._may_answer(peer):
            return
        if status.height == self._height:
            if self._core.is_deciding(self._height) and status.round <= self._core.round:
                for message in gossip.missing(self._core, status):
                    self._transport.send(peer, message)
        elif status.height >= self._height - _NEARLY_THERE_BLOCKS:
            self._send_blocks(peer, status.height, _NEARLY_THERE_BLOCKS)
        else:
            self.greet(peer)  # it will ask

    def on_block_request(self, peer: str, request: peer_pb2.BlockRequest) -> None:
        """Send the blocks, or say from where on they are kept."""
        if 1 <= request.from_height <= self._chain.height and self._may_answer(peer):
            self._send_blocks(peer, request.from_height, request.count)

    def _may_answer(self, peer: str) -> bool:
        self._answers[peer] += 1
        return self._answers[peer] <= _ANSWERS_PER_INTERVAL

    def _send_blocks(self, peer: str, from_height: int, count: int) -> None:
        """As many consecutive blocks as one message bears."""
        response = peer_pb2.BlockResponse()
        size = 0
        for height in range(from_height, from_height + min(count, MAX_SYNC_BLOCKS)):
            block, commit = self._store.block(height), self._store.commit(height)
            if block is None or commit is None:
                break
            added = len(block) + commit.ByteSize()  # certificates of MAX_VALIDATORS are no trifle
            if size and size + added > MAX_BLOCK_BYTES:
                break
            size += added
            response.blocks.add(block=block, commit=commit)
        if not response.blocks:
            response.first_height = self._store.first()
        self._transport.send(peer, peer_pb2.DeliverRequest(block_response=response))

    # --- what a peer's blocks were worth

    def lied(self, peer: str) -> None:
        """Its blocks do not hold: forget what it claims."""
        self._catch_up.disbelieve(peer)
