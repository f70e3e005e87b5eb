"""Checks of form: bounds on every field of an operation, before anything is looked up.

All input is hostile; each check raises InvalidInput (rule ``invalid-input``) or InvalidName (rule
``invalid-name``) and nothing else. Character classes are listed, not looked up: Unicode tables differ
between versions of Python, and refusals are replicated.

Lists are looked at as slices: iterating over a repeated field ends with an exception, dearer than most checks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from governance.permissions import DEVICE_ROLES, PERSON_ROLES
from koinon.errors import InvalidInput
from koinon.limits import (
    MAX_CODE,
    MAX_CODES,
    MAX_COLUMNS,
    MAX_KEYWORD,
    MAX_KEYWORDS,
    MAX_PERIOD_MS,
    MAX_PRICE,
    MAX_PURPOSES,
    MAX_ROWS,
    MAX_RULE,
    MAX_TEXT,
    MAX_THEME_CODE,
    MAX_THEMES,
    MAX_TITLE,
    MAX_UNIT,
    MAX_VALIDATORS,
)
from koinon.names import UNPRINTABLE, DatasetName, PersonId, check_address, check_column, check_institution
from koinon.v1.catalog_pb2 import AccessMode, Column, ColumnType, PublishDataset, TaskOperation
from koinon.v1.identity_pb2 import Person
from koinon.v1.points_pb2 import PRICE_UNIT_PERIOD, PRICE_UNIT_ROW, Price, PriceUnit

_PRICE_UNITS = range(1, max(PriceUnit.values()) + 1)
_RULE = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_RULE - 1}}}")
_KEY_BYTES = 32
_OPERATIONS = range(1, max(TaskOperation.values()) + 1)
_COLUMN_TYPES = range(1, max(ColumnType.values()) + 1)
_ACCESS_MODES = range(1, max(AccessMode.values()) + 1)


def text(field: str, value: str, limit: int, *, required: bool = True) -> str:
    """Free text of at most ``limit`` characters, public to members."""
    if not value:
        if required:
            hint = f"say something in 1 to {limit} characters; members can read it"
            raise InvalidInput(f"{field} is empty", hint=hint)
        return value
    if len(value) > limit:
        raise InvalidInput(f"{field} has {len(value)} characters", hint=f"at most {limit} are allowed")
    if UNPRINTABLE.search(value):
        raise InvalidInput(f"{field} has control characters", hint="use plain text")
    return value


def exactly(field: str, value: bytes, size: int) -> None:
    """A key or digest of fixed size in bytes."""
    if len(value) != size:
        raise InvalidInput(f"{field} has {len(value)} bytes", hint=f"exactly {size} are expected")


def between(field: str, value: int, least: int, most: int) -> None:
    """An integer in a closed range."""
    if not least <= value <= most:
        raise InvalidInput(f"{field} is {value}", hint=f"use {least} to {most}")


def ascending(field: str, values: Sequence[str] | Sequence[int]) -> None:
    """Strictly ascending: one order for one meaning, and nothing twice."""
    if len(values) > 1 and any(not a < b for a, b in pairwise(values)):  # type: ignore[operator]  # both of one type
        raise InvalidInput(f"{field} are not in ascending order, or one is there twice", hint="sort them")


def distinct(field: str, values: Collection[str]) -> None:
    """Nothing twice."""
    if len(values) > 1 and len(set(values)) != len(values):
        raise InvalidInput(f"{field} has an entry twice", hint="name each once")


def operations(values: Sequence[int]) -> None:
    """A non-empty, strictly ascending list of known task operations."""
    if not values:
        raise InvalidInput("operations are empty", hint="name at least one, e.g. COUNT")
    ascending("operations", values)
    if values[0] not in _OPERATIONS or values[-1] not in _OPERATIONS:
        raise InvalidInput("operations name an unknown one", hint="use those of this version of Koinon")


def columns(values: Sequence[str]) -> None:
    """Strictly ascending column names; whether empty is allowed depends on the field."""
    if len(values) > MAX_COLUMNS:
        raise InvalidInput(f"{len(values)} columns are named", hint=f"at most {MAX_COLUMNS} are allowed")
    for value in values[:]:
        check_column(value)
    ascending("columns", values)


def purposes(values: Sequence[str]) -> None:
    """A non-empty, strictly ascending list of purposes, each in words of its own."""
    if not 1 <= len(values) <= MAX_PURPOSES:
        raise InvalidInput(f"{len(values)} purposes are named", hint=f"say what for, in 1 to {MAX_PURPOSES} ways")
    for value in values[:]:
        text("a purpose", value, MAX_TEXT)
    between("the length of all purposes together", sum(map(len, values)), 1, MAX_TEXT)
    ascending("purposes", values)


def themes(codes: Sequence[str]) -> None:
    """Strictly ascending codes of themes; whether the taxonomy has them is asked later."""
    if len(codes) > MAX_THEMES:
        raise InvalidInput(f"{len(codes)} themes are named", hint=f"at most {MAX_THEMES} are allowed")
    for code in codes[:]:
        text("a theme", code, MAX_THEME_CODE)
    ascending("themes", codes)


def rule(value: str) -> None:
    """The name of a rule. By form only: which words exist differs between versions, what is on the ledger does not."""
    if not _RULE.fullmatch(value):
        raise InvalidInput("rule is not the name of a rule", hint="use a word of koinon.rules")


def addresses(peer: str, rpc: str, mpc: str) -> None:
    """The three places where an institution's node listens."""
    for address in (peer, rpc, mpc):
        check_address(address)
    distinct("addresses", (peer, rpc, mpc))


def person(value: Person) -> PersonId:
    """A person or device as registered: well-formed id, key, and roles that people may have, or devices."""
    name = PersonId.parse(value.id)
    exactly("public_key", value.public_key, _KEY_BYTES)
    if value.revoked:
        raise InvalidInput("a person cannot be registered as revoked", hint="leave `revoked` unset")
    if not value.roles or not any(set(value.roles) <= set(roles) for roles in (PERSON_ROLES, DEVICE_ROLES)):
        raise InvalidInput(
            "roles are not those of a person, or of a device",
            hint="give one or more of operator, analyst, regulator; to a device gateway or feeder",
        )
    ascending("roles", value.roles)
    return name


def publication(value: PublishDataset) -> DatasetName:
    """A dataset's descriptor; what its policy promises is checked against the parameters by the catalog."""
    name = DatasetName.parse(value.name)
    text("title", value.title, MAX_TITLE)
    text("description", value.description, MAX_TEXT, required=False)
    text("license", value.license, MAX_TITLE, required=False)
    text("citation", value.citation, MAX_TEXT, required=False)
    keywords, described, policy = value.keywords, value.columns, value.policy
    if len(keywords) > MAX_KEYWORDS:
        raise InvalidInput(f"{len(keywords)} keywords", hint=f"at most {MAX_KEYWORDS} are allowed")
    for keyword in keywords[:]:
        text("a keyword", keyword, MAX_KEYWORD)
    distinct("keywords", keywords)
    if not 1 <= len(described) <= MAX_COLUMNS:
        raise InvalidInput(f"{len(described)} columns", hint=f"a dataset has 1 to {MAX_COLUMNS}")
    names = [_column(column) for column in described[:]]
    distinct("columns", [name.lower() for name in names])  # SQL does not tell them apart by case
    between("row_count", value.row_count, 0, MAX_ROWS)
    between("row_count_step", value.row_count_step, 1, MAX_ROWS)
    if value.row_count % value.row_count_step:
        raise InvalidInput(
            f"row_count {value.row_count} is no multiple of row_count_step {value.row_count_step}",
            hint="round it down to one",
        )
    if policy.mode not in _ACCESS_MODES:
        raise InvalidInput("the access mode is missing or unknown", hint="use auto or review")
    operations(policy.operations)
    institutions = policy.auto_institutions
    if len(institutions) > MAX_VALIDATORS:
        raise InvalidInput("the policy names too many institutions", hint=f"at most {MAX_VALIDATORS}; or use auto")
    for institution in institutions[:]:
        check_institution(institution)
    ascending("auto_institutions", institutions)
    themes(value.themes)
    exactly("commitment", value.commitment, _KEY_BYTES)
    if value.HasField("price"):
        price(value.price, value.row_count)
    return name


def price(value: Price, rows: int) -> None:
    """A price of a dataset with this many published rows."""
    between("the unit of the price", value.unit, _PRICE_UNITS[0], _PRICE_UNITS[-1])
    between("the price", value.points, 1, MAX_PRICE)
    if value.unit == PRICE_UNIT_ROW:
        between("the price of all rows together", value.points * rows, 0, MAX_PRICE)
    if value.unit == PRICE_UNIT_PERIOD:
        between("the period of the price, in ms,", value.period_ms, 1, MAX_PERIOD_MS)
    elif value.period_ms:
        raise InvalidInput("only a price per period has a period", hint="leave period_ms unset")


def _column(column: Column) -> str:
    name = check_column(column.name)
    if column.type not in _COLUMN_TYPES:
        raise InvalidInput(f"column {name} has no known type", hint="use a type of this version of Koinon")
    text("the unit of a column", column.unit, MAX_UNIT, required=False)
    text("the description of a column", column.description, MAX_TEXT, required=False)
    codes = column.codelist
    if len(codes) > MAX_CODES:
        raise InvalidInput(f"the codelist of {name} has {len(codes)} codes", hint=f"at most {MAX_CODES}")
    for code in codes[:]:
        text("a code", code, MAX_CODE)
    distinct("a codelist", codes)
    return name
