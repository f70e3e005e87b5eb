"""Names of institutions, people and data, and what makes one well formed.

- institution: ``um``
- person: ``um/operator``
- dataset: ``um.ercp.indo_rct``; without the institution, ``ercp.indo_rct``, every institution's table of that name

Messages quote names with ``ascii()``: refusals are replicated, and ``repr()`` depends on the Unicode
tables of the Python version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from koinon.canonical import ID_BYTES
from koinon.errors import InvalidName
from koinon.limits import MAX_INSTITUTION_ID, MAX_NAME_PART

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that no text on the ledger or in a plan may hold: control characters but tab and newline, and those that
reorder text on a reader's terminal. Listed here, and not asked of Python, whose own answer differs between versions."""

_INSTITUTION = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_INSTITUTION_ID - 1}}}")
_PART = re.compile(rf"[a-z][a-z0-9_]{{0,{MAX_NAME_PART - 1}}}")
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})")
_COLUMN = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_NAME_PART - 1}}}")


def check_institution(text: str) -> str:
    """Return ``text`` if it is a well-formed institution id. Raises InvalidName."""
    if not _INSTITUTION.fullmatch(text):
        raise InvalidName(
            f"{text!a} is not an institution id",
            hint="use lower-case letters, digits and hyphens, starting with a letter, at most "
            f"{MAX_INSTITUTION_ID} characters",
        )
    return text


def check_column(text: str) -> str:
    """Return ``text`` if it is a well-formed column name. Raises InvalidName."""
    if not _COLUMN.fullmatch(text):
        raise InvalidName(
            f"{text!a} is not a column name Koinon accepts",
            hint="rename the column: letters, digits and underscores, not starting with a digit",
        )
    return text


def check_id(text: str) -> str:
    """Return ``text`` if it is the full id of a request, token or task. Raises InvalidName."""
    if not _ID.fullmatch(text):
        raise InvalidName(
            f"{text!a} is not an id", hint=f"an id is {2 * ID_BYTES} hexadecimal digits, as the lists of `koinon` show"
        )
    return text


def check_address(text: str) -> str:
    """Return ``text`` if it is ``host:port``, an IPv6 host in brackets. Raises InvalidName."""
    match = _ADDRESS.fullmatch(text)
    if not match or not 0 < int(match[1]) < 65536:
        raise InvalidName(f"{text!a} is not an address", hint="write it as host:port, e.g. node.um.example:7101")
    return text


@dataclass(frozen=True, slots=True, order=True)
class PersonId:
    """A person, as its institution chose to call it: ``um/operator``."""

    institution: str
    name: str

    @classmethod
    def parse(cls, text: str) -> PersonId:
        """Raises InvalidName."""
        institution, slash, name = text.partition("/")
        if not slash or not _INSTITUTION.fullmatch(institution) or not _INSTITUTION.fullmatch(name):
            raise InvalidName(
                f"{text!a} is not a person id",
                hint="write it as institution/name, of a-z, 0-9 and '-', a letter first: um/operator",
            )
        return cls(institution, name)

    def __str__(self) -> str:
        return f"{self.institution}/{self.name}"


@dataclass(frozen=True, slots=True, order=True)
class AccountName:
    """Whose points: ``institution:um``, ``person:um/analyst``, ``fund:consortium`` or ``union:patients``."""

    kind: str
    owner: str

    @classmethod
    def parse(cls, text: str) -> AccountName:
        """Raises InvalidName."""
        kind, _, owner = text.partition(":")
        match kind:
            case "institution" | "union" if _INSTITUTION.fullmatch(owner):
                return cls(kind, owner)
            case "person":
                return cls(kind, str(PersonId.parse(owner)))
            case "fund" if owner == "consortium":
                return cls(kind, owner)
        raise InvalidName(
            f"{text!a} is not an account",
            hint="write it as institution:um, person:um/analyst, union:patients or fund:consortium",
        )

    def __str__(self) -> str:
        return f"{self.kind}:{self.owner}"


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """``collection.table``: the same in every institution that has one."""

    collection: str
    table: str

    @classmethod
    def parse(cls, text: str) -> TableName:
        """Raises InvalidName."""
        collection, dot, table = text.partition(".")
        if not dot or not _PART.fullmatch(collection) or not _PART.fullmatch(table):
            raise InvalidName(
                f"{text!a} is not a table name",
                hint="write it as collection.table in lower-case letters, digits and underscores, e.g. ercp.indo_rct",
            )
        return cls(collection, table)

    def __str__(self) -> str:
        return f"{self.collection}.{self.table}"


@dataclass(frozen=True, slots=True, order=True)
class DatasetName:
    """``institution.collection.table``: one publisher's table."""

    institution: str
    table: TableName

    @classmethod
    def parse(cls, text: str) -> DatasetName:
        """Raises InvalidName."""
        institution, dot, rest = text.partition(".")
        if not dot or not _INSTITUTION.fullmatch(institution):
            raise InvalidName(
                f"{text!a} is not a dataset name",
                hint="write it as institution.collection.table, e.g. um.ercp.indo_rct",
            )
        return cls(institution, TableName.parse(rest))

    def __str__(self) -> str:
        return f"{self.institution}.{self.table}"


def parse_source(text: str) -> DatasetName | TableName:
    """A table as a query names it: with the institution or without. Raises InvalidName."""
    return DatasetName.parse(text) if text.count(".") == 2 else TableName.parse(text)


def tls_name(institution: str) -> str:
    """DNS name in the certificate of the institution's node: what a client that pins it asks TLS for."""
    return f"{institution}.koinon"
