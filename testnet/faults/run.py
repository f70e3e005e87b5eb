"""One network under one plan of faults."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

import click

from koinon import envelope, genesis, key_files, profile, submission
from koinon.errors import KoinonError, StatusUnknown, Unauthenticated, Unavailable
from koinon.keys import SigningKey
from koinon.limits import MAX_SUBMIT_ENVELOPES
from koinon.rpc import Connection
from koinon.v1.identity_pb2 import Person, RegisterPerson, Role
from koinon.v1.services_pb2 import DiagnoseStallRequest, GetStatusRequest, GetTransactionsRequest
from koinon.v1.transaction_pb2 import Operation, TransactionStatus
from node import examine, replay, tls
from node.store.blocks import BlockStore
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from testnet.faults.checks import Checks
from testnet.faults.lan import Lan
from testnet.faults.plan import Fault, Kind
from testnet.network import READY_S, Testnet
from testnet.simulation.checkers import Violation

_WRITERS = 2  # per node, each with one transaction under way
_WRITE_S = 10.0
_SAFE_S = 180.0  # a wiped node votes again a good minute after its loss
_POLL_S = 0.05
_SETTLE_S = 60.0
_END_S = 30.0  # a node that cannot go on ends within
_LATENCY_S = 0.1
_WRONG_CLOCK_S = 3.0  # beside the plan's time: it has to start first
WRONG_CLOCK = Path(__file__).parent / "wrong_clock"
"""What a node imports first whose clock is to be wrong (``Testnet.start``)."""


@dataclass(slots=True)
class Report:
    """What was seen. Times in seconds."""

    gaps: dict[Kind, list[float]] = field(default_factory=dict)  # by kind: longest time without a commit
    returns: dict[Kind, list[float]] = field(default_factory=dict)  # by kind: from start, or SIGCONT, to caught up
    transactions: int = 0
    blocks: int = 0
    seconds: float = 0.0

    def lines(self) -> Iterator[str]:
        """A table."""
        yield f"{'fault':<20}{'times':>6}{'no commit for: p50':>20}{'max':>9}{'back after: p50':>18}{'max':>9}"
        for kind, gaps in self.gaps.items():
            back = self.returns[kind]
            yield (
                f"{kind:<20}{len(gaps):>6}{statistics.median(gaps):>18.2f} s{max(gaps):>7.2f} s"
                f"{statistics.median(back):>16.2f} s{max(back):>7.2f} s"
            )
        yield (
            f"{self.transactions:,} transactions answered COMMITTED, {self.blocks:,} blocks, {self.seconds:.0f} s: "
            "all in every ledger, no fork, no equivocation"
        )


class Run:
    """One network under one plan."""

    def __init__(self, network: Testnet, lan: Lan | None) -> None:
        self._network = network
        self._lan = lan
        self._genesis = genesis.load(network.dir / "genesis.json")
        self._chain_id = genesis.chain_id(self._genesis)
        self._connections: dict[str, Connection] = {}
        self._keys: dict[str, SigningKey] = {}
        self._numbers = count(1)
        self._writing = True
        self._out_of_time = ""  # whose clock is wrong
        self._commits: list[float] = []  # when clients heard of them
        self._checks = Checks()
        self.report = Report()

    async def run(self, faults: Iterator[Fault]) -> Report:
        """Raises Violation."""
        started = time.monotonic()
        for institution in self._network.institutions:
            chosen = profile.load(self._network.profile(f"{institution}-operator"))
            self._keys[institution] = key_files.load_signing_key(chosen.key_file)
            self._connections[institution] = Connection(chosen, self._keys[institution], self._chain_id)
        try:
            async with asyncio.TaskGroup() as tasks:
                for institution in self._network.institutions:
                    for _ in range(_WRITERS):
                        tasks.create_task(self._write_on(institution))
                for number, fault in enumerate(faults, 1):
                    await self._inflict(fault, number)
                self._writing = False
            await self._ask_every_node()
        finally:
            for connection in self._connections.values():
                await connection.close()
        await asyncio.to_thread(self._network.stop)
        await asyncio.to_thread(self._examine_ledgers)
        self.report.transactions = len(self._checks.answered)
        self.report.seconds = time.monotonic() - started
        return self.report

    # --- clients

    async def _write_on(self, institution: str) -> None:
        """Write until told to stop; every transaction is sent until it is final."""
        while self._writing:
            person = Person(
                id=f"{institution}/p{next(self._numbers)}",
                public_key=SigningKey.generate().public_key,
                roles=[Role.ROLE_ANALYST],
            )
            operation = Operation(register_person=RegisterPerson(person=person))
            signed = submission.sign(self._chain_id, [operation], self._keys[institution])
            await self._write(institution, signed)

    async def _write(self, institution: str, signed: bytes) -> None:
        transaction_id = envelope.identify(signed)
        while True:
            try:
                info = await submission.send(self._connections[institution], signed, transaction_id, _WRITE_S)
            except Unauthenticated:  # whose clock is wrong takes no ticket for one of now
                if institution != self._out_of_time:
                    raise
                await asyncio.sleep(_POLL_S)
            except StatusUnknown:
                if await self._is_known_elsewhere(transaction_id):
                    return
            except Unavailable:  # its node is down, or away: the same bytes again, until the ledger or expiry decides
                await asyncio.sleep(_POLL_S)
            except KoinonError as error:  # nothing that is written here is against any rule
                raise Violation(f"{institution} refused {transaction_id.hex()}: [{error.rule}] {error}") from error
            else:
                self._commits.append(time.monotonic())
                self._checks.answered[transaction_id] = (info.height, tuple(info.created))
                return

    async def _is_known_elsewhere(self, transaction_id: bytes) -> bool:
        """Take another node's answer: one that lost its ledger and joined by a snapshot has no results from before."""
        for connection in self._connections.values():
            with suppress(Unavailable, Unauthenticated):
                info = await submission.status(connection, transaction_id)
                if info.status == TransactionStatus.TRANSACTION_STATUS_COMMITTED:
                    self._commits.append(time.monotonic())
                    self._checks.answered[transaction_id] = (info.height, tuple(info.created))
                    return True
        return False

    # --- faults

    async def _inflict(self, fault: Fault, number: int) -> None:
        await asyncio.sleep(fault.after_s)
        self._all_run()
        struck = time.monotonic()
        from_height = await self._strike(fault)
        begun = time.monotonic()
        await self._recovered()
        self._out_of_time = ""
        back = time.monotonic()
        if fault.kind == Kind.WIPE:
            # Its last precommit before may stand in the certificate after next of those that live.
            self._checks.silent.append((fault.victim, from_height + 2, await self._safe_height(fault.victim)))
            self._note_beginning(fault.victim)
        gap = self._longest_gap(struck, back)
        self.report.gaps.setdefault(fault.kind, []).append(gap)
        self.report.returns.setdefault(fault.kind, []).append(back - begun)
        click.echo(
            f"{number:>4}  {fault.kind:<20} {fault.victim or 'all':<5} no commit for {gap:5.2f} s, "
            f"back after {back - begun:5.2f} s",
            err=True,
        )

    async def _strike(self, fault: Fault) -> int:
        """Do it, and undo it. Returns the height of the others while a node's data was being wiped."""
        network, victim = self._network, fault.victim
        match fault.kind:
            case Kind.KILL | Kind.WIPE:
                return await self._kill(fault)
            case Kind.KILL_ALL:
                for institution in network.institutions:
                    os.kill(network.pid(institution), signal.SIGKILL)
                for institution in network.institutions:
                    await asyncio.to_thread(network.kill, institution)  # waits until it is gone
                network.start()
            case Kind.STOP:
                pid = network.pid(victim)
                os.kill(pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(fault.away_s)
                finally:
                    os.kill(pid, signal.SIGCONT)
            case Kind.CLOCK:
                await self._set_the_clock_wrong(fault)
            case Kind.CERTIFICATE:
                await self._replace_the_certificate(victim)
            case Kind.DISK:
                await self._fill_the_disk(victim)
            case _:
                await self._disturb_the_network(fault)
        return 0

    async def _kill(self, fault: Fault) -> int:
        network, victim, height = self._network, fault.victim, 0
        await asyncio.to_thread(network.kill, victim)
        await asyncio.sleep(fault.away_s)
        if fault.kind == Kind.WIPE:
            height = max([await self._height(item) for item in network.institutions if item != victim])
            for path in network.home(victim).ledger.parent.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        network.start(victim)
        if fault.again_s is not None:
            await asyncio.sleep(fault.again_s)
            self._all_run()
            await asyncio.to_thread(network.kill, victim)
            network.start(victim)
        return height

    def _note_beginning(self, victim: str) -> None:
        """If a node that lost its ledger joined by a snapshot, it knows no block up to that."""
        for line in (self._network.home(victim).log / "node.log").read_text(encoding="utf-8").splitlines():
            if '"snapshot restored"' in line:
                self._checks.first[victim] = int(json.loads(line)["height"]) + 1

    async def _set_the_clock_wrong(self, fault: Fault) -> None:
        """Run the node with a clock an hour ahead or behind; the others go on, and so does its ledger."""
        network, victim = self._network, fault.victim
        offset = 3_600 if int(fault.away_s * 1000) % 2 else -3_600
        await asyncio.to_thread(network.stop, victim)
        self._out_of_time = victim
        network.start(victim, environment={"KOINON_CLOCK_OFFSET_S": str(offset)}, import_first=WRONG_CLOCK)
        await asyncio.sleep(_WRONG_CLOCK_S + fault.away_s)
        self._all_run()
        await asyncio.to_thread(network.stop, victim)
        network.start(victim)

    async def _replace_the_certificate(self, victim: str) -> None:
        """Start the node with a certificate that the ledger does not name: it must refuse, and say so."""
        network, home = self._network, self._network.home(victim)
        await asyncio.to_thread(network.stop, victim)
        kept = {path: path.read_bytes() for path in (home.certificate, home.certificate_key)}
        other = tls.create_identity(victim)
        home.certificate.write_bytes(other.certificate)
        home.certificate_key.write_bytes(other.key)
        network.start(victim)
        await self._ended(victim, "certificate.pem is not what")
        for path, data in kept.items():
            path.write_bytes(data)
        network.start(victim)

    async def _fill_the_disk(self, victim: str) -> None:
        """Leave the node no byte: it must end, and say so; with room again it goes on."""
        filler = self._network.home(victim).ledger.parent / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(64 * 1024)):
                pass
        await self._ended(victim, "[disk-full]")
        filler.unlink()
        self._network.start(victim)

    async def _ended(self, victim: str, why: str) -> None:
        """Wait until a node has ended by itself, saying why. Raises Violation."""
        give_up = time.monotonic() + _END_S
        while self._network.pid(victim):
            if time.monotonic() > give_up:
                raise Violation(f"{victim} runs on, though it should say {why!r} and end")
            await asyncio.sleep(_POLL_S)
        said = (self._network.home(victim).log / "console").read_text(encoding="utf-8", errors="replace")
        if why not in said or "Traceback" in said:
            raise Violation(f"{victim} ended with other words than {why!r}: {said}")

    async def _disturb_the_network(self, fault: Fault) -> None:
        lan, victim = self._lan, fault.victim
        if lan is None:
            raise ValueError(f"{fault.kind} needs a network of its own for each node")
        others = [item for item in self._network.institutions if item != victim]
        if fault.kind == Kind.LATENCY:
            lan.delay(victim, _LATENCY_S)
        elif fault.kind == Kind.HALVES:
            half = [victim, *others[: len(others) // 2]]
            rest = [item for item in others if item not in half]
            lan.cut(half, rest)
            lan.cut(rest, half)
        else:
            lan.cut(others, [victim])
            if fault.kind == Kind.CUT_OFF:
                lan.cut([victim], others)
        await asyncio.sleep(fault.away_s)
        lan.heal()

    def _all_run(self) -> None:
        if ended := [item for item in self._network.institutions if not self._network.pid(item)]:
            raise Violation(f"the node of {', '.join(ended)} ended by itself")

    async def _recovered(self) -> None:
        """Wait until every node is connected to all, and has what any had when this began, and a client is answered:
        what this fault costs is not the next one's. Raises Violation.
        """
        target, begun = 0, time.monotonic()
        for institution in self._network.institutions:
            with suppress(Unavailable):
                target = max(target, await self._height(institution, patience_s=0.0))
        try:
            states = await asyncio.to_thread(self._network.wait_ready)
            give_up = time.monotonic() + READY_S
            while min(state.height for state in states) < target or max(self._commits, default=0.0) <= begun:
                if time.monotonic() > give_up:
                    raise Violation(f"not caught up to height {target}, or no client was answered since: {states}")
                await asyncio.sleep(_POLL_S)
                states = await asyncio.to_thread(self._network.status)
        except Unavailable as error:
            raise Violation(str(error)) from error
        self._all_run()

    async def _safe_height(self, institution: str) -> int:
        """From which a node without its signing state votes again; waits until it does. Raises Violation."""
        connection = self._connections[institution]
        give_up = time.monotonic() + _SAFE_S
        while time.monotonic() < give_up:
            stall = await connection.call(connection.node.DiagnoseStall, DiagnoseStallRequest(), patience_s=_WRITE_S)
            if not stall.signing_state_lost:
                return stall.votes_from_height
            await asyncio.sleep(_POLL_S)
        raise Violation(f"{institution} does not vote {_SAFE_S:.0f} s after its data was wiped")

    async def _height(self, institution: str, patience_s: float = _WRITE_S) -> int:
        connection = self._connections[institution]
        status = await connection.call(connection.node.GetStatus, GetStatusRequest(), patience_s=patience_s)
        return status.height

    def _longest_gap(self, since: float, until: float) -> float:
        before = max((at for at in self._commits if at <= since), default=since)
        times = [before, *(at for at in self._commits if since < at <= until), until]
        return max(later - earlier for earlier, later in pairwise(times))

    # --- what must hold in the end

    async def _ask_every_node(self) -> None:
        last = max((height for height, _ in self._checks.answered.values()), default=0)
        ids = list(self._checks.answered)
        give_up = time.monotonic() + _SETTLE_S
        for institution, connection in self._connections.items():
            while await self._height(institution) < last:
                if time.monotonic() > give_up:
                    raise Violation(f"{institution} does not reach height {last}")
                await asyncio.sleep(_POLL_S)
            for start in range(0, len(ids), MAX_SUBMIT_ENVELOPES):
                request = GetTransactionsRequest(transaction_ids=ids[start : start + MAX_SUBMIT_ENVELOPES])
                for info in (await connection.call(connection.transactions.GetTransactions, request)).transactions:
                    if self._checks.answered[info.transaction_id][0] < self._checks.first.get(institution, 1):
                        continue
                    said = (info.height, tuple(info.created))
                    committed = info.status == TransactionStatus.TRANSACTION_STATUS_COMMITTED
                    if not committed or said != self._checks.answered[info.transaction_id]:
                        raise Violation(f"{institution} says of {info.transaction_id.hex()}: {info}")

    def _examine_ledgers(self) -> None:
        """Of all homes, their nodes stopped; whose began from a snapshot cannot be replayed, and is held against the
        validators' signatures instead. Raises Violation, and Corrupt from the replay or the examination.
        """
        for institution in self._network.institutions:
            with (
                closing(LevelStore(self._network.home(institution).ledger)) as store,
                closing(MemoryStore()) as scratch,
            ):
                self._checks.examine(institution, BlockStore(store))
                if institution in self._checks.first:
                    examine.examine(self._genesis, store)
                    continue
                replayed = replay.replay(self._genesis, replay.stored(store), scratch)
                replay.compare(store, scratch, replayed.chain)
        self.report.blocks = len(self._checks.blocks)
