"""What this validator saw and signed at the present height: on disk before any of it is sent.

Two things follow from it after a crash: the core stands where it stood (its events are replayed), and nothing is
ever signed that could conflict with what was signed before.

A record is one byte of kind and its content:

====  =======================================================================================
``S`` standing: a validator key that the log covers (32 bytes), since_ms (8), from_height (8); the last times count
``H`` height started: height (8)
``B`` a proposed block: serialised Block; once per height
``P`` proposal received or made: 1 if valid (1), block hash (32), serialised Proposal without the block
``V`` vote received or cast: serialised Vote
``T`` timed out: step (1), height (8), round (4)
``L`` something was signed here that this log does not hold: position, as in ``Journal.mark``
====  =======================================================================================

**Signing state is born with the key.** ``Journal.create`` writes the first record when a validator key is made. A log
without it has lost its signing state: this key may have signed anything before. Then the validator observes
until a safe height. Safe is every height after a block whose time lies more than MAX_CLOCK_DRIFT_MS after the loss was
noticed at ``since_ms``: that block's time is the median of precommits made after the loss, so the block did
not exist before, so our former self never reached the height after it. This takes a clock that was not slow: so the
loss counts as noticed anew at every start and whenever the clock jumps ahead, and a block from our clock's future shows
nothing. It takes, too, that most clocks were not further ahead than that when the log was lost: block time goes on from
where they were, which nothing shows to a validator that is back within that minute and executes the last block late.

**A log can be lost in part.** With every block the ledger keeps which position was signed last and in the log on the
disk (``Journal.mark``). A log that ends before that was cut, or is an older copy: its signing state is lost as if there
were no log. Record ``L`` keeps the position that it lacks: nothing is signed at or before it, and the loss is noticed
once. What was signed after the last block is known to the log alone.

**A log outlives keys.** When the ledger names a new key for this validator, ``adopt`` lets the log cover it with the
standing that it has. That is safe: what was signed at a height is in the log, whichever key signed it, and a new key
counts for no height that had begun before the log heard of it. A log that was lost stays lost, under any key.
"""

from __future__ import annotations

import struct
from typing import assert_never

from google.protobuf.message import DecodeError

from koinon.canonical import HASH_BYTES
from koinon.errors import Corrupt
from koinon.limits import MAX_CLOCK_DRIFT_MS
from koinon.v1 import consensus_pb2 as pb
from node.abci import Write
from node.consensus.events import Event, HeightStarted, ProposalReceived, Step, TimedOut, Timer, VoteReceived
from node.consensus.messages import Proposal, Value, Vote
from node.damage import damaged
from node.ledger import blocks
from node.store.kv import KeyValueStore
from node.store.wal import WriteAheadLog

_ROTATE_BYTES = 16 * 1024 * 1024  # of records, after which a new height starts a new log
_NEVER = 2**64 - 1
_KEY_BYTES = 32
_KEYS_COVERED = 4  # the newest: the one in force, the next one, and what rotated meanwhile
_AFTER_HASH = 1 + HASH_BYTES

_PROPOSAL_RANK = 0  # signing order within a round; votes rank by their type (1, 2)
_POSITION = struct.Struct(">QIb")
_MARK_KEY = b"m/signed"

Position = tuple[int, int, int]
"""Of something signed: height, round, rank."""
NOTHING: Position = (0, 0, 0)


def last_signed(store: KeyValueStore) -> Position:
    """What the ledger says that its node had signed (``Journal.mark``): NOTHING in a new one. Raises Corrupt."""
    data = store.get(_MARK_KEY)
    try:
        return NOTHING if data is None else _position(data)
    except ValueError as error:
        raise damaged("the ledger does not say any more what its node signed") from error


def mark(position: Position) -> Write:
    """What to write for ``last_signed``: height (8), round (4), rank (1)."""
    return _MARK_KEY, _POSITION.pack(*position)


class Journal:
    """The write-ahead log of one validator, and its conscience. One instance per open log."""

    def __init__(
        self, wal: WriteAheadLog, public_key: bytes, institution: str, now_ms: int, signed: Position = NOTHING
    ) -> None:
        """Read the log.

        Args:
            public_key: the key in force.
            now_ms: noted if the log has lost the signing state: does not cover the key, or ends before ``signed``.
            signed: ``last_signed`` of the ledger beside the log.

        Raises Corrupt.
        """
        self._wal = wal
        self._keys: list[bytes] = []  # that the log covers
        self._institution = institution
        self._since_ms = now_ms
        self._from_height = _NEVER
        self._last_signed = NOTHING  # never sign at or before this
        self._height = 0
        self._events: list[Event] = []  # of self._height
        self._values: dict[bytes, Value] = {}  # blocks in the log that were proposed at self._height, by hash
        self._bytes = 0
        for record in wal.records():
            self._read(record)
        if public_key not in self._keys or self._last_signed < signed:
            if public_key not in self._keys:
                self._keys = [public_key]
            self._since_ms, self._from_height = now_ms, _NEVER
            self._last_signed = max(self._last_signed, signed)
            wal.reset([*self._standings(), b"L" + _POSITION.pack(*self._last_signed)])
        if self._from_height == _NEVER:
            self._since_ms = max(self._since_ms, now_ms)
        self._clock_ms = now_ms
        self._synced = self._last_signed

    @staticmethod
    def create(wal: WriteAheadLog, public_key: bytes) -> None:
        """Begin the log of a validator key that was just made."""
        wal.reset([_standing(public_key, 0, 0)])

    # --- reading

    def _read(self, record: bytes) -> None:
        """Take over one record. Raises Corrupt."""
        self._bytes += len(record)
        kind, content = record[:1], record[1:]
        try:
            match kind:
                case b"S":
                    self._cover(content[:_KEY_BYTES])
                    self._since_ms = int.from_bytes(content[_KEY_BYTES : _KEY_BYTES + 8], "big")
                    self._from_height = int.from_bytes(content[_KEY_BYTES + 8 :], "big")
                case b"L":
                    self._last_signed = max(self._last_signed, _position(content))
                case b"H":
                    self._begin(int.from_bytes(content, "big"))
                case b"B":
                    value = blocks.parse(content).value
                    self._values[value.block_hash] = value
                case b"P":
                    self._note(self._read_proposal(content))
                case b"V":
                    self._note(VoteReceived(_read_vote(content)))
                case b"T":
                    height, round_ = int.from_bytes(content[1:9], "big"), int.from_bytes(content[9:], "big")
                    self._note(TimedOut(Timer(Step(content[0]), height, round_)))
                case _:
                    raise ValueError("unknown kind of record")
        except (DecodeError, ValueError, LookupError, blocks.InvalidBlock) as error:
            raise Corrupt(
                "the write-ahead log holds a record that this version cannot read",
                hint="start the version that wrote it, or let the node observe until a safe height: "
                "see 'a lost disk' in the operator's guide",
            ) from error

    def _read_proposal(self, content: bytes) -> ProposalReceived:
        valid, block_hash, message = content[0], content[1:_AFTER_HASH], pb.Proposal.FromString(content[_AFTER_HASH:])
        proposal = Proposal(
            message.height,
            message.round,
            message.valid_round,
            self._values[block_hash],
            message.institution,
            message.signature,
        )
        return ProposalReceived(proposal, bool(valid))

    def _begin(self, height: int) -> None:
        self._height = height
        self._events = []
        self._values = {}
        self._last_signed = max(self._last_signed, (height, 0, -1))

    def _note(self, event: Event) -> None:
        self._events.append(event)
        self._note_own(event)

    def _note_own(self, event: Event) -> None:
        """Never sign at or before what was signed with this key, here or, as others tell us, elsewhere."""
        match event:
            case ProposalReceived(proposal, _) if proposal.institution == self._institution:
                position = (proposal.height, proposal.round, _PROPOSAL_RANK)
            case VoteReceived(vote) if vote.institution == self._institution:
                position = (vote.height, vote.round, int(vote.type))
            case _:
                return
        self._last_signed = max(self._last_signed, position)

    def replay(self, height: int) -> list[Event] | None:
        """What had happened at this height, after HeightStarted; None if it had not started. Said once per height.

        A node that lost its ledger, but not this log, comes to that height only after it has fetched those before: it
        must not forget until then what it is locked on.
        """
        if self._height != height:
            return None
        events, self._events = self._events, []
        return events

    # --- writing

    def append(self, event: Event) -> None:
        """Add what the core is about to handle. On disk only after ``sync``."""
        if event.height < self._height:
            return  # the ledger is being fetched anew; nothing was left to sign there, so nothing is to be remembered
        match event:
            case HeightStarted(height, _):
                self._begin(height)
                record = b"H" + height.to_bytes(8, "big")
                if self._bytes > _ROTATE_BYTES:
                    self._wal.reset([*self._standings(), record])
                    self._bytes = 0
                    return
            case ProposalReceived(proposal, valid):
                value = proposal.value
                if value.block_hash not in self._values:
                    self._values[value.block_hash] = value
                    self._add(b"B" + value.block)
                message = proposal.to_proto()
                message.ClearField("block")
                record = b"P" + bytes([valid]) + value.block_hash + message.SerializeToString()
            case VoteReceived(vote):
                record = b"V" + vote.to_proto().SerializeToString()
            case TimedOut(timer):
                record = b"T" + bytes([timer.step]) + timer.height.to_bytes(8, "big") + timer.round.to_bytes(4, "big")
            case _:
                assert_never(event)
        self._note_own(event)
        self._add(record)

    def _add(self, record: bytes) -> None:
        self._bytes += len(record)
        self._wal.append(record)

    def sync(self) -> None:
        """Once this returns, everything appended survives a crash: now what was signed may be sent."""
        self._wal.sync()
        self._synced = self._last_signed

    # --- signing

    @property
    def signed(self) -> Position:
        """The position last signed that is in the log on the disk."""
        return self._synced

    def mark(self) -> Write:
        """What keeps ``signed`` in the ledger, for ``last_signed``."""
        return mark(self._synced)

    @property
    def votes_from_height(self) -> int | None:
        """The first height at which this validator may sign; None while that is not known."""
        return None if self._from_height == _NEVER else self._from_height

    def may_propose(self, height: int, round_: int) -> bool:
        """Can a proposal for this round conflict with nothing that was ever signed?"""
        return height >= self._from_height and (height, round_, _PROPOSAL_RANK) > self._last_signed

    def may_vote(self, height: int, round_: int, vote_type: int) -> bool:
        """Can a vote of this type and round conflict with nothing that was ever signed?"""
        return height >= self._from_height and (height, round_, vote_type) > self._last_signed

    def look_at_clock(self, now_ms: int) -> None:
        """To be called often: a clock that jumps ahead was slow before."""
        if self._from_height == _NEVER and now_ms > self._clock_ms + MAX_CLOCK_DRIFT_MS:
            self._since_ms = max(self._since_ms, now_ms)
        self._clock_ms = now_ms

    def observe(self, height: int, time_ms: int, now_ms: int) -> bool:
        """Note that a block was decided. Returns whether a validator without signing state is safe from the next on."""
        self.look_at_clock(now_ms)
        if self._from_height < _NEVER or not self._since_ms < time_ms - MAX_CLOCK_DRIFT_MS <= now_ms:
            return False
        self._from_height = height + 1
        self._wal.append(self._standings()[-1])
        return True

    def vote_again(self, height: int) -> None:
        """Sign from this height on, durably, though no block showed it safe: an operator answers for that.

        What others told of this validator's votes stays in the log, so that nothing is signed that contradicts it.
        """
        self._from_height = height
        self._wal.append(self._standings()[-1])
        self._wal.sync()

    def adopt(self, public_key: bytes) -> None:
        """The ledger names this key for our validator: it is covered from now on, and durably so."""
        if public_key not in self._keys:
            self._cover(public_key)
            self._wal.append(self._standings()[-1])
            self._wal.sync()

    def _cover(self, public_key: bytes) -> None:
        if public_key in self._keys:
            self._keys.remove(public_key)
        self._keys = [*self._keys, public_key][-_KEYS_COVERED:]

    def _standings(self) -> list[bytes]:
        return [_standing(key, self._since_ms, self._from_height) for key in self._keys]


def _standing(public_key: bytes, since_ms: int, from_height: int) -> bytes:
    return b"S" + public_key + since_ms.to_bytes(8, "big") + from_height.to_bytes(8, "big")


def _position(data: bytes) -> Position:
    """Raises ValueError."""
    if len(data) != _POSITION.size:
        raise ValueError("not a position")
    height, round_, rank = _POSITION.unpack(data)
    return height, round_, rank


def _read_vote(content: bytes) -> Vote:
    vote = Vote.from_proto(pb.Vote.FromString(content))
    if vote is None:
        raise ValueError("not a vote")
    return vote
