"""``koinon dispute``: when two sides of a token or a task disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from koinon import proposals
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list, limit_option
from koinon.display import plain, short, when
from koinon.v1.dispute_pb2 import Dispute, DisputeStatus, Remedy
from koinon.words import word, words

_REMEDIES = ", ".join(words(Remedy))


@click.group()
def dispute() -> None:
    """Dispute a token or a task; answer; rule as an arbiter.

    What is in escrow is frozen meanwhile. Members that are no party decide by majority, and silence decides at a
    deadline.
    """


@dispute.command("open")
@click.option("--token", default="", metavar="ID", help="What it is about: a token,")
@click.option("--task", default="", metavar="ID", help="or a task.")
@click.option("--against", default="", metavar="INSTITUTION", help="The other side.  [default: the only one]")
@click.option("--claim", required=True, help="What happened; public to the members.")
@click.option("--seek", type=comma_list, required=True, metavar="LIST", help=f"Of {_REMEDIES}.")
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file that you keep; its digest alone is published. Repeatable.",
)
def open_(token: str, task: str, against: str, claim: str, seek: tuple[str, ...], evidence: tuple[Path, ...]) -> None:
    """Open a dispute with the other side of a token or task.

    \b
    Example:
      koinon dispute open --task 4f2a --claim "the groups do not add up" --seek refund --evidence comparison.csv
    """
    with output.working("waiting for the ledger"):
        made = invocation().client.disputes.open(
            token=token, task=task, respondent=against, claim=claim, remedies=seek, evidence=evidence
        )
    tell(made, f"opened: dispute {made.id}; {made.opened.respondent} may answer until {when(made.deadline_ms)}")


@dispute.command()
@click.argument("dispute_id")
@click.option("--statement", required=True, help="Your side; public to the members.")
@click.option("--evidence", type=click.Path(path_type=Path), multiple=True, help="As in open. Repeatable.")
@click.option("--concede", is_flag=True, help="The claim is right: what is sought is done, except a suspension.")
def answer(dispute_id: str, statement: str, evidence: tuple[Path, ...], concede: bool) -> None:
    """Answer DISPUTE_ID, once, for the institution that it is against."""
    found = invocation().client.disputes.answer(dispute_id, statement, evidence=evidence, concede=concede)
    tell(found, f"{'conceded' if concede else 'answered'}: dispute {found.id}")


@dispute.command()
@click.argument("dispute_id")
@click.option("--order", type=comma_list, default="", metavar="LIST", help="Of what was sought.  [default: dismiss]")
@click.option("--reason", required=True, help="Public to the members.")
def rule(dispute_id: str, order: tuple[str, ...], reason: str) -> None:
    """Rule on DISPUTE_ID, as an operator of an arbiter; replaceable until it is decided."""
    found = invocation().client.disputes.rule(dispute_id, order, reason)
    tell(found, f"ruled: dispute {found.id} is in {word(DisputeStatus, found.status)}")


@dispute.command()
@click.argument("dispute_id")
@click.option("--reason", default="", help="Public to the members.")
def withdraw(dispute_id: str, reason: str) -> None:
    """Let your own DISPUTE_ID rest."""
    found = invocation().client.disputes.withdraw(dispute_id, reason)
    tell(found, f"withdrawn: dispute {found.id}")


@dispute.command("list")
@click.option("--mine", is_flag=True, help="Only those in which my institution is a side or an arbiter.")
@click.option("--open", "only_open", is_flag=True, help="Only those that wait for an answer or a ruling.")
@limit_option(100)
def list_(mine: bool, only_open: bool, limit: int) -> None:
    """List disputes, newest first."""
    client = invocation().client
    found = client.disputes.list(institution=client.profile.institution if mine else "", limit=limit)
    if only_open:
        found = [one for one in found if one.deadline_ms]
    if invocation().json:
        output.show_json([plain(one) for one in found])
        return
    rows = [
        (
            short(one.id),
            _about(one),
            one.claimant,
            one.opened.respondent,
            word(DisputeStatus, one.status),
            _outcome(one),
            when(one.deadline_ms or one.ended_at_ms),
        )
        for one in found
    ]
    output.show(
        output.table(("Dispute", "About", "By", "Against", "Status", "Outcome", "Until / since"), rows, spare=("By",))
    )


@dispute.command()
@click.argument("dispute_id")
def show(dispute_id: str) -> None:
    """Show DISPUTE_ID: the claim, the answer, each ruling, and what is missing."""
    found = invocation().client.disputes.show(dispute_id)
    if invocation().json:
        output.show_json(plain(found))
        return
    missing = sorted(set(found.arbiters) - {ruling.institution for ruling in found.rulings})
    output.show(
        output.facts(
            [
                ("Dispute", found.id),
                ("About", _about(found)),
                ("By", found.claimant),
                ("Against", found.opened.respondent),
                ("Claim", found.opened.claim),
                ("Sought", _listed(found.opened.remedies)),
                ("Evidence", _digests(found.opened.evidence_digests)),
                ("Answer", found.answer.statement),
                ("Its evidence", _digests(found.answer.evidence_digests)),
                ("Status", word(DisputeStatus, found.status)),
                ("Outcome", _outcome(found)),
                ("Note", found.reason),
                ("Frozen", ", ".join(found.escrows)),
                ("Takes", proposals.arbitration(found.policy)),
                ("Waits until", when(found.deadline_ms) if found.deadline_ms else ""),
                ("No ruling from", ", ".join(missing) if found.deadline_ms else ""),
            ]
        )
    )
    rows = [
        (ruling.institution, _listed(ruling.remedies) or "dismissed", ruling.reason, when(ruling.made_at_ms))
        for ruling in found.rulings
    ]
    output.show(output.table(("Arbiter", "Orders", "Reason", "When"), rows))


def _about(found: Dispute) -> str:
    opened = found.opened
    return f"token {short(opened.token_id)}" if opened.token_id else f"task {short(opened.task_id)}"


def _outcome(found: Dispute) -> str:
    if found.status != DisputeStatus.DISPUTE_STATUS_DECIDED:
        return ""
    return f"{_listed(found.remedies) or 'dismissed'} (by {found.decided_by})"


def _listed(remedies: Sequence[Remedy.ValueType]) -> str:
    return ", ".join(word(Remedy, remedy) for remedy in remedies)


def _digests(digests: Sequence[bytes]) -> str:
    return ", ".join(digest.hex() for digest in digests)
