"""The audit trail by dimension: what a record is about, and which records a filter means. Pure.

A record's dimensions follow from its own fields, whatever its kind:

==============  ==========================================================================================
``kind``        the transition, ``token.granted``; ``token.*`` is the family
``actor``       who caused it: a person, an institution's node, or ``ledger``
``outcome``     the state it led to: ``granted``, ``completed``, ``failed``
``day``         of block time, in UTC: ``2026-11-21``
``purpose``     what for, in the asker's words: of the task that the record is about, or else the token, or the request
``person``      who acted or is concerned
``institution`` whose person or node acted, whose data or people are concerned
any other       the kind of a subject: ``dataset``, ``token``, ``task``, ``request``, ``proposal``, ``account`` …
==============  ==========================================================================================

A subject is ``kind:id``. A kind that comes into use tomorrow is a dimension tomorrow.
Filters come from outside and are checked by ``check``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import TypedDict, Unpack

from koinon.errors import InvalidInput
from koinon.limits import MAX_FILTER_DIMENSIONS, MAX_FILTER_TEXT, MAX_FILTER_VALUES, MAX_NAME_PART, MAX_TEXT
from koinon.names import UNPRINTABLE
from koinon.v1.audit_pb2 import AuditRecord, DimensionFilter, ReadingKind, RecordFilter

ANYTHING = RecordFilter()
"""The filter that every record fits."""

OF_ALL = ("kind", "actor", "outcome", "day", "purpose")
"""Dimensions that are no subjects."""

_OWNERS = ("fund", "institution", "person", "union")
"""Kinds of subjects that have accounts."""

Dimension = tuple[str, str]
"""A name and a value."""

_DAY_MS = 86_400_000
_BEGINNING = re.compile(r"(?:request|token|task|proposal|dispute|demand):[0-9a-f]{1,31}")


def dimensions(record: AuditRecord) -> set[Dimension]:
    """Everything a record can be found by, but its purpose, which only the ledger knows."""
    found = set(_of_transition(record.kind, record.actor, record.to_state, record.time_ms // _DAY_MS))
    for subject in (record.subject, *record.related[:]):
        found.update(of_subject(subject))
    for posting in record.postings[:]:
        found.update(of_subject(f"account:{posting.account}"))
    return found


@lru_cache(maxsize=20_000)
def of_subject(subject: str) -> tuple[Dimension, ...]:
    """The dimensions of one subject: itself, what it names, and the institution it belongs to.

    ``account:person:um/ada`` is an account, a person and an institution. Nothing else names more than itself: a reading
    may name any text, with a thousand colons in it.
    """
    kind, _, name = subject.partition(":")
    if not name:
        return ()
    owner, colon, _ = name.partition(":")
    if colon:
        return ((kind, name), *(of_subject(name) if kind == "account" and owner in _OWNERS else ()))
    institution = _institution(kind, name)
    return ((kind, name), ("institution", institution)) if institution else ((kind, name),)


@lru_cache(maxsize=20_000)
def _of_transition(kind: str, actor: str, outcome: str, day: int) -> tuple[Dimension, ...]:
    """The dimensions of what happened: most of one day's records share theirs with others."""
    found = [("kind", kind), ("actor", actor), ("day", _date(day))]
    if outcome:
        found.append(("outcome", outcome))
    if "/" in actor:
        found += of_subject(f"person:{actor}")
    elif actor != "ledger":
        found.append(("institution", actor))
    return tuple(found)


def _institution(kind: str, name: str) -> str:
    """Whose a person or dataset is."""
    if "/" in name:
        return name.partition("/")[0]
    return name.partition(".")[0] if kind == "dataset" else ""


def _date(days: int) -> str:
    """The date so many days after 1970-01-01, by integers alone: contracts, which know no clock, import this file.

    Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days: eras of 400 years from 0000-03-01.
    """
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # from March
    day = of_year - (153 * month + 2) // 5 + 1
    return f"{era * 400 + year + (month >= 10):04}-{month + 3 if month < 10 else month - 9:02}-{day:02}"


# --- filters


class Words(TypedDict, total=False):
    """How a person names records, beside their subject."""

    actor: str
    kind: str  # exact, or a family: "token", "token." or "token.*"
    where: Mapping[str, str | Collection[str]]  # by any dimension: one value, or several of which one must fit
    since_ms: int  # block time, included
    until_ms: int  # not included; 0: no end
    from_index: int
    until_index: int  # not included; 0: no end


def make(subject: str = "", **words: Unpack[Words]) -> RecordFilter:
    """A filter from a person's words; ``subject`` is ``kind:id``. Raises InvalidInput."""
    wanted: dict[str, set[str]] = {}
    for name, value in words.get("where", {}).items():
        wanted.setdefault(name, set()).update([value] if isinstance(value, str) else value)
    if subject:
        name, colon, value = subject.partition(":")
        if not colon:
            raise InvalidInput(f"{subject!a} is no subject", hint="write KIND:ID, as in dataset:um.ercp.indo_rct")
        wanted.setdefault(name, set()).add(value)
    if actor := words.get("actor"):
        wanted.setdefault("actor", set()).add(actor)
    if kind := words.get("kind"):
        if "." not in kind and not kind.endswith("*"):  # every kind has a family
            kind += "."
        wanted.setdefault("kind", set()).add(kind + "*" if kind.endswith(".") else kind)
    made = RecordFilter(
        dimensions=[DimensionFilter(dimension=name, values=sorted(wanted[name])) for name in sorted(wanted)],
        since_ms=words.get("since_ms", 0),
        until_ms=words.get("until_ms", 0),
        from_index=words.get("from_index", 0),
        until_index=words.get("until_index", 0),
    )
    check(made)
    return made


def beginning(subject: str) -> str:
    """``task:58dd81ea25``, as tables show it, as a filter for every id that begins so; any other subject as it is."""
    return f"{subject}*" if _BEGINNING.fullmatch(subject) else subject


def check(of: RecordFilter) -> None:
    """Bounds on a filter from anywhere. Raises InvalidInput."""
    if len(of.dimensions) > MAX_FILTER_DIMENSIONS:
        raise InvalidInput(
            f"the filter has {len(of.dimensions)} dimensions", hint=f"at most {MAX_FILTER_DIMENSIONS} are allowed"
        )
    _check_order("dimensions", [item.dimension for item in of.dimensions])
    for item in of.dimensions:
        if not 1 <= len(item.values) <= MAX_FILTER_VALUES:
            raise InvalidInput(
                f"the filter names {len(item.values)} values of {item.dimension!a}",
                hint=f"name 1 to {MAX_FILTER_VALUES}; one that ends in * stands for every value that begins so",
            )
        _check_order(f"values of {item.dimension!a}", item.values)
        _check_text(item.dimension, MAX_NAME_PART)
        for value in item.values:
            _check_text(value, MAX_TEXT)
    if sum(len(value.encode()) for item in of.dimensions for value in item.values) > MAX_FILTER_TEXT:
        raise InvalidInput("the filter's values are too long", hint=f"at most {MAX_FILTER_TEXT} bytes in all")
    if of.since_ms < 0 or of.until_ms < 0:
        raise InvalidInput("the filter has a time before 1970", hint="times are milliseconds since then")


def _check_order(what: str, values: Iterable[str]) -> None:
    listed = list(values)
    if listed != sorted(set(listed)):
        raise InvalidInput(f"the filter's {what} are not in ascending order, or one is there twice", hint="sort them")


def _check_text(text: str, limit: int) -> None:
    if not 1 <= len(text) <= limit or UNPRINTABLE.search(text):
        raise InvalidInput(
            "a text of the filter is empty, too long or has control characters", hint=f"write 1 to {limit} characters"
        )


def matches(of: RecordFilter, record: AuditRecord, found: Collection[Dimension]) -> bool:
    """Does a record with these dimensions fit? The written-out meaning of a filter."""
    return (
        _within(record.index, of.from_index, of.until_index)
        and _within(record.time_ms, of.since_ms, of.until_ms)
        and all(any(_fits(item, dimension) for dimension in found) for item in of.dimensions)
    )


def _within(value: int, first: int, end: int) -> bool:
    return first <= value and (not end or value < end)


def _fits(item: DimensionFilter, dimension: Dimension) -> bool:
    name, value = dimension
    return name == item.dimension and any(
        value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted for wanted in item.values
    )


def covers(wide: RecordFilter, narrow: RecordFilter) -> bool:
    """Does everything that ``narrow`` asks for lie in ``wide``: the same dimensions, within its ranges?"""

    def inside(first: int, end: int, wide_first: int, wide_end: int) -> bool:
        return wide_first <= first and (not wide_end or 0 < end <= wide_end)

    return (
        list(wide.dimensions) == list(narrow.dimensions)
        and inside(narrow.from_index, narrow.until_index, wide.from_index, wide.until_index)
        and inside(narrow.since_ms, narrow.until_ms, wide.since_ms, wide.until_ms)
    )


def subjects(of: RecordFilter) -> list[str]:
    """The subjects that a filter names: whom a reading of it concerns. Ascending."""
    named = set[str]()
    for item in of.dimensions:
        kind = "person" if item.dimension == "actor" else item.dimension
        if kind not in OF_ALL:
            named.update(f"{kind}:{value}" for value in item.values if not value.endswith("*"))
    return sorted(named)


def describe(kind: ReadingKind.ValueType, of: RecordFilter) -> str:
    """A filter in words that mean one filter only, for the record of a reading."""
    parts = [ReadingKind.Name(kind).removeprefix("READING_KIND_").lower()]
    parts += [f"{item.dimension}={'|'.join(item.values)}" for item in of.dimensions]
    for name, value in (
        ("since", of.since_ms),
        ("until", of.until_ms),
        ("from", of.from_index),
        ("below", of.until_index),
    ):
        if value:
            parts.append(f"{name}={value}")
    return " ".join(parts)
