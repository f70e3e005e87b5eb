"""Tables of the read model (``node.read_model``), and every statement that changes them."""

from __future__ import annotations

from node import audit_index

SCHEMA_VERSION = 5

# What a crash loses is read from the ledger again, and damage is noticed: no need to wait for the disk.
PRAGMA = "PRAGMA synchronous = OFF"

SCHEMA = f"""
PRAGMA journal_mode = WAL;
PRAGMA user_version = {SCHEMA_VERSION};

CREATE TABLE standing (chain TEXT NOT NULL, next_index INTEGER NOT NULL);

{audit_index.SCHEMA}
CREATE TABLE datasets (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE, institution TEXT NOT NULL, withdrawn INTEGER NOT NULL,
    released_ms INTEGER NOT NULL, confirmed INTEGER NOT NULL, contested INTEGER NOT NULL, price INTEGER NOT NULL
);
CREATE TABLE columns (name TEXT COLLATE NOCASE, seq INTEGER, unit TEXT, PRIMARY KEY (name, seq)) WITHOUT ROWID;
CREATE INDEX columns_by_dataset ON columns (seq);
CREATE TABLE themes (code TEXT, seq INTEGER, PRIMARY KEY (code, seq)) WITHOUT ROWID;
CREATE INDEX themes_by_dataset ON themes (seq);
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
CREATE TABLE demands (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, demander TEXT NOT NULL, status INTEGER NOT NULL);
CREATE INDEX demands_by_demander ON demands (demander);
CREATE TABLE matches (institution TEXT, seq INTEGER, PRIMARY KEY (institution, seq)) WITHOUT ROWID;
CREATE TABLE disputes (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, about TEXT NOT NULL, status INTEGER NOT NULL);
CREATE INDEX disputes_by_subject ON disputes (about);
CREATE TABLE involved (institution TEXT, seq INTEGER, PRIMARY KEY (institution, seq)) WITHOUT ROWID;
CREATE TABLE proposals (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, status INTEGER NOT NULL);
CREATE INDEX proposals_by_status ON proposals (status);
CREATE TABLE applications (id TEXT PRIMARY KEY, status INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX applications_by_status ON applications (status);
CREATE TABLE tasks (seq INTEGER PRIMARY KEY, id TEXT UNIQUE, asker TEXT NOT NULL, status INTEGER NOT NULL);
CREATE INDEX tasks_by_asker ON tasks (asker);
CREATE TABLE postings (account TEXT, idx INTEGER, PRIMARY KEY (account, idx)) WITHOUT ROWID;
CREATE TABLE parties (institution TEXT, seq INTEGER, PRIMARY KEY (institution, seq)) WITHOUT ROWID;
"""
# In every table of entities, seq is the index of the record that made the entity: unique, ascending in time,
# the same however often the index is built; pages are stable because they continue after a seq.

INSERT_DATASET = "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
DELETE_DATASET = "DELETE FROM datasets WHERE seq = ?"
DELETE_COLUMNS = "DELETE FROM columns WHERE seq = ?"
INSERT_COLUMN = "INSERT INTO columns VALUES (?, ?, ?)"
DELETE_THEMES = "DELETE FROM themes WHERE seq = ?"
INSERT_THEME = "INSERT INTO themes VALUES (?, ?)"
DELETE_TEXT = "DELETE FROM texts WHERE rowid = ?"
INSERT_TEXT = "INSERT INTO texts (rowid, name, title, keywords, columns, description) VALUES (?, ?, ?, ?, ?, ?)"
INSERT_REQUEST = "INSERT INTO requests VALUES (?, ?, ?, ?, ?)"
UPDATE_REQUEST = "UPDATE requests SET status = ? WHERE id = ?"
INSERT_TOKEN = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?)"  # noqa: S105  # a capability, no password
UPDATE_TOKEN = "UPDATE tokens SET status = ? WHERE id = ?"  # noqa: S105
INSERT_DEMAND = "INSERT INTO demands VALUES (?, ?, ?, ?)"
UPDATE_DEMAND = "UPDATE demands SET status = ? WHERE id = ?"
INSERT_MATCH = "INSERT OR IGNORE INTO matches SELECT ?, seq FROM demands WHERE id = ?"
INSERT_DISPUTE = "INSERT INTO disputes VALUES (?, ?, ?, ?)"
UPDATE_DISPUTE = "UPDATE disputes SET status = ? WHERE id = ?"
INSERT_INVOLVED = "INSERT INTO involved VALUES (?, ?)"
INSERT_PROPOSAL = "INSERT INTO proposals VALUES (?, ?, ?)"
UPDATE_PROPOSAL = "UPDATE proposals SET status = ? WHERE id = ?"
PUT_APPLICATION = "INSERT OR REPLACE INTO applications VALUES (?, ?)"
INSERT_TASK = "INSERT INTO tasks VALUES (?, ?, ?, ?)"
UPDATE_TASK = "UPDATE tasks SET status = ? WHERE id = ?"
INSERT_POSTING = "INSERT INTO postings VALUES (?, ?)"
INSERT_PARTY = "INSERT INTO parties VALUES (?, ?)"

# In the order in which they are executed for some records: what is replaced goes first.
STATEMENTS = (
    audit_index.INSERT,
    DELETE_DATASET,
    INSERT_DATASET,
    DELETE_COLUMNS,
    INSERT_COLUMN,
    DELETE_THEMES,
    INSERT_THEME,
    DELETE_TEXT,
    INSERT_TEXT,
    INSERT_REQUEST,
    UPDATE_REQUEST,
    INSERT_TOKEN,
    UPDATE_TOKEN,
    INSERT_DEMAND,
    UPDATE_DEMAND,
    INSERT_MATCH,
    INSERT_DISPUTE,
    UPDATE_DISPUTE,
    INSERT_INVOLVED,
    INSERT_PROPOSAL,
    UPDATE_PROPOSAL,
    PUT_APPLICATION,
    INSERT_TASK,
    UPDATE_TASK,
    INSERT_PARTY,
    INSERT_POSTING,
)
