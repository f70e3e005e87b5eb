"""What a node writes down of one height is bounded by who votes and how far the node came, whatever one member signs.

A correct run takes one proposal of each round, and one vote of each sender, kind and round. What a faulty member adds
is written down as long as it matters:

- of one round three proposals: the first, the first that contradicts it, which is evidence, and one that others have a
  quorum for;
- of one sender, kind and round the first vote, the first that contradicts it, one for nil and one for each block that
  was proposed; and all of them twice, since a later round that was given up is heard again when it comes;
- of one sender the rounds that the node reached, and for each of these 102 later ones: the two that are kept, and a
  hundred given up for them.

So r rounds with n voters and b blocks take at most 3 (r + 2) x 2 MiB and 103 r x n x 4 (3 + b) x 256 bytes. What a
node holds in memory of a height it wrote down before. Timers, and where it stands, it notes on its own account.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from koinon.v1 import consensus_pb2 as pb
from testnet.simulation.checkers.violation import Violation

if TYPE_CHECKING:
    from testnet.simulation.nodes import SimNode

_LARGEST = {b"B": 2 * 1024 * 1024, b"P": 256, b"V": 256}  # bytes after the kind
_PROPOSALS = 3  # of one round
_LATER = 102  # rounds of one sender, for each that the node reached


@dataclass(slots=True)
class _Written:
    """What others signed of one height, in one log."""

    blocks: int = 0
    proposals: Counter[int] = field(default_factory=Counter)  # by round
    votes: Counter[tuple[str, int, int]] = field(default_factory=Counter)  # by sender, round and kind
    rounds: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # by sender


class Journals:
    """The logs of all nodes, as far as they are about the height in hand."""

    def __init__(self) -> None:
        self._written: dict[str, _Written] = {}  # by node

    def on_start(self, node: SimNode) -> None:
        """A process finds this log; what was not synced may be gone."""
        self._written[node.name] = _Written()
        for record in node.disk.wal.records():
            self._add(node, record)

    def on_logged(self, node: SimNode, record: bytes) -> None:
        """A record that ``node`` has just written."""
        if not node.correct:
            return
        sender = self._add(node, record)
        rounds = len(self._written[node.name].rounds[sender]) if sender else 0
        if rounds > _LATER + 1 and node.engine is not None:
            reached = node.engine.status().round + 1
            if rounds > reached * (_LATER + 1):
                raise Violation(f"{node.name} writes down {rounds} rounds of {sender}, and reached {reached}")

    def _add(self, node: SimNode, record: bytes) -> str:
        """Returns whose vote it is, if it is one."""
        kind, content = record[:1], record[1:]
        if len(content) > _LARGEST.get(kind, len(content)):
            raise Violation(f"{node.name} writes down {len(content)} bytes at once, of kind {kind!r}")
        written = self._written.setdefault(node.name, _Written())
        match kind:
            case b"H":
                self._written[node.name] = _Written()
            case b"B":
                written.blocks += 1
            case b"P":
                round_ = pb.Proposal.FromString(content[33:]).round
                written.proposals[round_] += 1
                if written.proposals[round_] > _PROPOSALS:
                    raise Violation(f"{node.name} writes down {written.proposals[round_]} proposals of round {round_}")
            case b"V":
                vote = pb.Vote.FromString(content)
                position = vote.institution, vote.round, int(vote.type)
                written.votes[position] += 1
                written.rounds[vote.institution].add(vote.round)
                if written.votes[position] > 2 * (3 + written.blocks):
                    raise Violation(f"{node.name} writes down {written.votes[position]} votes at {position}")
                return vote.institution
        return ""
