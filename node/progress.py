"""When things last happened at this node, by its own monotonic clock: what "for how long" is answered from. Pure.

Consensus needs none of this and does not see it; people do (`koinon why-stalled`, metrics). Times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_WINDOW_MS = 60_000  # within which the slowest write is remembered


@dataclass(slots=True)
class Progress:
    """Fed by the runtime, on one thread; every ``now_ms`` is of one monotonic clock."""

    now_ms: int  # of the start
    committed_at_ms: int = field(init=False)  # the last block, or the start
    height_at_ms: int = field(init=False)  # the height being decided began
    round_at_ms: int = field(init=False)
    _height: int = 0  # of the round that began last
    _clocks: dict[str, int] = field(default_factory=dict)  # by institution, in this height
    _clocks_before: dict[str, int] = field(default_factory=dict)  # in the height before
    _slowest: tuple[int, int] = (0, 0)  # (window, ms)
    _slowest_before: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.committed_at_ms = self.height_at_ms = self.round_at_ms = self.now_ms

    def committed(self, now_ms: int) -> None:
        """A block was decided."""
        self.committed_at_ms = now_ms
        if self._clocks:
            self._clocks_before, self._clocks = self._clocks, {}

    def round_began(self, height: int, now_ms: int) -> None:
        """A round of this height began here."""
        if height != self._height:
            self._height, self.height_at_ms = height, now_ms
        self.round_at_ms = now_ms

    def heard_vote(self, institution: str, ahead_ms: int) -> None:
        """A validator's own vote came, made when its clock was so far ahead of ours.

        Votes arrive late and are repeated, so of one height the greatest difference is the truest. An institution
        says what it likes about its clock: this only informs people.
        """
        self._clocks[institution] = max(ahead_ms, self._clocks.get(institution, ahead_ms))

    def clocks(self) -> dict[str, int]:
        """By institution, how far ahead of ours its clock seems: within a second or two, that is no difference.

        While a height is undecided its votes may be old ones, repeated: they make no clock later than it was.
        """
        before = self._clocks_before
        return before | {name: ahead for name, ahead in self._clocks.items() if ahead > min(0, before.get(name, 0))}

    def synced(self, took_ms: int, now_ms: int) -> None:
        """The write-ahead log was made durable."""
        window = now_ms // _WINDOW_MS
        if window != self._slowest[0]:
            self._slowest_before, self._slowest = self._slowest, (window, 0)
        self._slowest = (window, max(took_ms, self._slowest[1]))

    def slowest_sync_ms(self, now_ms: int) -> int:
        """Of the last minute, and of up to one more."""
        window = now_ms // _WINDOW_MS
        return max((took for at, took in (self._slowest, self._slowest_before) if at >= window - 1), default=0)
