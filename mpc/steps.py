"""A plan in words and sizes: its steps, who learns what by each, and what it will cost."""

from __future__ import annotations

from koinon.v1.plan_pb2 import (
    OUTPUT_KIND_AVG,
    OUTPUT_KIND_COUNT,
    OUTPUT_KIND_GROUP,
    OUTPUT_KIND_STDDEV_SAMP,
    OUTPUT_KIND_SUM,
    OUTPUT_KIND_VAR_SAMP,
    PLAN_STEP_KIND_LOCAL,
    PLAN_STEP_KIND_OPENING,
    PLAN_STEP_KIND_SECURE,
    Plan,
    PlanCost,
    PlanStep,
)

ASKER = "asker"
"""How steps name the person who asked."""

SHARE_BYTES = 32  # one field element on the wire, framing included


def describe(plan: Plan, groups: int) -> list[PlanStep]:
    """The steps of a plan whose other parts are complete; ``learns`` is empty where nobody learns anything."""
    owners = sorted({source.institution for source in plan.sources})
    helpers = [member for member in plan.committee if member not in owners]
    per_source = groups * len(plan.aggregates)
    computed = [output for output in plan.outputs if output.kind != OUTPUT_KIND_GROUP]
    names = ", ".join(output.name for output in computed)
    trust = f"any {plan.threshold} of these {len(plan.committee)} together learn nothing"
    without = f"; {', '.join(helpers)} computes without input" if helpers else ""
    each = f"{groups} groups" if plan.group_by else "all rows"
    return [
        PlanStep(
            kind=PLAN_STEP_KIND_LOCAL,
            description=f"each owner counts and sums its own rows, {len(plan.aggregates)} numbers for {each}",
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
                f"the committee adds up, tests that a group has at least {plan.min_cohort} rows, and computes {names}; "
                f"{trust}"
            ),
            who=plan.committee,
            values=groups * len(computed),
        ),
        PlanStep(
            kind=PLAN_STEP_KIND_OPENING,
            description="the committee seals its output shares to the asker, who alone puts them together",
            who=[ASKER],
            learns=(
                f"for {each}, whether at least {plan.min_cohort} rows are in it; if so {names}, "
                f"NULL where fewer than {plan.min_cohort} values entered; how many rows or values failed, nobody learns"
            ),
            values=groups * (1 + 2 * len(computed)),
        ),
    ]


# Multiplications per output and rounds, measured on the secure programs; a rough guide for people.
_MULTIPLICATIONS = {
    OUTPUT_KIND_COUNT: 1,
    OUTPUT_KIND_SUM: 60,
    OUTPUT_KIND_AVG: 400,
    OUTPUT_KIND_VAR_SAMP: 800,
    OUTPUT_KIND_STDDEV_SAMP: 1_200,
}
_ROUNDS = {
    OUTPUT_KIND_COUNT: 12,
    OUTPUT_KIND_SUM: 12,
    OUTPUT_KIND_AVG: 60,
    OUTPUT_KIND_VAR_SAMP: 120,
    OUTPUT_KIND_STDDEV_SAMP: 180,
}


def estimate(plan: Plan, groups: int) -> PlanCost:
    """What a plan costs, roughly: outputs of a kind are computed side by side, so rounds do not grow with them."""
    parties = len(plan.committee)
    secret_values = groups * len(plan.aggregates) * len(plan.sources)
    computed = [output.kind for output in plan.outputs if output.kind != OUTPUT_KIND_GROUP]
    work = groups * (60 + sum(_MULTIPLICATIONS[kind] for kind in computed))
    return PlanCost(
        groups=groups,
        secret_values=secret_values,
        bytes_sent_estimate=(secret_values + work * parties) * (parties - 1) * SHARE_BYTES,
        rounds_estimate=1 + max(_ROUNDS[kind] for kind in computed),
    )
