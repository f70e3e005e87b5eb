"""Deterministic simulation of the ledger: production engine, store formats and contracts in a world from one integer.

A run has two phases. In the *safety* phase everything goes wrong that the seed says: messages are delayed, reordered,
dropped, duplicated, paths clogged, the network partitioned (both ways or one way); nodes crash at any operation on
their disk or network, pause, lose what was not synced; disks tear records, rot, fill up, are slow or gone; clocks are
off; and up to a third of the power attacks. Meanwhile clients sign transactions, and evidence and ballots change who
votes. Then a core of the world *heals*, and progress is demanded of it within a bound, attackers and all.

- ``world``: virtual time, network, and the record of everything that happened
- ``disk``: what survives a process, and what does not
- ``nodes``: the engine and the application on simulated ports, and the pool
- ``consortium``, ``clients``, ``market``: members, and people who sign transactions
- ``membership``: who joins and who is excluded meanwhile
- ``snapshots``: cut, offered and fetched in memory; old blocks are pruned behind them
- ``outage``: so many lose their signing state that operators must let them vote again
- ``searching``: one node's index for searches
- ``attackers``: faulty members, one file each
- ``faults``: what goes wrong, and when
- ``checkers``: what must hold, in arithmetic of their own
- ``run``: one seed from beginning to end
- ``mutants``: broken rules, each of which must be noticed
- ``signatures``: how thousands of worlds can afford Ed25519

``make sim SEEDS=N FIRST_SEED=S JOBS=J`` runs many; a failure prints the command that replays it.
"""
