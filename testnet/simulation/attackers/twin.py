"""Two nodes with one key, each of which believes to be the only one (Bano et al., "Twins", arXiv:2004.10617).

It happens without malice: a virtual machine restored from a copy, a failover that was none. What they
sign together is every way to equivocate that the production code has.
"""

from __future__ import annotations

from testnet.simulation.attackers.attacker import Attacker


class Twin(Attacker):
    """Both are the production node, unchanged."""

    processes = 2
