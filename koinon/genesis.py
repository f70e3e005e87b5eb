"""The genesis: what every node and every verifier starts from, and the one thing they must get from someone they trust.

On disk it is JSON for people to read and compare. The chain is named by the digest of the message it
stands for (deterministic protobuf), so layout does not matter and any other change makes another chain.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from koinon.errors import InvalidFile
from koinon.files import read_text, write_new
from koinon.genesis_form import (
    DEFAULT_PARAMETERS,
    chain_id,
    check_certificate,
    check_signing_key,
    genesis_bytes,
    genesis_hash,
    join,
    validate,
    validate_descriptor,
    validators,
)
from koinon.json_form import AnyMessage, parse, render
from koinon.limits import MAX_GENESIS_BYTES
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor

__all__ = [
    "DEFAULT_PARAMETERS",
    "DESCRIPTOR_FORMAT",
    "FORMAT",
    "chain_id",
    "check_certificate",
    "check_signing_key",
    "genesis_bytes",
    "genesis_hash",
    "join",
    "load",
    "load_descriptor",
    "save",
    "save_descriptor",
    "validate",
    "validate_descriptor",
    "validators",
]

FORMAT = "koinon-genesis/1"
DESCRIPTOR_FORMAT = "koinon-institution/1"


def load(path: Path) -> Genesis:
    """Read and validate a genesis file. Raises InvalidFile."""
    if not os.path.lexists(path):
        raise InvalidFile(
            f"there is no genesis file {path}",
            hint="get the consortium's from a member, and compare the chain id on another channel",
        )
    return _load(path, "genesis file", Genesis, FORMAT, validate)


def save(path: Path, genesis: Genesis) -> None:
    """Write a valid genesis to a new file. Raises InvalidFile or Exhausted."""
    validate(genesis)
    write_new(path, render(genesis, FORMAT), "genesis file")


def load_descriptor(path: Path) -> InstitutionDescriptor:
    """Read and validate an institution's public descriptor, as ``koinon init`` makes it. Raises InvalidFile."""
    return _load(path, "institution descriptor", InstitutionDescriptor, DESCRIPTOR_FORMAT, validate_descriptor)


def save_descriptor(path: Path, descriptor: InstitutionDescriptor) -> None:
    """Write a valid descriptor to a new file. Raises InvalidFile or Exhausted."""
    validate_descriptor(descriptor)
    write_new(path, render(descriptor, DESCRIPTOR_FORMAT), "institution descriptor")


def _load(
    path: Path, what: str, message_type: type[AnyMessage], format_name: str, check: Callable[[AnyMessage], None]
) -> AnyMessage:
    """What a file holds, valid. Raises InvalidFile, naming the file."""
    text = read_text(path, what, MAX_GENESIS_BYTES)
    try:
        message = parse(text, message_type, format_name, what)
        check(message)
    except InvalidFile as error:
        raise InvalidFile(f"{path}: {error.message}", rule=error.rule, hint=error.hint) from error
    return message
