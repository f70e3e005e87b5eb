"""The process of a node: what must hold before anything opens, its log, its signals, and beginning again."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
from pathlib import Path

from google.protobuf.message import DecodeError
from structlog.typing import FilteringBoundLogger

from koinon import genesis as genesis_file
from koinon.errors import Corrupt, Exhausted, InvalidFile, Unavailable
from koinon.key_files import AskPassphrase
from koinon.v1.identity_pb2 import Genesis
from node import config as configs
from node import credentials as credential_files
from node import listening, logging, places, restore, tls
from node.config import NodeConfig
from node.credentials import Credentials
from node.doctor.dial import SHOWN_AT, TWICE, dial
from node.runtime import Node

_COLLECT_AFTER = 50_000  # containers made and not freed: after every 700, Python's way, takes a twentieth of all time


def serve(home: Path, ask: AskPassphrase | None, *, log_file: bool) -> None:
    """Run the node of a home directory until SIGINT or SIGTERM.

    Raises:
        InvalidFile: configuration, genesis, a key or the certificate is missing, damaged or not this member's,
            a place in the home is not what it must be, or the ledger on disk began from another genesis.
        Unavailable: a port or the ledger is in use, or the disk cannot be written.
        Exhausted: the disk is full.
        Corrupt: the ledger on disk contradicts itself.
    """
    config = configs.load(home)
    places.check(config.home)
    genesis = genesis_file.load(config.home.genesis)
    credentials = credential_files.load(config, genesis, ask)
    _check_ports(config, tls.pem_to_der(credentials.identity.certificate))
    log = _open_log(config, log_file)
    take_descriptors()
    asyncio.run(_run(config, genesis, credentials, log))


def take_descriptors() -> None:
    """As many as the system allows: a shell's usual thousand are fewer than connections, files and members need."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def collect_seldom() -> None:
    """Look for garbage as befits a process that lives long; modules live as long, and are not looked at again."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


async def _run(config: NodeConfig, genesis: Genesis, credentials: Credentials, log: FilteringBoundLogger) -> None:
    collect_seldom()
    loop = asyncio.get_running_loop()
    again = True
    while again:
        if restore.put_in_place(config.home):
            log.info("ledger replaced", reason="a snapshot was restored")
        try:
            node = Node(config, genesis, credentials, log)
        except DecodeError as error:
            raise Corrupt(
                f"what the ledger on disk holds cannot be read ({error})",
                hint="koinon node repair --home HOME: the node fetches the ledger anew",
            ) from error
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, node.stop)
        again = await node.run()


def _check_ports(config: NodeConfig, certificate: bytes) -> None:
    """Are the ports free? Asked before anything is opened. ``certificate`` is ours, in DER. Raises Unavailable."""
    for name, address in config.listening().items():
        number = listening.refusal(address)
        if not number:
            continue
        refused = f"{config.institution} cannot listen on {address} ({name}): {os.strerror(number)}"
        if number != errno.EADDRINUSE:
            raise Unavailable(refused, hint=f"listen.{name} in {config.home.config} must be an address of this machine")
        if name in SHOWN_AT and dial(listening.dialled(address), config.home).certificate == certificate:
            raise Unavailable(
                f"the node of {config.institution} runs already: it answers at {address} ({name})",
                rule="port-in-use",
                hint=TWICE,
            )
        change = f"change listen.{name} in {config.home.config}"
        raise Unavailable(refused, rule="port-in-use", hint=f"stop what uses the port, or {change}")


def _open_log(config: NodeConfig, log_file: bool) -> FilteringBoundLogger:
    if not log_file:
        return logging.configure(config.log_level, config.institution)
    file = config.home.log / "node.log"
    try:
        file.parent.mkdir(exist_ok=True)
        return logging.configure(config.log_level, config.institution, file)
    except OSError as error:
        text = f"the log {file} cannot be written: {error.strerror}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Exhausted(text, rule="disk-full", hint="free some space, then start again") from None
        raise InvalidFile(text, rule="disk-read-only", hint="check the permissions of the home directory") from None
