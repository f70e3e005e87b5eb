"""What a joint computation needs of a network: rounds of messages of known sizes between numbered parties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from koinon.errors import TaskFailed


class SessionFailed(TaskFailed):
    """A session cannot go on; ``rule`` is one of koinon.rules' ``session-…`` words. Carries no data value."""

    default_rule = "session-malformed"


class Channel(Protocol):
    """Authenticated, confidential links from one party to every other.

    All parties run the same program, so each knows what the others send in every round, and how much: nothing
    else is accepted.
    """

    @property
    def party(self) -> int:
        """This party's index in the committee, from 0."""
        ...

    @property
    def parties(self) -> int: ...

    async def exchange(self, outgoing: Mapping[int, bytes], incoming: Mapping[int, int]) -> dict[int, bytes]:
        """One round: send to some parties, receive exactly so many bytes from some. Raises SessionFailed."""
        ...
