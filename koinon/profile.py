"""Profiles: who is asking, with which key, of which node, on which chain.

A profile is a small TOML file. It holds no secret: the key stays in its own file::

    institution = "um"
    person = "um/analyst"
    key_file = "../keys/um-analyst.key"
    rpc_address = "127.0.0.1:7101"
    node_certificate = "../um/tls/certificate.pem"   # or the PEM text itself
    genesis = "../genesis.json"

Relative paths start from the directory of the profile. The node's certificate is pinned: the client
speaks to the holder of exactly that certificate, whatever the names in it or the roots of the machine.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from koinon.errors import InvalidFile, InvalidName, NotFound
from koinon.limits import MAX_PROFILE_BYTES
from koinon.names import PersonId, check_institution

ENVIRONMENT = "KOINON_PROFILE"
_FIELDS = ("institution", "person", "key_file", "rpc_address", "node_certificate", "genesis")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_PEM_MARK = "-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Profile:
    """A checked profile: ids are well formed, paths absolute; the files themselves are read when needed."""

    institution: str
    person: PersonId
    key_file: Path
    rpc_address: str  # host:port
    node_certificate: str  # PEM
    genesis: Path

    def render(self) -> str:
        """The profile as TOML, certificate inline."""
        values = {
            "institution": self.institution,
            "person": str(self.person),
            "key_file": str(self.key_file),
            "rpc_address": self.rpc_address,
            "node_certificate": self.node_certificate,
            "genesis": str(self.genesis),
        }
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def directory() -> Path:
    """Where profiles live that are known by name."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "koinon" / "profiles"


def locate(profile: str | os.PathLike[str] | None = None) -> Path:
    """The file that ``profile`` means: a path, a name in ``directory()``, or None for $KOINON_PROFILE.

    Raises NotFound.
    """
    wanted = os.fspath(profile) if profile is not None else os.environ.get(ENVIRONMENT, "")
    if not wanted:
        raise NotFound(
            "no profile was given",
            rule="unknown-profile",
            hint=f"pass --profile FILE (in Python: koinon.connect(FILE)), or set {ENVIRONMENT}",
        )
    path = Path(wanted).expanduser()
    if path.is_file():
        return path
    named = directory() / f"{wanted}.toml"
    if path.name == wanted and named.is_file():
        return named
    raise NotFound(
        f"there is no profile {wanted!r}",
        rule="unknown-profile",
        hint=f"give the path of a profile file, or the name of one in {directory()}",
    )


def load(profile: str | os.PathLike[str] | None = None) -> Profile:
    """Read and check a profile. Raises NotFound if there is none, InvalidFile if it is not one."""
    path = locate(profile)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise InvalidFile(f"cannot read the profile {path}: {error.strerror}") from error
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidFile(f"{path} is larger than a profile may be ({MAX_PROFILE_BYTES} bytes)")
    try:
        return parse(data.decode("utf-8"), path.parent.absolute())
    except InvalidFile as error:
        raise InvalidFile(f"the profile {path}: {error.message}", rule=error.rule, hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(f"the profile {path} is not UTF-8 text") from error


def parse(text: str, base: Path) -> Profile:
    """Parse the text of a profile; relative paths start from ``base``. Raises InvalidFile."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidFile(f"not TOML: {error}") from error
    for name in _FIELDS:
        if not isinstance(table.get(name), str) or not table[name]:
            raise InvalidFile(f"{name} is missing", hint=f"a profile sets {', '.join(_FIELDS)}, each to a text")
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise InvalidFile(f"{unknown[0]!r} is no field of a profile", hint=f"fields are {', '.join(_FIELDS)}")
    try:
        institution = check_institution(table["institution"])
        person = PersonId.parse(table["person"])
    except InvalidName as error:
        raise InvalidFile(error.message, hint=error.hint) from error
    address = _ADDRESS.fullmatch(table["rpc_address"])
    if not address or not 0 < int(address[2]) < 65536:
        raise InvalidFile(f"rpc_address {table['rpc_address']!r} is not host:port", hint="e.g. 127.0.0.1:7101")
    return Profile(
        institution=institution,
        person=person,
        key_file=base / Path(table["key_file"]).expanduser(),
        rpc_address=table["rpc_address"],
        node_certificate=_certificate(table["node_certificate"], base),
        genesis=base / Path(table["genesis"]).expanduser(),
    )


def _certificate(value: str, base: Path) -> str:
    if _PEM_MARK in value:
        return value
    path = base / Path(value).expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PROFILE_BYTES).decode("ascii")
    except OSError as error:
        raise InvalidFile(f"cannot read node_certificate {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidFile(f"node_certificate {path} is not PEM text") from error
    if _PEM_MARK not in text:
        raise InvalidFile(f"node_certificate {path} holds no PEM certificate")
    return text
