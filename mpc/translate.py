"""From sqlglot's tree to Koinon's: the whitelist of scalar expressions, node by node.

Every table below maps a class of sqlglot to an operator of mpc.expressions. A node whose class is in no table, and an
option of a node that is not listed, is refused by ``refuse``, which finds the words for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NoReturn

from sqlglot import exp

from koinon.errors import InvalidName, UnsupportedQuery
from koinon.limits import MAX_LITERAL
from koinon.names import check_column
from mpc.expressions import (
    BOOLEAN,
    CAST_TYPES,
    DATE_PARTS,
    DECIMAL,
    INTEGER,
    NULL,
    TEXT,
    UNWRITABLE,
    Call,
    Column,
    Constant,
    Expression,
)

_INFIX: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.IntDiv: "//",
    exp.Mod: "%",
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.NullSafeEQ: "IS NOT DISTINCT FROM",
    exp.NullSafeNEQ: "IS DISTINCT FROM",
    exp.And: "AND",
    exp.Or: "OR",
    exp.DPipe: "||",
    exp.Like: "LIKE",
    exp.ILike: "ILIKE",
}
CHAINED = (exp.And, exp.Or, exp.DPipe, exp.Add)
"""Operators whose chains become one call with many arguments."""

_FUNCTIONS: dict[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
    exp.Neg: ("NEGATIVE", ("this",)),
    exp.Not: ("NOT", ("this",)),
    exp.Between: ("BETWEEN", ("this", "low", "high")),
    exp.In: ("IN", ("this", "expressions")),
    exp.Coalesce: ("COALESCE", ("this", "expressions")),
    exp.Nullif: ("NULLIF", ("this", "expression")),
    exp.Greatest: ("GREATEST", ("this", "expressions")),
    exp.Least: ("LEAST", ("this", "expressions")),
    exp.Abs: ("ABS", ("this",)),
    exp.Round: ("ROUND", ("this", "decimals")),
    exp.Floor: ("FLOOR", ("this",)),
    exp.Ceil: ("CEIL", ("this",)),
    exp.Trunc: ("TRUNC", ("this",)),
    exp.Sqrt: ("SQRT", ("this",)),
    exp.Ln: ("LN", ("this",)),
    exp.Exp: ("EXP", ("this",)),
    exp.Sign: ("SIGN", ("this",)),
    exp.Pow: ("POWER", ("this", "expression")),
    exp.Lower: ("LOWER", ("this",)),
    exp.Upper: ("UPPER", ("this",)),
    exp.Length: ("LENGTH", ("this",)),
    exp.Substring: ("SUBSTRING", ("this", "start", "length")),
    exp.StartsWith: ("STARTS_WITH", ("this", "expression")),
    exp.EndsWith: ("ENDS_WITH", ("this", "expression")),
    exp.Contains: ("CONTAINS", ("this", "expression")),
    exp.RegexpLike: ("REGEXP_MATCHES", ("this", "expression")),
    exp.RegexpFullMatch: ("REGEXP_FULL_MATCH", ("this", "expression")),
}
_EXTRACTS: dict[type[exp.Expr], str] = {
    exp.Year: "year",
    exp.Quarter: "quarter",
    exp.Month: "month",
    exp.Week: "week",
    exp.Day: "day",
    exp.Hour: "hour",
    exp.Minute: "minute",
    exp.Second: "second",
}
_CASTS = {
    exp.DType.BOOLEAN: "BOOLEAN",
    exp.DType.SMALLINT: "SMALLINT",
    exp.DType.INT: "INTEGER",
    exp.DType.BIGINT: "BIGINT",
    exp.DType.DOUBLE: "DOUBLE",
    exp.DType.TEXT: "VARCHAR",
    exp.DType.VARCHAR: "VARCHAR",
    exp.DType.DATE: "DATE",
    exp.DType.TIMESTAMP: "TIMESTAMP",
    exp.DType.TIMESTAMPNTZ: "TIMESTAMP",
}
assert set(_CASTS.values()) == set(CAST_TYPES)
# What sqlglot notes about its own dialect, not about the query.
_NOTES = {"safe", "typed", "ignore_nulls", "coalesce", "is_left_assoc", "quoted", "_type", "requires_string"}
_DIGITS = re.compile(r"[0-9]{1,18}")
_REAL = re.compile(r"[0-9]{0,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,2})?")

_NOT_DETERMINISTIC = frozenset(
    {
        "current_database",
        "current_date",
        "current_localtime",
        "current_localtimestamp",
        "current_schema",
        "current_setting",
        "current_time",
        "current_timestamp",
        "current_user",
        "currval",
        "gen_random_uuid",
        "get_current_timestamp",
        "getenv",
        "nextval",
        "now",
        "rand",
        "random",
        "setseed",
        "today",
        "transaction_timestamp",
        "txid_current",
        "uuid",
        "version",
    }
)
_WORDS: dict[type[exp.Expr], tuple[str, str]] = {
    exp.Subquery: ("a subquery", "query the table directly"),
    exp.Select: ("a subquery", "query the table directly"),
    exp.Exists: ("EXISTS", "query the table directly"),
    exp.SetOperation: ("UNION, INTERSECT or EXCEPT", "FROM collection.table unites all institutions' tables"),
    exp.Distinct: ("DISTINCT", "GROUP BY a column with a codelist instead"),
    exp.Star: ("*", "name the columns, or use COUNT(*)"),
    exp.Columns: ("COLUMNS", "name the columns, or use COUNT(*)"),
    exp.Filter: ("FILTER", "write SUM(CASE WHEN … THEN … END)"),
    exp.Order: ("ORDER BY", "sort the result yourself"),
    exp.Placeholder: ("a parameter", "write the value into the query"),
    exp.Parameter: ("a parameter", "write the value into the query"),
    exp.Escape: ("ESCAPE", "use REGEXP_MATCHES, STARTS_WITH or CONTAINS"),
    exp.Interval: ("INTERVAL", "use DATE_DIFF('day', start, end)"),
    exp.Array: ("a list", "joint queries know plain values only"),
    exp.Struct: ("a struct", "joint queries know plain values only"),
    exp.Lambda: ("a lambda", "joint queries know plain values only"),
    exp.Tuple: ("a row value", "compare the columns one by one"),
    exp.Values: ("VALUES", "query a published table by name"),
    exp.Command: ("a command", "send one SELECT"),
    exp.Bracket: ("an element of a list", "joint queries know plain values only"),
    exp.Collate: ("COLLATE", "text compares by code point; use LOWER"),
    exp.AtTimeZone: ("AT TIME ZONE", "timestamps have no time zone"),
    exp.SimilarTo: ("SIMILAR TO", "use REGEXP_MATCHES"),
    exp.PositionalColumn: ("a column by position", "name the column"),
    exp.BitwiseAnd: ("a bit operation", "use arithmetic"),
    exp.BitwiseOr: ("a bit operation", "use arithmetic"),
    exp.BitwiseXor: ("a bit operation", "use arithmetic"),
    exp.BitwiseNot: ("a bit operation", "use arithmetic"),
    exp.BitwiseLeftShift: ("a bit operation", "use arithmetic"),
    exp.BitwiseRightShift: ("a bit operation", "use arithmetic"),
    exp.Alias: ("an alias inside an expression", "give aliases to whole items of the SELECT list"),
}
_HINT = "see the supported SQL in docs/analyst.md"


def options(node: exp.Expr, known: set[str]) -> Iterator[str]:
    """Names of what the node holds beyond ``known``."""
    for key, value in node.args.items():
        if key not in known and key not in _NOTES and value not in (None, False, []):
            yield key


def refuse(node: exp.Expr) -> NoReturn:
    """Raise UnsupportedQuery, naming what the node is."""
    if isinstance(node, exp.Window):
        raise UnsupportedQuery(
            f"the window function {name_of(node.this).upper()} is not supported",
            hint="use a plain aggregate, with GROUP BY",
        )
    name = name_of(node)
    if name in _NOT_DETERMINISTIC:
        raise UnsupportedQuery(
            f"{name}() is not deterministic: parties would compute different plans or answers",
            hint="write the value into the query",
        )
    for kind, (word, hint) in _WORDS.items():
        if isinstance(node, kind):
            raise UnsupportedQuery(f"{word} is not supported in a joint query", hint=hint)
    if isinstance(node, exp.AggFunc):
        raise UnsupportedQuery(
            f"the aggregate {name.upper()} is not supported",
            hint="COUNT, SUM, AVG, VAR_SAMP and STDDEV_SAMP are, not inside one another or WHERE",
        )
    if isinstance(node, exp.Func):
        raise UnsupportedQuery(f"the function {name} is not supported in a joint query", hint=_HINT)
    raise UnsupportedQuery(f"{name.upper()} is not supported in a joint query", hint=_HINT)


def name_of(node: exp.Expr) -> str:
    """What the query calls this node, in lower case; bounded."""
    if original := node.meta.get("name"):
        return str(original).lower()[:64]
    if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc):
        return str(node.this).lower()[:64]
    if isinstance(node, exp.Func):
        return node.sql_name().lower()
    return node.key


def translate(node: exp.Expr, qualifiers: frozenset[str]) -> Expression:
    """A scalar expression of the query; columns may be qualified by ``qualifiers``. Raises UnsupportedQuery."""
    kind = type(node)
    match node:
        case exp.Paren():
            return translate(node.this, qualifiers)
        case exp.Column():
            return _column(node, qualifiers)
        case exp.Literal() | exp.Boolean() | exp.Null():
            return _constant(node)
        case exp.Case() | exp.If():
            return _case(node, qualifiers)
        case exp.Is():
            return _is(node, qualifiers)
        case exp.Cast():  # and TryCast, its subclass
            return _cast(node, qualifiers)
        case exp.Extract() | exp.DateDiff() | exp.Trim() | exp.Log():
            return _special(node, qualifiers)
    if kind in _INFIX:
        return _infix(node, _INFIX[kind], qualifiers)
    if kind in _EXTRACTS:
        return _call(node, f"DATE_PART {_EXTRACTS[kind]}", ("this",), qualifiers)
    if (
        kind is exp.RegexpLike and "name" not in node.meta
    ):  # in DuckDB this matches the whole text, but is read as if not
        raise UnsupportedQuery("the operator ~ is not supported in a joint query", hint="use REGEXP_FULL_MATCH")
    if kind in _FUNCTIONS:
        name, arguments = _FUNCTIONS[kind]
        return _call(node, name, arguments, qualifiers)
    if isinstance(node, exp.Anonymous) and str(node.this).lower() in ("date_part", "datepart"):
        return _date_part(node, qualifiers)
    refuse(node)


def _call(node: exp.Expr, operator: str, arguments: tuple[str, ...], qualifiers: frozenset[str]) -> Call:
    _refuse_options(node, arguments)
    translated: list[Expression] = []
    for argument in arguments:
        value = node.args.get(argument)
        values = value if isinstance(value, list) else [] if value is None else [value]
        translated += [translate(part, qualifiers) for part in values]
    return Call(operator, tuple(translated))


def _refuse_options(node: exp.Expr, known: tuple[str, ...]) -> None:
    for key in options(node, set(known)):
        nested = node.args[key]
        if isinstance(nested, exp.Expr) and type(nested) in _WORDS:
            refuse(nested)  # e.g. IN (SELECT …)
        raise UnsupportedQuery(f"{name_of(node).upper()} with {key.upper()} is not supported", hint=_HINT)


def _infix(node: exp.Expr, operator: str, qualifiers: frozenset[str]) -> Expression:
    arguments: list[Expression] = []
    left = node
    while type(left) is type(node) and (left is node or isinstance(node, CHAINED)):  # from the right end of a chain
        _refuse_options(left, ("this", "expression", "negate"))
        arguments.append(translate(left.expression, qualifiers))
        left = left.this
    call = Call(operator, (translate(left, qualifiers), *reversed(arguments)))
    return Call("NOT", (call,)) if node.args.get("negate") else call


def _column(node: exp.Column, qualifiers: frozenset[str]) -> Column:
    if isinstance(node.this, exp.Star):
        refuse(node.this)
    _refuse_options(node, ("this", "table"))
    if node.table and node.table.lower() not in qualifiers:
        raise UnsupportedQuery(
            f"{node.table[:64]}.{node.name[:64]} does not belong to the table", hint="name columns without a table"
        )
    try:
        return Column(check_column(node.name))
    except InvalidName as error:
        raise UnsupportedQuery(error.message, hint=error.hint) from None


def _constant(node: exp.Expr) -> Constant:
    if isinstance(node, exp.Null):
        return Constant(NULL, "NULL")
    if isinstance(node, exp.Boolean):
        return Constant(BOOLEAN, "TRUE" if node.this else "FALSE")
    text = node.name
    if node.is_string:
        if len(text) > MAX_LITERAL or UNWRITABLE.search(text):
            raise UnsupportedQuery(
                "a text literal is too long or holds control characters", hint=f"use at most {MAX_LITERAL} characters"
            )
        return Constant(TEXT, text)
    if _DIGITS.fullmatch(text):
        return Constant(INTEGER, str(int(text)))
    real = text.lower()
    if _REAL.fullmatch(real) and real[0] in ".0123456789":  # a double, not DuckDB's fixed-point type: with exponent
        return Constant(DECIMAL, real if "e" in real else real + "e0")
    raise UnsupportedQuery(f"the number {text[:40]} is too long", hint="use at most 18 digits")


def _case(node: exp.Expr, qualifiers: frozenset[str]) -> Call:
    branches = [node] if isinstance(node, exp.If) else node.args["ifs"]
    default = node.args.get("false" if isinstance(node, exp.If) else "default")
    _refuse_options(node, ("this", "true", "false") if isinstance(node, exp.If) else ("this", "ifs", "default"))
    operand = translate(node.this, qualifiers) if isinstance(node, exp.Case) and node.this else None
    arguments: list[Expression] = []
    for branch in branches:
        condition = translate(branch.this, qualifiers)
        arguments.append(condition if operand is None else Call("=", (operand, condition)))
        arguments.append(translate(branch.args["true"], qualifiers))
    arguments.append(Constant(NULL, "NULL") if default is None else translate(default, qualifiers))
    return Call("CASE", tuple(arguments))


def _is(node: exp.Is, qualifiers: frozenset[str]) -> Call:
    _refuse_options(node, ("this", "expression"))
    value = node.expression
    subject = translate(node.this, qualifiers)
    if isinstance(value, exp.Null):
        return Call("IS NULL", (subject,))
    if isinstance(value, exp.Boolean):
        return Call("IS TRUE" if value.this else "IS FALSE", (subject,))
    refuse(value)


def _cast(node: exp.Cast, qualifiers: frozenset[str]) -> Call:
    _refuse_options(node, ("this", "to"))
    target = node.to
    name = _CASTS.get(target.this)
    if name is None or target.expressions or target.args.get("nested"):
        raise UnsupportedQuery(
            f"CAST to {str(target.sql())[:40]} is not supported", hint=f"cast to one of {', '.join(sorted(CAST_TYPES))}"
        )
    word = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
    return Call(f"{word} {name}", (translate(node.this, qualifiers),))


def _special(node: exp.Expr, qualifiers: frozenset[str]) -> Call:
    """Functions whose arguments sqlglot arranges in its own way."""
    match node:
        case exp.Extract():
            _refuse_options(node, ("this", "expression"))
            return Call(f"DATE_PART {_part(node.this.name)}", (translate(node.expression, qualifiers),))
        case exp.DateDiff():
            _refuse_options(node, ("this", "expression", "unit", "date_part_boundary"))  # counts boundaries, as DuckDB
            unit = node.args.get("unit")
            arguments = (translate(node.expression, qualifiers), translate(node.this, qualifiers))
            return Call(f"DATE_DIFF {_part(unit.name if unit is not None else 'day')}", arguments)
        case exp.Trim():
            _refuse_options(node, ("this", "position"))
            name = {"LEADING": "LTRIM", "TRAILING": "RTRIM"}.get(str(node.args.get("position")).upper(), "TRIM")
            return Call(name, (translate(node.this, qualifiers),))
        case _:
            _refuse_options(node, ("this", "expression"))
            base, value = node.this, node.args.get("expression")
            if value is None:  # DuckDB's LOG(x) is to the base 10
                return Call("LOG10", (translate(base, qualifiers),))
            if base.name in ("2", "10"):
                return Call(f"LOG{base.name}", (translate(value, qualifiers),))
            raise UnsupportedQuery("LOG with this base is not supported", hint="use LN, LOG2 or LOG10")


def _date_part(node: exp.Anonymous, qualifiers: frozenset[str]) -> Call:
    if len(node.expressions) != 2 or not isinstance(node.expressions[0], exp.Literal):
        refuse(node)
    return Call(f"DATE_PART {_part(node.expressions[0].name)}", (translate(node.expressions[1], qualifiers),))


def _part(name: str) -> str:
    part = name.lower()
    if part not in DATE_PARTS:
        hint = f"use {', '.join(sorted(DATE_PARTS))}"
        raise UnsupportedQuery(f"the date part {name[:40]} is not supported", hint=hint)
    return part
