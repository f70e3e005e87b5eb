"""``koinon key``: make a key, exchange one's own for another, and see whose a key was at what height.

Where the node is installed, ``koinon key`` does the same with an institution's keys (node.key_commands).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from koinon import key_files
from koinon import profile as profiles
from koinon.cli import output
from koinon.cli.app import invocation, tell
from koinon.display import plain
from koinon.errors import InvalidFile, InvalidInput, PermissionRefused
from koinon.keys import SigningKey
from koinon.v1.identity_pb2 import KeyPurpose
from koinon.words import word


@click.group()
def key() -> None:
    """Make, rotate and revoke keys; see whose each was, and when."""


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--no-passphrase", is_flag=True, help="Keep the key unencrypted: for test networks only.")
def make(file: Path, no_passphrase: bool) -> None:
    """Make a person's key; print its public half.

    The key goes to FILE; hand the public half to your operator to register.
    The passphrase comes from KOINON_PASSPHRASE, or is asked for. If FILE exists, only its public half is printed.
    """
    if not file.exists():
        key_files.save(file, SigningKey.generate(), None if no_passphrase else new_passphrase())
    public_key = key_files.public_key(file, "ed25519").hex()
    tell({"file": str(file), "public_key": public_key}, public_key)


@key.command("list")
@click.argument("owner")
def list_(owner: str) -> None:
    """List every key that OWNER, an institution or a person, ever had: from which height to which it counted."""
    records = invocation().client.members.keys(owner)
    if invocation().json:
        output.show_json([plain(record) for record in records])
        return
    rows = [
        (
            word(KeyPurpose, record.purpose),
            record.key.hex(),
            str(record.from_height),
            str(record.until_height) if record.until_height else "",
            record.end or "in use",
        )
        for record in records
    ]
    output.show(output.table(("Purpose", "Key", "From", "Until", "State"), rows, right=("From", "Until")))


@key.command()
def rotate() -> None:
    """Exchange your own key for a new one, in one transaction.

    The old key's signatures stay yours; new ones are refused. Its file is kept beside the new one's.
    """
    rotate_own()


def rotate_own() -> None:
    """The key of the profile's person. Raises what the ledger and the disk do; may be repeated after a failure."""
    present = profiles.load(invocation().profile).key_file
    check_owner(present)
    client = invocation().client
    waiting, old = present.with_suffix(".next.key"), key_files.public_key(present, "ed25519")
    if not waiting.exists():
        encrypted = key_files.is_encrypted(present, "ed25519")
        key_files.save(waiting, SigningKey.generate(), new_passphrase() if encrypted else None)
    new = key_files.public_key(waiting, "ed25519")
    client.members.rotate_key("person", new)
    try:
        os.link(present, present.with_suffix(f".{old.hex()[:16]}.retired"))
        waiting.replace(present)
    except OSError as error:
        raise InvalidFile(
            f"the new key is registered, and {waiting} could not be moved to {present}: {error.strerror}",
            hint="move it there yourself: the old key is good for nothing new",
        ) from None
    show_rotated("person", new.hex())


def check_owner(path: Path) -> None:
    """Is what one makes beside ``path`` of use there? Its owner could not read root's. Raises PermissionRefused."""
    if path.exists() and hasattr(os, "geteuid") and (owner := path.stat().st_uid) != os.geteuid():
        raise PermissionRefused(
            f"{path} is another user's, who could not read the new key",
            hint=f"run this as that user: sudo -u '#{owner}' koinon key rotate ...",
        )


def show_rotated(kind: str, key_hex: str) -> None:
    """Say which key counts from now on."""
    tell({"purpose": kind, "key": key_hex}, f"{kind} key {key_hex}")


def new_passphrase(what: str = "the new key") -> str:
    """For what is being made. Raises InvalidInput where nobody can be asked."""
    if passphrase := os.environ.get(key_files.ENVIRONMENT):
        return passphrase
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"there is no passphrase for {what}",
            hint=f"set {key_files.ENVIRONMENT}, or run this in a terminal to be asked; --no-passphrase for tests only",
        )
    answer: str = click.prompt(f"Passphrase for {what}", hide_input=True, confirmation_prompt=True, err=True)
    return answer
