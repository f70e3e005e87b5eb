"""``koinon member``: who is who, and how a new person joins its institution."""

from __future__ import annotations

import click

from koinon.cli import output
from koinon.cli.app import invocation
from koinon.cli.arguments import comma_list
from koinon.display import plain, printable
from koinon.errors import InvalidInput
from koinon.keys import PUBLIC_KEY_BYTES
from koinon.names import check_address
from koinon.v1.identity_pb2 import MemberStatus, Person, Role
from koinon.words import word


@click.group()
def member() -> None:
    """See institutions and people; register your own; come in, and move."""


@member.command("list")
def list_() -> None:
    """List institutions and their people."""
    client = invocation().client
    institutions, people = client.members.institutions(), client.members.people()
    if invocation().json:
        output.show_json({"institutions": [plain(i) for i in institutions], "people": [plain(p) for p in people]})
        return
    rows = [
        (
            i.descriptor.id,
            i.descriptor.title,
            word(MemberStatus, i.status),
            str(i.descriptor.power),
            i.descriptor.rpc_address,
        )
        for i in institutions
    ]
    output.show(output.table(("Institution", "Title", "Status", "Power", "Address"), rows, right=("Power",)))
    output.show(output.table(("Person", "Roles", "Key", "State"), (_cells(person) for person in people)))


@member.command()
@click.argument("person")
@click.argument("public_key")
@click.option("--roles", type=comma_list, required=True, metavar="LIST", help="operator, analyst, regulator.")
def register(person: str, public_key: str, roles: tuple[str, ...]) -> None:
    """Register PERSON (institution/name) under PUBLIC_KEY (64 hex digits, from koinon key make). Operators only."""
    try:
        key = bytes.fromhex(public_key)
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise InvalidInput("PUBLIC_KEY is not 64 hex digits", hint="koinon key make FILE prints it")
    _show(invocation().client.members.register(person, key, roles))


@member.command()
@click.argument("person")
@click.option("--reason", required=True, help="Public to the members.")
def revoke(person: str, reason: str) -> None:
    """Revoke PERSON's key: nothing new is accepted from it; what it signed stays accountable. Operators only."""
    _show(invocation().client.members.revoke(person, reason))


@member.command()
@click.option("--rpc", default="", metavar="HOST:PORT", help="For clients.")
@click.option("--peer", default="", metavar="HOST:PORT", help="For the other members' nodes.")
@click.option("--mpc", default="", metavar="HOST:PORT", help="For their workers.")
def move(rpc: str, peer: str, mpc: str) -> None:
    """Announce where your institution's node is reached from now on; what is not given stays. Operators only.

    Announce first, while the node still runs where it is; then change [listen] in its config.toml and start it again.

    \b
    Example:
      koinon member move --peer node.um.example:7401 --mpc node.um.example:7402
    """
    if not (rpc or peer or mpc):
        raise InvalidInput("no address is given", hint="give --rpc, --peer or --mpc, e.g. --peer node.um.example:7401")
    for address in filter(None, (rpc, peer, mpc)):
        check_address(address)
    moved = invocation().client.members.move(rpc_address=rpc, peer_address=peer, mpc_address=mpc)
    if invocation().json:
        output.show_json(plain(moved))
        return
    descriptor = moved.descriptor
    output.show(
        output.facts(
            [
                ("Institution", descriptor.id),
                ("Peers", descriptor.peer_address),
                ("Clients", descriptor.rpc_address),
                ("Workers", descriptor.mpc_address),
            ]
        )
    )
    output.say("hint: now change [listen] in HOME/config.toml and start the node again")
    if rpc:
        output.say("hint: profiles need the new rpc_address")


def _cells(person: Person) -> tuple[str, ...]:
    roles = ", ".join(word(Role, role) for role in person.roles)
    return person.id, roles, person.public_key.hex()[:16] + "…", "revoked" if person.revoked else "active"


def _show(person: Person) -> None:
    if invocation().json:
        output.show_json(plain(person))
    else:
        output.show_text(printable("  ".join(_cells(person))) + "\n")
