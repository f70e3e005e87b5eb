"""What a dataset's publisher allows at all, on the ledger and enforced for everyone alike."""

from __future__ import annotations

from collections.abc import Sequence

from koinon.errors import InvalidInput, NotFound, Refused
from koinon.v1.catalog_pb2 import DATASET_STATUS_PUBLISHED, AccessPolicy, Dataset, TaskOperation
from koinon.v1.identity_pb2 import MEMBER_STATUS_SUSPENDED, Parameters
from node.contracts import tables
from node.ledger.state import State


def published_dataset(state: State, name: str) -> Dataset:
    """The newest version of a dataset that can be used.

    Raises NotFound, or Refused with rule ``dataset-withdrawn``, ``member-suspended`` or ``member-removed``.
    """
    dataset = tables.DATASETS.get(state, name)
    check_none_excluded(state, dataset.publisher)
    if tables.INSTITUTIONS.get(state, dataset.publisher).status == MEMBER_STATUS_SUSPENDED:
        raise Refused(
            f"{dataset.publisher}, who published {name}, is suspended",
            rule="member-suspended",
            hint="the members decide when it may return",
        )
    if dataset.status != DATASET_STATUS_PUBLISHED:
        raise Refused(
            f"dataset {name} was withdrawn by {dataset.publisher}",
            rule="dataset-withdrawn",
            hint="search the catalog for what is published now",
        )
    return dataset


def check_none_excluded(state: State, *institutions: str) -> None:
    """Is none of these just being excluded? What is still open of one that was is ended, and of no use until then.

    Raises Refused with rule ``member-suspended`` or ``member-removed``.
    """
    for name in institutions:
        exclusion = tables.EXCLUSIONS.find(state, name)
        if exclusion is not None:
            raise Refused(
                exclusion.reason, rule=exclusion.rule, hint="what is open of it ends by itself: go on without it"
            )


def check_columns(dataset: Dataset, columns: Sequence[str]) -> None:
    """Does the dataset have all these columns? Raises NotFound."""
    known = {column.name for column in dataset.published.columns}
    for column in columns:
        if column not in known:
            raise NotFound(
                f"dataset {dataset.published.name} has no column {column}",
                hint="koinon catalog show lists its columns",
            )


def operation_names(operations: Sequence[TaskOperation.ValueType]) -> str:
    """'COUNT, SUM' for messages."""
    return ", ".join(TaskOperation.Name(operation).removeprefix("TASK_OPERATION_") for operation in operations)


def check_operations(dataset: Dataset, operations: Sequence[TaskOperation.ValueType]) -> None:
    """Are these operations allowed on the dataset at all? Raises Refused with rule ``policy``."""
    allowed = dataset.published.policy.operations
    excess = [operation for operation in operations if operation not in allowed]
    if excess:
        raise Refused(
            f"the policy of {dataset.published.name} does not allow {operation_names(excess)}",
            rule="policy",
            hint=f"it allows {operation_names(allowed)}",
        )


def check_duration_and_uses(dataset: Dataset, duration_ms: int, uses: int) -> None:
    """May a token last this long and be used this often?

    Raises InvalidInput when either is not positive, Refused with rule ``policy`` when it is too much.
    """
    policy = dataset.published.policy
    for what, value, most in (
        ("a duration in ms", duration_ms, policy.max_duration_ms),
        ("a number of uses", uses, policy.max_uses),
    ):
        if value < 1:
            raise InvalidInput(f"{value} is not {what}", hint="ask for at least 1")
        if value > most:
            raise Refused(
                f"the policy of {dataset.published.name} does not allow {value} as {what}",
                rule="policy",
                hint=f"it allows {most} at most",
            )


def check_policy(policy: AccessPolicy, parameters: Parameters) -> None:
    """Is a policy within what the consortium lets publishers promise? Raises Refused with rule ``policy``."""
    for what, value, least, most in (
        ("min_cohort", policy.min_cohort, parameters.min_cohort_floor, 2**32 - 1),
        ("max_uses", policy.max_uses, 1, parameters.max_token_uses),
        ("max_duration_ms", policy.max_duration_ms, 1, parameters.max_token_duration_ms),
    ):
        if not least <= value <= most:
            raise Refused(
                f"the policy's {what} is {value}",
                rule="policy",
                hint=f"the consortium's parameters allow {least} to {most}",
            )
