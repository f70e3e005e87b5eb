"""``koinon status``: what the node is doing, or what became of a transaction."""

from __future__ import annotations

import click

from koinon.cli import output
from koinon.cli.app import invocation
from koinon.cli.stall import lasted
from koinon.display import plain, when
from koinon.submission import refusal_error
from koinon.v1.services_pb2 import GetStatusResponse, PeerStatus, TransactionInfo
from koinon.v1.transaction_pb2 import TransactionStatus
from koinon.words import word


@click.command()
@click.option("--transaction", metavar="ID", help="Tell what became of this transaction instead (64 hex digits).")
def status(transaction: str | None) -> None:
    """Show what the node and the ledger are doing.

    Height, peers, and how many faults the network tolerates. With --transaction, whether a transaction was
    committed: the answer is never ambiguous once it is final.
    """
    if transaction:
        _show_transaction(invocation().client.transaction(transaction))
        return
    answer = invocation().client.status()
    if invocation().json:
        output.show_json(plain(answer))
        return
    output.show(
        output.facts(
            [
                ("Institution", answer.institution),
                ("Chain", answer.chain_id),
                ("Version", answer.version),
                ("Height", f"{answer.height}, committed here {lasted(answer.quiet_ms)} ago"),
                ("Block time", when(answer.block_time_ms)),
                ("Deciding", f"height {answer.height + 1}, round {answer.round}, {answer.step or 'waiting'}"),
                ("Pending", f"{answer.pending_transactions} transactions"),
                ("Validators", f"{len(answer.validators)}; {_tolerance(answer)}"),
                ("State", _state(answer)),
                ("Upgrade", _upgrade(answer)),
                ("Missing", ", ".join(peer.institution for peer in answer.peers if not peer.connected)),
            ]
        )
    )
    if answer.peers:
        rows = [
            (
                peer.institution,
                "yes" if peer.connected else "no",
                *_heard(answer.height, peer),
            )
            for peer in answer.peers
        ]
        output.show(output.table(("Peer", "Connected", "Height", "Lag", "Last heard"), rows, right=("Height", "Lag")))


def _heard(height: int, peer: PeerStatus) -> tuple[str, str, str]:
    """A peer's height, blocks it is behind, and when it was heard.

    A validator last heard deciding our last block has committed it by now.
    """
    if not peer.last_seen_ms:
        return "-", "-", "-"
    behind = height - peer.height
    return str(peer.height), str(behind if behind > 1 else 0), when(peer.last_seen_ms)


def _state(answer: GetStatusResponse) -> str:
    if answer.syncing:
        return f"catching up: {answer.highest_claim - answer.height} blocks behind the others"
    if answer.step != "idle" and answer.quiet_ms > 10_000:
        return "no decision for some time: koinon why-stalled says why"
    if answer.silent:
        return "follows, and does not vote for now: koinon why-stalled says why"
    votes = answer.institution in {item.institution for item in answer.validators}
    return "in step" if votes else "observing: follows, and has no vote"


def _upgrade(answer: GetStatusResponse) -> str:
    if not answer.protocol.HasField("next"):
        return ""
    upcoming = answer.protocol.next.scheduled
    scheduled = f"protocol {upcoming.version} from height {upcoming.height}"
    return f"{scheduled}; install {upcoming.install} before" if answer.upgrade_needed else f"{scheduled}, known here"


def _tolerance(answer: GetStatusResponse) -> str:
    faults = answer.faults_tolerated
    return f"the ledger goes on with {faults} faulty" if faults else "the ledger stops when one is faulty"


def _show_transaction(info: TransactionInfo) -> None:
    if invocation().json:
        output.show_json(plain(info))
        return
    state = word(TransactionStatus, info.status)
    meaning = {
        "unknown": "this node has not seen it, or it expired",
        "pending": "waiting for a block",
        "committed": f"final at height {info.height}",
        "rejected": "final, without effect",
    }
    output.show(
        output.facts(
            [
                ("Transaction", info.transaction_id.hex()),
                ("Status", f"{state}: {meaning.get(state, '')}"),
                ("Created", ", ".join(identifier for identifier in info.created if identifier)),
            ]
        )
    )
    if info.HasField("refusal"):
        error = refusal_error(info.refusal)
        output.say_error(error.message, error.rule, error.hint)
