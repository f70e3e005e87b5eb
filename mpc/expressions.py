"""Scalar expressions that a joint query may hold: a closed tree, its types, and its one way of being written.

The tree is Koinon's own, so that what reaches an owner's engine was written by ``render`` and by nothing else: a
construct that is not in ``OPERATORS`` cannot be said. Every operator is deterministic and looks at one row only.

The language has the catalog's six types. Integers are 64-bit, decimals are doubles (``1.5`` is written ``1.5e0``), text
compares by code point. NULL has no type of its own and fits any; all operators treat it as SQL does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from koinon.errors import UnsupportedQuery
from koinon.names import UNPRINTABLE
from koinon.v1.catalog_pb2 import (
    COLUMN_TYPE_BOOLEAN,
    COLUMN_TYPE_DATE,
    COLUMN_TYPE_DECIMAL,
    COLUMN_TYPE_INTEGER,
    COLUMN_TYPE_TEXT,
    COLUMN_TYPE_TIMESTAMP,
    COLUMN_TYPE_UNSPECIFIED,
    ColumnType,
)

Type: TypeAlias = ColumnType.ValueType

NULL = COLUMN_TYPE_UNSPECIFIED
BOOLEAN = COLUMN_TYPE_BOOLEAN
INTEGER = COLUMN_TYPE_INTEGER
DECIMAL = COLUMN_TYPE_DECIMAL
TEXT = COLUMN_TYPE_TEXT
DATE = COLUMN_TYPE_DATE
TIMESTAMP = COLUMN_TYPE_TIMESTAMP

TYPE_WORDS: Mapping[Type, str] = {
    NULL: "NULL",
    BOOLEAN: "boolean",
    INTEGER: "integer",
    DECIMAL: "decimal",
    TEXT: "text",
    DATE: "date",
    TIMESTAMP: "timestamp",
}
CAST_TYPES: Mapping[str, Type] = {
    "BOOLEAN": BOOLEAN,
    "SMALLINT": INTEGER,
    "INTEGER": INTEGER,
    "BIGINT": INTEGER,
    "DOUBLE": DECIMAL,
    "VARCHAR": TEXT,
    "DATE": DATE,
    "TIMESTAMP": TIMESTAMP,
}
DATE_PARTS = frozenset({"year", "quarter", "month", "week", "day", "hour", "minute", "second"})

UNWRITABLE = re.compile(r"[\t\n]|" + UNPRINTABLE.pattern)
"""Characters that no text literal and no code of a codelist may hold."""

_NUMBER = frozenset({NULL, INTEGER, DECIMAL})
_INTEGER = frozenset({NULL, INTEGER})
_BOOLEAN = frozenset({NULL, BOOLEAN})
_TEXT = frozenset({NULL, TEXT})
_TIME = frozenset({NULL, DATE, TIMESTAMP})
_ANY = frozenset(TYPE_WORDS)
_ISO_DATE = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
_ISO_TIME = re.compile(_ISO_DATE.pattern + r"([ T]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?)?")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table, as the query spells it."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: its type and its text (of a number, unsigned; NULL, true and false have theirs)."""

    type: Type
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operator of ``OPERATORS`` and its arguments, in order."""

    operator: str
    arguments: tuple[Expression, ...]


Expression = Column | Constant | Call

Spelling = Callable[[str], str]
"""From a column's name as the query spells it to the name to write."""


@dataclass(frozen=True, slots=True)
class Operator:
    """What an operator takes and gives. The last of ``accepts`` stands for all further arguments, up to ``most``."""

    accepts: tuple[frozenset[Type], ...]
    least: int
    most: int
    result: Type | None  # None: the common type of all arguments
    alike: bool  # all arguments must have a common type
    write: Callable[[list[str]], str]
    compound: bool  # put in parentheses inside an operator that wraps
    wraps: bool  # puts compound arguments in parentheses


def _function(
    name: str, *accepts: frozenset[Type], result: Type | None, least: int = 0, most: int = 0, wraps: bool = False
) -> Operator:
    def write(arguments: list[str]) -> str:
        return f"{name}({', '.join(arguments)})"

    count = len(accepts)
    return Operator(accepts, least or count, most or count, result, result is None, write, compound=False, wraps=wraps)


def _infix(word: str, accepts: frozenset[Type], *, result: Type | None, most: int = 2) -> Operator:
    def write(arguments: list[str]) -> str:
        return f" {word} ".join(arguments)

    alike = accepts is _ANY or result is None
    return Operator((accepts,), 2, most, result, alike, write, compound=True, wraps=True)


def _predicate(
    accepts: frozenset[Type], write: Callable[[list[str]], str], *, least: int = 1, most: int = 1
) -> Operator:
    return Operator((accepts,), least, most, BOOLEAN, least > 1, write, compound=True, wraps=True)


def _write_case(arguments: list[str]) -> str:
    *pairs, default = arguments
    whens = [f"WHEN {when} THEN {then}" for when, then in zip(pairs[::2], pairs[1::2], strict=True)]
    return " ".join(["CASE", *whens, f"ELSE {default}", "END"])


def _cast(word: str, name: str, result: Type) -> Operator:
    def write(arguments: list[str]) -> str:
        return f"{word}({arguments[0]} AS {name})"

    return Operator((_ANY,), 1, 1, result, False, write, compound=False, wraps=False)


def _date_part(part: str) -> Operator:
    def write(arguments: list[str]) -> str:
        return f"DATE_PART('{part}', {arguments[0]})"

    return Operator((_TIME,), 1, 1, INTEGER, False, write, compound=False, wraps=False)


def _date_diff(part: str) -> Operator:
    def write(arguments: list[str]) -> str:
        return f"DATE_DIFF('{part}', {', '.join(arguments)})"

    return Operator((_TIME,), 2, 2, INTEGER, True, write, compound=False, wraps=False)


_MANY = 1_000  # the parser bounds the whole query's size

OPERATORS: Mapping[str, Operator] = {
    "+": _infix("+", _NUMBER, result=None, most=_MANY),
    **{word: _infix(word, _NUMBER, result=None) for word in ("-", "*", "%")},
    "/": _infix("/", _NUMBER, result=DECIMAL),
    "//": _infix("//", _INTEGER, result=INTEGER),
    "NEGATIVE": Operator((_NUMBER,), 1, 1, None, True, lambda a: f"-{a[0]}", compound=True, wraps=True),
    **{
        word: _infix(word, _ANY, result=BOOLEAN)
        for word in ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")
    },
    "AND": _infix("AND", _BOOLEAN, result=BOOLEAN, most=_MANY),
    "OR": _infix("OR", _BOOLEAN, result=BOOLEAN, most=_MANY),
    "NOT": _predicate(_BOOLEAN, lambda a: f"NOT {a[0]}"),
    "IS NULL": _predicate(_ANY, lambda a: f"{a[0]} IS NULL"),
    "IS TRUE": _predicate(_BOOLEAN, lambda a: f"{a[0]} IS TRUE"),
    "IS FALSE": _predicate(_BOOLEAN, lambda a: f"{a[0]} IS FALSE"),
    "BETWEEN": _predicate(_ANY, lambda a: f"{a[0]} BETWEEN {a[1]} AND {a[2]}", least=3, most=3),
    "IN": _predicate(_ANY, lambda a: f"{a[0]} IN ({', '.join(a[1:])})", least=2, most=_MANY),
    "LIKE": _infix("LIKE", _TEXT, result=BOOLEAN),
    "ILIKE": _infix("ILIKE", _TEXT, result=BOOLEAN),
    "||": _infix("||", _TEXT, result=TEXT, most=_MANY),
    "CASE": Operator((_ANY,), 3, _MANY, None, False, _write_case, compound=False, wraps=False),  # typed by _case
    "COALESCE": _function("COALESCE", _ANY, result=None, least=1, most=_MANY),
    "NULLIF": _function("NULLIF", _ANY, _ANY, result=None),
    "GREATEST": _function("GREATEST", _ANY, result=None, least=1, most=_MANY),
    "LEAST": _function("LEAST", _ANY, result=None, least=1, most=_MANY),
    "ABS": _function("ABS", _NUMBER, result=None),
    "ROUND": _function("ROUND", _NUMBER, _INTEGER, result=DECIMAL, least=1),
    **{name: _function(name, _NUMBER, result=DECIMAL) for name in ("FLOOR", "CEIL", "TRUNC")},
    **{name: _function(name, _NUMBER, result=DECIMAL) for name in ("SQRT", "LN", "LOG2", "LOG10", "EXP")},
    "SIGN": _function("SIGN", _NUMBER, result=INTEGER),
    "POWER": _function("POWER", _NUMBER, _NUMBER, result=DECIMAL),
    **{name: _function(name, _TEXT, result=TEXT) for name in ("LOWER", "UPPER")},
    **{name: _function(name, _TEXT, result=TEXT, wraps=True) for name in ("TRIM", "LTRIM", "RTRIM")},
    "LENGTH": _function("LENGTH", _TEXT, result=INTEGER),
    "SUBSTRING": _function("SUBSTRING", _TEXT, _INTEGER, _INTEGER, result=TEXT, least=2, wraps=True),
    **{
        name: _function(name, _TEXT, _TEXT, result=BOOLEAN)
        for name in ("STARTS_WITH", "ENDS_WITH", "CONTAINS", "REGEXP_MATCHES", "REGEXP_FULL_MATCH")
    },
    **{f"DATE_PART {part}": _date_part(part) for part in sorted(DATE_PARTS)},
    **{f"DATE_DIFF {part}": _date_diff(part) for part in sorted(DATE_PARTS)},
    **{f"CAST {name}": _cast("CAST", name, result) for name, result in CAST_TYPES.items()},
    **{f"TRY_CAST {name}": _cast("TRY_CAST", name, result) for name, result in CAST_TYPES.items()},
}


_TOTAL = {
    *("+", "-", "*", "NEGATIVE", "ABS", "ROUND", "FLOOR", "CEIL", "=", "<>", "<", "<=", ">", ">=", "BETWEEN", "IN"),
    *("AND", "OR", "NOT", "LIKE", "ILIKE", "||", "LOWER", "UPPER", "LENGTH", "STARTS_WITH", "ENDS_WITH", "CONTAINS"),
    *(f"CAST {name}" for name in CAST_TYPES),
}
"""Operators that give a value for any values: NULL comes out only where NULL went in."""

_NEVER_NULL = {"IS NULL", "IS TRUE", "IS FALSE", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"}


def never_null(expression: Expression, nullable: Mapping[str, bool]) -> bool:
    """Whether no row can make the expression NULL, as far as this can be told; ``nullable`` by column."""
    match expression:
        case Column(name):
            return not nullable[name]
        case Constant():
            return expression.type != NULL
        case Call("CASE", arguments):
            return all(never_null(value, nullable) for value in (*arguments[1::2], arguments[-1]))
        case Call("COALESCE", arguments):
            return any(never_null(argument, nullable) for argument in arguments)
        case Call(operator, arguments):
            total = operator in _TOTAL and all(never_null(argument, nullable) for argument in arguments)
            return total or operator in _NEVER_NULL


def common_type(types: tuple[Type, ...]) -> Type | None:
    """The type that all of these fit, None when there is none: integers fit decimals, dates fit timestamps."""
    known = set(types) - {NULL}
    if len(known) <= 1:
        return next(iter(known), NULL)
    if known <= _NUMBER:
        return DECIMAL
    return TIMESTAMP if known <= _TIME else None


def type_check(expression: Expression, columns: Mapping[str, Type]) -> tuple[Expression, Type]:
    """The expression with every conversion written out, and its type; ``columns`` holds every column it names.

    Raises UnsupportedQuery, naming operator and types.
    """
    match expression:
        case Column(name):
            return expression, columns[name]
        case Constant():
            return expression, expression.type
        case Call(operator, arguments):
            checked = [type_check(argument, columns) for argument in arguments]
            spec = OPERATORS[operator]
            if spec.alike:
                checked = _dates_from_text(checked)
            types = tuple(kind for _, kind in checked)
            result = _case(types) if operator == "CASE" else _result(spec, types)
            if result is None:
                words = ", ".join(TYPE_WORDS[kind] for kind in types)
                raise UnsupportedQuery(
                    f"{operator} does not go with ({words})",
                    hint="compare and combine values of one type; CAST(column AS type) converts",
                )
            return Call(operator, tuple(argument for argument, _ in checked)), result


def _result(spec: Operator, types: tuple[Type, ...]) -> Type | None:
    if not spec.least <= len(types) <= spec.most:
        return None
    for index, kind in enumerate(types):
        if kind not in spec.accepts[min(index, len(spec.accepts) - 1)]:
            return None
    if not spec.alike:
        return spec.result
    common = common_type(types)
    return common if spec.result is None or common is None else spec.result


def _case(types: tuple[Type, ...]) -> Type | None:
    *pairs, default = types
    if not set(pairs[::2]) <= _BOOLEAN:
        return None
    return common_type((*pairs[1::2], default))


def _dates_from_text(checked: list[tuple[Expression, Type]]) -> list[tuple[Expression, Type]]:
    """Among dates or timestamps, a text constant is one too, as in SQL: ``born >= '1970-01-01'``."""
    times = {kind for _, kind in checked} & {DATE, TIMESTAMP}
    if not times:
        return checked
    name, target, pattern = ("DATE", DATE, _ISO_DATE) if times == {DATE} else ("TIMESTAMP", TIMESTAMP, _ISO_TIME)
    converted: list[tuple[Expression, Type]] = []
    for expression, kind in checked:
        if isinstance(expression, Constant) and kind == TEXT:
            if not pattern.fullmatch(expression.text) or not _is_day(expression.text[:10]):
                raise UnsupportedQuery(
                    f"{expression.text!a} is compared with a {TYPE_WORDS[target]} but is none",
                    hint="write dates as 'YYYY-MM-DD' and timestamps as 'YYYY-MM-DD HH:MM:SS'",
                )
            converted.append((Call(f"CAST {name}", (expression,)), target))
        else:
            converted.append((expression, kind))
    return converted


def _is_day(text: str) -> bool:
    """Whether the Gregorian calendar has this day, given as YYYY-MM-DD with a day from 1 to 31."""
    year, month, day = (int(part) for part in text.split("-"))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day <= ((29 if leap else 28) if month == 2 else 30 if month in (4, 6, 9, 11) else 31)


def render(expression: Expression, spell: Spelling = str) -> str:
    """The expression as SQL, the same at every node; ``spell`` turns a column's name into the one to write."""
    match expression:
        case Column(name):
            return quote(spell(name))
        case Constant():
            return _write_constant(expression)
        case Call(operator, arguments):
            spec = OPERATORS[operator]
            written = [render(argument, spell) for argument in arguments]
            if spec.wraps:
                written = [
                    f"({text})" if _is_compound(arg) else text for arg, text in zip(arguments, written, strict=True)
                ]
            return spec.write(written)


def _is_compound(expression: Expression) -> bool:
    return isinstance(expression, Call) and OPERATORS[expression.operator].compound


def _write_constant(constant: Constant) -> str:
    if constant.type == TEXT:
        return "'" + constant.text.replace("'", "''") + "'"
    return constant.text


def quote(name: str) -> str:
    """A name as SQL identifier. Names come from koinon.names or the parser, which let no quote through."""
    return f'"{name}"'


def columns_of(expression: Expression) -> Iterator[str]:
    """Names of the columns in the expression, left to right, with repetitions."""
    match expression:
        case Column(name):
            yield name
        case Call(_, arguments):
            for argument in arguments:
                yield from columns_of(argument)
        case Constant():
            pass
