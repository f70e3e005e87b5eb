"""Run inside namespaces of its own by test_faults: two nodes' places talk, while their network is disturbed."""

from __future__ import annotations

import json
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
import socket, sys, time
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.settimeout(float(sys.argv[2]))
began = time.monotonic()
here.sendto(b"heard", (sys.argv[1], 7))
here.recv(99)
print(time.monotonic() - began)
"""


def main() -> None:
    """Print after how many seconds um heard of iu each time, or null."""
    with Lan(["um", "iu"]) as lan:
        command = [*lan.command("iu"), sys.executable, "-c", _ECHO]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as echo:
            assert echo.stdout is not None
            echo.stdout.readline()
            answers = [_ask(lan)]
            lan.cut(["iu"], ["um"])
            answers.append(_ask(lan, patience_s=1))
            lan.heal()
            lan.delay("iu", 0.2)
            answers.append(_ask(lan))
            lan.delay("iu", 1.0)
            answers.append(_ask(lan))
            lan.heal()
            answers.append(min(_ask(lan) or 60 for _ in range(5)))  # a busy machine may take its time, but not always
            echo.kill()
    sys.stdout.write(json.dumps(answers))


def _ask(lan: Lan, patience_s: int = 60) -> float | None:
    command = [*lan.command("um"), sys.executable, "-c", _ASK, lan.host("iu"), str(patience_s)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return float(answer) if answer else None


if __name__ == "__main__":
    main()
