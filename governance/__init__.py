"""Rules of the consortium, as pure functions and tables over integers: who may do what, and within which bounds.

Nothing here knows of nodes, clocks or disks: the contracts (``node.contracts``) apply these rules to the
replicated state, so that every member decides alike.
"""
