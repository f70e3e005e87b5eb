"""How texts share the width of a terminal. Pure.

Lines are broken at spaces; inside a word only where it is longer than the column, and then after a separator
(``um.ercp.`` / ``indo_rct``), so that names stay readable; anywhere only where nothing else helps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from rich.cells import cell_len, chop_cells

_LONG_PIECE = 24  # characters of the longest that is never broken: what is longer is a digest
_SHORT_LINE = 12  # characters of a line that can still be read
_TALL = 4  # lines of a cell beside which others are still read as one row
_TALL_TEXT = 8  # the same in the last column, which is free text as a rule
_SEPARATOR = re.compile(r"""(?<=[./_:,;=-])(?=[^\W\d]|")""")  # not within numbers, dates and addresses


def fold(text: str, width: int) -> list[str]:
    """The lines of a text, none wider than ``width`` (of which a wide character takes two)."""
    if cell_len(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        if cell_len(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines += _broken(word, width)
    return [line for line in lines if line]


def _broken(word: str, width: int) -> list[str]:
    """A word on lines of its own."""
    if cell_len(word) <= width:
        return [word]
    lines = [""]
    for piece in _SEPARATOR.split(word):
        for part in chop_cells(piece, max(width, 2)):
            if cell_len(lines[-1] + part) <= width:
                lines[-1] += part
            else:
                lines.append(part)
    return lines


def natural(columns: Sequence[Sequence[str]]) -> list[int]:
    """Widths of columns of texts where nothing is folded."""
    return [max(map(cell_len, column)) for column in columns]


def fit(columns: Sequence[Sequence[str]], available: int, *, whole: bool = False) -> list[int] | None:
    """Widths of columns of texts, together at most ``available``; None if rows could not be read across then.

    The widest column gives way first, and none further than to its longest piece, or word where they are to stay
    ``whole``; the last column, which is free text as a rule, always to the former, and monsters there are broken.
    """
    *others, text = columns
    floors = [_longest(column, str.split if whole else _pieces) for column in others]
    last = _longest(text, _pieces)
    floors.append(last if last <= _LONG_PIECE else _SHORT_LINE)
    widths = natural(columns)
    while sum(widths) > available:
        spare = [width if width > floor else 0 for width, floor in zip(widths, floors, strict=True)]
        if not any(spare):
            return None
        widths[spare.index(max(spare))] -= 1
    heights = [max(len(fold(cell, width)) for cell in column) for column, width in zip(columns, widths, strict=True)]
    return widths if max(heights[:-1], default=0) <= _TALL and heights[-1] <= _TALL_TEXT else None


def _pieces(text: str) -> list[str]:
    return [piece for word in text.split() for piece in _SEPARATOR.split(word)]


def _longest(column: Sequence[str], split: Callable[[str], list[str]]) -> int:
    return max((cell_len(part) for text in column for part in split(text)), default=1)
