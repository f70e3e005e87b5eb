"""A plan in words and sizes: its steps, who learns what by each, and what it will cost."""

from __future__ import annotations

from koinon.v1.plan_pb2 import (
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_VAR_SAMP,
    PLAN_STEP_KIND_LOCAL,
    PLAN_STEP_KIND_OPENING,
    PLAN_STEP_KIND_SECURE,
    Plan,
    PlanCost,
    PlanStep,
)
from koinon.words import of_others

ASKER = "asker"
"""How steps name the person who asked."""


def describe(plan: Plan, groups: int) -> list[PlanStep]:
    """The steps of a plan whose other parts are complete; ``learns`` is empty where nobody learns anything."""
    owners = sorted({source.institution for source in plan.sources})
    helpers = [member for member in plan.committee if member not in owners]
    per_source = groups * len(plan.aggregates)
    computed = [output for output in plan.outputs if output.kind != OUTPUT_KIND_GROUP]
    names = ", ".join(output.name for output in computed)
    trust = (
        f"any {plan.threshold} of them together learn nothing" if plan.threshold > 1 else "none alone learns anything"
    )
    without = f"; without input: {', '.join(helpers)}" if helpers else ""
    numbers = (
        f"{len(plan.aggregates)} numbers for each of {groups} groups"
        if plan.group_by
        else f"{len(plan.aggregates)} numbers"
    )
    whose = of_others(source.institution for source in plan.sources if not source.counted)
    took_part = f"are in each of {groups} groups" if plan.group_by else "take part"
    # values are counted on their own only where they may be missing
    sometimes = any(o.aggregate_indices[0] != 0 for o in computed if o.kind != OUTPUT_KIND_COUNT)
    missing = f"; NULL where fewer than {plan.min_cohort} values{whose} entered" if sometimes else ""
    return [
        PlanStep(
            kind=PLAN_STEP_KIND_LOCAL,
            description=f"each owner counts and sums its own rows: {numbers}",
            who=owners,
            values=per_source * len(plan.sources),
        ),
        PlanStep(
            kind=PLAN_STEP_KIND_SECURE,
            description=f"the owners secret-share their numbers among the committee{without}; {trust}",
            who=plan.committee,
            values=per_source * len(plan.sources),
        ),
        PlanStep(
            kind=PLAN_STEP_KIND_SECURE,
            description=(
                f"the committee adds up, tests that a group has at least {plan.min_cohort} rows{whose}, "
                f"and computes {names}; {trust}"
            ),
            who=plan.committee,
            values=groups * len(computed),
        ),
        PlanStep(
            kind=PLAN_STEP_KIND_OPENING,
            description="the committee seals its output shares to the asker, who alone puts them together",
            who=[ASKER],
            learns=f"whether at least {plan.min_cohort} rows{whose} {took_part} and, only then, {names}{missing}",
            values=groups * (1 + 2 * len(computed)),
        ),
    ]


# Bytes that each party sends to each other one, measured with three parties (tests/mpc/test_steps.py): the bits of a
# count that is compared; those of a count that is divided by; a quotient; a square root on top of it.
_TEST_BYTES, _DIVISOR_BYTES, _QUOTIENT_BYTES, _ROOT_BYTES = 12_600, 16_000, 20_000, 75_000
_ROUNDS, _DIVISION_ROUNDS, _ROOT_ROUNDS = 14, 36, 52
_DIVIDED = (OUTPUT_KIND_AVG, OUTPUT_KIND_VAR_SAMP, OUTPUT_KIND_STDDEV_SAMP)


def estimate(plan: Plan, groups: int) -> PlanCost:
    """What a plan costs, roughly. Outputs are computed side by side, so rounds do not grow with their number."""
    parties = len(plan.committee)
    computed = [output for output in plan.outputs if output.kind != OUTPUT_KIND_GROUP]
    divided = [output for output in computed if output.kind in _DIVIDED]
    roots = [output for output in divided if output.kind == OUTPUT_KIND_STDDEV_SAMP]
    tested = {0, *(output.aggregate_indices[0] for output in computed)}
    sent = (
        _TEST_BYTES * len(tested)
        + _DIVISOR_BYTES * len({output.aggregate_indices[0] for output in divided})
        + _QUOTIENT_BYTES * len(divided)
        + _ROOT_BYTES * len(roots)
    )
    links = parties * 2 * plan.threshold  # a product is opened to its degree's worth of peers
    wider = 100 + 7 * max(0, parties - 3)  # per cent: masks grow with the number of parties
    return PlanCost(
        groups=groups,
        secret_values=groups * len(plan.aggregates) * len(plan.sources),
        bytes_sent_estimate=groups * sent * links * wider // 100,
        rounds_estimate=_ROUNDS + bool(divided) * _DIVISION_ROUNDS + bool(roots) * _ROOT_ROUNDS,
    )
