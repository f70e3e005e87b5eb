"""Disclosure rules: how few rows are too few, decided the same way by planner, secure program and cleartext twin.

Two rules, both with the plan's ``min_cohort`` k, the largest any source's dataset or token asks for:

1. a *group* is shown only if at least k rows, of all *counted* sources together, are in it after WHERE;
2. a SUM, AVG, VAR_SAMP or STDDEV_SAMP is *present* only if at least k values of counted sources that are not NULL
   entered it (and at least two for VAR_SAMP and STDDEV_SAMP). Otherwise it opens as NULL, which is also what SQL says
   of no values. Without this rule ``AVG(CASE WHEN id = 1001 THEN age END)`` would open one person's age.

Counted are the sources of institutions other than the asker's, unless there are none: what the asker's institution
brings, it knows and can subtract, so k - 1 rows of its own would leave one of another's. Every row enters the results.

COUNT of a shown group is always present. Both tests run inside the joint computation; nobody, the asker included,
learns the counts that failed them.

What this does not stop: an asker who may use arbitrary expressions can still take differences of results
(``WHERE id <> 1001``) or single someone out in a sum or a count (``COUNT(CASE WHEN id = 1001 AND hiv THEN 1 END)``).
A refusal that depends on the data (a value out of range) tells one bit, for one use of every token. Owners keep
identifying columns unpublished, or out of the token; ``docs/trust.md`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koinon.errors import Refused
from koinon.v1.access_pb2 import Token
from koinon.v1.catalog_pb2 import Dataset

SMALLEST_COHORT = 1
"""Below any policy: a group without a row is no group, as in SQL."""


def minimum_cohort(sources: Iterable[tuple[Dataset, Token]]) -> int:
    """The strictest cohort that the sources' datasets and tokens ask for, at least SMALLEST_COHORT."""
    asked = [max(dataset.published.policy.min_cohort, token.min_cohort) for dataset, token in sources]
    return max(asked, default=SMALLEST_COHORT) or SMALLEST_COHORT


def counted(institutions: Sequence[str], asker: str) -> list[bool]:
    """Which sources, given by institution, count towards the cohort when a person of institution ``asker`` asks."""
    others = [institution != asker for institution in institutions]
    return others if any(others) else [True] * len(institutions)


def rows_at_most(dataset: Dataset) -> int:
    """Upper bound on a dataset's rows that the ledger tells everyone: counts are published rounded down."""
    return dataset.published.row_count + max(dataset.published.row_count_step, 1) - 1


def refuse_small(datasets: Iterable[Dataset], cohort: int, *, whose: str) -> None:
    """Refuse what could show nothing: the datasets that count together have fewer rows than the minimum cohort.

    ``whose`` says in words which rows these are (koinon.words.of_others).

    Uses published row counts only, so it tells nothing new. Raises Refused (minimum-cohort).
    """
    bounds = {dataset.published.name: rows_at_most(dataset) for dataset in datasets}
    total, names = sum(bounds.values()), ", ".join(sorted(bounds))
    if total < cohort:
        raise Refused(
            f"{names}: at most {total} rows{whose} together, fewer than the minimum cohort of {cohort}",
            rule="minimum-cohort",
            hint="query the table of several institutions together, e.g. collection.table without an institution",
        )


def shown(rows: int, cohort: int) -> bool:
    """Rule 1: may anything be said about a group with this many counted rows?"""
    return rows >= cohort


def values_needed(cohort: int, *, spread: bool) -> int:
    """Rule 2: how many counted values must enter an aggregate; ``spread`` for VAR_SAMP and STDDEV_SAMP."""
    return max(cohort, 2 if spread else 1)
