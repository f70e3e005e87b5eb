"""``koinon why-stalled``: whether decisions have stopped, who is missing, what to do about it."""

from __future__ import annotations

import click

from koinon.cli import output
from koinon.cli.app import invocation
from koinon.display import duration, plain, when
from koinon.v1.services_pb2 import DiagnoseStallResponse, ValidatorStanding


@click.command("why-stalled")
def why_stalled() -> None:
    """Say why nothing is decided, and what to do; or that all is well.

    Shows the height and round in hand, how long they have lasted, and who has prevoted and precommitted, all as your
    node sees it. Ask at two members when in doubt: each knows best whom it can reach itself.
    """
    answer = invocation().client.why_stalled()
    if invocation().json:
        output.show_json(plain(answer))
        return
    output.show_text(f"{_verdict(answer)}\n\n")
    output.show(
        output.facts(
            [
                ("Deciding", _deciding(answer)),
                ("Proposer", f"{answer.proposer}: {'has' if answer.proposed else 'has not'} proposed")
                if answer.proposer
                else ("", ""),
                ("Last block", f"{lasted(answer.quiet_ms)} ago"),
                ("Pending", f"{answer.pending_transactions} transactions"),
                ("Quorum", _quorum(answer)),
            ]
        )
    )
    columns = ("Validator", "Connected", "Prevoted", "Precommitted", "Height", "Last heard")
    output.show(output.table(columns, [_row(item, answer.deciding) for item in answer.validators], right=("Height",)))
    for finding in answer.findings:
        output.show_text("\n")
        output.show_finding("problem" if finding.problem else "warning", finding.text, finding.hint)


def lasted(span_ms: int) -> str:
    """A span as it grows: in seconds from one second on, ``12 seconds``."""
    return duration(span_ms // 1000 * 1000 if span_ms >= 1000 else span_ms)


def _verdict(answer: DiagnoseStallResponse) -> str:
    if answer.stalled:
        span = answer.deciding_ms if answer.deciding else answer.quiet_ms
        return f"Stalled: height {answer.height} has not been decided for {lasted(span)}."
    if answer.deciding or answer.pending_transactions:
        return f"Not stalled: height {answer.height} is being decided."
    return (
        f"Not stalled: height {answer.height} comes with the next transaction, or within {lasted(answer.heartbeat_ms)}."
    )


def _deciding(answer: DiagnoseStallResponse) -> str:
    if not answer.deciding:
        return f"height {answer.height}, not begun"
    return f"height {answer.height}, round {answer.round} for {lasted(answer.round_ms)}, {answer.step}"


def _quorum(answer: DiagnoseStallResponse) -> str:
    total = sum(item.power for item in answer.validators)
    enough = "enough" if answer.reachable_power >= answer.quorum else "too little"
    return f"{answer.quorum} of power {total}; {answer.reachable_power} can be reached: {enough}"


def _row(item: ValidatorStanding, deciding: bool) -> tuple[str, ...]:
    def said(vote: bool) -> str:
        return ("yes" if vote else "no") if deciding else "-"

    return (
        item.institution,
        "yes" if item.connected else "no",
        said(item.prevoted),
        said(item.precommitted),
        str(item.height),
        when(item.last_seen_ms),
    )
