"""The secure program against its cleartext twin, over party counts, owners and values; and what its traffic says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.shares import ELEMENT_BYTES, reconstruct
from koinon.v1.plan_pb2 import (
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_ROWS,
    AGGREGATE_KIND_SUM,
    AGGREGATE_KIND_SUM_OF_SQUARES,
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_SUM,
    OUTPUT_KIND_VAR_SAMP,
    GroupColumn,
    LocalAggregate,
    OutputColumn,
    OutputKind,
    Plan,
    PlanSource,
)
from mpc.cleartext import evaluate
from mpc.programs import joint_query
from mpc.shamir import Shamir
from tests.mpc.local_network import LocalNetwork, run

Rows = list[list[int]]
Output = tuple["OutputKind.ValueType", list[int]]

ALL_OUTPUTS: list[Output] = [
    (OUTPUT_KIND_GROUP, []),
    (OUTPUT_KIND_COUNT, [0]),
    (OUTPUT_KIND_COUNT, [1]),
    (OUTPUT_KIND_SUM, [1, 2]),
    (OUTPUT_KIND_AVG, [1, 2]),
    (OUTPUT_KIND_AVG, [4, 5]),
    (OUTPUT_KIND_VAR_SAMP, [1, 2, 3]),
    (OUTPUT_KIND_STDDEV_SAMP, [1, 2, 3]),
]
KINDS = [
    AGGREGATE_KIND_ROWS,
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_SUM,
    AGGREGATE_KIND_SUM_OF_SQUARES,
    AGGREGATE_KIND_COUNT,
    AGGREGATE_KIND_SUM,
]
LARGEST = 10**15  # limits.MAX_VALUE at scale 10^6


def plan(
    groups: int, cohort: int, outputs: Sequence[Output], owners: Sequence[int], uncounted: Sequence[int] = ()
) -> Plan:
    """The rows of all owners but the uncounted enter the cohort tests."""
    return Plan(
        committee=[f"p{party}" for party in range(7)],
        sources=[PlanSource(institution=f"p{owner}", counted=owner not in uncounted) for owner in owners],
        group_by=[GroupColumn(name="g", codes=[str(code) for code in range(groups)])],
        aggregates=[LocalAggregate(kind=kind) for kind in KINDS],
        outputs=[OutputColumn(kind=kind, aggregate_indices=indices) for kind, indices in outputs],
        min_cohort=cohort,
        fraction_digits=6,
    )


def totals(values: list[int], rows: int, others: list[int]) -> list[int]:
    """What an owner's engine returns for one group."""
    return [rows, len(values), sum(values), sum(value * value for value in values), len(others), sum(others)]


def secure(
    parties: int, a_plan: Plan, owners: list[int], inputs: list[Rows], network: LocalNetwork | None = None
) -> list[int]:
    async def program(s: Shamir) -> list[int]:
        own = inputs[owners.index(s.party)] if s.party in owners else None
        return await joint_query(s, a_plan, owners, own)

    rows = run(parties, program, network)
    return reconstruct(dict(enumerate(rows)), (parties - 1) // 2, [str(party) for party in range(parties)])


def clear(a_plan: Plan, inputs: list[Rows]) -> list[int]:
    return [value for group in evaluate(a_plan, inputs) for value in group.opened()]


VALUES = st.lists(
    st.integers(-LARGEST, LARGEST) | st.integers(-3, 3) | st.sampled_from([LARGEST, -LARGEST]), max_size=6
)


@st.composite
def queries(draw: st.DrawFn) -> tuple[int, list[int], list[int], int, list[Rows]]:
    """Party count, owners, those of them that do not count, minimum cohort, inputs of two groups."""
    parties = draw(st.sampled_from([3, 3, 4, 4, 5, 6, 7]))
    owners = sorted(draw(st.sets(st.integers(0, parties - 1), min_size=1, max_size=parties)))
    uncounted = draw(st.just([]) | st.sampled_from(owners).map(lambda owner: [owner]))
    inputs = []
    for _ in owners:
        groups = []
        for _ in range(2):
            values = draw(VALUES)
            others = draw(VALUES)[: len(values)]
            groups.append(totals(values, len(values) + draw(st.integers(0, 2)), others))
        inputs.append(groups)
    return parties, owners, uncounted, draw(st.integers(1, 6)), inputs


@settings(max_examples=12)
@given(queries())
def test_equal_to_the_cleartext_twin(query: tuple[int, list[int], list[int], int, list[Rows]]) -> None:
    parties, owners, uncounted, cohort, inputs = query
    a_plan = plan(2, cohort, ALL_OUTPUTS, owners, uncounted)
    assert secure(parties, a_plan, owners, inputs) == clear(a_plan, inputs)


@pytest.mark.parametrize("outputs", [[output] for output in ALL_OUTPUTS[1:]], ids=str)
def test_each_output_alone(outputs: list[Output]) -> None:
    inputs = [[totals([3, 5, 5, -9], 6, [4, 4, 5])], [totals([1_000_000], 1, [])]]
    a_plan = plan(1, 2, outputs, [0, 2])
    assert secure(3, a_plan, [0, 2], inputs) == clear(a_plan, inputs)


@pytest.mark.parametrize("cohort", [4, 5, 6])
def test_the_cohort_is_the_smallest_that_is_shown(cohort: int) -> None:
    inputs = [[totals([7, 8], 2, [])], [totals([9, 9, 9], 3, [])]]
    a_plan = plan(1, cohort, ALL_OUTPUTS, [1, 3])
    found = secure(4, a_plan, [1, 3], inputs)
    assert found[0] == (cohort <= 5)
    assert found == clear(a_plan, inputs)


@pytest.mark.parametrize("uncounted", [1, 3])
def test_known_rows_hide_nobody(uncounted: int) -> None:
    """The asker's institution, p1 or p3, brings rows of its own: they enter the results, and no cohort."""
    inputs = [[totals([7, 8], 2, [])], [totals([9, 9, 9], 3, [])]]
    counted = inputs[1] if uncounted == 1 else inputs[0]
    for cohort in (2, 3, 4):
        a_plan = plan(1, cohort, ALL_OUTPUTS, [1, 3], [uncounted])
        found = secure(4, a_plan, [1, 3], inputs)
        assert found[:3] == ([1, 1, 5] if counted[0][0] >= cohort else [0, 0, 0])
        assert found == clear(a_plan, inputs)


def test_values_at_every_bound() -> None:
    most = 100_000_000  # limits.MAX_ROWS
    extremes = [
        [most, most, most * LARGEST, most * LARGEST**2, most, -most * LARGEST],
        [most, most, 0, most * LARGEST**2, most, most * LARGEST],
    ]
    inputs = [extremes for _ in range(7)]
    a_plan = plan(2, 1, ALL_OUTPUTS, range(7))
    assert secure(7, a_plan, list(range(7)), inputs) == clear(a_plan, inputs)


def test_more_groups_than_one_batch() -> None:
    draw = random.Random(1)
    groups = [totals([draw.randint(-99, 99) for _ in range(draw.randint(0, 5))], 5, []) for _ in range(40)]
    a_plan = plan(40, 2, ALL_OUTPUTS, [0])
    assert secure(3, a_plan, [0], [groups]) == clear(a_plan, [groups])


def test_frames_hold_no_input_value() -> None:
    """Beside TLS, the messages themselves: shares and masked numbers only."""
    draw = random.Random(2)
    values = [draw.randint(10**14, LARGEST) for _ in range(5)]
    inputs = [[totals(values, 5, values[:3])], [totals(values[:2], 4, [])]]
    network = LocalNetwork(4)
    secure(4, plan(1, 3, ALL_OUTPUTS, [0, 2]), [0, 2], inputs, network)
    assert len(network.frames) > 100
    elements = {
        int.from_bytes(frame[i : i + ELEMENT_BYTES], "big")
        for frame in network.frames
        for i in range(0, len(frame), ELEMENT_BYTES)
        if len(frame) % ELEMENT_BYTES == 0
    }
    assert min(elements) > 2**64  # nothing small: neither an input, nor a count, nor a bit
    traffic = b"|".join(network.frames)
    for value in [*values, *(total for group in inputs for row in group for total in row if total > 10**6)]:
        for encoded in (str(value).encode(), value.to_bytes(14 + value.bit_length() // 8, "big").lstrip(b"\0")):
            assert encoded not in traffic


def test_outputs_of_the_same_query_are_shared_anew_each_time() -> None:
    async def program(s: Shamir) -> list[int]:
        own = [totals([1, 2], 2, [3])] if s.party == 0 else None
        return await joint_query(s, plan(1, 1, ALL_OUTPUTS, [0]), [0], own)

    first, second = run(3, program)[1], run(3, program)[1]
    assert len(set(first) & set(second)) == 0
