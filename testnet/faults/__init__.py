"""``python -m testnet.faults --nodes 4 --kills N --seed S``: real node processes under kill -9, watched from outside.

Clients write through every node all the time. Faults strike one node at a time (or, now and then, all at once by
SIGKILL, or halves by a partition), and the next one waits until every node decides and votes again: this is what a
consortium of four promises to outlive. One integer draws which node, when and for how long; what the processes make
of it is theirs. With ``--lan`` each node has a network and a disk of its own, which can be cut, slowed and filled.

Held against the nodes, by code that is not theirs but for the final replay:

- **nothing lost**: what a client was told is COMMITTED is in every ledger once, at that height, with that result;
- **no fork**: the block at every height is the same, byte for byte, in all homes, and each replays from the genesis;
- **no equivocation**: no block holds evidence, and a node whose data was wiped signs nothing until its safe height;
- **no node ends or stands still by itself**: after a fault all are ready within a minute;
- **a node that cannot go on says why**: with a full disk it ends, with another certificate it does not begin.
"""
