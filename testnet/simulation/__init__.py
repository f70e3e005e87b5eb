"""Deterministic simulation of consensus: the production engine on a simulated world, from one integer.

A run has two phases. In the *safety* phase everything goes wrong that the seed says: messages are delayed, reordered,
dropped, duplicated and forged, the network is partitioned (both ways or one way), nodes crash at any
operation on their disk or network and lose what was not synced, disks are lost, clocks are off, and one validator may
be faulty: it runs twice with one key (Bano et al., "Twins", arXiv:2004.10617), so it equivocates in every
way that the code can. Then the world *heals*, and progress is demanded of every correct node within a bound.

- ``world``: virtual time, network, disks, crashes
- ``nodes``: the engine on simulated ports, and the pool
- ``application``: the smallest application that can show a divergence
- ``faults``: what goes wrong, and when
- ``checkers``: what must hold, in arithmetic of their own
- ``run``: one seed from beginning to end

``python -m testnet.simulation --seeds N --first-seed S`` runs many; a failure prints the command that replays it.
"""
