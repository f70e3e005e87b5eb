"""A network of its own for each node: Linux namespaces joined by a switch that delays and drops packets.

The processes are the real ones, on addresses of their own; each namespace has one TUN device, and what leaves it goes
through this switch, in user space. So a delay or a partition needs no kernel module, and ends at once when told to.
Everything happens inside namespaces that the whole run entered first (``enter``): nothing of the host is changed, and
all of it is gone when the run ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_NETWORK = "10.99.0"
_ONLOOKER = f"{_NETWORK}.254"  # where clients are
_MTU = 16_000
_QUEUED_PACKETS = 20_000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_INSIDE = "KOINON_FAULTS_INSIDE"
_DISK_BYTES = 512 * 1024 * 1024  # a ledger of hours, at some blocks a second


def enter() -> None:
    """Run this program again, in namespaces of its own, unless that was done. Raises OSError where it may not."""
    if os.environ.get(_INSIDE):
        return
    os.environ[_INSIDE] = "1"
    owner = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *owner, "--net", "--mount", sys.executable, "-m", "testnet.faults", *sys.argv[1:]]
    os.execvp("unshare", command)  # noqa: S606, S607 - nothing in it comes from outside


class Lan:
    """The switch, and one namespace per institution. A context manager."""

    def __init__(self, institutions: Sequence[str]) -> None:
        self._addresses = {name: f"{_NETWORK}.{number}" for number, name in enumerate(institutions, 1)}
        self._devices: dict[bytes, int] = {}  # by IPv4 address
        self._lock = threading.Lock()
        self._dropped: set[tuple[bytes, bytes]] = set()  # (from, to)
        self._late: dict[bytes, float] = {}  # seconds, to or from this address
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._switch, name="switch", daemon=True)

    def __enter__(self) -> Lan:
        Path("/run/netns").mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "none", "/run/netns")
        _run("ip", "link", "set", "lo", "up")
        self._devices[_packed(_ONLOOKER)] = _device("koinon0")
        _configure(_ONLOOKER, "koinon0", [])
        for name, address in self._addresses.items():
            _run("ip", "netns", "add", name)
            self._devices[_packed(address)] = _device_in(name)
            _configure(address, "koinon0", ["-n", name])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for device in self._devices.values():
            os.close(device)

    # --- where nodes run

    def host(self, institution: str) -> str:
        """Its address."""
        return self._addresses[institution]

    def command(self, institution: str) -> list[str]:
        """What to put before a command so that it runs there."""
        return ["ip", "netns", "exec", institution]

    # --- faults

    def cut(self, senders: Collection[str], receivers: Collection[str]) -> None:
        """From now on nothing goes from the ones to the others. Clients reach every node all the same."""
        with self._lock:
            self._dropped |= {
                (_packed(self._addresses[sender]), _packed(self._addresses[receiver]))
                for sender in senders
                for receiver in receivers
                if sender != receiver
            }

    def delay(self, institution: str, seconds: float) -> None:
        """From now on every packet to and from this node takes so long."""
        with self._lock:
            self._late[_packed(self._addresses[institution])] = seconds

    def heal(self) -> None:
        """Everything goes everywhere at once again."""
        with self._lock:
            self._dropped.clear()
            self._late.clear()

    # --- the switch

    def _switch(self) -> None:
        waiting: dict[float, deque[tuple[float, int, bytes]]] = {}  # by delay, each in order of time
        poll = select.epoll()
        for device in self._devices.values():
            poll.register(device, select.EPOLLIN)
        while not self._ended.is_set():
            due = min((queue[0][0] for queue in waiting.values() if queue), default=time.monotonic() + 0.2)
            for device, _ in poll.poll(max(0.0, due - time.monotonic())):
                with suppress(OSError):  # the device is down: its node's namespace is just being made
                    self._take(os.read(device, 65_536), waiting)
            now = time.monotonic()
            for queue in waiting.values():
                while queue and queue[0][0] <= now:
                    _, target, packet = queue.popleft()
                    with suppress(OSError):  # the receiver's queue is full: a packet is lost, as on any network
                        os.write(target, packet)
        poll.close()

    def _take(self, packet: bytes, waiting: dict[float, deque[tuple[float, int, bytes]]]) -> None:
        sender, receiver = packet[12:16], packet[16:20]
        target = self._devices.get(receiver)
        with self._lock:
            delay = max(self._late.get(sender, 0.0), self._late.get(receiver, 0.0))
            dropped = (sender, receiver) in self._dropped
        if target is None or dropped:
            return
        queue = waiting.setdefault(delay, deque())
        if len(queue) < _QUEUED_PACKETS:
            queue.append((time.monotonic() + delay, target, packet))


def own_disk(directory: Path) -> None:
    """Give a directory a file system of its own, of a size that can be filled; what was in it stays."""
    content = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    directory.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=700", "none", str(directory))
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _packed(address: str) -> bytes:
    return bytes(int(part) for part in address.split("."))


def _configure(address: str, device: str, namespace: Sequence[str]) -> None:
    _run("ip", *namespace, "link", "set", "lo", "up")
    _run("ip", *namespace, "addr", "add", f"{address}/24", "dev", device)
    _run("ip", *namespace, "link", "set", device, "mtu", str(_MTU), "up")


def _device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _device_in(namespace: str) -> int:
    """A device of another network namespace; the thread that makes it goes there, and ends."""
    made: list[int] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        place = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if libc.setns(place, _CLONE_NEWNET):
                return
            made.append(_device("koinon0"))
        finally:
            os.close(place)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise OSError(f"no device could be made in the namespace {namespace}")
    return made[0]
