"""The genesis: what every node and every verifier starts from, and the one thing they must get from someone they trust.

On disk it is JSON for people to read and compare. The chain is named by the digest of the message it
stands for (deterministic protobuf), so layout does not matter and any other change makes another chain.
"""

from __future__ import annotations

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
from koinon.json_form import parse, render
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
    if not path.exists():
        raise InvalidFile(
            f"there is no genesis file {path}",
            hint="get the consortium's from a member, and compare the chain id on another channel",
        )
    genesis = parse(read_text(path, "genesis file", MAX_GENESIS_BYTES), Genesis, FORMAT, "genesis file")
    validate(genesis)
    return genesis


def save(path: Path, genesis: Genesis) -> None:
    """Write a valid genesis to a new file. Raises InvalidFile or Exhausted."""
    validate(genesis)
    write_new(path, render(genesis, FORMAT), "genesis file")


def load_descriptor(path: Path) -> InstitutionDescriptor:
    """Read and validate an institution's public descriptor, as ``koinon init`` makes it. Raises InvalidFile."""
    what = "institution descriptor"
    descriptor = parse(read_text(path, what, MAX_GENESIS_BYTES), InstitutionDescriptor, DESCRIPTOR_FORMAT, what)
    validate_descriptor(descriptor)
    return descriptor


def save_descriptor(path: Path, descriptor: InstitutionDescriptor) -> None:
    """Write a valid descriptor to a new file. Raises InvalidFile or Exhausted."""
    validate_descriptor(descriptor)
    write_new(path, render(descriptor, DESCRIPTOR_FORMAT), "institution descriptor")
