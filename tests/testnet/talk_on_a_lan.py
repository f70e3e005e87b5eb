"""Run inside namespaces of its own by test_faults: two nodes' places talk, while their network is disturbed."""

from __future__ import annotations

import subprocess
import sys

from testnet.faults.lan import Lan

_ECHO = """
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", 7))
print(flush=True)
while True:
    here.sendto(*here.recvfrom(99))
"""
_ASK = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.settimeout(1)
here.sendto(b"heard", (sys.argv[1], 7))
print(here.recv(99).decode())
"""


def main() -> None:
    """Print what um heard of iu each time."""
    with Lan(["um", "iu"]) as lan:
        command = [*lan.command("iu"), sys.executable, "-c", _ECHO]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as echo:
            assert echo.stdout is not None
            echo.stdout.readline()
            answers = [_ask(lan)]
            lan.cut(["iu"], ["um"])
            answers.append(_ask(lan))
            lan.heal()
            lan.delay("iu", 0.2)
            answers.append(_ask(lan))
            lan.delay("iu", 1.0)
            answers.append(_ask(lan))
            lan.heal()
            answers.append(_ask(lan))
            echo.kill()
    sys.stdout.write(",".join(answers))


def _ask(lan: Lan) -> str:
    command = [*lan.command("um"), sys.executable, "-c", _ASK, lan.host("iu")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
