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

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from koinon.errors import InvalidFile, InvalidName, NotFound
from koinon.files import read_text
from koinon.limits import MAX_PROFILE_BYTES
from koinon.names import PersonId, check_address, check_institution

ENVIRONMENT = "KOINON_PROFILE"
_FIELDS = ("institution", "person", "key_file", "rpc_address", "node_certificate", "genesis")
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
            hint=f"pass --profile FILE (in Python: koinon.connect(FILE)), or set {ENVIRONMENT}; "
            "koinon init and koinon testnet up make profiles",
        )
    known = Path("~/.config/koinon/profiles")
    try:
        path = Path(wanted).expanduser()
        if path.is_file():
            return path
        known = directory()
        named = known / f"{wanted}.toml"
        if path.name == wanted and named.is_file():
            return named
    except RuntimeError:  # ~somebody who is not here, or nobody's home is known
        pass
    raise NotFound(
        f"there is no profile {wanted!r}",
        rule="unknown-profile",
        hint=f"give the path of a profile file, or the name of one in {known}",
    )


def load(profile: str | os.PathLike[str] | None = None) -> Profile:
    """Read and check a profile. Raises NotFound if there is none, InvalidFile if it is not one."""
    path = locate(profile)
    text = read_text(path, "profile", MAX_PROFILE_BYTES)
    try:
        return parse(text, path.parent.absolute())
    except InvalidFile as error:
        raise InvalidFile(f"the profile {path}: {error.message}", rule=error.rule, hint=error.hint) from error


def parse(text: str, base: Path) -> Profile:
    """Parse the text of a profile; relative paths start from ``base``. Raises InvalidFile."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"not TOML: {error}", hint="koinon init writes a profile to HOME/people") from error
    for name in _FIELDS:
        if not isinstance(table.get(name), str) or not table[name]:
            raise InvalidFile(f"{name} is missing", hint=f"a profile sets {', '.join(_FIELDS)}, each to a text")
    if unknown := sorted(set(table) - set(_FIELDS)):
        raise InvalidFile(f"{unknown[0]!r} is no field of a profile", hint=f"fields are {', '.join(_FIELDS)}")
    try:
        institution = check_institution(table["institution"])
        person = PersonId.parse(table["person"])
        check_address(table["rpc_address"])
    except InvalidName as error:
        raise InvalidFile(error.message, hint=error.hint) from error
    return Profile(
        institution=institution,
        person=person,
        key_file=_path(table["key_file"], base),
        rpc_address=table["rpc_address"],
        node_certificate=_certificate(table["node_certificate"], base),
        genesis=_path(table["genesis"], base),
    )


def _path(value: str, base: Path) -> Path:
    try:
        return base / Path(value).expanduser()
    except RuntimeError:  # ~somebody who is not here
        raise InvalidFile(f"{value!r} names nobody's home directory", hint="write the path out") from None


def _certificate(value: str, base: Path) -> str:
    if _PEM_MARK in value:
        return value
    path = _path(value, base)
    text = read_text(path, "node_certificate", MAX_PROFILE_BYTES)
    if _PEM_MARK not in text:
        raise InvalidFile(
            f"node_certificate {path} holds no PEM certificate", hint="it is HOME/tls/certificate.pem of your node"
        )
    return text
