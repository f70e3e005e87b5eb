"""``python -m testnet.faults --nodes 4 --kills N --seed S``: real node processes under kill -9, watched from outside.

Clients write through every node all the time. Faults strike one node at a time (or, now and then, all at once by
SIGKILL), and the next one waits until every node decides and votes again: this is what a consortium of four promises
to outlive. One integer draws which node, when and for how long; what the processes make of it is theirs.

Held against the nodes, by code that is not theirs but for the final replay:

- **nothing lost**: what a client was told is COMMITTED is in every ledger once, at that height, with that result;
- **no fork**: the block at every height is the same, byte for byte, in all homes, and each replays from the genesis;
- **no equivocation**: no block holds evidence, and a node whose data was wiped signs nothing until its safe height;
- **no node ends or stands still by itself**: after a fault all are ready within a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count, pairwise
from pathlib import Path

import click

from koinon import envelope, genesis, key_files, profile, submission
from koinon.errors import KoinonError, Unavailable
from koinon.keys import SigningKey
from koinon.limits import MAX_SUBMIT_ENVELOPES
from koinon.rpc import Connection
from koinon.v1.consensus_pb2 import Block
from koinon.v1.identity_pb2 import Person, RegisterPerson, Role
from koinon.v1.services_pb2 import DiagnoseStallRequest, GetStatusRequest, GetTransactionsRequest
from koinon.v1.transaction_pb2 import Operation, TransactionStatus
from node import replay
from node.store.blocks import BlockStore
from node.store.leveldb import LevelStore
from node.store.memory import MemoryStore
from testnet.network import DEFAULT_INSTITUTIONS, READY_S, Testnet
from testnet.simulation.checkers import Violation

_WRITERS = 2  # per node, each with one transaction under way
_WRITE_S = 10.0
_SAFE_S = 180.0  # a wiped node votes again a good minute after its loss
_POLL_S = 0.05
_SETTLE_S = 60.0


class Kind(StrEnum):
    """As the table calls it."""

    KILL = "kill -9"
    KILL_ALL = "kill -9 of all"
    STOP = "SIGSTOP"
    WIPE = "wiped data"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to whom; the times follow one another."""

    kind: Kind
    victim: str  # empty: all
    after_s: float  # of calm before
    away_s: float  # dead or stopped
    again_s: float | None = None  # killed once more, this long after its start


def plan(seed: int, kills: int, institutions: Sequence[str]) -> Iterator[Fault]:
    """``kills`` times kill -9, every 20th of all nodes, and other faults between them; short runs see them early."""
    rng = random.Random(seed)  # noqa: S311 - draws faults, not secrets

    def fault(kind: Kind, away_s: float, again_s: float | None = None) -> Fault:
        return Fault(kind, rng.choice(institutions), rng.uniform(0.1, 1.5), away_s, again_s)

    for number in range(1, kills + 1):
        if number % 20 == 3:
            yield Fault(Kind.KILL_ALL, "", rng.uniform(0.1, 1.5), 0.0)
        else:
            yield fault(Kind.KILL, rng.uniform(0.0, 3.0), rng.uniform(0.0, 2.5) if rng.random() < 0.25 else None)
        if number % 10 == 2:
            yield fault(Kind.STOP, rng.uniform(1.0, 6.0))
        if number % 30 == 15:
            yield fault(Kind.WIPE, rng.uniform(0.0, 2.0))


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
        yield f"{'fault':<16}{'times':>6}{'no commit for: p50':>20}{'max':>9}{'back after: p50':>18}{'max':>9}"
        for kind, gaps in self.gaps.items():
            back = self.returns[kind]
            yield (
                f"{kind:<16}{len(gaps):>6}{statistics.median(gaps):>18.2f} s{max(gaps):>7.2f} s"
                f"{statistics.median(back):>16.2f} s{max(back):>7.2f} s"
            )
        yield (
            f"{self.transactions:,} transactions answered COMMITTED, {self.blocks:,} blocks, {self.seconds:.0f} s: "
            "all in every ledger, no fork, no equivocation"
        )


@dataclass(slots=True)
class Checks:
    """What clients and onlookers know, and every ledger is held against."""

    answered: dict[bytes, tuple[int, tuple[str, ...]]] = field(default_factory=dict)  # COMMITTED id: height, created
    silent: list[tuple[str, int, int]] = field(default_factory=list)  # institution; not a vote between these heights
    blocks: dict[int, bytes] = field(default_factory=dict)  # digest at each height, of the ledger that was read first

    def examine(self, institution: str, kept: BlockStore) -> None:
        """Hold one ledger against the rest. Raises Violation."""
        found: dict[bytes, int] = {}
        for height in range(1, kept.height() + 1):
            data, commit = kept.block(height), kept.commit(height)
            if data is None or commit is None:
                raise Violation(f"{institution} lacks the block at height {height}, or its certificate")
            if self.blocks.setdefault(height, digest := hashlib.sha256(data).digest()) != digest:
                raise Violation(f"fork: {institution} has another block at height {height}")
            block = Block.FromString(data)
            if block.evidence:
                raise Violation(f"the block at height {height} holds evidence: somebody equivocated")
            signers = {item.institution for item in commit.signatures}
            for silent, after, before in self.silent:
                if silent in signers and after < height < before:
                    raise Violation(f"{silent} signed height {height}, and knew nothing of its past before {before}")
            for transaction_id in map(envelope.identify, block.transactions):
                if transaction_id in found:
                    raise Violation(f"{institution} has {transaction_id.hex()} twice")
                found[transaction_id] = height
        for transaction_id, (height, _) in self.answered.items():
            if found.get(transaction_id) != height:
                raise Violation(f"lost: {institution} lacks {transaction_id.hex()} at height {height}")


class Run:
    """One network under one plan."""

    def __init__(self, network: Testnet) -> None:
        self._network = network
        self._genesis = genesis.load(network.dir / "genesis.json")
        self._chain_id = genesis.chain_id(self._genesis)
        self._connections: dict[str, Connection] = {}
        self._keys: dict[str, SigningKey] = {}
        self._numbers = count(1)
        self._writing = True
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
            except Unavailable:  # its node is down, or away: the same bytes again, until the ledger or expiry decides
                await asyncio.sleep(_POLL_S)
            except KoinonError as error:  # nothing that is written here is against any rule
                raise Violation(f"{institution} refused {transaction_id.hex()}: [{error.rule}] {error}") from error
            else:
                self._commits.append(time.monotonic())
                self._checks.answered[transaction_id] = (info.height, tuple(info.created))
                return

    # --- faults

    async def _inflict(self, fault: Fault, number: int) -> None:
        network, victim = self._network, fault.victim
        await asyncio.sleep(fault.after_s)
        self._all_run()
        struck = time.monotonic()
        from_height = 0
        match fault.kind:
            case Kind.STOP:
                pid = network.pid(victim)
                os.kill(pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(fault.away_s)
                finally:
                    os.kill(pid, signal.SIGCONT)
            case Kind.KILL_ALL:
                for institution in network.institutions:
                    os.kill(network.pid(institution), signal.SIGKILL)
                for institution in network.institutions:
                    await asyncio.to_thread(network.kill, institution)  # waits until it is gone
                network.start()
            case _:
                await asyncio.to_thread(network.kill, victim)
                await asyncio.sleep(fault.away_s)
                if fault.kind == Kind.WIPE:
                    from_height = max([await self._height(item) for item in network.institutions if item != victim])
                    shutil.rmtree(network.home(victim).ledger.parent)
                network.start(victim)
                if fault.again_s is not None:
                    await asyncio.sleep(fault.again_s)
                    self._all_run()
                    await asyncio.to_thread(network.kill, victim)
                    network.start(victim)
        begun = time.monotonic()
        await self._recovered()
        back = time.monotonic()
        if fault.kind == Kind.WIPE:
            # Its last precommit before may stand in the certificate after next of those that live.
            self._checks.silent.append((victim, from_height + 2, await self._safe_height(victim)))
        gap = self._longest_gap(struck, back)
        self.report.gaps.setdefault(fault.kind, []).append(gap)
        self.report.returns.setdefault(fault.kind, []).append(back - begun)
        click.echo(
            f"{number:>4}  {fault.kind:<15} {victim or 'all':<5} no commit for {gap:5.2f} s, "
            f"back after {back - begun:5.2f} s",
            err=True,
        )

    def _all_run(self) -> None:
        if ended := [item for item in self._network.institutions if not self._network.pid(item)]:
            raise Violation(f"the node of {', '.join(ended)} ended by itself")

    async def _recovered(self) -> None:
        """Wait until every node is connected to all, and has what any had when this began. Raises Violation."""
        target = 0
        for institution in self._network.institutions:
            with suppress(Unavailable):
                target = max(target, await self._height(institution, patience_s=0.0))
        try:
            states = await asyncio.to_thread(self._network.wait_ready)
            give_up = time.monotonic() + READY_S
            while min(state.height for state in states) < target:
                if time.monotonic() > give_up:
                    raise Violation(f"not caught up to height {target}: {states}")
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
                    said = (info.height, tuple(info.created))
                    committed = info.status == TransactionStatus.TRANSACTION_STATUS_COMMITTED
                    if not committed or said != self._checks.answered[info.transaction_id]:
                        raise Violation(f"{institution} says of {info.transaction_id.hex()}: {info}")

    def _examine_ledgers(self) -> None:
        """Of all homes, their nodes stopped. Raises Violation, and Corrupt from the replay."""
        for institution in self._network.institutions:
            with (
                closing(LevelStore(self._network.home(institution).ledger)) as store,
                closing(MemoryStore()) as scratch,
            ):
                self._checks.examine(institution, BlockStore(store))
                replayed = replay.replay(self._genesis, replay.stored(store), scratch)
                replay.compare(store, scratch, replayed.chain)
        self.report.blocks = len(self._checks.blocks)


@click.command()
@click.option("--nodes", type=click.IntRange(4, 16), default=4, show_default=True, help="How many processes.")
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="How often kill -9.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the faults.")
def main(nodes: int, kills: int, seed: int) -> None:
    """Break real nodes, and see that the ledger holds."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    institutions = [*DEFAULT_INSTITUTIONS, *(f"h{number}" for number in range(5, nodes + 1))]
    directory = Path(tempfile.mkdtemp(prefix="koinon-faults-"))
    network = Testnet.create(directory / "net", institutions)
    try:
        with network:
            report = asyncio.run(Run(network).run(plan(seed, kills, institutions)))
    except Exception as error:  # noqa: BLE001 - any error is a finding; a TaskGroup wraps what it saw
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        click.echo(f"violated: {type(error).__name__}: {error}", err=True)
        click.echo(f"homes and logs: {network.dir}/nodes", err=True)
        click.echo(f"replay: python -m testnet.faults --nodes {nodes} --kills {kills} --seed {seed}", err=True)
        sys.exit(1)
    except BaseException:
        shutil.rmtree(directory)
        raise
    shutil.rmtree(directory)
    click.echo("\n".join(report.lines()))
    click.echo(f"seed {seed}: python -m testnet.faults --nodes {nodes} --kills {kills} --seed {seed}")


if __name__ == "__main__":
    main()
