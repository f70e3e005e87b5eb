"""What a joint query may say: one SELECT with aggregates over one table, and nothing else.

::

    SELECT item, …
    FROM collection.table                 or institution.collection.table; either with an alias
    [WHERE expression]
    [GROUP BY column or position, …]

An item is a GROUP BY column or one of COUNT(*), COUNT, SUM, AVG, VAR_SAMP and STDDEV_SAMP of a scalar expression
(mpc.expressions), with an alias if wanted.

A whitelist: sqlglot (DuckDB dialect) reads the text, and every node of its tree is either translated into Koinon's own
closed tree or refused with its name. Options of a node that are not known are refused too, so that nothing is dropped
silently. Comments say nothing and are dropped. Input is hostile; the one error is UnsupportedQuery.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.tokenizer_core import Token, TokenType

from koinon.errors import InvalidName, UnsupportedQuery
from koinon.limits import MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_NODES, MAX_NAME_PART, MAX_OUTPUTS, MAX_SQL
from koinon.names import UNPRINTABLE, DatasetName, TableName, parse_source
from koinon.v1.plan_pb2 import (
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_SUM,
    OUTPUT_KIND_VAR_SAMP,
    OutputKind,
)
from mpc.expressions import Column, Expression, Spelling, quote, render
from mpc.translate import CHAINED, name_of, options, refuse, translate

Kind: TypeAlias = OutputKind.ValueType

AGGREGATES: dict[Kind, str] = {
    OUTPUT_KIND_COUNT: "COUNT",
    OUTPUT_KIND_SUM: "SUM",
    OUTPUT_KIND_AVG: "AVG",
    OUTPUT_KIND_VAR_SAMP: "VAR_SAMP",
    OUTPUT_KIND_STDDEV_SAMP: "STDDEV_SAMP",
}


class _Reader(DuckDB):
    """DuckDB's dialect, remembering functions by the names the query gives them."""

    ORIGINAL_NAME_META_KEY = "name"


_AGGREGATE_NODES: dict[type[exp.Expr], Kind] = {
    exp.Count: OUTPUT_KIND_COUNT,
    exp.Sum: OUTPUT_KIND_SUM,
    exp.Avg: OUTPUT_KIND_AVG,
    exp.Variance: OUTPUT_KIND_VAR_SAMP,
    exp.Stddev: OUTPUT_KIND_STDDEV_SAMP,
    exp.StddevSamp: OUTPUT_KIND_STDDEV_SAMP,
}
_STARTS = {TokenType.SELECT, TokenType.FROM, TokenType.WITH, TokenType.L_PAREN, TokenType.VALUES}
_LABEL = re.compile(r"[^\x00-\x1f\x7f\"]+")
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}


@dataclass(frozen=True, slots=True)
class GroupItem:
    """A GROUP BY column in the SELECT list."""

    name: str
    column: str


@dataclass(frozen=True, slots=True)
class AggregateItem:
    """An aggregate in the SELECT list; ``expression`` is None for COUNT(*)."""

    name: str
    kind: Kind
    expression: Expression | None


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query: well formed, not yet checked against any dataset."""

    source: DatasetName | TableName
    items: tuple[GroupItem | AggregateItem, ...]
    where: Expression | None
    group_by: tuple[str, ...]

    def render(self, spell: Spelling = str) -> str:
        """The query in its one normal form, columns spelled by ``spell``: ``parse(q.render()) == q``."""
        items = ", ".join(_write_item(item, spell) for item in self.items)
        parts = ["SELECT", items, "FROM", ".".join(quote(part) for part in str(self.source).split("."))]
        if self.where is not None:
            parts += ["WHERE", render(self.where, spell)]
        if self.group_by:
            parts += ["GROUP BY", ", ".join(quote(spell(column)) for column in self.group_by)]
        return " ".join(parts)


def _write_item(item: GroupItem | AggregateItem, spell: Spelling) -> str:
    if isinstance(item, GroupItem):
        column = spell(item.column)
        return quote(column) if item.name == column else f"{quote(column)} AS {quote(item.name)}"
    inner = "*" if item.expression is None else render(item.expression, spell)
    return f"{AGGREGATES[item.kind]}({inner}) AS {quote(item.name)}"


def parse(sql: str) -> Query:
    """Read a query. Raises UnsupportedQuery, which names the construct."""
    select = _select(sql)
    _only(select, {"expressions", "from_", "where", "group"})
    source, qualifiers = _table(select.args.get("from_"))
    where = select.args.get("where")
    items = select.expressions
    if not items or len(items) > MAX_OUTPUTS:
        raise UnsupportedQuery(f"a SELECT list of {len(items)} items", hint=f"1 to {MAX_OUTPUTS} are possible")
    group_by = _group_by(select.args.get("group"), items, qualifiers)
    read = tuple(_item(item, group_by, qualifiers) for item in items)
    if not any(isinstance(item, AggregateItem) for item in read):
        raise UnsupportedQuery("a query without an aggregate is not supported", hint="add COUNT(*), or AVG(column)")
    _refuse_repeated([item.name for item in read])
    return Query(source, read, None if where is None else translate(where.this, qualifiers), group_by)


def referenced_table(sql: str) -> DatasetName | TableName:
    """The table a query is about, as it names it. Raises UnsupportedQuery."""
    return parse(sql).source


# --- text to tree --------------------------------------------------------------------------------


def _select(sql: str) -> exp.Select:
    if len(sql) > MAX_SQL:
        raise UnsupportedQuery(f"a query of {len(sql)} characters", hint=f"at most {MAX_SQL} are possible")
    if UNPRINTABLE.search(sql.replace("\r", "")):
        raise UnsupportedQuery("the query holds control characters", hint="write plain text")
    try:
        tokens = _Reader().tokenize(sql)
        _bound_tokens(tokens)
        statement = sqlglot.parse_one(_quote_hyphenated(sql, tokens), read=_Reader)
    except UnsupportedQuery:
        raise
    except RecursionError:
        raise _too_deep() from None
    except Exception as error:  # noqa: BLE001 - sqlglot raises more than its own errors on hostile text
        raise UnsupportedQuery(_parse_message(error), hint="check commas, quotes and parentheses") from None
    if not isinstance(statement, exp.Select):
        refuse(statement)
    _bound_size(statement)
    return statement


def _parse_message(error: Exception) -> str:
    if not isinstance(error, sqlglot.errors.ParseError) or not error.errors:
        return "not readable as SQL"
    first = error.errors[0]
    text = str(first.get("description")).rstrip(".")
    text = "something is missing" if "<class" in text else text[:1].lower() + text[1:]
    return f"not readable as SQL at line {first.get('line')}, column {first.get('col')}: {text}"


def _too_deep() -> UnsupportedQuery:
    hint = f"at most {MAX_EXPRESSION_DEPTH} levels of parentheses are possible"
    return UnsupportedQuery("the query is nested too deeply", hint=hint)


def _bound_tokens(tokens: list[Token]) -> None:
    """One statement of a kind that could be a query, not nested too deeply: what the parser may safely look at."""
    body = [token for token in tokens if token.token_type != TokenType.SEMICOLON]
    if not body:
        raise UnsupportedQuery("the query is empty", hint="send one SELECT")
    if body[0].token_type not in _STARTS:
        raise UnsupportedQuery(f"{body[0].text.upper()[:40]} is not supported in a joint query", hint="send one SELECT")
    if len(body) < len(tokens) and body[-1] is not tokens[len(body) - 1]:
        raise UnsupportedQuery("more than one statement is not supported", hint="send exactly one SELECT")
    depth = 0
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        if depth > MAX_EXPRESSION_DEPTH:
            raise _too_deep()


def _bound_size(statement: exp.Expr) -> None:
    """Bound the tree before anything recurses into it. Chains (``a AND b AND …``) are nested, but read in a loop."""
    stack: list[tuple[exp.Expr, int]] = [(statement, 0)]
    nodes = 0
    while stack:
        node, depth = stack.pop()
        nodes += 1
        if nodes > MAX_EXPRESSION_NODES:
            raise UnsupportedQuery("the query is too long", hint=f"at most {MAX_EXPRESSION_NODES} parts are possible")
        if depth > 2 * MAX_EXPRESSION_DEPTH:
            raise _too_deep()
        for child in node.iter_expressions():
            chained = type(child) is type(node) and type(node) in CHAINED
            stack.append((child, depth + (not chained)))


def _quote_hyphenated(sql: str, tokens: list[Token]) -> str:
    """Quote an institution with a hyphen after FROM: SQL would read ``north-west.ercp.t`` as a subtraction.

    The FROM of ``IS DISTINCT FROM`` and of ``EXTRACT(… FROM …)`` is no clause: an expression follows.
    """
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        after_distinct = index > 0 and tokens[index - 1].token_type == TokenType.DISTINCT
        if token.token_type != TokenType.FROM or depth or after_distinct:
            continue
        run = tokens[index + 1 : index + 2]
        for following in tokens[index + 2 :]:
            if following.start != run[-1].end + 1:
                break
            run.append(following)
        text = sql[run[0].start : run[-1].end + 1] if run else ""
        if "-" in text and '"' not in text:
            institution, dot, rest = text.partition(".")
            if dot:
                return f'{sql[: run[0].start]}"{institution}".{rest}{sql[run[-1].end + 1 :]}'
    return sql


# --- clauses -------------------------------------------------------------------------------------

_CLAUSES = {
    "with_": ("WITH", "query the table directly"),
    "joins": ("JOIN", "a joint query is about one table; join within your institution and publish the result"),
    "having": ("HAVING", "filter the groups of the result yourself"),
    "order": ("ORDER BY", "sort the result yourself"),
    "limit": ("LIMIT", "the result has one row per group"),
    "offset": ("OFFSET", "the result has one row per group"),
    "distinct": ("DISTINCT", "GROUP BY the column instead"),
    "qualify": ("QUALIFY", "filter the groups of the result yourself"),
    "windows": ("WINDOW", "only plain aggregates are possible"),
    "laterals": ("LATERAL", "a joint query is about one table"),
    "sample": ("SAMPLE", "a joint query uses every row"),
    "pivots": ("PIVOT", "GROUP BY the column instead"),
    "into": ("SELECT INTO", "a joint query only reads"),
    "locks": ("FOR UPDATE", "a joint query only reads"),
    "columns": ("an alias with columns", "an alias for the table is enough"),
}


def _only(node: exp.Expr, known: set[str]) -> None:
    for key in options(node, known):
        name, hint = _CLAUSES.get(key, (key.strip("_").upper(), "see the supported SQL in docs/analyst.md"))
        raise UnsupportedQuery(f"{name} is not supported in a joint query", hint=hint)


def _table(clause: exp.Expr | None) -> tuple[DatasetName | TableName, frozenset[str]]:
    """The table, and the names by which columns may be qualified with it."""
    if clause is None:
        raise UnsupportedQuery("the query names no table", hint="add FROM collection.table")
    table = clause.this
    if not isinstance(table, exp.Table):
        refuse(table)
    if isinstance(table.this, exp.Func):
        raise UnsupportedQuery(
            f"the table function {name_of(table.this)} is not supported", hint="query a published table by name"
        )
    _only(table, {"this", "db", "catalog", "alias"})
    parts = [part.name.lower() for part in table.parts]
    try:
        source = parse_source(".".join(part.replace(".", "..") for part in parts))  # a dot inside a part is no name
    except InvalidName as error:
        raise UnsupportedQuery(f"FROM: {error.message}", hint=error.hint) from None
    alias = table.args.get("alias")
    if alias is None:
        return source, frozenset({table.name.lower()})
    _only(alias, {"this"})
    return source, frozenset({alias.name.lower()})


def _group_by(clause: exp.Expr | None, items: list[exp.Expr], qualifiers: frozenset[str]) -> tuple[str, ...]:
    if clause is None:
        return ()
    for key in options(clause, {"expressions"}):
        raise UnsupportedQuery(
            f"GROUP BY {key.replace('_', ' ').upper()} is not supported", hint="GROUP BY plain columns"
        )
    columns: list[str] = []
    for element in clause.expressions:
        column = _group_column(element, items, qualifiers)
        if column not in columns:
            columns.append(column)
    return tuple(columns)


def _group_column(element: exp.Expr, items: list[exp.Expr], qualifiers: frozenset[str]) -> str:
    hint = "GROUP BY takes columns with a published codelist, or positions of such columns in the SELECT list"
    if isinstance(element, exp.Literal) and not element.is_string:
        position = int(element.name) if element.name.isascii() and element.name.isdigit() else 0
        if not 1 <= position <= len(items):
            raise UnsupportedQuery(f"GROUP BY {element.name[:20]}: no such position in the SELECT list", hint=hint)
        element = items[position - 1].unalias()
    if isinstance(element, exp.Rollup | exp.Cube | exp.GroupingSets):
        raise UnsupportedQuery(f"GROUP BY {element.key.upper()} is not supported", hint=hint)
    if not isinstance(element, exp.Column):
        raise UnsupportedQuery("GROUP BY an expression is not supported", hint=hint)
    column = translate(element, qualifiers)
    if not isinstance(column, Column):
        raise UnsupportedQuery("GROUP BY an expression is not supported", hint=hint)
    for item in items:
        if isinstance(item, exp.Alias) and item.alias.lower() == column.name.lower() and item.unalias() != element:
            raise UnsupportedQuery(f"GROUP BY {column.name}: an alias is not supported", hint="name the column itself")
    return column.name


def _item(node: exp.Expr, group_by: tuple[str, ...], qualifiers: frozenset[str]) -> GroupItem | AggregateItem:
    label = None
    if isinstance(node, exp.Alias):
        _only(node, {"this", "alias"})
        label, node = _label(node.alias), node.this
    while isinstance(node, exp.Paren):
        node = node.this
    kind = _AGGREGATE_NODES.get(type(node))
    if kind is not None:
        expression = _aggregated(node, kind, qualifiers)
        inner = "*" if expression is None else render(expression).replace('"', "")
        default = f"{AGGREGATES[kind].lower()}({inner})"[:MAX_NAME_PART]
        return AggregateItem(label or default, kind, expression)
    if any(isinstance(part, tuple(_AGGREGATE_NODES)) for part in node.walk()) and type(node) not in (
        exp.Window,
        exp.Filter,
        exp.Subquery,
    ):
        raise UnsupportedQuery(
            "an expression around an aggregate is not supported",
            hint="ask for the aggregates, and combine them yourself",
        )
    column = translate(node, qualifiers)
    if not isinstance(column, Column):
        raise UnsupportedQuery(
            f"{render(column)[:MAX_NAME_PART]} stands outside an aggregate",
            hint="a SELECT list holds GROUP BY columns and COUNT, SUM, AVG, VAR_SAMP, STDDEV_SAMP",
        )
    grouped = {name.lower(): name for name in group_by}.get(column.name.lower())
    if grouped is None:
        raise UnsupportedQuery(
            f"column {column.name} stands outside an aggregate",
            hint=f"GROUP BY {column.name}, or aggregate it, e.g. COUNT({column.name})",
        )
    return GroupItem(label or column.name, grouped)


def _aggregated(node: exp.Expr, kind: Kind, qualifiers: frozenset[str]) -> Expression | None:
    for key in options(node, {"this", "big_int"}):
        raise UnsupportedQuery(f"{AGGREGATES[kind]} with {key.upper()} is not supported", hint="give it one argument")
    if isinstance(node.this, exp.Star) and kind == OUTPUT_KIND_COUNT:
        _only(node.this, set())
        return None
    if node.this is None:
        raise UnsupportedQuery(f"{AGGREGATES[kind]} needs an argument", hint="e.g. COUNT(*) or AVG(age)")
    return translate(node.this, qualifiers)


def _label(text: str) -> str:
    if len(text) > MAX_NAME_PART or not _LABEL.fullmatch(text):
        raise UnsupportedQuery(
            f"{text[:MAX_NAME_PART]!a} cannot name a result column", hint=f"use 1 to {MAX_NAME_PART} plain characters"
        )
    return text


def _refuse_repeated(names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UnsupportedQuery(f"two result columns are called {name}", hint="give one of them another alias")
