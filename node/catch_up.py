"""Knowing who is ahead, and whom to ask for which blocks. Pure.

What peers say about their height is a claim. It decides only whom to ask: a block counts by its commit certificate
alone, which the engine verifies in order. While a node is behind, consecutive ranges of blocks are asked of several
peers at once, so that the answers to come are on their way while one is being executed:

- at most ``_WINDOW`` ranges are asked for or waiting to be executed, which bounds memory, and few of one peer;
- a range that came short is completed by asking for its rest; ranges adapt to what fits into an answer;
- a question unanswered for a whole interval is asked of another peer, and its addressee rests for a while: twice as
  long each time, so that a peer that is slow, or withholds, costs little. An answer counts from when it is here, not
  from when its signatures are verified;
- an answer nobody asked for is not kept; a peer whose blocks do not hold is disbelieved, and rests for longest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from koinon.limits import MAX_SYNC_BLOCKS
from koinon.v1.peer_pb2 import CommittedBlock
from koinon.validators import ValidatorSet

_WINDOW = 4  # ranges; each takes at most MAX_BLOCK_BYTES: as many transactions as the application remembers verified
_PER_PEER = 2  # questions to one peer per interval: it answers four
_LONGEST_REST = 16  # intervals


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

    @property
    def end(self) -> int:
        return self.from_height + len(self.blocks)


class CatchUp:
    """One node's view of how far the others are, and what it has asked them."""

    def __init__(self) -> None:
        self._claims: dict[str, int] = {}  # by peer: the last height it says it has committed
        self._first: dict[str, int] = {}  # by peer: the lowest height whose block it keeps, where it said so
        self._asked: dict[int, _Asked] = {}  # by first height
        self._answers: dict[int, Answer] = {}  # by first height: waiting to be executed
        self._questions: Counter[str] = Counter()  # by peer, in this interval
        self._failures: Counter[str] = Counter()  # by peer: questions in a row that it did not answer
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

    def nobody_keeps(self, height: int) -> bool:
        """Does everyone who is ahead say that it no longer keeps the block at this height?"""
        ahead = [peer for peer, claim in self._claims.items() if claim >= height]
        return bool(ahead) and all(self._first.get(peer, 0) > height for peer in ahead)

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
                self._rest[asked.ask.peer] = min(1 << self._failures[asked.ask.peer], _LONGEST_REST)
        return self.asks(height)

    def asks(self, height: int) -> list[Ask]:
        """Questions that fill the window after ``height``, our last; they count as asked."""
        self._forget_below(height)
        asks: list[Ask] = []
        start = height + 1
        while self._fetching and len(self._asked) + len(self._answers) < _WINDOW:
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
            end = min([start + self._spans.get(peer, MAX_SYNC_BLOCKS), self._claims[peer] + 1, *taken])
            ask = Ask(peer, start, end - start)
            self._asked[start] = _Asked(ask)
            self._questions[peer] += 1
            asks.append(ask)
        return asks

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

    def takes(self, peer: str, from_height: int) -> bool:
        """As ``expects``. The answer is here and will be given to ``arrived``: nobody else is asked meanwhile."""
        expected = self.expects(peer, from_height)
        if expected:
            self._asked[from_height].here = True
        return expected

    def arrived(self, answer: Answer) -> bool:
        """Keep an answer until ``take``; returns False where nobody asked for it."""
        if not answer.blocks or not self.expects(answer.peer, answer.from_height):
            return False
        asked = self._asked.pop(answer.from_height).ask
        self._failures.pop(answer.peer, None)
        blocks = answer.blocks[: asked.count]
        if len(blocks) < asked.count:
            self._spans[answer.peer] = len(blocks)
        else:
            self._spans[answer.peer] = min(2 * max(len(blocks), self._spans.get(answer.peer, 0)), MAX_SYNC_BLOCKS)
        self._answers[answer.from_height] = Answer(answer.peer, answer.from_height, blocks)
        return True

    def take(self, height: int) -> Answer | None:
        """The answer that goes on from ``height``, our last, if it is there; it may begin with blocks we have."""
        self._forget_below(height)
        for start, answer in self._answers.items():
            if start <= height + 1:
                del self._answers[start]
                return answer
        return None

    def lacks(self, peer: str, first_height: int) -> None:
        """A peer says that it keeps blocks from this height on only."""
        self._first[peer] = first_height
        for start in [s for s, asked in self._asked.items() if asked.ask.peer == peer and s < first_height]:
            del self._asked[start]

    def disbelieve(self, peer: str) -> None:
        """Forget what a peer whose blocks do not hold claimed and sent, and let it rest."""
        self._rest[peer] = _LONGEST_REST
        self._claims.pop(peer, None)
        self._first.pop(peer, None)
        self._asked = {start: asked for start, asked in self._asked.items() if asked.ask.peer != peer}
        self._answers = {start: answer for start, answer in self._answers.items() if answer.peer != peer}
