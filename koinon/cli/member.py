"""``koinon member``: who is who, how a new person joins its institution, and how an institution moves or leaves."""

from __future__ import annotations

import sys

import click

from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.cli.arguments import comma_list
from koinon.display import plain
from koinon.errors import InvalidInput
from koinon.keys import PUBLIC_KEY_BYTES
from koinon.limits import MAX_NOTICE_BLOCKS, MIN_NOTICE_BLOCKS
from koinon.names import check_address
from koinon.submission import refusal_error
from koinon.v1.identity_pb2 import MemberStatus, Person, Role
from koinon.words import word

_USUAL_NOTICE = 1_000  # blocks: some minutes at least, and more than an hour where little happens
_LEAST_NOTICE = 2 * MIN_NOTICE_BLOCKS  # some pass while one thinks


@click.group()
def member() -> None:
    """See institutions and people; register your own; come in, move, and leave."""


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
            word(MemberStatus, i.status) + (f", leaves at {i.notice.height}" if i.HasField("notice") else ""),
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
@click.option(
    "--roles",
    type=comma_list,
    required=True,
    metavar="LIST",
    help="operator, analyst, regulator; of a device: gateway, feeder.",
)
def register(person: str, public_key: str, roles: tuple[str, ...]) -> None:
    """Register PERSON, or a device, as institution/name. Operators only.

    PUBLIC_KEY is 64 hex digits, from koinon key make. An id stays what it was registered as, a person or a device.
    """
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


@member.command()
@click.option(
    "--blocks",
    type=click.IntRange(_LEAST_NOTICE, MAX_NOTICE_BLOCKS),
    default=_USUAL_NOTICE,
    show_default=True,
    help="How many blocks from now.",
)
@click.option("--reason", required=True, help="Public to the members.")
@click.option("--dry-run", is_flag=True, help="Show what would change; give no notice.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def leave(blocks: int, reason: str, dry_run: bool, yes: bool) -> None:
    """Give notice that your institution leaves the consortium. Operators only; nobody decides on it.

    First shows what would end then. Until the height it names, your institution is a member like all, and
    koinon member stay takes the notice back. Then tasks end, tokens lapse, data are withdrawn, and keys lose
    their power. Points stay its own: spend before what you want to spend. Only a ballot brings it back.

    \b
    Example:
      koinon member leave --reason "the study is over" --dry-run
    """
    members = invocation().client.members
    preview = members.preview_leaving(blocks)
    if not invocation().json:
        refusal = preview.refusal.message
        output.show(output.facts([*[("Changes", effect) for effect in preview.effects], ("Refused", refusal)]))
    elif dry_run:
        output.show_json(plain(preview))
    if preview.HasField("refusal"):
        raise refusal_error(preview.refusal)
    if dry_run:
        return
    if not yes and sys.stdin.isatty():
        click.confirm(f"Leave the consortium at height {preview.height}?", abort=True, err=True)
    with output.working("waiting for the ledger"):
        left = members.leave(preview.height, reason)
    tell(
        left,
        f"{left.descriptor.id} leaves at height {left.notice.height}",
        "hint: keep its node running until then; koinon member stay takes the notice back",
    )


@member.command()
@click.option("--reason", required=True, help="Public to the members.")
def stay(reason: str) -> None:
    """Take your institution's notice back: it stays. Operators only."""
    kept = invocation().client.members.stay(reason)
    tell(kept, f"{kept.descriptor.id} stays")


def _cells(person: Person) -> tuple[str, ...]:
    roles = ", ".join(word(Role, role) for role in person.roles)
    return person.id, roles, person.public_key.hex()[:16] + "…", "revoked" if person.revoked else "active"


def _show(person: Person) -> None:
    tell(person, "  ".join(_cells(person)))
