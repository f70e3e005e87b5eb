"""Knowing who is ahead, and whom to ask for which blocks. Pure.

What peers say about their height is a claim. It decides only whom to ask: a block counts by its commit certificate
alone, which the engine verifies in order. While a node is behind, consecutive ranges of blocks are asked of several
peers at once, so that the answers to come are on their way while one is being executed:

- at most ``_WINDOW`` ranges are asked for or waiting to be executed, and at most as many gaps between them, which
  bounds memory; and few of one peer;
- a range that came short is completed by asking for its rest at once; ranges adapt to what fits into an answer;
- a question unanswered for a whole interval is asked of another peer, and its addressee rests for a while: twice as
  long each time, so that a peer that is slow, or withholds, costs little. An answer counts from when it is here, not
  from when its signatures are verified;
- an answer nobody asked for is not kept; a peer whose blocks do not hold is disbelieved, and rests for longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from koinon.limits import MAX_BLOCK_BYTES, MAX_SYNC_BLOCKS
from koinon.v1.peer_pb2 import BlockResponse, CommittedBlock
from koinon.validators import ValidatorSet

_WINDOW = 4  # ranges; each takes at most MAX_BLOCK_BYTES: as many transactions as the application remembers verified
_FIRST_SPAN = 16  # blocks asked for at least in one question before any answer said how many fit
_PER_PEER = 2  # questions to one peer per interval: it answers four
_FAILURES = 4  # in a row: then a peer rests for longest, and is no longer hoped for
_LONGEST_REST = 1 << _FAILURES  # intervals
_PIECE_BYTES = 256 * 1024  # of blocks executed before others get their turn: some tenths of a second


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for the blocks ``from_height`` to ``from_height + count - 1``."""

    peer: str
    from_height: int
    count: int

    @property
    def end(self) -> int:
        return self.from_height + self.count


@dataclass(slots=True)
class _Asked:
    ask: Ask
    intervals: int = 0  # that ended without an answer
    here: bool = False  # is the answer here, on its way to ``arrived``?


@dataclass(frozen=True, slots=True)
class Answer:
    """Consecutive blocks from one peer; nothing about them is proved."""

    peer: str
    from_height: int
    blocks: Sequence[CommittedBlock]

    @classmethod
    def of(cls, peer: str, response: BlockResponse) -> Answer:
        """Of a response that has blocks."""
        return cls(peer, response.blocks[0].commit.height, response.blocks)

    @property
    def end(self) -> int:
        return self.from_height + len(self.blocks)

    def cut(self) -> tuple[Answer, Answer]:
        """A piece to be executed at once, and the rest."""
        sizes = accumulate(len(item.block) for item in self.blocks)
        count = 1 + sum(size < _PIECE_BYTES for size in sizes)
        rest = self.blocks[count:]
        return Answer(self.peer, self.from_height, self.blocks[:count]), Answer(self.peer, self.end - len(rest), rest)


class CatchUp:
    """One node's view of how far the others are, and what it has asked them."""

    def __init__(self) -> None:
        self._claims: dict[str, int] = {}  # by peer: the last height it says it has committed
        self._first: dict[str, int] = {}  # by peer: the lowest height whose block it keeps, where it said so
        self._asked: dict[int, _Asked] = {}  # by first height
        self._answers: dict[int, Answer] = {}  # by first height: waiting to be executed
        self._questions: Counter[str] = Counter()  # by peer, in this interval
        self._failures: Counter[str] = Counter()  # by peer: questions in a row to which it sent no blocks
        self._rest: dict[str, int] = {}  # by peer: intervals until it is asked again
        self._spans: dict[str, int] = {}  # by peer: as many blocks as it lately put into an answer
        self._fetching = False
        self._last_height = -1  # at the previous tick

    # --- who is ahead

    def heard(self, peer: str, committed_height: int) -> None:
        """A peer says, or shows by deciding the next height, that it has committed this height."""
        self._claims[peer] = max(self._claims.get(peer, 0), committed_height)

    def is_behind(self, height: int, validators: ValidatorSet) -> bool:
        """Do peers of which one must be correct say that they are past ``height``, our last?

        Then there is no point in starting the next height ourselves. Fewer could be lying.
        """
        ahead = [peer for peer, claim in self._claims.items() if claim > height]
        return validators.power(ahead) >= validators.one_third

    def highest_claim(self) -> int:
        return max(self._claims.values(), default=0)

    def credible_claim(self, validators: ValidatorSet) -> int:
        """The greatest height that peers of which one must be correct say they have committed."""
        for claim in sorted(set(self._claims.values()), reverse=True):
            if self.is_behind(claim - 1, validators):
                return claim
        return 0

    def nobody_keeps(self, height: int, validators: ValidatorSet) -> bool:
        """Do peers of which one must be correct say that they are ahead and no longer keep the block at this height?

        Nor does any other who is ahead send it: whoever was asked for blocks again and again, in vain, may be gone, or
        lie.
        """
        ahead = [peer for peer, claim in self._claims.items() if claim >= height]
        lacking = [peer for peer in ahead if self._first.get(peer, 0) > height]
        return validators.power(lacking) >= validators.one_third and all(
            peer in lacking or self._failures[peer] >= _FAILURES for peer in ahead
        )

    # --- asking

    def tick(self, height: int) -> list[Ask]:
        """What to ask now, if anything: called at every gossip interval, which is also the wait for an answer.

        A gap of one is normal while a height is being decided, so it is left alone for one interval.
        """
        stuck = height == self._last_height
        self._last_height = height
        self._fetching = any(claim > height + (0 if stuck else 1) for claim in self._claims.values())
        self._questions.clear()
        self._rest = {peer: left - 1 for peer, left in self._rest.items() if left > 1}
        for start, asked in list(self._asked.items()):
            asked.intervals += not asked.here
            if asked.intervals > 1:
                del self._asked[start]
                self._failures[asked.ask.peer] += 1
                self._rest[asked.ask.peer] = 1 << min(self._failures[asked.ask.peer], _FAILURES)
        return self.asks(height)

    def asks(self, height: int) -> list[Ask]:
        """Questions that fill the window after ``height``, our last; they count as asked."""
        self._forget_below(height)
        asks: list[Ask] = []
        start = height + 1
        while self._fetching and (ranges := len(self._asked) + len(self._answers)) < 2 * _WINDOW:
            if start in self._answers:
                start = self._answers[start].end
                continue
            if start in self._asked:
                start = self._asked[start].ask.end
                continue
            peer = self._whom(start)
            if peer is None:
                break
            # No further than the peer claims to be, nor into a range that is on its way.
            taken = [other for other in (*self._asked, *self._answers) if other > start]
            if ranges >= _WINDOW and not taken:
                break
            end = min([start + (self._span(peer) or self._share(height)), self._claims[peer] + 1, *taken])
            ask = Ask(peer, start, end - start)
            self._asked[start] = _Asked(ask)
            self._questions[peer] += 1
            asks.append(ask)
        return asks

    def _span(self, peer: str) -> int:
        """How many blocks to ask this peer for at a time: as answers held lately, its own or others'; 0: unknown."""
        return self._spans.get(peer) or max(self._spans.values(), default=0)

    def _share(self, height: int) -> int:
        """How many blocks to ask for at a time if those who are ahead share the work, and all fits."""
        ahead = [claim - height for claim in self._claims.values() if claim > height]
        questions = _PER_PEER * len(ahead)
        return min(max(_FIRST_SPAN, -(-max(ahead) // questions)), MAX_SYNC_BLOCKS)

    def _whom(self, height: int) -> str | None:
        """Who may have the block at this height and was asked least, if anyone can be asked now."""
        able = [
            peer
            for peer, claim in self._claims.items()
            if claim >= height
            and self._first.get(peer, 0) <= height
            and self._questions[peer] < _PER_PEER
            and peer not in self._rest
        ]
        return min(able, key=lambda peer: (self._questions[peer], peer), default=None)

    def _forget_below(self, height: int) -> None:
        self._answers = {start: answer for start, answer in self._answers.items() if answer.end > height + 1}
        self._asked = {start: asked for start, asked in self._asked.items() if asked.ask.end > height + 1}

    # --- answers

    def expects(self, peer: str, from_height: int) -> bool:
        """Was this peer asked for blocks from this height on?"""
        asked = self._asked.get(from_height)
        return asked is not None and asked.ask.peer == peer

    def takes(self, answer: Answer) -> bool:
        """Was this asked for? Then it is here and will be given to ``arrived``: nobody else is asked meanwhile."""
        if not answer.blocks or not self.expects(answer.peer, answer.from_height):
            return False
        asked = self._asked[answer.from_height]
        if not asked.here:
            asked.here = True
            self._learn(asked, answer)
        return True

    def _learn(self, asked: _Asked, answer: Answer) -> None:
        """How many blocks fit into an answer; those of this question that did not are free to be asked for."""
        count, peer = len(answer.blocks), answer.peer
        if count < asked.ask.count:
            asked.ask = Ask(peer, answer.from_height, count)
            self._spans[peer] = count
        else:
            size = sum(len(item.block) for item in answer.blocks)
            fitting = max(count, count * MAX_BLOCK_BYTES // max(size, 1))
            self._spans[peer] = min(fitting, MAX_SYNC_BLOCKS)

    def arrived(self, answer: Answer) -> bool:
        """Keep an answer until ``take``; returns False where nobody asked for it."""
        if not self.takes(answer):
            return False
        asked = self._asked.pop(answer.from_height).ask
        self._failures.pop(answer.peer, None)
        self._answers[answer.from_height] = Answer(answer.peer, answer.from_height, answer.blocks[: asked.count])
        return True

    def take(self, height: int) -> Answer | None:
        """A piece of what goes on from ``height``, our last, if it is here; it may begin with blocks we have."""
        self._forget_below(height)
        for start, answer in self._answers.items():
            if start <= height + 1:
                del self._answers[start]
                piece, rest = answer.cut()
                if rest.blocks:
                    self._answers[rest.from_height] = rest
                return piece
        return None

    def lacks(self, peer: str, first_height: int) -> None:
        """A peer says that it keeps blocks from this height on only."""
        self._first[peer] = first_height
        for start in [s for s, asked in self._asked.items() if asked.ask.peer == peer and s < first_height]:
            del self._asked[start]
            self._failures[peer] += 1

    def disbelieve(self, peer: str) -> None:
        """Forget what a peer whose blocks do not hold claimed and sent, and let it rest."""
        self._failures[peer], self._rest[peer] = _FAILURES, _LONGEST_REST
        self._claims.pop(peer, None)
        self._first.pop(peer, None)
        self._asked = {start: asked for start, asked in self._asked.items() if asked.ask.peer != peer}
        self._answers = {start: answer for start, answer in self._answers.items() if answer.peer != peer}
