"""The opening: sealed output shares become integers, at the asker and nowhere else.

A task's result is secret-shared (Shamir) among its committee. Each party seals its shares to the key that the asker
made for this task; here they are opened, checked against the ledger and against one another, and joined.

Who learns what: the asker, every opened integer. Each sharing was randomised just before it was sealed, so the shares
say nothing beyond the integers. The parties learn nothing. With m parties of which at most t are faulty, all m points
must lie on one polynomial of degree t: up to m - t - 1 >= t wrong shares are noticed, and a single one is traced where
m >= t + 3 leaves enough points to tell. Noticing is all: a wrong share fails the task.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from koinon import canonical, keys
from koinon.errors import Corrupt, InvalidInput
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
    task: Task, outputs: Sequence[SealedOutput], key: SealingKey, node_keys: Sequence[bytes], count: int
) -> list[int]:
    """The ``count`` integers opened by a completed task, in the order of OutputShares.shares.

    ``task`` is as the ledger has it (trusted); ``node_keys`` are the committee's Ed25519 node keys, in its order
    (trusted); ``outputs`` came from anyone. Raises Corrupt, naming the party at fault where that can be told.
    """
    names = [party.institution for party in task.parties]
    by_party = {output.party: output for output in outputs}
    if len(by_party) != len(outputs) or set(by_party) != set(range(len(names))):
        raise _corrupt(f"one sealed output of each of {', '.join(names)} is needed, {len(outputs)} came")
    rows = []
    for index, name in enumerate(names):
        output = by_party[index]
        digest = canonical.output_digest(task.id, index, output.sealed)
        if output.task_id != task.id or digest != task.parties[index].output_digest:
            raise _corrupt(f"the output of {name} is not the one it reported on the ledger")
        if not keys.verify(node_keys[index], digest, output.signature):
            raise _corrupt(f"the output of {name} is not signed by its node")
        rows.append(_unseal(task, index, name, output.sealed, key, count))
    return reconstruct(rows, task.submitted.threshold, names)


def reconstruct(rows: Sequence[Sequence[int]], threshold: int, names: Sequence[str]) -> list[int]:
    """Join shares: ``rows[i]`` holds the shares of party i, the polynomials at i + 1. Signed integers.

    Raises Corrupt unless all points of every sharing lie on a polynomial of degree ``threshold``.
    """
    points = range(1, len(rows) + 1)
    if not _consistent(rows, list(points), threshold):
        suspects = [
            name
            for index, name in enumerate(names)
            if len(rows) >= threshold + 3 and _consistent(rows, [x for x in points if x != index + 1], threshold)
        ]
        culprit = f": those of {suspects[0]} do not fit the others'" if len(suspects) == 1 else ""
        raise _corrupt(f"the output shares of {', '.join(names)} contradict one another{culprit}")
    weights = _weights(list(points)[: threshold + 1], 0)
    values = []
    for column in zip(*rows, strict=True):
        value = sum(w * share for w, share in zip(weights, column, strict=False)) % MODULUS
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


def _consistent(rows: Sequence[Sequence[int]], points: list[int], threshold: int) -> bool:
    """Do the shares at ``points`` lie on polynomials of degree ``threshold``?"""
    base, rest = points[: threshold + 1], points[threshold + 1 :]
    for x in rest:
        weights = _weights(base, x)
        for column in zip(*rows, strict=True):
            expected = sum(w * column[b - 1] for w, b in zip(weights, base, strict=True))
            if (expected - column[x - 1]) % MODULUS:
                return False
    return True


def _weights(points: Sequence[int], at: int) -> list[int]:
    """Lagrange coefficients: a polynomial of degree < len(points), at ``at``, from its values at ``points``."""
    weights = []
    for i in points:
        numerator = denominator = 1
        for j in points:
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
