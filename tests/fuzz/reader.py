"""An input as a stream of choices."""

from __future__ import annotations


class Reader:
    """Reads choices off the front; an exhausted input answers with zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, as many as there are."""
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken

    def below(self, bound: int) -> int:
        """A number from 0 to bound - 1."""
        return int.from_bytes(self.take(1 if bound <= 256 else 2), "big") % bound
