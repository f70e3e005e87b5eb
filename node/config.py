"""The node's home directory and its ``config.toml``.

::

    HOME/config.toml                          this file's schema
    HOME/genesis.json                         the consortium's, the same at every member
    HOME/descriptor.json                      the public half of this institution
    HOME/keys/{validator,node,sealing}.key    never leave this machine
    HOME/tls/{certificate.pem,key.pem}        the certificate is pinned on the ledger
    HOME/people/NAME.{key,toml}               people made by `koinon init`, with their client profiles
    HOME/data/{ledger/,wal,read.sqlite}       what the node has decided and indexed
    HOME/data/{snapshots/,chunks/}            snapshots for others; chunks of one being fetched
    HOME/datasets/                            files served to joint computations
    HOME/outputs/                             results sealed to their askers
    HOME/log/node.log                         JSON lines

Every key of ``config.toml`` is demanded: a file that was cut lacks some, and must not pass for one with usual values.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from koinon.errors import InvalidFile, InvalidName
from koinon.files import unread
from koinon.names import check_address, check_institution


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens or is reached. IPv6 hosts are written in brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError with a sentence for a person."""
        try:
            host, _, port = check_address(text).rpartition(":")
        except InvalidName:
            raise ValueError(
                f"{text!r} is not HOST:PORT with a port from 1 to 65535 and an IPv6 host in brackets"
            ) from None
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Home:
    """Paths inside one node's home directory."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def genesis(self) -> Path:
        return self.path / "genesis.json"

    @property
    def descriptor(self) -> Path:
        return self.path / "descriptor.json"

    def key(self, name: str) -> Path:
        """Key file of the institution: ``validator``, ``node`` or ``sealing``."""
        return self.path / "keys" / f"{name}.key"

    @property
    def certificate(self) -> Path:
        return self.path / "tls" / "certificate.pem"

    @property
    def certificate_key(self) -> Path:
        return self.path / "tls" / "key.pem"

    @property
    def people(self) -> Path:
        return self.path / "people"

    @property
    def ledger(self) -> Path:
        return self.path / "data" / "ledger"

    @property
    def ledger_building(self) -> Path:
        """A ledger that is being made from a snapshot."""
        return self.path / "data" / "ledger.part"

    @property
    def ledger_restored(self) -> Path:
        """One that is whole, to take the place of ``ledger`` at the next start."""
        return self.path / "data" / "ledger.new"

    @property
    def snapshots(self) -> Path:
        """Those cut here, for others."""
        return self.path / "data" / "snapshots"

    @property
    def chunks(self) -> Path:
        """Those fetched so far of another's."""
        return self.path / "data" / "chunks"

    @property
    def wal(self) -> Path:
        return self.path / "data" / "wal"

    @property
    def read_model(self) -> Path:
        return self.path / "data" / "read.sqlite"

    @property
    def datasets(self) -> Path:
        return self.path / "datasets"

    @property
    def outputs(self) -> Path:
        return self.path / "outputs"

    @property
    def log(self) -> Path:
        return self.path / "log"


@dataclass(frozen=True, slots=True)
class JobLimits:
    """Bounds of the processes that compute: one per task."""

    memory_mb: int = 1024  # address space of one worker
    concurrent: int = 8  # tasks computing at once; further ones wait for their turn


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """What a node keeps beside what all must keep, in blocks."""

    snapshot_blocks: int = 1_000  # a snapshot for joiners is cut whenever the height is a multiple; 0: never
    keep_blocks: int = 0  # older ones are pruned to their headers, in segments; 0: none


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything `koinon node run` is told by its home directory."""

    home: Home
    institution: str
    rpc: Address
    peer: Address
    mpc: Address
    metrics: Address | None = None  # None: off
    log_level: str = "info"
    jobs: JobLimits = JobLimits()
    ledger: LedgerLimits = LedgerLimits()

    def listening(self) -> dict[str, Address]:
        """Every address that the node binds, by its name in ``[listen]``."""
        own = {"rpc": self.rpc, "peer": self.peer, "mpc": self.mpc}
        return own if self.metrics is None else {**own, "metrics": self.metrics}


_LEVELS = ("debug", "info", "warning", "error")
_TOP = {"institution": "…"}  # keys, each with the value named where it is missing
_TABLES = {
    "listen": {"rpc": "127.0.0.1:7400", "peer": "127.0.0.1:7401", "mpc": "127.0.0.1:7402", "metrics": ""},
    "jobs": asdict(JobLimits()),
    "ledger": asdict(LedgerLimits()),
    "log": {"level": "info"},
}
_NOT_TOML = "correct the file at the place named; where it was cut, restore it from your backup"
_JOBS = {"memory_mb": (64, 1024 * 1024), "concurrent": (1, 64)}  # least, most
_LEDGER = {"snapshot_blocks": (0, 1_000_000_000), "keep_blocks": (0, 1_000_000_000)}


def load(home: Path) -> NodeConfig:
    """Read ``config.toml`` of a home directory, trusted for content but not for form.

    Raises:
        InvalidFile: missing, unreadable, not TOML, a key that is unknown or missing, or a value out of its bounds.
    """
    paths = Home(home)
    source = paths.config
    try:
        document = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not source.is_symlink():
            raise InvalidFile(
                f"{home} is not the home of a node: it has no config.toml",
                hint=f"check the path; for a new node, koinon init --home {home} makes one",
            ) from None
        raise _invalid(f"{source}: cannot be read: {error.strerror}", hint=unread(error)) from None
    except (ValueError, RecursionError) as error:
        raise _invalid(f"{source}: not TOML: {error}", hint=_NOT_TOML) from None

    _only_known(source, "", document, (*_TOP, *_TABLES))
    _none_missing(source, "", document, _TOP)
    tables = {name: _table(source, document, name, keys) for name, keys in _TABLES.items()}
    try:
        institution = check_institution(_text(source, "", document, "institution"))
    except InvalidName as error:
        raise _invalid(f"{source}: institution: {error}", hint=error.hint) from None
    listening = {key: _address(source, tables["listen"], key) for key in ("rpc", "peer", "mpc")}
    metrics = _metrics(source, tables["listen"])
    _only_once(source, {**listening, **({"metrics": metrics} if metrics else {})})
    level = _text(source, "log", tables["log"], "level")
    if level not in _LEVELS:
        raise _invalid(f"{source}: log.level is {level!r}", hint=f"use one of {', '.join(_LEVELS)}")
    return NodeConfig(
        home=paths,
        institution=institution,
        **listening,
        metrics=metrics,
        log_level=level,
        jobs=JobLimits(**_numbers(source, "jobs", tables["jobs"], _JOBS)),
        ledger=LedgerLimits(**_numbers(source, "ledger", tables["ledger"], _LEDGER)),
    )


def render(config: NodeConfig) -> str:
    """The ``config.toml`` that loads as this configuration.

    Its last value is in quotes: it cannot be cut and remain a value, as a number can.
    """
    return f"""\
# The node of {config.institution}. Every key is needed, and unknown ones are refused.
institution = "{config.institution}"

# Where this machine listens. What the others dial is in descriptor.json, and on the ledger from then on.
[listen]
rpc = "{config.rpc}"    # clients
peer = "{config.peer}"    # consensus between nodes
mpc = "{config.mpc}"    # joint computation between workers
metrics = "{config.metrics or ""}"    # for Prometheus, without authentication; "7403" is 127.0.0.1:7403, empty is off

# One process per joint computation.
[jobs]
memory_mb = {config.jobs.memory_mb}
concurrent = {config.jobs.concurrent}

# A snapshot for joiners every so many blocks (0: none). Older blocks than the newest keep_blocks are pruned to their
# headers (0: all are kept whole), unless the members demand them; audit records are kept for ever.
[ledger]
snapshot_blocks = {config.ledger.snapshot_blocks}
keep_blocks = {config.ledger.keep_blocks}

# How much the log tells: {", ".join(_LEVELS)}.
[log]
level = "{config.log_level}"
"""


def _only_known(source: Path, section: str, table: dict[str, object], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            where = f"{section}.{key}" if section else key
            raise _invalid(f"{source}: unknown key {where}", hint=f"known here: {', '.join(known)}")


def _none_missing(source: Path, section: str, table: dict[str, object], usual: Mapping[str, object]) -> None:
    for key, value in usual.items():
        if key not in table:
            where, place = (f"{section}.{key}", f"below [{section}]") if section else (key, "at the top")
            line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
            raise _invalid(
                f"{source}: {where} is missing",
                hint=f"add {line} {place}, or restore the file from your backup: it may have been cut",
            )


def _table(source: Path, document: dict[str, object], name: str, usual: Mapping[str, object]) -> dict[str, object]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise _invalid(f"{source}: {name} is not a table", hint=f"write it as [{name}]")
    _only_known(source, name, table, tuple(usual))
    _none_missing(source, name, table, usual)
    return table


def _text(source: Path, section: str, table: dict[str, object], key: str) -> str:
    value = table[key]
    where = f"{section}.{key}" if section else key
    if not isinstance(value, str):
        raise _invalid(f"{source}: {where} is not text", hint=f'write it as {key} = "…"')
    return value


def _address(source: Path, table: dict[str, object], key: str) -> Address:
    try:
        return Address.parse(_text(source, "listen", table, key))
    except ValueError as error:
        raise _invalid(
            f"{source}: listen.{key}: {error}", hint=f'write it as {key} = "127.0.0.1:7400", or "[::1]:7400"'
        ) from None


def _only_once(source: Path, addresses: dict[str, Address]) -> None:
    taken: dict[Address, str] = {}
    for key, address in addresses.items():
        if (other := taken.setdefault(address, key)) != key:
            raise _invalid(
                f"{source}: listen.{other} and listen.{key} are both {address}", hint="give each its own port"
            )


def _metrics(source: Path, table: dict[str, object]) -> Address | None:
    """Off where it is empty; a bare port is one of loopback."""
    text = _text(source, "listen", table, "metrics")
    if text.isascii() and text.isdigit():
        text = f"127.0.0.1:{text}"
    return _address(source, {"metrics": text}, "metrics") if text else None


def _numbers(
    source: Path, section: str, table: dict[str, object], bounds: dict[str, tuple[int, int]]
) -> dict[str, int]:
    numbers = {}
    for key, (least, most) in bounds.items():
        value = table[key]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise _invalid(f"{source}: {section}.{key} is {value!r}", hint=f"use a whole number from {least} to {most}")
        numbers[key] = value
    return numbers


def _invalid(message: str, *, hint: str) -> InvalidFile:
    return InvalidFile(message, rule="invalid-config", hint=hint)
