"""Tendermint (arXiv:1807.04938) as a pure core: events in, effects out.

- ``messages``: what validators sign and send
- ``events``: the closed sets of events and effects, and the timeouts
- ``votes``: who voted for what, bounded whatever arrives
- ``core``: the algorithm

Nothing here knows a clock, socket, disk, key or event loop. ``node.engine`` performs the effects.
"""
