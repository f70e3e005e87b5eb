"""Catalog: datasets, described by metadata only.

Publishing under the same name again makes a new version, whose policy holds from then on; tokens stay
valid as far as columns and operations still exist, and tasks under way go on with the version they name.
Withdrawing a dataset denies its open requests and revokes its active tokens, so that open tasks which
use one fail. A withdrawn name may be published again, as a further version.
"""

from __future__ import annotations

from koinon import canonical
from koinon.limits import MAX_TEXT
from koinon.names import DatasetName
from koinon.v1.catalog_pb2 import Dataset, PublishDataset, WithdrawDataset
from node.contracts import access, shapes, tables
from node.contracts.context import Context
from node.contracts.policy import check_policy
from node.contracts.transitions import DATASET


def publish(context: Context, operation: PublishDataset) -> str:
    """An operator publishes a dataset of its institution, or a new version. Returns the dataset's uid."""
    name = shapes.publication(operation)
    context.authorise(institution=name.institution)
    check_policy(operation.policy, context.parameters)
    state = context.state
    dataset = tables.DATASETS.find(state, operation.name)
    if dataset is None:
        descriptor = operation.SerializeToString(deterministic=True)
        uid = canonical.dataset_uid(descriptor, context.transaction_id)
        dataset = Dataset(uid=uid, publisher=name.institution)
    else:
        tables.SUPERSEDED.put(state, version_key(operation.name, dataset.version), dataset)
    dataset.published.CopyFrom(operation)
    dataset.version += 1
    dataset.released_at_ms = context.time_ms
    dataset.published_by = context.sender.id
    related = [f"institution:{name.institution}"]
    detail = f"version {dataset.version}: {operation.title}"
    context.move(DATASET, operation.name, dataset, "dataset.published", related=related, detail=detail)
    tables.DATASETS.put(state, operation.name, dataset)
    return dataset.uid


def withdraw(context: Context, operation: WithdrawDataset) -> str:
    """An operator withdraws a dataset of its institution."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    name = DatasetName.parse(operation.name)
    context.authorise(institution=name.institution)
    state = context.state
    dataset = tables.DATASETS.get(state, operation.name)
    related = [f"institution:{name.institution}"]
    context.move(DATASET, operation.name, dataset, "dataset.withdrawn", related=related, detail=operation.reason)
    tables.DATASETS.put(state, operation.name, dataset)
    access.end_all(context, operation.name, f"dataset {operation.name} was withdrawn: {operation.reason}")
    return ""


def version_key(name: str, version: int) -> str:
    """Key of a superseded version; fixed width, so that versions are in order."""
    return f"{name}\0{version:020d}"
