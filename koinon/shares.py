"""The opening: sealed output shares become integers, at the asker and nowhere else.

A task's result is secret-shared (Shamir) among its committee. Each party seals its shares to the key that the asker
made for this task; here they are opened, checked against the ledger and against one another, and joined.

Who learns what: the asker, every opened integer. Each sharing was randomised just before it was sealed, so the shares
say nothing beyond the integers. The parties learn nothing. All points of a sharing must lie on one polynomial of
degree t: with k outputs at hand, up to k - t - 1 wrong ones are noticed, and a single one is traced where
k >= t + 3. One output more than needed is required, so that a wrong one is always noticed; then nothing is opened.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import DecodeError

from koinon import canonical, keys
from koinon.errors import Corrupt, InvalidInput, Unavailable
from koinon.keys import SealingKey
from koinon.limits import MAX_GROUPS, MAX_OUTPUTS, MAX_SEALED_OUTPUT_BYTES
from koinon.v1.session_pb2 import OutputShares, SealedOutput
from koinon.v1.task_pb2 import Task

MODULUS = 2**384 - 317
"""The prime field of all sharings, the largest prime below 2^384. Its size is derived in mpc.protocols."""

ELEMENT_BYTES = 48  # of one field element, big-endian

MAX_SHARES = MAX_GROUPS * (1 + 2 * MAX_OUTPUTS)
MAX_OPENED = 2**128  # far above any output; a value beyond it was never computed by the program


def pack(task_id: str, plan_hash: bytes, party: int, threshold: int, shares: Sequence[int]) -> bytes:
    """A party's shares, ready to be sealed to the asker; each in [0, MODULUS)."""
    return OutputShares(
        task_id=task_id,
        plan_hash=plan_hash,
        party=party,
        threshold=threshold,
        modulus=MODULUS.to_bytes(ELEMENT_BYTES, "big"),
        shares=[share.to_bytes(ELEMENT_BYTES, "big") for share in shares],
    ).SerializeToString(deterministic=True)


def open_outputs(
    task: Task, outputs: Sequence[SealedOutput], key: SealingKey, node_keys: Sequence[Collection[bytes]], count: int
) -> list[int]:
    """The ``count`` integers opened by a completed task, in the order of OutputShares.shares.

    ``task`` is as the ledger has it (trusted); ``node_keys`` are the committee's Ed25519 node keys, in its order
    (trusted), several of a member that changed its key meanwhile; ``outputs`` came from anyone, threshold + 2 of them
    at least. Raises Unavailable when too few came, and Corrupt, naming the party at fault where that can be told.
    """
    names = [party.institution for party in task.parties]
    rows: dict[int, list[int]] = {}
    for output in outputs:
        if output.party >= len(names) or output.party in rows:
            raise _corrupt(f"an output of party {output.party}, which is no party or gave one already")
        name = names[output.party]
        digest = canonical.output_digest(task.id, output.party, output.sealed)
        if output.task_id != task.id or digest != task.parties[output.party].output_digest:
            raise _corrupt(f"the output of {name} is not the one it reported on the ledger")
        if not any(keys.verify(node_key, digest, output.signature) for node_key in node_keys[output.party]):
            raise _corrupt(f"the output of {name} is not signed by its node")
        rows[output.party] = _unseal(task, output.party, name, output.sealed, key, count)
    needed = min(task.submitted.threshold + 2, len(names))
    if len(rows) < needed:
        missing = ", ".join(name for index, name in enumerate(names) if index not in rows)
        raise Unavailable(
            f"the outputs of {missing} are out of reach: {len(rows)} of {needed} needed came",
            hint="fetch them again when those nodes are back; outputs are kept for a while",
        )
    return reconstruct(rows, task.submitted.threshold, names)


def reconstruct(rows: Mapping[int, Sequence[int]], threshold: int, names: Sequence[str]) -> list[int]:
    """Join shares: ``rows[i]`` holds the shares of party i, the polynomials at i + 1. Signed integers.

    Raises Corrupt unless all points of every sharing lie on a polynomial of degree ``threshold``.
    """
    parties = sorted(rows)
    if not _consistent(rows, parties, threshold):
        suspects = [
            names[party]
            for party in parties
            if len(rows) >= threshold + 3 and _consistent(rows, [p for p in parties if p != party], threshold)
        ]
        culprit = f": those of {suspects[0]} do not fit the others'" if len(suspects) == 1 else ""
        raise _corrupt(f"the output shares of {', '.join(names)} contradict one another{culprit}")
    base = parties[: threshold + 1]
    weights = _weights(base, -1)
    values = []
    for column in zip(*(rows[party] for party in base), strict=True):
        value = sum(w * share for w, share in zip(weights, column, strict=True)) % MODULUS
        value -= MODULUS if value > MODULUS // 2 else 0
        if abs(value) > MAX_OPENED:
            raise _corrupt("an opened value is out of every possible range")
        values.append(value)
    return values


def _unseal(task: Task, index: int, name: str, sealed: bytes, key: SealingKey, count: int) -> list[int]:
    if len(sealed) > MAX_SEALED_OUTPUT_BYTES or count > MAX_SHARES:
        raise _corrupt(f"the output of {name} is larger than any output may be")
    shares = OutputShares()
    try:
        shares.ParseFromString(key.open(sealed))
    except (InvalidInput, DecodeError) as error:
        raise _corrupt(f"the output of {name} does not open with this task's result key") from error
    submitted = task.submitted
    if (shares.task_id, shares.plan_hash) != (task.id, submitted.plan_hash):
        raise _corrupt(f"the output of {name} belongs to another task or plan")
    if (shares.party, shares.threshold) != (index, submitted.threshold):
        raise _corrupt(f"the output of {name} names another party or threshold")
    if shares.modulus != MODULUS.to_bytes(ELEMENT_BYTES, "big"):
        raise _corrupt(f"the output of {name} is over another field")
    if len(shares.shares) != count or any(len(share) != ELEMENT_BYTES for share in shares.shares):
        raise _corrupt(f"the output of {name} has not the planned number or size of shares")
    values = [int.from_bytes(share, "big") for share in shares.shares]
    if any(value >= MODULUS for value in values):
        raise _corrupt(f"the output of {name} holds a number outside the field")
    return values


def _consistent(rows: Mapping[int, Sequence[int]], parties: Sequence[int], threshold: int) -> bool:
    """Do these parties' shares lie on polynomials of degree ``threshold``?"""
    base, rest = parties[: threshold + 1], parties[threshold + 1 :]
    for other in rest:
        weights = _weights(base, other)
        for *column, share in zip(*(rows[party] for party in base), rows[other], strict=True):
            if (sum(w * value for w, value in zip(weights, column, strict=True)) - share) % MODULUS:
                return False
    return True


def _weights(parties: Sequence[int], at: int) -> list[int]:
    """Lagrange: what a polynomial of degree < len(parties) is at ``at`` + 1, from its values at party + 1 each."""
    weights = []
    for i in parties:
        numerator = denominator = 1
        for j in parties:
            if j != i:
                numerator = numerator * (at - j) % MODULUS
                denominator = denominator * (i - j) % MODULUS
        weights.append(numerator * pow(denominator, -1, MODULUS) % MODULUS)
    return weights


def _corrupt(message: str) -> Corrupt:
    return Corrupt(
        message,
        rule="inconsistent-output",
        hint="nothing was opened; ask again, and tell the members: a node is damaged or does not follow the protocol",
    )
