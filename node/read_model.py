"""An index over the ledger for people: full-text search of the catalog, the audit trail by dimension, lists by status.

Off the consensus path, and nothing but an index: SQLite says *which* datasets, records, requests, tokens or
tasks answer a question, and the ledger says what they are. It follows the audit log record by record,
because every transition leaves one; so feeding it after a block, catching up after a restart and building
it anew are the same thing. Lose the file, and ``follow`` makes it again.

Arguments of questions come from outside; a malformed one is InvalidInput.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from bisect import bisect_left
from collections.abc import Callable
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from governance import taxonomy
from koinon import prices, trail
from koinon.errors import Exhausted, InvalidInput, KoinonError, NotFound, Unavailable
from koinon.trail import Dimension
from koinon.v1 import governance_pb2
from koinon.v1.access_pb2 import AccessRequest, Token
from koinon.v1.audit_pb2 import AuditRecord, RecordFilter
from koinon.v1.catalog_pb2 import (
    DATASET_STATUS_WITHDRAWN,
    VERIFICATION_OUTCOME_CONFIRMED,
    VERIFICATION_OUTCOME_CONTESTED,
)
from koinon.v1.demand_pb2 import Demand
from koinon.v1.dispute_pb2 import Dispute
from koinon.v1.governance_pb2 import GovernanceProposal
from koinon.v1.task_pb2 import Task
from node import audit_index
from node import read_schema as schema
from node.application import Application
from node.audit_index import CHUNK, AuditIndex, Counts, OpenChunk
from node.damage import damaged
from node.read_query import Value, Where, page_position, search_terms

_LARGEST = 2**63 - 1  # of SQLite's integers
_CHUNK_RECORDS = 2_000  # followed in one SQLite transaction

T = TypeVar("T")
_Rows = dict[str, list[tuple[Value | bytes, ...]]]


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
        self._open_chunk = OpenChunk(0)
        self._purposes = lru_cache(maxsize=10_000)(self._purposes_of)
        self._database = self._connect()
        try:
            known = self._resume()
            if known:
                self.follow()
        except (sqlite3.Error, UnicodeDecodeError, TypeError, Unavailable):  # of bytes, text, rows, or while it writes
            known = False
        if not known:
            self.rebuild()

    def close(self) -> None:
        self._database.close()

    @property
    def size(self) -> int:
        """How many records are taken in."""
        return self._next_index

    # --- following the ledger

    def follow(self) -> None:
        """Take in what was committed since the last call; cheap when nothing was. Raises Unavailable."""
        size = self._ledger.audit_log.size
        try:
            while (first := self._next_index) < size:
                self._take(range(first, min(size, first + _CHUNK_RECORDS, (first // CHUNK + 1) * CHUNK)))
        except sqlite3.Error as error:
            self._reopen_chunk()  # it may hold what the file does not
            raise self._unavailable(error) from error

    def rebuild(self) -> None:
        """Make the file anew from the ledger. Raises Unavailable."""
        self._database.close()
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._database = self._connect()
            self._database.execute(schema.PRAGMA)
            self._database.executescript(schema.SCHEMA)
            with self._database as database:
                database.execute("INSERT INTO standing VALUES (?, 0)", (self._ledger.chain_id,))
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(error) from error
        self._next_index, self._open_chunk = 0, OpenChunk(0)
        self.follow()

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(self._path)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _resume(self) -> bool:
        """Find where this file stands; False when it is empty, or not an index of this ledger."""
        execute = self._database.execute
        execute(schema.PRAGMA)
        if execute("PRAGMA user_version").fetchone()[0] != schema.SCHEMA_VERSION:
            return False
        if execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            return False
        standing = execute("SELECT chain, next_index FROM standing").fetchone()
        if standing is None or standing[0] != self._ledger.chain_id or standing[1] > self._ledger.audit_log.size:
            return False  # none: it ended while the file was made
        self._next_index = standing[1]
        self._reopen_chunk()
        return True

    def _reopen_chunk(self) -> None:
        """The part of the audit index that is in no file."""
        self._open_chunk = OpenChunk(self._next_index // CHUNK)
        for index in range(self._open_chunk.number * CHUNK, self._next_index):
            self._open_chunk.add(index % CHUNK, self.dimensions(self._record(index)))

    def _take(self, indices: range) -> None:
        """Take in some records, and the present state of whatever they are about."""
        rows: _Rows = {statement: [] for statement in schema.STATEMENTS}
        chunk = self._open_chunk
        subjects: set[str] = set()
        for index in indices:
            record = self._record(index)
            chunk.add(index % CHUNK, self.dimensions(record))
            if postings := record.postings[:]:
                rows[schema.INSERT_POSTING] += [(account, index) for account in {item.account for item in postings}]
            if record.subject not in subjects:
                subjects.add(record.subject)
                self._add_present(rows, record)
        complete = indices.stop % CHUNK == 0
        if complete:
            rows[audit_index.INSERT] += chunk.rows()
        with self._database as database:
            for statement, values in rows.items():
                database.executemany(statement, values)
            database.execute("UPDATE standing SET next_index = ?", (indices.stop,))
        self._next_index = indices.stop
        if complete:
            self._open_chunk = OpenChunk(chunk.number + 1)

    def _add_present(self, rows: _Rows, record: AuditRecord) -> None:
        """What a record is about, as it is now; the record is the first about it among those taken in."""
        kind, _, name = record.subject.partition(":")
        new = not record.from_state
        match kind:
            case "dataset":
                self._add_dataset(rows, name, record.index, new)
            case "demand":
                self._add_demand(rows, name, record.index, new)
            case "dispute":
                self._add_dispute(rows, name, record.index, new)
            case "request":
                request = self._ledger.request(name)
                institution = request.requested.dataset.partition(".")[0]
                if new:
                    row = (record.index, name, institution, request.requester, request.status)
                    rows[schema.INSERT_REQUEST].append(row)
                else:
                    rows[schema.UPDATE_REQUEST].append((request.status, name))
            case "token":
                token = self._ledger.token(name)
                if new:
                    rows[schema.INSERT_TOKEN].append((record.index, name, token.holder, token.dataset, token.status))
                else:
                    rows[schema.UPDATE_TOKEN].append((token.status, name))
            case "proposal":
                proposal = self._ledger.proposal(name)
                if new:
                    rows[schema.INSERT_PROPOSAL].append((record.index, name, proposal.status))
                else:
                    rows[schema.UPDATE_PROPOSAL].append((proposal.status, name))
            case "application":
                rows[schema.PUT_APPLICATION].append((name, self._ledger.application(name).status))
            case "task":
                task = self._ledger.task(name)
                if new:
                    rows[schema.INSERT_TASK].append((record.index, name, task.asker, task.status))
                    rows[schema.INSERT_PARTY] += [(party, record.index) for party in task.submitted.committee]
                else:
                    rows[schema.UPDATE_TASK].append((task.status, name))

    def dimensions(self, record: AuditRecord) -> set[Dimension]:
        """Everything a record can be found by."""
        found = trail.dimensions(record)
        named: dict[str, list[str]] = {}
        for kind, name in found:
            if kind in ("task", "token", "request"):
                named.setdefault(kind, []).append(name)
        for kind in ("task", "token", "request"):  # a task states one purpose, whatever else its tokens are for
            if kind in named:
                found.update(("purpose", purpose) for name in named[kind] for purpose in self._purposes(kind, name))
                break
        return found

    def _purposes_of(self, kind: str, name: str) -> tuple[str, ...]:
        """What a task, token or request is for; that never changes."""
        try:
            match kind:
                case "task":
                    return tuple(filter(None, [self._ledger.task(name).submitted.purpose]))
                case "token":
                    return tuple(self._ledger.token(name).purposes)
                case _:
                    return tuple(self._ledger.request(name).requested.purposes)
        except NotFound:
            return ()

    def _add_dataset(self, rows: _Rows, name: str, index: int, new: bool) -> None:
        """A dataset's present descriptor in place of any earlier one."""
        dataset = self._ledger.dataset(name)
        if new:
            seq = index
        else:
            (seq,) = self._database.execute("SELECT seq FROM datasets WHERE id = ?", (name,)).fetchone()
            for statement in (schema.DELETE_DATASET, schema.DELETE_COLUMNS, schema.DELETE_THEMES, schema.DELETE_TEXT):
                rows[statement].append((seq,))
        published = dataset.published
        columns = [(column.name, seq, column.unit) for column in published.columns[:]]
        outcomes = [made.outcome for made in dataset.verifications[:]]
        rows[schema.INSERT_DATASET].append(
            (
                seq,
                name,
                dataset.publisher,
                dataset.status == DATASET_STATUS_WITHDRAWN,
                dataset.released_at_ms,
                outcomes.count(VERIFICATION_OUTCOME_CONFIRMED),
                outcomes.count(VERIFICATION_OUTCOME_CONTESTED),
                prices.of_one_use(published.price, published.row_count),
            )
        )
        names = [name for name, _, _ in columns]
        rows[schema.INSERT_COLUMN] += columns
        rows[schema.INSERT_THEME] += [(code, seq) for code in published.themes[:]]
        rows[schema.INSERT_TEXT].append(
            (seq, name, published.title, " ".join(published.keywords[:]), " ".join(names), published.description)
        )

    def _add_demand(self, rows: _Rows, demand_id: str, index: int, new: bool) -> None:
        demand = self._ledger.demand(demand_id)
        if new:
            rows[schema.INSERT_DEMAND].append((index, demand_id, demand.demander, demand.status))
        else:
            rows[schema.UPDATE_DEMAND].append((demand.status, demand_id))
        rows[schema.INSERT_MATCH] += [(match.dataset.partition(".")[0], demand_id) for match in demand.matches]

    def _add_dispute(self, rows: _Rows, dispute_id: str, index: int, new: bool) -> None:
        dispute = self._ledger.dispute(dispute_id)
        if not new:
            rows[schema.UPDATE_DISPUTE].append((dispute.status, dispute_id))
            return
        opened = dispute.opened
        rows[schema.INSERT_DISPUTE].append((index, dispute_id, opened.token_id or opened.task_id, dispute.status))
        involved = {dispute.claimant.partition("/")[0], opened.respondent, *dispute.arbiters}
        rows[schema.INSERT_INVOLVED] += [(institution, index) for institution in sorted(involved)]

    # --- questions

    def search_datasets(
        self,
        *,
        text: str = "",
        institution: str = "",
        theme: str = "",
        column: str = "",
        unit: str = "",
        max_price: int | None = None,
        released_since_ms: int = 0,
        min_verifications: int = 0,
        include_withdrawn: bool = False,
        page_size: int,
        page_token: str = "",
    ) -> Callable[[], tuple[list[str], str]]:
        """Finds datasets whose name, title, keywords, columns or description have every word of ``text``, as of now.

        To be called on another thread, since a text that many have takes time. Raises InvalidInput.

        Words match beginnings, whatever case and accents; the best match comes first, and without a text the
        dataset published last. ``theme`` finds narrower ones too; ``unit`` is of ``column``, where one is named.
        What it returns are names and the token of the next page, or ''; what it raises is Unavailable.
        """
        where = Where()
        where.equal(institution=institution)
        if column and unit:
            where.add("datasets.seq IN (SELECT seq FROM columns WHERE name = ? AND unit = ?)", column, unit)
        elif column:
            where.add("datasets.seq IN (SELECT seq FROM columns WHERE name = ?)", column)
        elif unit:
            where.add("datasets.seq IN (SELECT seq FROM columns WHERE unit = ?)", unit)
        if theme:
            codes = json.dumps(taxonomy.with_narrower(self._ledger.taxonomy(), theme))
            where.add("datasets.seq IN (SELECT seq FROM themes WHERE code IN (SELECT value FROM json_each(?)))", codes)
        if max_price is not None:
            where.add("price <= ?", min(max_price, _LARGEST))
        if released_since_ms:
            where.add("released_ms >= ?", released_since_ms)
        if min_verifications:
            where.add("confirmed >= ? AND NOT contested", min_verifications)
        if not include_withdrawn:
            where.add("NOT withdrawn")
        source, order, further = "SELECT seq, id FROM datasets", "ORDER BY seq DESC LIMIT ?", [page_size + 1]
        query, position = search_terms(text), page_position(page_token)
        if query:
            where.add("texts MATCH ?", query)
            source += " JOIN texts ON texts.rowid = datasets.seq"
            order = "ORDER BY bm25(texts, 4.0, 4.0, 2.0, 2.0, 1.0), datasets.seq LIMIT ? OFFSET ?"
            further.append(position)
        elif position:
            where.add("seq < ?", position)

        def find() -> tuple[list[str], str]:
            with closing(self._connect()) as database:
                rows = self._select(source, where, order, *further, database=database)
            page = rows[:page_size]
            following = position + page_size if query else page[-1][0] if page else 0
            return [name for _, name in page], str(following) if len(rows) > page_size else ""

        return find

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
        where = Where()
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
        where = Where()
        where.equal(holder=holder, dataset=dataset, status=status)
        where.begins(id_prefix)
        return self._newest("SELECT seq, id FROM tokens", where, page_size, page_token, self._ledger.token)

    def demands(
        self,
        *,
        demander: str = "",
        matched_institution: str = "",
        status: int = 0,
        id_prefix: str = "",
        page_size: int,
        page_token: str = "",
    ) -> tuple[list[Demand], str]:
        """Demands, newest first, and the token of the next page; ``matched_institution`` has what is asked for."""
        where = Where()
        where.equal(demander=demander, status=status)
        where.begins(id_prefix)
        if matched_institution:
            where.add("seq IN (SELECT seq FROM matches WHERE institution = ?)", matched_institution)
        return self._newest("SELECT seq, id FROM demands", where, page_size, page_token, self._ledger.demand)

    def disputes(
        self,
        *,
        institution: str = "",
        subject: str = "",
        status: int = 0,
        id_prefix: str = "",
        page_size: int,
        page_token: str = "",
    ) -> tuple[list[Dispute], str]:
        """Disputes, newest first, and the token of the next page; ``institution`` is a side of it, or an arbiter."""
        where = Where()
        where.equal(about=subject, status=status)
        where.begins(id_prefix)
        if institution:
            where.add("seq IN (SELECT seq FROM involved WHERE institution = ?)", institution)
        return self._newest("SELECT seq, id FROM disputes", where, page_size, page_token, self._ledger.dispute)

    def proposals(
        self, *, status: int = 0, id_prefix: str = "", page_size: int, page_token: str = ""
    ) -> tuple[list[GovernanceProposal], str]:
        """Proposals, newest first, and the token of the next page."""
        where = Where()
        where.equal(status=status)
        where.begins(id_prefix)
        return self._newest("SELECT seq, id FROM proposals", where, page_size, page_token, self._ledger.proposal)

    def applications(
        self, *, status: int = 0, institution: str = "", page_size: int, page_token: str = ""
    ) -> tuple[list[governance_pb2.Application], str]:
        """Applications for membership, ascending by institution, and the token of the next page: where it goes on."""
        where = Where()
        where.equal(status=status, id=institution)
        if page_token:
            where.add("id > ?", page_token)
        rows = self._select("SELECT id FROM applications", where, "ORDER BY id LIMIT ?", page_size + 1)
        page = [self._ledger.application(name) for (name,) in rows[:page_size]]
        return page, page[-1].descriptor.id if len(rows) > page_size else ""

    def tasks(
        self, *, asker: str = "", institution: str = "", status: int = 0, page_size: int, page_token: str = ""
    ) -> tuple[list[Task], str]:
        """Tasks, newest first, and the token of the next page; ``institution`` is a party to it."""
        where = Where()
        where.equal(asker=asker, status=status)
        if institution:
            where.add("seq IN (SELECT seq FROM parties WHERE institution = ?)", institution)
        return self._newest("SELECT seq, id FROM tasks", where, page_size, page_token, self._ledger.task)

    def task_id(self, prefix: str) -> str:
        """The one task whose id begins so. Raises NotFound, or InvalidInput when there are several."""
        where = Where()
        where.begins(prefix)
        rows = self._select("SELECT id FROM tasks", where, "LIMIT 2")
        if not rows or not prefix:
            raise NotFound(f"there is no task {prefix!a}", hint="koinon task list shows them")
        if len(rows) > 1:
            raise InvalidInput(f"several tasks begin with {prefix!a}", hint="give more digits of the id")
        return str(rows[0][0])

    def records(self, wanted: RecordFilter, *, limit: int, newest_first: bool = False) -> tuple[list[AuditRecord], int]:
        """Audit records that fit a checked filter, in order, and the index to go on from, or 0.

        That is the next page's ``from_index``, or its ``until_index`` where the newest come first.
        """
        first, end = self._range(wanted)
        try:
            index = AuditIndex(self._database, self._open_chunk, self._next_index)
            indices, following = index.page(wanted.dimensions, first, end, limit, newest_first=newest_first)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        return [self._record(index) for index in indices], following

    def counter(self, wanted: RecordFilter, by: str) -> Callable[[], Counts]:
        """Counts the records that fit a checked filter by a dimension, as of now; to be called on another thread.

        What it returns raises InvalidInput or Unavailable.
        """
        first, end = self._range(wanted)
        names = {by, *(item.dimension for item in wanted.dimensions)}
        open_chunk, size = self._open_chunk.copy(names), self._next_index

        def count() -> Counts:
            try:
                with closing(self._connect()) as database:
                    return AuditIndex(database, open_chunk, size).count(wanted.dimensions, first, end, by)
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

        return count

    def _range(self, wanted: RecordFilter) -> tuple[int, int]:
        """The places in the log that a filter allows: time only grows there."""
        size = self._next_index
        first = max(wanted.from_index, self._first_at(wanted.since_ms))
        end = min(wanted.until_index or size, self._first_at(wanted.until_ms) if wanted.until_ms else size)
        return min(first, size), end

    def _first_at(self, time_ms: int) -> int:
        """The first record of this time or later."""
        return bisect_left(range(self._next_index), time_ms, key=lambda index: self._record(index).time_ms)

    def statement(self, account: str, *, page_size: int, page_token: str = "") -> tuple[list[AuditRecord], str]:
        """Records that moved points of an account, newest first, and the token of the next page."""
        where = Where()
        where.add("account = ?", account)
        if page_token:
            where.add("idx < ?", page_position(page_token))
        rows = self._select("SELECT idx FROM postings", where, "ORDER BY idx DESC LIMIT ?", page_size + 1)
        page = rows[:page_size]
        return [self._record(index) for (index,) in page], str(page[-1][0]) if len(rows) > page_size else ""

    def _newest(
        self, source: str, where: Where, page_size: int, page_token: str, find: Callable[[str], T]
    ) -> tuple[list[T], str]:
        """One page of (seq, id) from ``source``, newest first, as entities; and the token of the next page."""
        if page_token:
            where.add("seq < ?", page_position(page_token))
        rows = self._select(source, where, "ORDER BY seq DESC LIMIT ?", page_size + 1)
        page = rows[:page_size]
        return [find(name) for _, name in page], str(page[-1][0]) if len(rows) > page_size else ""

    def _select(
        self, source: str, where: Where, order: str, *further: Value, database: sqlite3.Connection | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a query made of this file's own words; everything from outside is a bound value."""
        try:
            execute = (database or self._database).execute
            return execute(f"{source} WHERE {where} {order}", (*where.values, *further)).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    def _record(self, index: int) -> AuditRecord:
        record = self._ledger.record(index)
        if record is None:  # asked only for those below the log's size
            raise damaged(f"the audit log lacks record {index}")
        return record

    def _unavailable(self, error: sqlite3.Error | OSError) -> KoinonError:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC:
            return Exhausted(
                f"the index {self._path} cannot be written: the disk is full",
                rule="disk-full",
                hint="free some space, then start again; the file can be removed, it is made again from the ledger",
            )
        return Unavailable(
            f"the index {self._path} cannot be written: {error}",
            rule="disk-error",
            hint="check space and permissions of the disk; the file can be removed, it is made again from the ledger",
        )
