"""``koinon member apply`` and what follows: how an institution comes in, and how each member stands."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import did, genesis
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import limit_option
from koinon.cli.member import member
from koinon.display import plain, when
from koinon.errors import NotFound
from koinon.v1.governance_pb2 import Application, ApplicationStatus
from koinon.v1.identity_pb2 import Institution, InstitutionDescriptor, MemberStatus, Role
from koinon.words import word, words


@member.command()
@click.argument("descriptor", type=click.Path(path_type=Path))
@click.option("--motivation", required=True, help="Why it would join; public to the members.")
def apply(descriptor: Path, motivation: str) -> None:
    """Hand in DESCRIPTOR, which a would-be member made with koinon init. Operators only, as its sponsor.

    \b
    Example:
      koinon member apply koi/descriptor.json --motivation "brings a trial of 2014"
    """
    with output.working("waiting for the ledger"):
        made = invocation().client.governance.apply(genesis.load_descriptor(descriptor), motivation)
    if invocation().json:
        output.show_json(plain(made))
        return
    name = made.descriptor.id
    output.show_text(f"applied: {name}, sponsored by {made.sponsor}\n")
    output.say(f'propose to admit it: koinon gov propose --admit {name}=1 --reason "…"')


@member.command("withdraw")
@click.argument("institution")
@click.option("--reason", required=True, help="Public to the members.")
def withdraw_application(institution: str, reason: str) -> None:
    """Withdraw the open application of INSTITUTION, which yours sponsors."""
    ended = invocation().client.governance.withdraw_application(institution, reason)
    tell(ended, f"withdrawn: the application of {institution}")


@member.command()
@click.option("--status", type=click.Choice(words(ApplicationStatus)), default=None, help="Only those in this state.")
@limit_option(50)
def applications(status: str | None, limit: int) -> None:
    """List applications for membership."""
    found = invocation().client.governance.applications(status=status or "", limit=limit)
    if invocation().json:
        output.show_json([plain(one) for one in found])
        return
    rows = [
        (
            one.descriptor.id,
            one.descriptor.title,
            word(ApplicationStatus, one.status),
            one.sponsor,
            when(one.applied_at_ms),
            one.motivation,
        )
        for one in found
    ]
    output.show(output.table(("Applicant", "Title", "Status", "Sponsor", "Applied", "Motivation"), rows))


@member.command()
@click.argument("institution")
def show(institution: str) -> None:
    """Show one institution: its keys, power and ballot; or its application."""
    client = invocation().client
    found = next((each for each in client.members.institutions() if each.descriptor.id == institution), None)
    asked = next(iter(client.governance.applications(institution=institution)), None)
    if found is None and asked is None:
        raise NotFound(f"{institution} is no member and has not applied", hint="koinon member list shows who is")
    if invocation().json:
        output.show_json(
            {
                "institution": plain(found) if found is not None else None,
                "application": plain(asked) if asked is not None else None,
            }
        )
        return
    weights = {each.institution: each.weight for each in client.governance.constitution().members}
    if found is not None:
        _show_member(found, weights.get(institution, 0))
    if asked is not None:
        _show_application(asked)


def _show_member(found: Institution, weight: int) -> None:
    status = word(MemberStatus, found.status)
    power = str(found.descriptor.power)
    if found.approved_power:
        power += f"; takes up {found.approved_power} once its node has caught up"
    leaves = f"at height {found.notice.height}: {found.notice.reason}" if found.HasField("notice") else ""
    pairs = [
        ("Leaves", leaves),
        ("Status", f"{status}: {found.status_reason}" if found.status_reason else status),
        ("Joined", f"height {found.joined_height}"),
        ("Power", power),
        ("Ballot weight", str(weight)),
    ]
    output.show(output.facts([("Institution", found.descriptor.id), *pairs, *_keys(found.descriptor)]))


def _show_application(asked: Application) -> None:
    pairs = [
        ("Application", f"{word(ApplicationStatus, asked.status)}, {when(asked.applied_at_ms)}"),
        ("Sponsor", asked.sponsor),
        ("Motivation", asked.motivation),
        *_keys(asked.descriptor),
        *[
            (
                "Person",
                f"{person.id} ({', '.join(word(Role, role) for role in person.roles)}) {person.public_key.hex()}",
            )
            for person in asked.descriptor.people
        ],
    ]
    output.show(output.facts(pairs))


def _keys(descriptor: InstitutionDescriptor) -> list[tuple[str, str]]:
    return [
        ("Title", descriptor.title),
        ("Identifier", did.of_key(descriptor.node_key)),
        ("Validator key", descriptor.validator_key.hex()),
        ("Node key", descriptor.node_key.hex()),
        ("Sealing key", descriptor.sealing_key.hex()),
        ("Peers", descriptor.peer_address),
        ("Clients", descriptor.rpc_address),
        ("Workers", descriptor.mpc_address),
    ]
