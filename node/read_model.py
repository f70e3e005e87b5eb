"""An index over the ledger for people: full-text search of the catalog, the audit trail by subject, lists by status.

Off the consensus path, and nothing but an index: SQLite says *which* datasets, records, requests, tokens or
tasks answer a question, and the ledger says what they are. It follows the audit log record by record,
because every transition leaves one; so feeding it after a block, catching up after a restart and building
it anew are the same thing. Lose the file, and ``follow`` makes it again.

Arguments of questions come from outside; a malformed one is InvalidInput.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from koinon.errors import InvalidInput, KoinonError, NotFound, Unavailable
from koinon.limits import MAX_SEARCH_TERMS, MAX_TITLE
from koinon.v1.access_pb2 import AccessRequest, Token
from koinon.v1.audit_pb2 import AuditRecord
from koinon.v1.catalog_pb2 import DATASET_STATUS_WITHDRAWN, Dataset
from koinon.v1.task_pb2 import Task
from node.application import Application

_SCHEMA_VERSION = 1
_CHUNK_RECORDS = 2_000  # followed in one SQLite transaction

# What a crash loses is read from the ledger again, and damage is noticed: no need to wait for the disk.
_PRAGMA = "PRAGMA synchronous = OFF"

_SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA user_version = {_SCHEMA_VERSION};

CREATE TABLE standing (chain TEXT NOT NULL, next_index INTEGER NOT NULL);

CREATE TABLE records (idx INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind TEXT NOT NULL, actor TEXT NOT NULL);
CREATE INDEX records_by_kind ON records (kind);
CREATE INDEX records_by_actor ON records (actor);
CREATE TABLE subjects (subject TEXT, idx INTEGER, PRIMARY KEY (subject, idx)) WITHOUT ROWID;

CREATE TABLE datasets (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, institution TEXT NOT NULL, withdrawn INTEGER NOT NULL);
CREATE TABLE columns (name TEXT COLLATE NOCASE, seq INTEGER, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE INDEX columns_by_dataset ON columns (seq);
CREATE VIRTUAL TABLE texts USING fts5 (
    name, title, keywords, columns, description, tokenize = "unicode61 remove_diacritics 2"
);

CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE, institution TEXT NOT NULL, requester TEXT NOT NULL, status INTEGER NOT NULL
);
CREATE INDEX requests_by_requester ON requests (requester);
CREATE TABLE tokens (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE, holder TEXT NOT NULL, dataset TEXT NOT NULL, status INTEGER NOT NULL
);
CREATE INDEX tokens_by_holder ON tokens (holder, dataset);
CREATE INDEX tokens_by_dataset ON tokens (dataset);
CREATE TABLE tasks (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, asker TEXT NOT NULL, status INTEGER NOT NULL);
CREATE INDEX tasks_by_asker ON tasks (asker);
CREATE TABLE parties (institution TEXT, seq INTEGER, PRIMARY KEY (institution, seq)) WITHOUT ROWID;
"""
# In every table of entities, seq is the index of the record that made the entity: unique, ascending in time,
# the same however often the index is built; pages are stable because they continue after a seq.

_LARGEST = 2**63 - 1  # of SQLite's integers

T = TypeVar("T")
Value = str | int


class ReadModel:
    """The index in one SQLite file. Single-threaded, on the thread of the application it follows."""

    def __init__(self, path: Path, ledger: Application) -> None:
        """Open or make the file, and catch up with the ledger.

        A file that is damaged, of another version or of another ledger is made anew. Raises Unavailable when
        the file cannot be written.
        """
        self._path = path
        self._ledger = ledger
        self._next_index = 0  # first record not taken in
        self._database = self._connect()
        try:
            known = self._resume()
        except sqlite3.DatabaseError:
            known = False
        if not known:
            self.rebuild()
        else:
            self.follow()

    def close(self) -> None:
        self._database.close()

    # --- following the ledger

    def follow(self) -> None:
        """Take in what was committed since the last call; cheap when nothing was. Raises Unavailable."""
        size = self._ledger.audit_log.size
        try:
            while self._next_index < size:
                self._take(range(self._next_index, min(size, self._next_index + _CHUNK_RECORDS)))
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def rebuild(self) -> None:
        """Make the file anew from the ledger. Raises Unavailable."""
        self._database.close()
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._database = self._connect()
            self._database.execute(_PRAGMA)
            self._database.executescript(_SCHEMA)
            with self._database as database:
                database.execute("INSERT INTO standing VALUES (?, 0)", (self._ledger.chain_id,))
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        self._next_index = 0
        self.follow()

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(self._path)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _resume(self) -> bool:
        """Find where this file stands; False when it is empty, or not an index of this ledger."""
        execute = self._database.execute
        execute(_PRAGMA)
        if execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
            return False
        if execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            return False
        chain, self._next_index = execute("SELECT chain, next_index FROM standing").fetchone()
        return bool(chain == self._ledger.chain_id and self._next_index <= self._ledger.audit_log.size)

    def _take(self, indices: range) -> None:
        """Take in some records, and the present state of whatever they are about."""
        records: list[tuple[int, int, str, str]] = []
        subjects: list[tuple[str, int]] = []
        first_seen: dict[str, int] = {}
        for index in indices:
            record = self._record(index)
            records.append((index, record.time_ms, record.kind, record.actor))
            subjects += [(subject, index) for subject in {record.subject, *record.related}]
            first_seen.setdefault(record.subject, index)
        with self._database as database:
            database.executemany("INSERT INTO records VALUES (?, ?, ?, ?)", records)
            database.executemany("INSERT INTO subjects VALUES (?, ?)", subjects)
            for subject, index in first_seen.items():
                kind, _, name = subject.partition(":")
                match kind:
                    case "dataset":
                        self._write_dataset(name, index)
                    case "request":
                        self._write_request(name, index)
                    case "token":
                        self._write_token(name, index)
                    case "task":
                        self._write_task(name, index)
            database.execute("UPDATE standing SET next_index = ?", (indices.stop,))
        self._next_index = indices.stop

    def _write_dataset(self, name: str, index: int) -> None:
        dataset = self._ledger.dataset(name)
        published = dataset.published
        withdrawn = dataset.status == DATASET_STATUS_WITHDRAWN
        seq = self._upsert(
            "INSERT INTO datasets VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET withdrawn = excluded.withdrawn RETURNING seq",
            (index, name, dataset.publisher, withdrawn),
        )
        names = [column.name for column in published.columns]
        if seq != index:  # published before: its texts may have changed
            self._database.execute("DELETE FROM columns WHERE seq = ?", (seq,))
            self._database.execute("DELETE FROM texts WHERE rowid = ?", (seq,))
        self._database.executemany("INSERT INTO columns VALUES (?, ?)", [(column, seq) for column in names])
        self._database.execute(
            "INSERT INTO texts (rowid, name, title, keywords, columns, description) VALUES (?, ?, ?, ?, ?, ?)",
            (seq, name, published.title, " ".join(published.keywords), " ".join(names), published.description),
        )

    def _write_request(self, request_id: str, index: int) -> None:
        request = self._ledger.request(request_id)
        institution = request.requested.dataset.partition(".")[0]
        self._upsert(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET status = excluded.status RETURNING seq",
            (index, request_id, institution, request.requester, request.status),
        )

    def _write_token(self, token_id: str, index: int) -> None:
        token = self._ledger.token(token_id)
        self._upsert(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET status = excluded.status RETURNING seq",
            (index, token_id, token.holder, token.dataset, token.status),
        )

    def _write_task(self, task_id: str, index: int) -> None:
        task = self._ledger.task(task_id)
        seq = self._upsert(
            "INSERT INTO tasks VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET status = excluded.status RETURNING seq",
            (index, task_id, task.asker, task.status),
        )
        parties = [(institution, seq) for institution in task.submitted.committee]
        self._database.executemany("INSERT OR IGNORE INTO parties VALUES (?, ?)", parties)

    def _upsert(self, statement: str, row: Sequence[Value]) -> int:
        """Insert an entity, or update what may change of it; returns its seq."""
        return int(self._database.execute(statement, row).fetchone()[0])

    # --- questions

    def search_datasets(
        self,
        *,
        text: str = "",
        institution: str = "",
        column: str = "",
        include_withdrawn: bool = False,
        page_size: int,
        page_token: str = "",
    ) -> tuple[list[Dataset], str]:
        """Datasets whose name, title, keywords, columns or description have every word of ``text``.

        Words match beginnings, whatever case and accents; the best match comes first, and without a text the
        dataset published last. Also returns the token of the next page, or ''.
        """
        where = _Where()
        where.equal(institution=institution)
        if column:
            where.add("datasets.seq IN (SELECT seq FROM columns WHERE name = ?)", column)
        if not include_withdrawn:
            where.add("NOT withdrawn")
        query = _match(text)
        if not query:
            return self._newest("SELECT seq, id FROM datasets", where, page_size, page_token, self._ledger.dataset)
        where.add("texts MATCH ?", query)
        offset = _page_number(page_token)
        rows = self._select(
            "SELECT id FROM texts JOIN datasets ON datasets.seq = texts.rowid",
            where,
            "ORDER BY bm25(texts, 4.0, 4.0, 2.0, 2.0, 1.0), datasets.seq LIMIT ? OFFSET ?",
            page_size + 1,
            offset,
        )
        datasets = [self._ledger.dataset(name) for (name,) in rows[:page_size]]
        return datasets, str(offset + page_size) if len(rows) > page_size else ""

    def requests(
        self,
        *,
        institution: str = "",
        requester: str = "",
        status: int = 0,
        id_prefix: str = "",
        page_size: int,
        page_token: str = "",
    ) -> tuple[list[AccessRequest], str]:
        """Access requests, newest first, and the token of the next page; ``institution`` publishes the dataset."""
        where = _Where()
        where.equal(institution=institution, requester=requester, status=status)
        where.begins(id_prefix)
        return self._newest("SELECT seq, id FROM requests", where, page_size, page_token, self._ledger.request)

    def tokens(
        self,
        *,
        holder: str = "",
        dataset: str = "",
        status: int = 0,
        id_prefix: str = "",
        page_size: int,
        page_token: str = "",
    ) -> tuple[list[Token], str]:
        """Tokens, newest first, and the token of the next page."""
        where = _Where()
        where.equal(holder=holder, dataset=dataset, status=status)
        where.begins(id_prefix)
        return self._newest("SELECT seq, id FROM tokens", where, page_size, page_token, self._ledger.token)

    def tasks(
        self, *, asker: str = "", institution: str = "", status: int = 0, page_size: int, page_token: str = ""
    ) -> tuple[list[Task], str]:
        """Tasks, newest first, and the token of the next page; ``institution`` is a party to it."""
        where = _Where()
        where.equal(asker=asker, status=status)
        if institution:
            where.add("seq IN (SELECT seq FROM parties WHERE institution = ?)", institution)
        return self._newest("SELECT seq, id FROM tasks", where, page_size, page_token, self._ledger.task)

    def task_id(self, prefix: str) -> str:
        """The one task whose id begins so. Raises NotFound, or InvalidInput when there are several."""
        where = _Where()
        where.begins(prefix)
        rows = self._select("SELECT id FROM tasks", where, "LIMIT 2")
        if not rows or not prefix:
            raise NotFound(f"there is no task {prefix!a}", hint="koinon task list shows them")
        if len(rows) > 1:
            raise InvalidInput(f"several tasks begin with {prefix!a}", hint="give more digits of the id")
        return str(rows[0][0])

    def records(
        self,
        *,
        subject: str = "",
        actor: str = "",
        kind: str = "",
        from_index: int = 0,
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int,
    ) -> tuple[list[AuditRecord], int]:
        """Audit records, ascending, and the index to go on from, or 0.

        ``subject`` also finds records that name it among the others concerned; ``kind`` is exact, or a prefix
        ending in '.'; ``since_ms`` is included, ``until_ms`` (0: no end) is not.
        """
        source = "SELECT idx FROM records"
        where = _Where()
        if subject:
            source = "SELECT idx FROM subjects JOIN records USING (idx)"
            where.add("subject = ?", subject)
        if kind.endswith("."):
            where.add("kind >= ? AND kind < ?", kind, kind[:-1] + "/")  # '/' follows '.'
            kind = ""
        where.equal(actor=actor, kind=kind)
        where.add("idx >= ? AND time_ms >= ?", min(from_index, _LARGEST), since_ms)
        if until_ms:
            where.add("time_ms < ?", until_ms)
        rows = self._select(source, where, "ORDER BY idx LIMIT ?", limit + 1)
        return [self._record(index) for (index,) in rows[:limit]], rows[limit][0] if len(rows) > limit else 0

    def _newest(
        self, source: str, where: _Where, page_size: int, page_token: str, find: Callable[[str], T]
    ) -> tuple[list[T], str]:
        """One page of (seq, id) from ``source``, newest first, as entities; and the token of the next page."""
        if page_token:
            where.add("seq < ?", _page_number(page_token))
        rows = self._select(source, where, "ORDER BY seq DESC LIMIT ?", page_size + 1)
        page = rows[:page_size]
        return [find(name) for _, name in page], str(page[-1][0]) if len(rows) > page_size else ""

    def _select(self, source: str, where: _Where, order: str, *further: Value) -> list[tuple[Any, ...]]:
        """Run a query made of this file's own words; everything from outside is a bound value."""
        try:
            return self._database.execute(f"{source} WHERE {where} {order}", (*where.values, *further)).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _record(self, index: int) -> AuditRecord:
        record = self._ledger.record(index)
        assert record is not None, "asked only for indices below the log's size"
        return record

    def _unavailable(self, error: sqlite3.Error | OSError) -> KoinonError:
        return Unavailable(
            f"the index {self._path} cannot be written: {error}",
            rule="disk-error",
            hint="check space and permissions of the disk; the file can be removed, it is made again from the ledger",
        )


class _Where:
    """Conditions that must all hold, and the values bound to them."""

    def __init__(self) -> None:
        self._conditions = ["TRUE"]
        self.values: list[Value] = []

    def add(self, condition: str, *values: Value) -> None:
        self._conditions.append(condition)
        self.values += values

    def equal(self, **columns: Value) -> None:
        """Equality for the columns that are asked for; an empty text or zero asks for nothing."""
        for name, value in columns.items():
            if value:
                self.add(f"{name} = ?", value)

    def begins(self, prefix: str) -> None:
        """Ids, which are hexadecimal, with this beginning."""
        if prefix:
            self.add("id >= ? AND id < ?", prefix, prefix + "g")

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


def _page_number(page_token: str) -> int:
    """Where a page continues. Raises InvalidInput unless it is one of ours."""
    if not page_token:
        return 0
    if not page_token.isascii() or not page_token.isdigit() or len(page_token) > 18:
        raise InvalidInput("the page token is not one this node gave out", hint="start again from the first page")
    return int(page_token)


def _match(text: str) -> str:
    """An FTS5 query for every word of a text, each a prefix; '' when there is none. Raises InvalidInput."""
    if len(text) > MAX_TITLE:
        raise InvalidInput(f"the search text has {len(text)} characters", hint=f"at most {MAX_TITLE} are allowed")
    words = text.replace('"', " ").split()
    if len(words) > MAX_SEARCH_TERMS:
        raise InvalidInput(f"the search text has {len(words)} words", hint=f"at most {MAX_SEARCH_TERMS} are allowed")
    return " ".join(f'"{word}"*' for word in words)
