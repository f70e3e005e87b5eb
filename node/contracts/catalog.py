"""Catalog: datasets, described by metadata only.

Publishing under the same name again makes a new version, whose policy holds from then on; tokens stay
valid as far as columns and operations still exist, and tasks under way go on with the version they name.
Withdrawing a dataset denies its open requests and revokes its active tokens, so that open tasks which
use one fail. A withdrawn name may be published again, as a further version.

Other institutions may state that they checked a version, and take that back. Themes are those of the taxonomy, which
the members decide on; a theme that leaves it stays with the datasets that name it until they are published again.
"""

from __future__ import annotations

from collections.abc import Sequence

from governance import taxonomy
from governance.permissions import is_device
from koinon import canonical
from koinon.errors import NotFound, PermissionRefused, Refused
from koinon.limits import MAX_TEXT
from koinon.names import DatasetName
from koinon.v1.catalog_pb2 import (
    DATASET_STATUS_PUBLISHED,
    Dataset,
    PublishDataset,
    Taxonomy,
    Verification,
    VerificationOutcome,
    VerifyDataset,
    WithdrawDataset,
    WithdrawVerification,
)
from node.contracts import access, classification, demand, fees, settlement, shapes, tables
from node.contracts.context import Context
from node.contracts.policy import check_policy, published_dataset
from node.contracts.transitions import DATASET, TAXONOMY

_REFRESHED = ("row_count", "commitment")
"""What a device says anew of a dataset."""

_OUTCOMES = range(1, max(VerificationOutcome.values()) + 1)


def publish(context: Context, operation: PublishDataset) -> str:
    """An operator publishes a dataset of its institution, or a new version; a device new content for one.

    Returns the dataset's uid.
    """
    name = shapes.publication(operation)
    context.authorise(institution=name.institution)
    check_policy(operation.policy, context.parameters)
    state = context.state
    settlement.check_payee(state, operation, name.institution)
    classification.check_known(state, operation.themes)
    dataset = tables.DATASETS.find(state, operation.name)
    if is_device(context.sender.roles):
        _check_refresh(dataset, operation)
    if dataset is None:
        descriptor = operation.SerializeToString(deterministic=True)
        uid = canonical.dataset_uid(descriptor, context.transaction_id)
        dataset = Dataset(uid=uid, publisher=name.institution)
        fees.charge(context, "dataset_fee", f"institution:{name.institution}", f"dataset:{operation.name}")
    else:
        tables.SUPERSEDED.put(state, version_key(operation.name, dataset.version), dataset)
        del dataset.verifications[:]  # they speak of the version superseded
    dataset.published.CopyFrom(operation)
    dataset.version += 1
    dataset.released_at_ms = context.time_ms
    dataset.published_by = context.sender.id
    detail = f"version {dataset.version}: {operation.title}"
    context.move(DATASET, operation.name, dataset, "dataset.published", related=_related(dataset), detail=detail)
    tables.DATASETS.put(state, operation.name, dataset)
    demand.match(context, dataset, classification.with_wider(state, operation.themes))
    return dataset.uid


def _check_refresh(dataset: Dataset | None, operation: PublishDataset) -> None:
    """Does a device say that the content is new, and nothing else? What is offered to whom is for people to decide.

    Raises PermissionRefused.
    """
    if dataset is None or dataset.status != DATASET_STATUS_PUBLISHED:
        raise PermissionRefused(
            f"{operation.name} is not published, and a device cannot begin to",
            hint="an operator publishes it; then a device may bring new content",
        )
    before = dataset.published
    changed = [
        field.name
        for field in PublishDataset.DESCRIPTOR.fields
        if field.name not in _REFRESHED and getattr(before, field.name) != getattr(operation, field.name)
    ]
    if changed:
        raise PermissionRefused(
            f"a device cannot change the {changed[0].replace('_', ' ')} of {operation.name}",
            hint="let it publish the descriptor as it is, or an operator change that",
        )


def withdraw(context: Context, operation: WithdrawDataset) -> str:
    """An operator withdraws a dataset of its institution."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    name = DatasetName.parse(operation.name)
    context.authorise(institution=name.institution)
    state = context.state
    dataset = tables.DATASETS.get(state, operation.name)
    related = _related(dataset)
    context.move(DATASET, operation.name, dataset, "dataset.withdrawn", related=related, detail=operation.reason)
    tables.DATASETS.put(state, operation.name, dataset)
    access.end_all(context, operation.name, f"dataset {operation.name} was withdrawn: {operation.reason}")
    return ""


def verify(context: Context, operation: VerifyDataset) -> str:
    """An operator of another institution states that it checked the newest version, how, and what came out."""
    shapes.between("outcome", operation.outcome, _OUTCOMES[0], _OUTCOMES[-1])
    shapes.text("method", operation.method, MAX_TEXT)
    shapes.exactly("evidence_digest", operation.evidence_digest, canonical.HASH_BYTES)
    name = DatasetName.parse(operation.dataset)
    context.authorise(institution=name.institution)
    dataset, verifier = published_dataset(context.state, operation.dataset), context.sender.institution
    if operation.version != dataset.version:
        raise Refused(
            f"dataset {operation.dataset} is at version {dataset.version}, not {operation.version}",
            rule="dataset-version",
            hint="check the newest version",
        )
    if any(made.institution == verifier for made in dataset.verifications):
        raise Refused(
            f"{verifier} has verified version {dataset.version} of {operation.dataset} before",
            rule="already-exists",
            hint="withdraw that statement first",
        )
    made = Verification(
        institution=verifier,
        made_by=context.sender.id,
        made_at_ms=context.time_ms,
        outcome=operation.outcome,
        method=operation.method,
        evidence_digest=operation.evidence_digest,
    )
    outcome = VerificationOutcome.Name(made.outcome).removeprefix("VERIFICATION_OUTCOME_").lower()
    _restate(context, dataset, "dataset.verified", [*dataset.verifications, made], f"{outcome}: {made.method}")
    tables.DATASETS.put(context.state, operation.dataset, dataset)
    return ""


def withdraw_verification(context: Context, operation: WithdrawVerification) -> str:
    """The institution that verified a version takes its statement back."""
    shapes.text("reason", operation.reason, MAX_TEXT)
    name = DatasetName.parse(operation.dataset)
    context.authorise(institution=name.institution)
    state, verifier = context.state, context.sender.institution
    newest = tables.DATASETS.get(state, operation.dataset)
    key = version_key(operation.dataset, operation.version)
    dataset = newest if operation.version == newest.version else tables.SUPERSEDED.get(state, key)
    kept = [made for made in dataset.verifications if made.institution != verifier]
    if len(kept) == len(dataset.verifications):
        raise NotFound(
            f"{verifier} has not verified version {operation.version} of {operation.dataset}",
            hint="koinon catalog show lists who has",
        )
    _restate(context, dataset, "dataset.unverified", kept, operation.reason)
    if dataset is newest:
        tables.DATASETS.put(state, operation.dataset, dataset)
    else:
        tables.SUPERSEDED.put(state, key, dataset)
    return ""


def set_taxonomy(context: Context, themes: Taxonomy) -> None:
    """Another taxonomy holds from now on; ``themes.version`` is ignored. For what the members decided.

    Raises InvalidInput with rule ``taxonomy``.
    """
    taxonomy.check(themes)
    before = tables.TAXONOMY.find(context.state, "")
    version = (before.version if before else 0) + 1
    changed = Taxonomy(title=themes.title, themes=themes.themes, version=version)
    state = "active" if before else ""
    after = TAXONOMY.after("themes", state, "taxonomy.changed")
    detail = f"version {version}: {themes.title}, {len(themes.themes)} themes"
    context.record("taxonomy.changed", "taxonomy:themes", state, after, detail=detail)
    tables.TAXONOMY.put(context.state, "", changed)


def version_key(name: str, version: int) -> str:
    """Key of a superseded version; fixed width, so that versions are in order."""
    return f"{name}\0{version:020d}"


def _restate(context: Context, dataset: Dataset, kind: str, stated: Sequence[Verification], detail: str) -> None:
    """Record that the statements on a version are now these."""
    name = dataset.published.name
    related = [*_related(dataset), f"institution:{context.sender.institution}"]
    context.move(DATASET, name, dataset, kind, related=related, detail=f"version {dataset.version}, {detail}")
    stated = sorted(stated, key=lambda made: made.institution)
    del dataset.verifications[:]
    dataset.verifications.extend(stated)


def _related(dataset: Dataset) -> list[str]:
    return [f"institution:{dataset.publisher}"]
