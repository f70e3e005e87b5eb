"""What an institution types: `koinon init`, `koinon genesis`, `koinon node run`, `koinon doctor`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click

from governance import constitution as constitutions
from koinon import genesis as genesis_file
from koinon import key_files, proposals
from koinon.cli import output
from koinon.cli.app import invocation
from koinon.cli.keys import new_passphrase
from koinon.errors import InvalidFile, InvalidInput
from koinon.key_files import ENVIRONMENT as PASSPHRASE
from koinon.key_files import AskPassphrase
from koinon.limits import MAX_POINTS
from koinon.v1.constitution_pb2 import Constitution
from koinon.v1.identity_pb2 import Parameters, Role
from node import home as homes
from node import tls
from node.config import Address, Home
from node.key_commands import key
from node.ledger_commands import ledger
from node.recovery_commands import vote_again

_ROLES = {
    "operator": Role.ROLE_OPERATOR,
    "analyst": Role.ROLE_ANALYST,
    "regulator": Role.ROLE_REGULATOR,
}
_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--institution", required=True, metavar="ID", help="Short id, e.g. um: the names of your data begin so.")
@click.option("--title", required=True, help="Full name, public to the members.")
@click.option("--home", required=True, type=_PATH, help="New directory for keys and data.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Name or address under which others reach you.")
@click.option(
    "--ports", default="7400,7401,7402", show_default=True, metavar="RPC,PEER,MPC", help="For clients, nodes, workers."
)
@click.option("--listen", default="", metavar="ADDRESS", help="What to bind where that is not HOST, e.g. 0.0.0.0.")
@click.option(
    "--person",
    "people",
    multiple=True,
    metavar="NAME=ROLE[,ROLE]",
    help="Who is registered from the start: operator, analyst, regulator.  [default: operator=operator]",
)
@click.option("--no-passphrase", is_flag=True, help="Keep the keys unencrypted: for test networks only.")
def init(
    institution: str,
    title: str,
    home: Path,
    host: str,
    ports: str,
    listen: str,
    people: tuple[str, ...],
    no_passphrase: bool,
) -> None:
    """Make an institution's keys and certificate; print its public descriptor.

    Hand the descriptor (also in HOME/descriptor.json) to the other members. Everything else stays in HOME.
    """
    paths = Home(home.absolute())
    homes.create(
        paths,
        institution,
        title,
        _endpoints("--host", host, ports),
        listen=_endpoints("--listen", listen or host, ports),
        people=_people(people),
        passphrase=None if no_passphrase else new_passphrase("the new keys"),
    )
    click.echo(f"{institution} lives in {paths.path}; its people's keys and profiles are in {paths.people}", err=True)
    click.echo(
        "hint: for a new network, exchange descriptor.json with the other members, then join them all: koinon genesis. "
        "For one that runs, hand it to a member, whose operator hands it in: koinon member apply",
        err=True,
    )
    click.echo(paths.descriptor.read_text(encoding="utf-8"), nl=False)


@click.command()
@click.argument("descriptors", nargs=-1, required=True, type=_PATH, metavar="DESCRIPTOR...")
@click.option("--chain-name", required=True, help="Name of the consortium's chain, e.g. ercp.")
@click.option("--out", required=True, type=_PATH, help="The genesis file to write, e.g. genesis.json.")
@click.option(
    "--time-ms", type=int, default=None, help="Unix time of the genesis; name it to make the same file elsewhere."
)
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=NUMBER", help="Change a consortium parameter.")
@click.option(
    "--points", multiple=True, metavar="ACCOUNT=NUMBER", help="Points from the start, e.g. institution:um=1000."
)
@click.option("--constitution", type=_PATH, help="What decisions take, in TOML or JSON.  [default: the usual rules]")
def genesis(
    descriptors: tuple[Path, ...],
    chain_name: str,
    out: Path,
    time_ms: int | None,
    parameters: tuple[str, ...],
    points: tuple[str, ...],
    constitution: Path | None,
) -> None:
    """Join the members' descriptors into the genesis file that every node starts from.

    Every member puts the same file into its HOME as genesis.json. Compare the chain id that is printed.
    """
    loaded = [genesis_file.load_descriptor(path) for path in descriptors]
    for path, descriptor in zip(descriptors, loaded, strict=True):
        try:
            tls.root(descriptor.tls_certificate, descriptor.id)
        except InvalidFile as error:
            raise InvalidFile(f"{path}: {error.message}", hint=error.hint) from error
    joined = genesis_file.join(
        chain_name,
        time.time_ns() // 1_000_000 if time_ms is None else time_ms,
        loaded,
        _parameters(parameters),
        _points(points),
        _constitution(constitution) if constitution else None,
    )
    genesis_file.save(out, joined)
    click.echo(f"{len(loaded)} institutions: {', '.join(item.id for item in joined.institutions)}", err=True)
    click.echo("hint: every member copies this file to HOME/genesis.json, then: koinon node run --home HOME", err=True)
    click.echo(genesis_file.chain_id(joined))


@click.group()
def node() -> None:
    """Run this institution's node."""


@node.command()
@click.option("--home", required=True, type=_PATH, help="The directory made by koinon init.")
@click.option("--log-file", is_flag=True, help="Write the log to HOME/log/node.log instead of stderr.")
def run(home: Path, log_file: bool) -> None:
    """Run the node until it is told to stop (Ctrl-C or SIGTERM)."""
    from node.serve import serve

    serve(home.absolute(), ask_passphrase if sys.stdin.isatty() else None, log_file=log_file)


@node.command("repair")
@click.option("--home", required=True, type=_PATH, help="The directory made by koinon init.")
def repair_node(home: Path) -> None:
    """Examine the ledger and write-ahead log of a stopped node; put aside what is damaged.

    Nothing is deleted: damaged parts are renamed in HOME/data. At its next start the node fetches the ledger from the
    other members. Without its write-ahead log it observes until it is safe to vote.
    """
    from node import config, places
    from node.repair import repair

    paths = Home(home.absolute())
    settings = config.load(paths.path)
    places.check(paths)
    chain = genesis_file.load(paths.genesis)
    validator = key_files.public_key(paths.key("validator"), "ed25519")
    with output.working("examining the ledger"):
        repairs = list(repair(paths, chain, validator, settings.institution))
    if invocation().json:
        output.show_json([asdict(item) for item in repairs])
        return
    for item in repairs:
        output.show_text(f"{item.part}: {item.problem}\n")
        output.say(item.remedy)
    if not repairs:
        output.show_text("nothing is damaged\n")


@click.command()
@click.option("--home", required=True, type=_PATH, help="The directory made by koinon init.")
def doctor(home: Path) -> int:
    """Examine a node's home and machine, before the start or while the node runs.

    Configuration, genesis, ledger, keys, certificate, disk, clock, signing state, ports, and whether the other
    members' nodes can be reached. Changes nothing. The exit code is 1 when there is a problem; warnings do not count.
    """
    from node.doctor import examine

    ask = ask_passphrase if sys.stdin.isatty() else None
    findings = []
    for finding in examine(home.absolute(), ask or _environment_passphrase()):
        findings.append(finding)
        if not invocation().json:
            output.show_finding(finding.weight, f"{finding.check}: {finding.text}", finding.hint)
    if invocation().json:
        output.show_json([asdict(finding) for finding in findings])
    return int(any(finding.weight == "problem" for finding in findings))


node.add_command(vote_again)

commands = [init, genesis, node, doctor, ledger, key]
"""What the koinon command gains where the node is installed."""


def ask_passphrase(prompt: str) -> str:
    """Ask at the terminal, without echo."""
    answer: str = click.prompt(prompt, hide_input=True, err=True)
    return answer


def _environment_passphrase() -> AskPassphrase | None:
    """Opens keys where the passphrase is in the environment, which is looked at first; else they stay closed."""
    return (lambda _: "") if os.environ.get(PASSPHRASE) else None


def _endpoints(option: str, host: str, ports: str) -> homes.Endpoints:
    """Three addresses of one host, which ``option`` named."""
    written = f"[{host}]" if ":" in host and not host.startswith("[") else host  # IPv6
    try:
        rpc, peer, mpc = (Address.parse(f"{written}:{port.strip()}") for port in ports.split(","))
    except ValueError:
        raise InvalidInput(
            f"--ports {ports!r} with {option} {host!r} are not three addresses",
            hint="give a name or an IP address, and three ports from 1 to 65535, e.g. --ports 7400,7401,7402",
        ) from None
    if len({rpc.port, peer.port, mpc.port}) != 3:
        raise InvalidInput(f"--ports {ports!r} names a port twice", hint="the three ports must differ")
    return homes.Endpoints(rpc, peer, mpc)


def _people(items: tuple[str, ...]) -> dict[str, list[Role.ValueType]]:
    people: dict[str, list[Role.ValueType]] = {}
    for item in items or (f"{homes.OPERATOR}=operator",):
        name, equals, roles = item.partition("=")
        unknown = [role for role in roles.split(",") if role not in _ROLES]
        if not equals or unknown or name in people:
            raise InvalidInput(
                f"--person {item!r} is not NAME=ROLE[,ROLE] with a new name",
                hint=f"roles are {', '.join(_ROLES)}; e.g. --person operator=operator --person auditor=regulator",
            )
        people[name] = [_ROLES[role] for role in roles.split(",")]
    return people


def _points(items: tuple[str, ...]) -> dict[str, int]:
    points = {}
    for item in items:
        account, _, number = item.rpartition("=")
        if not account or not number.isascii() or not number.isdigit() or len(number) > len(str(MAX_POINTS)):
            raise InvalidInput(f"--points {item!r} is not ACCOUNT=NUMBER", hint="e.g. --points institution:um=1000")
        points[account] = int(number)
    return points


def _constitution(path: Path) -> Constitution:
    loaded = proposals.load_constitution(path)
    constitutions.check(loaded)
    return loaded


def _parameters(items: tuple[str, ...]) -> Parameters:
    parameters = Parameters()
    parameters.CopyFrom(genesis_file.DEFAULT_PARAMETERS)
    known = [field.name for field in Parameters.DESCRIPTOR.fields]
    for item in items:
        name, _, number = item.partition("=")
        if name not in known or not number.isascii() or not number.isdigit():
            raise InvalidInput(f"--parameter {item!r} is not NAME=NUMBER", hint=f"parameters are {', '.join(known)}")
        try:
            setattr(parameters, name, int(number))
        except ValueError:
            raise InvalidInput(f"--parameter {item!r} is too large", hint="use a smaller number") from None
    return parameters
