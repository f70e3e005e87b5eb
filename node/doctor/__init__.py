"""`koinon doctor`: is this home fit to run a node, and is the node that runs here well?

Before the start and after it, and while the node runs: then the ledger on disk is the node's own, and the node is
asked instead. Nothing is changed; no secret is shown. Examinations go from what the others depend on to what depends
on them, and one that fails never keeps the rest from being made.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from governance import constitution
from koinon import genesis as genesis_file
from koinon import key_files
from koinon.errors import InvalidFile, InvalidInput
from koinon.key_files import AskPassphrase
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor
from node import config as configs
from node import places, tls
from node.config import Address, Home, NodeConfig
from node.credentials import ask_once
from node.doctor import credentials, ledger, live, machine
from node.doctor.dial import dial
from node.doctor.finding import Finding, ok, problem, refused, warning
from node.doctor.ledger import Ledger
from node.doctor.live import Live

_DIALS = 8  # at once


def examine(home: Path, ask: AskPassphrase | None) -> Iterator[Finding]:
    """Every finding, as it is made. ``ask`` asks for the passphrase of encrypted keys; None leaves them closed."""
    if ask is not None:
        ask = ask_once(ask)
    try:
        config = configs.load(home)
        yield ok("configuration", f"{config.home.config} is that of {config.institution}")
    except InvalidFile as error:
        yield refused("configuration", error)
        return
    wrong = list(places.wrong(config.home))
    yield from (refused("home", error) for error in wrong)
    running = not wrong and is_running(config.home)
    if not wrong:  # else it cannot be told, and the ledger not be looked at
        yield ok("node", "it runs" if running else "it does not run")
    genesis: Genesis | None = None
    try:
        loaded = genesis_file.load(config.home.genesis)
        if loaded.HasField("constitution"):
            constitution.check(loaded.constitution)
        genesis = loaded
        yield ok("genesis", f"chain {genesis_file.chain_id(genesis)}, {len(genesis.institutions)} founders")
    except (InvalidFile, InvalidInput) as error:
        yield refused("genesis", error)
    standing, answer = Ledger(), None
    if genesis is not None and not wrong:
        if running:
            answer = _ask_node(config, genesis, ask)
            yield from _answered(answer, config.ledger.keep_blocks)
        else:
            yield from ledger.examine(config.home, genesis, config.ledger.keep_blocks, standing)
    if isinstance(answer, Live):
        standing = Ledger(answer.status.height, answer.status.block_time_ms, answer.members, known=True)
    members = standing.members or (tuple(genesis.institutions) if genesis is not None else ())
    known = next((item for item in members if item.id == config.institution), None)
    if members and known is None and _hopes(config):
        yield warning(
            "membership",
            f"{config.institution} is not among the {'members' if standing.members else 'founders'}: "
            + ", ".join(item.id for item in members),
            "nothing, where the members have admitted it since, which only a ledger that is in step tells; else they "
            "decide (koinon member apply), and until then their nodes do not let this one in",
        )
    elif members and known is None:
        yield problem(
            "membership",
            f"{config.institution} is not among the members: {', '.join(item.id for item in members)}",
            "check `institution` in config.toml, and that genesis.json is the one made with your descriptor.json",
        )
    yield from credentials.keys(config, known, ask)
    yield from credentials.certificate(config, known)
    yield from machine.disk(config)
    yield from machine.clock(standing.time_ms, _clocks(answer, config.institution))
    if wrong:
        return
    yield from _signing_state(config, standing, running=running)
    sure = bool(standing.members)
    yield from _network(config, members, running=running, admitted=known is not None, sure=sure)


def is_running(home: Home) -> bool:
    """Does a process hold the lock of the ledger store? Asks the way LevelDB does (fcntl), and takes nothing."""
    try:
        with (home.ledger / "LOCK").open("rb+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(lock, fcntl.LOCK_UN)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _hopes(config: NodeConfig) -> bool:
    """Was the home made for this institution, which may still be admitted?"""
    try:
        return genesis_file.load_descriptor(config.home.descriptor).id == config.institution
    except InvalidFile:
        return False


def _ask_node(config: NodeConfig, genesis: Genesis, ask: AskPassphrase | None) -> Live | str:
    try:
        return live.ask(config, genesis, key_files.load_signing_key(config.home.key("node"), ask))
    except (InvalidFile, OSError) as error:
        return f"the node key could not be used: {error}"


def _answered(answer: Live | str, keep_blocks: int) -> Iterator[Finding]:
    """What the running node says of the ledger and of itself."""
    if isinstance(answer, str):
        yield warning(
            "ledger",
            f"the node uses it, and could not be asked: {answer}",
            "nothing, where the members have not admitted it yet; koinon key rotate node --home HOME, where its key "
            f"was revoked; set {key_files.ENVIRONMENT}, where it is encrypted; else see the node's log",
        )
        return
    status = answer.status
    yield ok("ledger", f"the node is at height {status.height}; stop it to have the store examined")
    yield from ledger.retention(status.height, status.first_block, status.demanded_block, keep_blocks)
    if answer.stall.stalled:
        yield problem("decisions", f"nothing has been decided for {answer.stall.quiet_ms // 1000} s", "see below")
    for item in answer.stall.findings:
        yield Finding("decisions", "problem" if item.problem else "warning", item.text, item.hint)


def _clocks(answer: Live | str | None, own: str) -> dict[str, int] | None:
    if not isinstance(answer, Live):
        return None
    return {
        item.institution: item.clock_ahead_ms
        for item in answer.stall.validators
        if item.institution != own and item.clock_ahead_ms
    }


def _signing_state(config: NodeConfig, standing: Ledger, *, running: bool) -> Iterator[Finding]:
    try:
        key = key_files.public_key(config.home.key("validator"), "ed25519")
    except InvalidFile:
        return  # said where the keys are examined
    yield from ledger.signing_state(config.home, key, config.institution, standing, running=running)


def _network(
    config: NodeConfig, members: Iterable[InstitutionDescriptor], *, running: bool, admitted: bool, sure: bool
) -> Iterator[Finding]:
    try:
        identity = tls.read_identity(config.home.certificate, config.home.certificate_key)
    except InvalidFile:
        return  # said where the certificate is examined; without it nobody speaks to us, our own node neither
    certificate = tls.pem_to_der(identity.certificate)
    yield from machine.ports(config, running=running, certificate=certificate)
    others = [item for item in members if item.id != config.institution]
    with ThreadPoolExecutor(_DIALS) as threads:
        yield from threads.map(lambda item: _reach(config, item, admitted=admitted, sure=sure), others)


def _reach(config: NodeConfig, member: InstitutionDescriptor, *, admitted: bool, sure: bool) -> Finding:
    """Does a member's node answer at its peer address, with the pinned certificate, and does it know ours?

    Whether we are ``admitted``, and which certificate is pinned, is ``sure`` where it was read from the ledger.
    """
    check, where = "peers", f"{member.id} at {member.peer_address}"
    answer = dial(Address.parse(member.peer_address), config.home)
    if not answer.certificate:
        return warning(check, f"{where} cannot be reached: {answer.reason}", "ask its operator; mind firewalls between")
    if answer.certificate != member.tls_certificate and not sure:
        return warning(
            check,
            f"{where} shows another certificate than the genesis names",
            "it may have exchanged it since: ask its operator, or examine again once this node is in step",
        )
    if answer.certificate != member.tls_certificate:
        return problem(
            check,
            f"{where} shows another certificate than the one pinned for it",
            "another machine answers there, or it lost its certificate: ask its operator, on another channel",
        )
    if answer.reason and not admitted:
        return warning(check, f"{where} answers, and does not let us in yet", "nothing: it does once we are admitted")
    if answer.reason:
        return problem(
            check,
            f"{where} does not accept our certificate: {answer.reason}",
            "its genesis or ledger knows another one for us: compare chain ids and certificates with its operator",
        )
    return ok(check, f"{where} answers with its pinned certificate")
