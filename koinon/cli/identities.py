"""``koinon member did | credential``: members and people in formats that others read."""

from __future__ import annotations

from pathlib import Path

import click

from koinon import credential, did
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.member import member
from koinon.errors import NotFound
from koinon.files import write_new


@member.command("did")
@click.argument("who", metavar="PERSON|INSTITUTION")
def did_(who: str) -> None:
    """Print the did:key of a person's key now, or of the key of an institution's node."""
    client = invocation().client
    if "/" in who:
        keys = {person.id: person.public_key for person in client.members.people(who.partition("/")[0])}
    else:
        keys = {each.descriptor.id: each.descriptor.node_key for each in client.members.institutions()}
    if who not in keys:
        raise NotFound(f"there is no {who}", hint="koinon member list shows everyone")
    identifier = did.of_key(keys[who])
    tell({"id": who, "did": identifier, "public_key": keys[who].hex()}, identifier)


@member.command("credential")
@click.argument("person")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="A new file.  [default: stdout]")
def credential_(person: str, out: Path | None) -> None:
    """Issue a W3C Verifiable Credential of PERSON's roles. Operators only, for people of their own institution.

    Signed with your key (eddsa-jcs-2022); receipts in it prove both registrations: koinon audit verify FILE.
    Like a receipt, it cannot tell what was changed or revoked later.
    """
    text = credential.render(invocation().client.members.credential(person))
    if out is None:
        output.show_text(text)
        return
    write_new(out, text, "credential")
    tell({"person": person, "file": str(out)}, str(out))
