"""What a plan says it will cost is what it costs, roughly."""

from __future__ import annotations

import pytest

from mpc.plan import compile_plan
from mpc.programs import joint_query
from mpc.shamir import Shamir
from tests.mpc.local_network import LocalNetwork, run
from tests.mpc.tables import OUTSIDER, PAPER_QUERY, sources


@pytest.mark.parametrize(
    ("sql", "parties"),
    [
        (PAPER_QUERY, 4),
        ("SELECT COUNT(*) FROM ercp.indo_rct", 3),
        ("SELECT trained, SUM(risk), AVG(risk), STDDEV_SAMP(risk), AVG(grade) FROM ercp.indo_rct GROUP BY trained", 3),
        ("SELECT VAR_SAMP(age) FROM ercp.indo_rct", 5),
    ],
)
def test_estimates_are_within_a_quarter_of_what_is_sent(sql: str, parties: int) -> None:
    institutions = [f"i{number}" for number in range(parties)]
    plan = compile_plan(sql, sources(*institutions), institutions, asker=OUTSIDER)
    own = [[1_000] * len(plan.aggregates)] * plan.cost.groups
    network = LocalNetwork(parties)

    async def program(s: Shamir) -> int:
        await joint_query(s, plan, range(parties), own)
        return s.rounds

    rounds = run(parties, program, network)
    sent = sum(len(frame) for frame in network.frames)
    assert 0.75 < plan.cost.bytes_sent_estimate / sent < 1.25
    assert 0.75 < plan.cost.rounds_estimate / rounds[0] < 1.25
