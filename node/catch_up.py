"""Knowing who is ahead, and whom to ask for blocks. Pure.

What peers say about their height is a claim. It decides only whom to ask: a block counts by its commit certificate
alone. A liar costs one unanswered request per turn, because requests go round all who claim to be ahead.
"""

from __future__ import annotations

from koinon.validators import ValidatorSet


class CatchUp:
    """One node's view of how far the others are."""

    def __init__(self) -> None:
        self._claims: dict[str, int] = {}  # by peer: the last height it says it has committed
        self._asked: str | None = None  # whose answer is awaited
        self._last_height = -1  # at the previous tick

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

    def tick(self, height: int) -> str | None:
        """Whom to ask now, if anyone: called at every gossip interval, which is also the wait for an answer.

        A gap of one is normal while a height is being decided, so it is left alone for one interval.
        """
        stuck = height == self._last_height
        self._last_height = height
        ahead = sorted(peer for peer, claim in self._claims.items() if claim > height + (0 if stuck else 1))
        if not ahead:
            self._asked = None
        elif self._asked is None:
            self._asked = ahead[0]
        else:  # no answer came: ask the next one
            self._asked = next((peer for peer in ahead if peer > self._asked), ahead[0])
        return self._asked

    def answered(self, peer: str, height: int) -> bool:
        """A useful answer brought us to ``height``. Returns whether the same peer has more."""
        more = self._claims.get(peer, 0) > height
        self._asked = peer if more else None
        return more

    def disbelieve(self, peer: str) -> None:
        """Forget the claims of a peer whose blocks do not hold."""
        self._claims.pop(peer, None)
        if self._asked == peer:
            self._asked = None
