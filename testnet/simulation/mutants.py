"""Rules of the production code, broken one at a time: the simulation must find each, or it proves nothing.

``python -m testnet.simulation.mutants --seeds N`` runs worlds with each rule broken until one of them shows a
violation, and prints which; a rule that can be broken unnoticed ends it with exit code 1. A mutation replaces
functions of production code in this process. First come the named scenarios, then seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import click

from governance import sharing
from koinon.errors import Corrupt
from koinon.v1.consensus_pb2 import Validator
from koinon.validators import ValidatorSet
from node import engine as engine_module
from node import gossip, pruning, snapshot, snapshot_join
from node import journal as journal_module
from node.application import Application
from node.catch_up import CatchUp
from node.consensus import votes as votes_module
from node.consensus.core import Core
from node.consensus.messages import NO_ROUND, Vote, VoteType
from node.consensus.votes import VoteKeeper
from node.contracts import accounts, membership, tables
from node.engine import Engine
from node.intake import Intake
from node.journal import Journal
from node.ledger import blocks, evidence
from node.ledger.audit_log import AuditLog
from node.ledger.blocks import ChainState
from node.ledger.evidence import PendingEvidence
from node.ledger.lthash import LtHash
from node.pruning import Pruner
from node.read_model import ReadModel
from node.store import wal
from node.store.blocks import BlockStore
from testnet.simulation.run import run
from testnet.simulation.scenarios import SCENARIOS, play


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken rule."""

    what: str
    owner: Any
    name: str
    broken: Callable[[Any], Any]  # from what stands there to what stands there instead
    slow: bool = False  # does it take many worlds to find it?

    @contextmanager
    def alive(self) -> Iterator[None]:
        before = self.owner.__dict__[self.name]
        with patch.object(self.owner, self.name, self.broken(before)):
            yield


def constant(value: object) -> Callable[[Any], Any]:
    """Whatever is asked, this is the answer."""
    return lambda before: lambda *arguments, **keywords: value


def _forget_lock(before: Callable[[Core], bool]) -> Callable[[Core], bool]:
    def line_36(core: Core) -> bool:
        fired = before(core)
        core._locked_value, core._locked_round = None, NO_ROUND
        return fired

    return line_36


def _forget_valid_value(before: Callable[[Core], bool]) -> Callable[[Core], bool]:
    def line_36(core: Core) -> bool:
        fired = before(core)
        core._valid_value, core._valid_round = None, NO_ROUND
        return fired

    return line_36


def _prevotes_decide(before: Callable[..., bool]) -> Callable[..., bool]:
    return lambda keeper, vote_type, round_, block_hash: before(keeper, VoteType.PREVOTE, round_, block_hash)


def _no_polka_needed(before: Callable[[Core], bool]) -> Callable[[Core], bool]:
    def line_28(core: Core) -> bool:
        with patch.object(VoteKeeper, "has_quorum_for", lambda *arguments: True):
            return before(core)

    return line_28


def _unless_known(before: Callable[[Core, Vote], bool]) -> Callable[[Core, Vote], bool]:
    def wants_vote(core: Core, vote: Vote) -> bool:
        known = core.votes.votes(vote.type, vote.round, vote.block_hash)
        return all(other.institution != vote.institution for other in known)

    return wants_vote


def _once(before: Callable[..., Any]) -> Callable[..., Any]:
    def replay(journal: Journal, height: int) -> Any:
        events = before(journal, height)
        journal._events = []
        return events

    return replay


def _votes_at_once(before: Callable[..., None]) -> Callable[..., None]:
    def init(journal: Journal, *arguments: Any) -> None:
        before(journal, *arguments)
        journal._from_height = 0

    return init


def _of_any_age(before: Callable[..., None]) -> Callable[..., None]:
    def init(journal: Journal, *arguments: Any) -> None:
        before(journal, *arguments[:4])  # and not what the ledger says was signed

    return init


def _with_the_next_block(before: Callable[..., bool]) -> Callable[..., bool]:
    def observe(journal: Journal, *arguments: int) -> bool:
        journal._since_ms = 0
        return before(journal, *arguments)

    return observe


def _forgets(before: Callable[..., None]) -> Callable[..., None]:
    def vote_again(journal: Journal, height: int) -> None:
        journal._from_height = height
        before_it = b"L" + journal_module._POSITION.pack(height, 0, -1)
        journal._wal.reset([*journal._standings(), before_it])

    return vote_again


def _one_too_many(before: Callable[..., int]) -> Callable[..., int]:
    return lambda *arguments: before(*arguments) + 1


def _body_first(before: Callable[..., bool]) -> Callable[..., bool]:
    def step(store: Any, blocks: BlockStore, below: int) -> bool:
        for height in range(blocks.first(), below):
            header, body = blocks.prune_writes(height)
            store.write([body], sync=True)
            store.write([header], sync=False)
        return False

    return step


def _whatever_is_offered(before: Callable[..., int]) -> Callable[..., int]:
    return lambda pruner, snapshot_height: before(pruner, 2**60)


def _without_header(before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda blocks, height: before(blocks, height)[1:]


def _unsynced(before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, block, commit, *, sync: before(self, block, commit, sync=False)


def _old_set(before: Callable[..., ChainState]) -> Callable[..., ChainState]:
    def after(chain: ChainState, *arguments: Any) -> ChainState:
        following = before(chain, *arguments)
        return ChainState(
            following.chain_id,
            following.height,
            following.time_ms,
            following.block_hash,
            following.hashes,
            following.last_validators,
            chain.validators,
            following.next_validators,
        )

    return after


def _time_stands_still(before: Callable[..., int]) -> Callable[..., int]:
    return lambda state, commit: before(state, commit) // 10_000 * 10_000


def _ends_quietly(before: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
    def decode(data: bytes, path: Any) -> Iterator[bytes]:
        try:
            yield from before(data, path)
        except Corrupt:
            return

    return decode


def _believes_anyone(before: Callable[..., bool]) -> Callable[..., bool]:
    return lambda catch_up, height, validators: catch_up.highest_claim() > height


def _only_added(before: Callable[..., None]) -> Callable[..., None]:
    return lambda lthash, changes: before(lthash, [(key, None, after) for key, _, after in changes])


def _last_first(before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda log, records: before(log, list(records)[::-1])


def _no_ids(before: Callable[..., None]) -> Callable[..., None]:
    def select(self: Application, selection: Any, envelope: bytes, time_ms: int) -> None:
        before(self, selection, envelope, time_ms)
        selection.ids.clear()

    return select


def _unsigned(before: Callable[..., Any]) -> Callable[..., Any]:
    def vote(intake: Intake, message: Any) -> Any:
        with patch("koinon.keys.verify", lambda *arguments: True):
            return before(intake, message)

    return vote


def _believed(before: Callable[..., Any]) -> Callable[..., Any]:
    def verify(*arguments: Any) -> Any:
        with patch("koinon.keys.verify", lambda *arguments: True):
            return before(*arguments)

    return verify


def _whatever_its_status(before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state: ValidatorSet.of(
        Validator(institution=item.descriptor.id, public_key=item.descriptor.validator_key, power=item.descriptor.power)
        for item in tables.INSTITUTIONS.scan(state)
        if item.descriptor.power and item.descriptor.validator_key
    )


def _with_its_power(before: Callable[..., None]) -> Callable[..., None]:
    def readmit(context: Any, institution: str) -> None:
        power = tables.INSTITUTIONS.get(context.state, institution).descriptor.power
        before(context, institution)
        member = tables.INSTITUTIONS.get(context.state, institution)
        member.descriptor.power = power
        tables.INSTITUTIONS.put(context.state, institution, member)

    return readmit


def _at_once(before: Callable[..., None]) -> Callable[..., None]:
    def admit(context: Any, descriptor: Any, power: int) -> None:
        before(context, descriptor, power)
        member = tables.INSTITUTIONS.get(context.state, descriptor.id)
        member.descriptor.power = power
        tables.INSTITUTIONS.put(context.state, descriptor.id, member)

    return admit


def _twice(before: Callable[..., None]) -> Callable[..., None]:
    def end(context: Any, escrow: Any, *arguments: Any) -> None:
        status = escrow.status
        before(context, escrow, *arguments)
        escrow.status = status
        before(context, escrow, *arguments)

    return end


def _paid_anyway(before: Callable[..., None]) -> Callable[..., None]:
    return lambda context, escrow_id: accounts.settle(context, escrow_id, [(accounts.FUND, 1)])


def _without_fund(before: Callable[..., Any]) -> Callable[..., Any]:
    return lambda shares: [(account, points) for account, points in before(shares) if account != accounts.FUND]


MUTANTS: Sequence[Mutant] = (
    Mutant(
        "a quorum of two thirds, not more",
        ValidatorSet,
        "quorum",
        lambda p: property(lambda s: 2 * s.total_power // 3),
    ),
    Mutant("a lock binds nobody", Core, "_locks", constant(True)),
    Mutant("a lock is forgotten at once", Core, "_line_36", _forget_lock),
    Mutant("the valid value is forgotten", Core, "_line_36", _forget_valid_value),
    Mutant("prevotes decide", VoteKeeper, "has_quorum_for", _prevotes_decide),
    Mutant("a value returns without its polka", Core, "_line_28", _no_polka_needed),
    Mutant("every new vote is written down", Core, "wants_vote", _unless_known),
    Mutant("every proposal is written down", Core, "wants_proposal", constant(True)),
    Mutant("later rounds are followed for ever", votes_module, "MAX_ROUNDS_PASSED", lambda _: 1_000_000),
    Mutant("sent before it is synced", Journal, "sync", constant(None), slow=True),
    Mutant("what was signed is forgotten in a crash", Journal, "replay", constant(None)),
    Mutant("the log's replay ends at a lost ledger", Journal, "replay", _once),
    Mutant("the journal does not note what it signed", Journal, "_note_own", constant(None), slow=True),
    Mutant("without a signing state it votes at once", Journal, "__init__", _votes_at_once, slow=True),
    Mutant("an older log passes for this one", Journal, "__init__", _of_any_age),
    Mutant("a damaged log ends quietly", wal, "_decode", _ends_quietly, slow=True),
    Mutant("any block shows the next height safe", Journal, "observe", _with_the_next_block),
    Mutant("voting again forgets what others told", Journal, "vote_again", _forgets),
    Mutant("voting again goes back to earlier rounds", Engine, "_is_over", constant(False)),
    Mutant("one block too many is pruned", pruning, "boundary", _one_too_many),
    Mutant("what the members demand is pruned", pruning, "demanded", constant(2**60), slow=True),
    Mutant("blocks behind the newest snapshot are pruned", Pruner, "step", _whatever_is_offered, slow=True),
    Mutant("a block is gone before its header is synced", pruning, "step", _body_first, slow=True),
    Mutant("headers are pruned too", BlockStore, "prune_writes", _without_header),
    Mutant("who lacks pruned blocks asks for them for ever", CatchUp, "nobody_keeps", constant(False)),
    Mutant("the index forgets what is in no file", ReadModel, "_reopen_chunk", constant(None), slow=True),
    Mutant("blocks are announced before they are synced", Engine, "_execute", _unsynced, slow=True),
    Mutant("votes need no signature", Intake, "vote", _unsigned, slow=True),
    Mutant("every proposal is valid", Intake, "_is_valid", constant(True), slow=True),
    Mutant("fetched blocks need no certificate", engine_module, "verify_commit", constant(None), slow=True),
    Mutant("new validators never vote", ChainState, "after", _old_set),
    Mutant("evidence needs no signature", evidence, "verify", _believed, slow=True),
    Mutant("evidence is forgotten", PendingEvidence, "add", constant(False), slow=True),
    Mutant("transactions return", Application, "_admit", constant(None)),
    Mutant("a block may hold one transaction twice", Application, "_select", _no_ids, slow=True),
    Mutant("the application accepts any block", Application, "process_proposal", constant(None), slow=True),
    Mutant("block time may stand still", blocks, "next_time_ms", _time_stands_still),
    Mutant("what is deleted stays in the commitment", LtHash, "update", _only_added),
    Mutant("records are logged last first", AuditLog, "append", _last_first),
    Mutant("one liar is believed to be ahead", CatchUp, "is_behind", _believes_anyone, slow=True),
    Mutant("what was lost is not sent again", gossip, "missing", constant([])),
    Mutant("a snapshot is not held against the header", snapshot, "compare", constant(None)),
    Mutant("snapshots are sought for ever", snapshot_join, "_ATTEMPTS", lambda _: 1_000_000),
    Mutant("the suspended go on voting", membership, "validators", _whatever_its_status),
    Mutant("the readmitted vote at once", membership, "readmit", _with_its_power, slow=True),
    Mutant("the admitted vote at once", membership, "admit", _at_once, slow=True),
    Mutant("an escrow is settled twice", accounts, "_end", _twice, slow=True),
    Mutant("what failed is paid for", accounts, "refund", _paid_anyway, slow=True),
    Mutant("the fund is forgotten", sharing, "payouts", _without_fund, slow=True),
)


@dataclass(frozen=True, slots=True)
class Find:
    """Where a mutant was caught, and by what."""

    where: str
    violation: str


def hunt(mutant: Mutant, seeds: int) -> Find | None:
    """The first scenario or seed in which the mutant does harm that is noticed; None if there is none."""
    worlds: list[tuple[str, Callable[[], object]]] = [(name, partial(play, name)) for name in SCENARIOS]
    worlds += [(f"seed {seed}", partial(run, seed)) for seed in range(seeds)]
    with mutant.alive():
        for name, world in worlds:
            try:
                world()
            except Exception as error:  # noqa: BLE001 - a node that breaks is a finding too
                return Find(name, f"{type(error).__name__}: {error}".splitlines()[0][:100])
    return None


@click.command()
@click.option("--seeds", type=click.IntRange(min=1), default=400, show_default=True, help="Seeds per mutant, at most.")
@click.option("--only", default="", help="Part of a mutant's name.")
def main(seeds: int, only: str) -> None:
    """Break one rule at a time; every one must be noticed."""
    missed = 0
    for mutant in MUTANTS:
        if only in mutant.what:
            found = hunt(mutant, seeds)
            missed += found is None
            click.echo(f"{mutant.what:<45} " + (f"{found.where}: {found.violation}" if found else "NOT NOTICED"))
    if missed:
        click.echo(f"{missed} not noticed in {len(SCENARIOS)} scenarios and {seeds} seeds each", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
