"""``koinon key`` for an institution's own keys: made in its home, named on the ledger, taken up by its node."""

from __future__ import annotations

import time
from pathlib import Path

import click

from koinon import genesis as genesis_file
from koinon import key_files
from koinon import profile as profiles
from koinon.cli import keys, output
from koinon.cli.app import invocation
from koinon.errors import InvalidInput
from koinon.profile import Profile
from node import config as configs
from node import credentials, tls
from node.config import Home, NodeConfig

_OWN = ("validator", "node", "sealing", "tls")
_TAKEN_UP_S = 20.0  # a node that starts again for a new certificate needs a few of these

_HOME = click.option("--home", type=click.Path(path_type=Path), help="The institution's home; not for person.")


@click.group()
def key() -> None:
    """Make, rotate and revoke keys; see whose each was, and when."""


@key.command()
@click.argument("purpose", type=click.Choice(("person", *_OWN)), default="person")
@_HOME
def rotate(purpose: str, home: Path | None) -> None:
    """Exchange a key for a new one, in one transaction: your own, or one of your institution's.

    validator, node, sealing and tls (the certificate) are made in HOME, and your institution's node takes them up
    by itself: a validator key two blocks later, tls by starting again within itself. Old signatures stay accountable.
    May be repeated after a failure.
    """
    if purpose == "person":
        keys.rotate_own()
        return
    paths = _home(home)
    config = configs.load(paths.path)
    _check_own(config, profiles.load(invocation().profile))
    client = invocation().client
    if purpose == "tls":
        new = credentials.make_next_certificate(paths, config.institution)
        shown = tls.fingerprint(new).hex()
    else:
        kind = credentials.KINDS[purpose]
        encrypted = key_files.is_encrypted(paths.key(purpose), kind)
        waits = paths.key(f"{purpose}.{credentials.NEXT}").exists()
        new = credentials.make_next(paths, purpose, keys.new_passphrase() if encrypted and not waits else None)
        shown = new.hex()
    client.members.rotate_key(purpose, new)
    keys.show_rotated(purpose, shown)
    if not _taken_up(paths, purpose):
        output.say("hint: the node has not taken it up yet: it does so when it runs, or at its next start")
    if purpose == "tls":
        output.say(
            f"hint: profiles that hold the old certificate need the new one, {paths.certificate}; "
            "then: koinon key revoke tls --reason ..."
        )


@key.command()
@click.argument("purpose", type=click.Choice(_OWN))
@click.option("--reason", required=True, help="Public to the members.")
def revoke(purpose: str, reason: str) -> None:
    """End a key of your institution before there is another; people's: koinon member revoke.

    Without a validator key the institution observes; without a node key it takes part in no computation. Of tls it
    is the certificate before the present one.
    """
    invocation().client.members.revoke_key(purpose, reason)
    output.say(f"hint: koinon key rotate {purpose} --home HOME gives it another" if purpose != "tls" else "revoked")


def _home(home: Path | None) -> Home:
    if home is None:
        raise InvalidInput("an institution's key is made in its home", hint="give its directory: --home HOME")
    return Home(home.absolute())


def _check_own(config: NodeConfig, profile: Profile) -> None:
    """Another's home would get the keys that the ledger names for the profile's institution. Raises InvalidInput.

    What root makes in another user's home, the node there cannot read: it would vote no more. Raises PermissionRefused.
    """
    home = config.home.path
    keys.check_owner(home)
    if profile.institution != config.institution:
        problem = f"{home} is the home of {config.institution}, and the profile is one of {profile.institution}"
    elif genesis_file.load(profile.genesis) != genesis_file.load(config.home.genesis):
        problem = f"{home} and the profile belong to different networks"
    else:
        return
    raise InvalidInput(
        problem,
        rule="wrong-institution",
        hint=f"use the profile of an operator from {home / 'people'}, or another --home",
    )


def _taken_up(home: Home, purpose: str) -> bool:
    """Has the node put the new key in its place?"""
    directory = home.certificate.parent / credentials.NEXT
    waiting = directory / home.certificate.name if purpose == "tls" else home.key(f"{purpose}.{credentials.NEXT}")
    give_up = time.monotonic() + _TAKEN_UP_S
    while waiting.exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    return not waiting.exists()
