"""Many nodes on one machine: the real processes, on loopback, in one directory.

::

    DIR/genesis.json
    DIR/nodes/<institution>/     each institution's home, as koinon init makes it, and node.pid
    DIR/profiles/*.toml          <institution>-operator, and analyst and regulator of the first institution

Nothing here is a stand-in: homes and genesis come from the code behind `koinon init` and `koinon
genesis`, and each node is `koinon node run` in a process of its own. Only the keys have no passphrase.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from koinon import files, genesis
from koinon import profile as profiles
from koinon.errors import InvalidInput, NotFound, Unavailable
from koinon.names import PersonId, check_institution
from koinon.v1.identity_pb2 import Genesis, InstitutionDescriptor, Role
from node import home as homes
from node.config import Address, Home
from testnet.probe import NodeState, Probe

DEFAULT_INSTITUTIONS = ("um", "iu", "uk", "case")
READY_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.05
# Below the range from which the system takes ports for outgoing connections, so that a node that was
# stopped finds its ports still free.
_PORTS = range(20_000, 32_000)
_RESERVED: deque[int] = deque()  # file descriptors, oldest first
_MAX_RESERVED = 64  # ports: more than networks that one process makes before it starts them
_TITLES = {
    "um": "University of Michigan",
    "iu": "Indiana University",
    "uk": "University of Kentucky",
    "case": "Case Western Reserve University",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node runs: its address, and what is put before its command."""

    host: str = "127.0.0.1"
    command: tuple[str, ...] = ()


class Testnet:
    """A local network in a directory; ``create`` makes one, ``open`` finds it again.

    As a context manager it starts every node, waits until they decide, and stops them at the end::

        with Testnet.create(path, ("um", "iu", "uk", "case")) as network:
            client = koinon.connect(network.profile("analyst"))
    """

    __test__ = False  # its name begins like a test's

    def __init__(self, directory: Path, chain: Genesis, places: Mapping[str, Place] | None = None) -> None:
        self.dir = directory
        self._places = places or {}
        founders = {item.id for item in chain.institutions}
        self.institutions = tuple(
            sorted(founders | {path.parent.name for path in directory.glob("nodes/*/config.toml")})
        )
        self._genesis = chain
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def create(
        cls,
        directory: Path,
        institutions: Sequence[str] = DEFAULT_INSTITUTIONS,
        places: Mapping[str, Place] | None = None,
        *,
        points: int = 0,
    ) -> Testnet:
        """Make homes, genesis and profiles in a directory that holds no network yet.

        The first institution named registers the analyst and the regulator. Each has so many ``points`` from the
        start. Nodes run on loopback, but for ``places``.

        Raises:
            InvalidInput: a malformed or repeated institution, or none.
            InvalidFile: the directory holds a network, or cannot be written.
        """
        if not institutions or len(set(institutions)) != len(institutions):
            raise InvalidInput(
                f"{','.join(institutions)!r} does not name one or more different institutions",
                hint="e.g. --institutions um,iu,uk,case",
            )
        for institution in institutions:
            check_institution(institution)
        directory = directory.absolute()
        ports = free_ports(3 * len(institutions))
        descriptors = []
        for number, institution in enumerate(institutions):
            host = (places or {}).get(institution, Place()).host
            addresses = [Address(host, port) for port in ports[3 * number : 3 * number + 3]]
            people = {homes.OPERATOR: [Role.ROLE_OPERATOR]}
            if number == 0:
                people |= {"analyst": [Role.ROLE_ANALYST], "regulator": [Role.ROLE_REGULATOR]}
            descriptors.append(
                homes.create(
                    _home(directory, institution),
                    institution,
                    _TITLES.get(institution, institution),
                    homes.Endpoints(*addresses),
                    people=people,
                    passphrase=None,
                )
            )
        accounts = {f"institution:{name}": points for name in institutions} if points else {}
        chain = genesis.join("testnet", time.time_ns() // 1_000_000, descriptors, points=accounts)
        genesis.save(directory / "genesis.json", chain)
        for descriptor in descriptors:
            home = _home(directory, descriptor.id)
            shutil.copyfile(directory / "genesis.json", home.genesis)
            for person in descriptor.people:
                _write_profile(directory, PersonId.parse(person.id), descriptor.rpc_address)
        return cls(directory, chain, places)

    @classmethod
    def open(cls, directory: Path) -> Testnet:
        """The network that ``create`` made here. Raises NotFound or InvalidFile."""
        directory = directory.absolute()
        if not (directory / "genesis.json").is_file():
            raise NotFound(
                f"there is no test network in {directory}", hint=f"koinon testnet up --dir {directory} makes one"
            )
        return cls(directory, genesis.load(directory / "genesis.json"))

    def add_institution(self, institution: str) -> InstitutionDescriptor:
        """Make the home of an institution that hopes to be admitted: its own keys, and the genesis; not yet started.

        Raises InvalidInput, InvalidFile.
        """
        if institution in self.institutions:
            raise InvalidInput(f"{institution} is in this network", hint="choose another name")
        check_institution(institution)
        home = _home(self.dir, institution)
        addresses = [Address("127.0.0.1", port) for port in free_ports(3)]
        descriptor = homes.create(
            home, institution, _TITLES.get(institution, institution), homes.Endpoints(*addresses), passphrase=None
        )
        shutil.copyfile(self.dir / "genesis.json", home.genesis)
        for person in descriptor.people:
            _write_profile(self.dir, PersonId.parse(person.id), descriptor.rpc_address)
        self.institutions = tuple(sorted((*self.institutions, institution)))
        return descriptor

    # --- where things are

    def home(self, institution: str) -> Home:
        """Raises NotFound."""
        if institution not in self.institutions:
            raise NotFound(
                f"{institution} is not in this network", hint=f"institutions are {', '.join(self.institutions)}"
            )
        return _home(self.dir, institution)

    def profile(self, name: str) -> Path:
        """Profile file of ``um-operator``, ``analyst`` or ``regulator``. Raises NotFound."""
        path = self.dir / "profiles" / f"{name}.toml"
        if not path.is_file():
            known = sorted(item.stem for item in path.parent.glob("*.toml"))
            raise NotFound(f"this network has no profile {name}", hint=f"profiles are {', '.join(known)}")
        return path

    # --- processes

    def start(
        self, *institutions: str, environment: Mapping[str, str] | None = None, import_first: Path | None = None
    ) -> None:
        """Start these nodes, or all; those that run stay as they are. Does not wait.

        What they are to import before anything else is in ``import_first``.
        """
        paths = [*([str(import_first)] if import_first else []), *(entry for entry in sys.path if entry)]
        for institution in institutions or self.institutions:
            home = self.home(institution)
            if self.pid(institution):
                continue
            home.log.mkdir(exist_ok=True)
            place = self._places.get(institution, Place())
            with _uninterrupted(), (home.log / "console").open("wb") as console:
                process = subprocess.Popen(
                    [*place.command, sys.executable, "-m", "node", "run", "--log-file", "--home", str(home.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    cwd=home.path,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | dict(environment or {}),
                    start_new_session=True,  # Ctrl-C is for us: we stop the nodes in order
                )
                self._processes[institution] = process
                _pid_file(home).write_text(f"{process.pid}\n", encoding="ascii")

    def stop(self, *institutions: str) -> None:
        """Ask these nodes, or all, to stop, and wait until they have; kill whoever does not."""
        chosen = institutions or self.institutions
        for institution in chosen:
            self._signal(institution, signal.SIGTERM)
        give_up = time.monotonic() + _STOP_S
        for institution in chosen:
            self._wait_gone(institution, give_up)
            if self.pid(institution):
                self.kill(institution)

    def kill(self, institution: str) -> None:
        """End a node without warning (SIGKILL), as a power cut would."""
        self._signal(institution, signal.SIGKILL)
        self._wait_gone(institution, time.monotonic() + _STOP_S)

    def restart(self, institution: str) -> None:
        """Start a node that was stopped or killed; does not wait until it has caught up."""
        self.start(institution)

    def pid(self, institution: str) -> int:
        """Process id of a running node; 0 when it does not run."""
        home = self.home(institution)
        process = self._processes.get(institution)
        if process is not None:
            return process.pid if process.poll() is None else 0
        try:
            pid = int(_pid_file(home).read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        return pid if str(home.path).encode() in command else 0  # else the number went to another process

    def _signal(self, institution: str, number: signal.Signals) -> None:
        if pid := self.pid(institution):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait_gone(self, institution: str, give_up: float) -> None:
        while self.pid(institution) and time.monotonic() < give_up:
            time.sleep(_POLL_S)

    # --- state

    def wait_ready(
        self, timeout_s: float = READY_S, on_change: Callable[[list[NodeState]], None] = lambda _: None
    ) -> list[NodeState]:
        """Wait until every running node decides blocks and sees the others; at least one must run.

        Raises:
            Unavailable: a node ended, or time ran out; says which node, and what it last said.
        """
        give_up = time.monotonic() + timeout_s
        last: list[NodeState] = []
        with self._watch() as look:
            while True:
                states = look()
                if states != last:
                    on_change(states)
                    last = states
                ended = [state for state in states if state.institution in self._processes and not state.pid]
                if ended and (process := self._processes[ended[0].institution]).returncode not in (-9, -15, 0):
                    raise Unavailable(
                        f"the node of {ended[0].institution} ended with exit code {process.returncode}: "
                        + self._last_words(ended[0].institution),
                        hint=f"its log is in {self.home(ended[0].institution).log}",
                    )
                running = [state for state in states if state.pid]
                if running and all(state.ready for state in running):
                    return states
                if time.monotonic() > give_up:
                    waiting = next((state for state in running if not state.ready), None)
                    raise Unavailable(
                        f"not ready after {timeout_s:.0f} s: "
                        + (f"{waiting.institution}: {waiting.problem}" if waiting else "no node runs"),
                        hint=f"logs are in {self.dir}/nodes/*/log",
                    )
                time.sleep(_POLL_S)

    def status(self) -> list[NodeState]:
        """One look at every node."""
        with self._watch() as look:
            return look()

    @contextmanager
    def _watch(self) -> Iterator[Callable[[], list[NodeState]]]:
        """Looks at all nodes, each over a connection of its own that is kept between looks."""
        chain_id = genesis.chain_id(self._genesis)
        probes = {
            institution: Probe(profiles.load(self.profile(f"{institution}-operator")), chain_id)
            for institution in self.institutions
        }
        with ThreadPoolExecutor(max_workers=len(probes)) as threads:

            def look() -> list[NodeState]:
                pids = {institution: self.pid(institution) for institution in self.institutions}
                others = sum(1 for pid in pids.values() if pid) - 1
                return list(threads.map(lambda institution: probes[institution].look(pids[institution], others), pids))

            try:
                yield look
            finally:
                for probe in probes.values():
                    probe.close()

    def _last_words(self, institution: str) -> str:
        with suppress(OSError):
            lines = (self.home(institution).log / "console").read_text(encoding="utf-8", errors="replace").splitlines()
            if said := [line for line in lines if line.strip() and not line.startswith("hint:")]:
                return said[-1]
        return "it said nothing"

    # --- context managers

    def __enter__(self) -> Testnet:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Testnet:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def _home(directory: Path, institution: str) -> Home:
    return Home(directory / "nodes" / institution)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Being told to stop waits until the end of this: a process that was started and not noted would be left behind."""
    told: list[int] = []
    waiting: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other is interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            waiting[number] = signal.signal(number, lambda number, _: told.append(number))
    try:
        yield
    finally:
        for number, handler in waiting.items():
            signal.signal(number, handler)
        if told:
            signal.raise_signal(told[0])


def _pid_file(home: Home) -> Path:
    return home.path / "node.pid"


def _write_profile(directory: Path, person: PersonId, rpc_address: str) -> None:
    home = f"../nodes/{person.institution}"
    fields = {
        "institution": person.institution,
        "person": str(person),
        "key_file": f"{home}/people/{person.name}.key",
        "rpc_address": rpc_address,
        "node_certificate": f"{home}/tls/certificate.pem",
        "genesis": "../genesis.json",
    }
    name = f"{person.institution}-operator" if person.name == homes.OPERATOR else person.name
    text = "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
    files.write_new(directory / "profiles" / f"{name}.toml", text, "profile")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now, and no other process was given lately. Raises Unavailable."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserve(port)
            found.append(port)
        if len(found) == count:
            return found
    raise Unavailable(f"fewer than {count} ports are free on this machine", hint="stop what uses them")


def _reserve(port: int) -> None:
    """Until a node listens there, keep others that look for ports away from it: by UDP, which nodes do not use.

    Raises OSError if somebody else did.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as mark:
        mark.bind(("127.0.0.1", port))
        _RESERVED.append(mark.detach())
    if len(_RESERVED) > _MAX_RESERVED:
        os.close(_RESERVED.popleft())
