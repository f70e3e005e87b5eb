"""Contracts: what each operation of a transaction means.

Deterministic handlers over the replicated state. A handler reads and writes typed tables (``tables``),
checks the shape of what it was sent (``shapes``), asks the permission table who may (``governance.permissions``),
and moves subjects only along the transition tables (``transitions``), each move emitting one audit record.
A refusal is an error of ``koinon.errors`` with its rule; the caller (``node.application``) rolls back to
where the transaction began.

Layers, each knowing only those before it:
``transitions``, ``tables``, ``shapes`` · ``context`` · ``accounts``, ``classification``, ``keys``, ``policy`` ·
``subscriptions``, ``unions``, ``upgrades`` · ``settlement``, ``tokens`` · ``tasks`` · ``identity``, ``access`` ·
``membership``, ``negotiation``, ``demand`` · ``applications``, ``catalog``, ``disputes``, ``rotation``, ``readings`` ·
``actions`` · ``governance`` · ``genesis``, ``operations``, ``reads``.
"""
