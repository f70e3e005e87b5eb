"""``koinon gov``: propose to the members, cast ballots, see what they decided and by which rules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from koinon import proposals
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.cli.proposing import action_options, actions
from koinon.display import duration, plain, short, when
from koinon.errors import InvalidInput
from koinon.limits import MAX_TITLE
from koinon.parameters import PARAMETERS, get
from koinon.submission import refusal_error
from koinon.v1.governance_pb2 import Choice, GovernanceProposal, ProposalStatus, Propose
from koinon.v1.services_pb2 import GetConstitutionResponse, PreviewProposalResponse
from koinon.words import word, words

_TITLE_SHOWN = 60  # characters of a title in a list; gov show has all


@click.group()
def gov() -> None:
    """Decide together: propose, cast ballots, see the rules in force.

    Ids may be shortened to any unique beginning.
    """


@gov.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@action_options
@click.option("--title", default="", help="What it is about.  [default: the actions]")
@click.option("--reason", default="", help="Why; public to the members.")
@click.option("--dry-run", is_flag=True, help="Show what would change and who decides; propose nothing.")
@click.option("--anyway", is_flag=True, help="Propose also what would fail if it were executed now.")
def propose(
    file: Path | None, title: str, reason: str, dry_run: bool, anyway: bool, **options: tuple[str, ...]
) -> None:
    """Propose actions to the members: those of FILE (TOML or JSON), and those of the options, all or none.

    First shows what would change from what to what, who has to cast a ballot, and when ballots close.

    \b
    Examples:
      koinon gov propose --set min_cohort_floor=10 --reason "agreed in May"
      koinon gov propose --admit koi=1 --reason "a fifth member, to vote with power 1"
      koinon gov propose changes.toml --dry-run
    """
    proposal = proposals.load(file) if file else Propose()
    proposal.reason = reason or proposal.reason
    proposal.actions.extend(actions(options, proposal.reason))
    described = "; ".join(proposals.describe(each) for each in proposal.actions)
    proposal.title = title or proposal.title or described[:MAX_TITLE]
    _propose(proposal, dry_run=dry_run, anyway=anyway)


def _propose(proposal: Propose, *, dry_run: bool, anyway: bool) -> None:
    client = invocation().client
    if not proposal.actions:
        raise InvalidInput("nothing is proposed", hint="koinon gov propose --help lists what can be")
    preview = client.governance.preview(proposal)
    refusal = refusal_error(preview.refusal) if preview.HasField("refusal") else None
    if dry_run:
        if invocation().json:
            output.show_json(plain(preview))
        else:
            _show_preview(preview)
    elif not invocation().json:
        _show_preview(preview)
    if refusal is not None and not anyway:
        raise refusal
    if dry_run:
        return
    with output.working("waiting for the ledger"):
        made = client.governance.propose(proposal)
    tell(made, f"proposed: {made.id}", f"cast your institution's ballot: koinon gov ballot yes {short(made.id)}")


@gov.command()
@click.argument("choice", type=click.Choice(words(Choice)))
@click.argument("proposal_id")
@click.option("--reason", default="", help="Public to the members.")
def ballot(choice: str, proposal_id: str, reason: str) -> None:
    """Cast your institution's ballot on PROPOSAL_ID: yes, no or abstain. Operators only.

    A further ballot replaces it while the proposal is open.
    """
    with output.working("waiting for the ledger"):
        proposal = invocation().client.governance.ballot(proposal_id, choice, reason)
    tell(proposal, f"{choice} on {proposal.id}; the proposal is {word(ProposalStatus, proposal.status)}")


@gov.command("list")
@click.option("--status", type=click.Choice(words(ProposalStatus)), default=None, help="Only those in this state.")
@limit_option(50)
def list_(status: str | None, limit: int) -> None:
    """List proposals, newest first."""
    found = invocation().client.governance.proposals(status=status or "", limit=limit)
    if invocation().json:
        output.show_json([plain(one) for one in found])
        return
    rows = [
        (
            short(one.id),
            word(ProposalStatus, one.status),
            one.proposer,
            str(len(one.ballots)),
            when(one.ended_at_ms or one.executes_at_ms or one.closes_at_ms),
            one.proposed.title if len(one.proposed.title) <= _TITLE_SHOWN else one.proposed.title[:59] + "…",
        )
        for one in found
    ]
    columns = ("Proposal", "Status", "By", "Ballots", "Ends", "Title")
    output.show(output.table(columns, rows, right=("Ballots",)))


@gov.command()
@click.argument("proposal_id")
def show(proposal_id: str) -> None:
    """Show one proposal: what it does, who said what, what is missing, and when it closes."""
    client = invocation().client
    proposal = client.governance.show(proposal_id)
    rules = client.governance.constitution()
    if invocation().json:
        output.show_json(plain(proposal))
        return
    status = word(ProposalStatus, proposal.status)
    cast = {each.institution: each for each in proposal.ballots}
    weights = {member.institution: member.weight for member in rules.members}
    missing = [name for name, weight in weights.items() if weight and name not in cast]
    output.show(
        output.facts(
            [
                ("Proposal", proposal.id),
                ("Title", proposal.proposed.title),
                ("Reason", proposal.proposed.reason),
                *[("Action", proposals.describe(action)) for action in proposal.proposed.actions],
                ("Takes", proposals.policy(proposal.policy)),
                ("Proposed", f"by {proposal.proposer}, {when(proposal.proposed_at_ms)}"),
                ("Status", f"{status}: {proposal.ended_because}" if proposal.ended_because else status),
                ("Closes", when(proposal.closes_at_ms) if status == "open" else ""),
                ("Missing", ", ".join(missing) if status == "open" else ""),
                ("Tally", _tally(proposal)),
                ("Executes", when(proposal.executes_at_ms) if status == "accepted" else ""),
                ("Ended", when(proposal.ended_at_ms) if proposal.ended_at_ms else ""),
                *[("Effect", effect) for effect in proposal.effects],
            ]
        )
    )
    rows = [
        (one.institution, word(Choice, one.choice), str(weights.get(one.institution, 0)), one.cast_by, one.reason)
        for one in proposal.ballots
    ]
    output.show(output.table(("Institution", "Ballot", "Weight", "Cast by", "Reason"), rows, right=("Weight",)))


@gov.command()
@click.argument("proposal_id")
@click.option("--reason", required=True, help="Public to the members.")
def withdraw(proposal_id: str, reason: str) -> None:
    """Withdraw an open proposal of your institution."""
    proposal = invocation().client.governance.withdraw(proposal_id, reason)
    tell(proposal, f"withdrawn: {proposal.id}")


@gov.command()
def constitution() -> None:
    """Show the rules in force: what decisions take, whose ballots count, parameters, protocol.

    With --json, the entry "constitution" is what --constitution of koinon gov propose takes, once edited.
    """
    rules = invocation().client.governance.constitution()
    if invocation().json:
        output.show_json(plain(rules))
        return
    _show_rules(rules)


def _show_rules(rules: GetConstitutionResponse) -> None:
    protocol = rules.protocol
    upcoming = protocol.next.scheduled
    output.show(
        output.facts(
            [
                ("Constitution", rules.digest.hex()),
                ("Usually", proposals.policy(rules.constitution.usual)),
                *[(each.action, proposals.policy(each.policy)) for each in rules.constitution.policies],
                ("Disputes", proposals.arbitration(rules.constitution.arbitration)),
                ("Protocol", f"version {protocol.version}" + _flags(protocol.features)),
                (
                    "Upgrade",
                    f"version {upcoming.version} from height {upcoming.height}; install {upcoming.install}"
                    if protocol.HasField("next")
                    else "",
                ),
            ]
        )
    )
    members = [(member.institution, str(member.weight)) for member in rules.members]
    output.show(output.table(("Member", "Weight"), members, right=("Weight",)))
    rows = [(name, str(get(rules.parameters, name)), f"{b.least} to {b.most}") for name, b in PARAMETERS.items()]
    output.show(output.table(("Parameter", "Value", "Bounds"), rows, right=("Value",)))


def _show_preview(preview: PreviewProposalResponse) -> None:
    total = sum(member.weight for member in preview.members)
    deciding = ", ".join(
        f"{member.institution} ({member.weight})" if member.weight != 1 else member.institution
        for member in preview.members
        if member.weight
    )
    output.show(
        output.facts(
            [
                *[("Changes", effect) for effect in preview.effects],
                ("Would fail", preview.refusal.message),
                ("Takes", proposals.policy(preview.policy)),
                ("Decide", f"{deciding}; weight {total} in all"),
                ("Closes", f"{when(preview.closes_at_ms)}, after {duration(preview.policy.voting_period_ms)}"),
            ]
        )
    )


def _tally(proposal: GovernanceProposal) -> str:
    if not proposal.HasField("tally"):
        return ""
    count = proposal.tally
    return f"{count.yes} yes, {count.no} no, {count.abstain} abstain, of {count.total}"


def _flags(features: Iterable[str]) -> str:
    named = ", ".join(features)
    return f", with {named}" if named else ""
