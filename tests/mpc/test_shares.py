"""Opening sealed outputs: the right ones open, and every wrong one is noticed, and named where that can be told."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from koinon import canonical, keys, shares
from koinon.errors import Corrupt, Unavailable
from koinon.keys import SealingKey, SigningKey
from koinon.shares import MODULUS
from koinon.v1.session_pb2 import OutputShares, SealedOutput
from koinon.v1.task_pb2 import SubmitTask, Task, TaskParty

TASK_ID = "ab" * 16
PLAN_HASH = bytes(range(32))
NAMES = ("case", "iu", "uk", "um", "wu", "yale", "zrh")
VALUES = [1, 1, 164, 1, -52_305_125, 0, 0]
RESULT_KEY = SealingKey(bytes(range(32)))
NODE_KEYS = [SigningKey(bytes([index]) * 32) for index in range(len(NAMES))]


def split(values: list[int], parties: int, threshold: int) -> list[list[int]]:
    """Shamir, as plainly as it can be written."""
    draw = random.Random(7)
    rows: list[list[int]] = [[] for _ in range(parties)]
    for value in values:
        coefficients = [value, *(draw.randrange(MODULUS) for _ in range(threshold))]
        for party in range(parties):
            rows[party].append(sum(c * (party + 1) ** power for power, c in enumerate(coefficients)) % MODULUS)
    return rows


class Case:
    """A completed task and its outputs, of which one or another may be spoiled."""

    def __init__(self, parties: int = 4) -> None:
        self.threshold = (parties - 1) // 2
        self.rows = split(VALUES, parties, self.threshold)
        self.task = Task(
            id=TASK_ID,
            submitted=SubmitTask(plan_hash=PLAN_HASH, threshold=self.threshold),
            parties=[TaskParty(institution=name) for name in NAMES[:parties]],
        )
        self.outputs = [
            self.report(party, shares.pack(TASK_ID, PLAN_HASH, party, self.threshold, row))
            for party, row in enumerate(self.rows)
        ]

    def report(self, party: int, packed: bytes, key: bytes = RESULT_KEY.public_key) -> SealedOutput:
        """As an (honest) node reports what its (dishonest) worker made."""
        sealed = keys.seal(key, packed)
        digest = canonical.output_digest(TASK_ID, party, sealed)
        self.task.parties[party].output_digest = digest
        signature = NODE_KEYS[party].sign(digest)
        return SealedOutput(task_id=TASK_ID, party=party, sealed=sealed, signature=signature)

    def open(self) -> list[int]:
        node_keys = [[key.public_key] for key in NODE_KEYS[: len(self.task.parties)]]
        return shares.open_outputs(self.task, self.outputs, RESULT_KEY, node_keys, len(VALUES))


@pytest.mark.parametrize("parties", [3, 4, 5, 6, 7])
def test_outputs_open(parties: int) -> None:
    case = Case(parties)
    case.outputs.reverse()
    assert case.open() == VALUES


def test_one_output_more_than_needed_is_enough() -> None:
    for left_out in range(4):
        case = Case(4)
        del case.outputs[left_out]
        assert case.open() == VALUES
    for both in itertools.combinations(range(4), 2):
        case = Case(4)
        case.outputs = [output for output in case.outputs if output.party not in both]
        with pytest.raises(Unavailable, match="out of reach"):
            case.open()


def replaced(party: int, /, **changes: object) -> Callable[[Case], None]:
    """The party sealed something else, and reported it faithfully."""

    def spoil(case: Case) -> None:
        said = OutputShares.FromString(shares.pack(TASK_ID, PLAN_HASH, party, case.threshold, case.rows[party]))
        for name, value in changes.items():
            said.ClearField(name)  # type: ignore[arg-type]
            said.MergeFrom(OutputShares(**{name: value}))  # type: ignore[arg-type]
        case.outputs[party] = case.report(party, said.SerializeToString())

    return spoil


def other_sealed(case: Case) -> None:
    case.outputs[2].sealed = keys.seal(RESULT_KEY.public_key, b"something else")


def other_signature(case: Case) -> None:
    case.outputs[2].signature = case.outputs[1].signature


def other_task(case: Case) -> None:
    case.outputs[2].task_id = "cd" * 16


def other_key(case: Case) -> None:
    packed = shares.pack(TASK_ID, PLAN_HASH, 2, 1, case.rows[2])
    case.outputs[2] = case.report(2, packed, SealingKey.generate().public_key)


def garbage(case: Case) -> None:
    case.outputs[2] = case.report(2, b"\xff\xff\xff")


def twice(case: Case) -> None:
    case.outputs[3].CopyFrom(case.outputs[2])


def no_party(case: Case) -> None:
    case.outputs[2].party = 4


@pytest.mark.parametrize(
    "spoil",
    [
        other_sealed,
        other_signature,
        other_task,
        other_key,
        garbage,
        twice,
        no_party,
        replaced(2, task_id="cd" * 16),
        replaced(2, plan_hash=bytes(32)),
        replaced(2, party=1),
        replaced(2, threshold=2),
        replaced(2, modulus=(2**383 - 187).to_bytes(48, "big")),
        replaced(2, modulus=b""),
        replaced(2, shares=[bytes(48)] * 6),
        replaced(2, shares=[bytes(48)] * 8),
        replaced(2, shares=[bytes(47)] * 7),
        replaced(2, shares=[b"\xff" * 48] * 7),
        replaced(2, shares=[bytes(48)] * 7),
    ],
)
def test_a_wrong_output_is_noticed(spoil: Callable[[Case], None]) -> None:
    case = Case(4)
    spoil(case)
    with pytest.raises(Corrupt) as caught:
        case.open()
    assert caught.value.rule == "inconsistent-output"
    if spoil not in (twice, no_party):
        assert "uk" in caught.value.message


@pytest.mark.parametrize(("parties", "named"), [(3, False), (4, True), (5, True), (6, True), (7, True)])
def test_a_wrong_share_is_noticed_and_traced_where_it_can_be(parties: int, named: bool) -> None:
    for party in range(parties):
        case = Case(parties)
        case.rows[party][3] = (case.rows[party][3] + 1) % MODULUS
        packed = shares.pack(TASK_ID, PLAN_HASH, party, case.threshold, case.rows[party])
        case.outputs[party] = case.report(party, packed)
        with pytest.raises(Corrupt) as caught:
            case.open()
        assert (f"those of {NAMES[party]} do not fit" in caught.value.message) == named


def test_a_value_that_no_program_computes() -> None:
    rows = split([2**128 + 1], 3, 1)
    with pytest.raises(Corrupt, match="range"):
        shares.reconstruct(dict(enumerate(rows)), 1, NAMES[:3])
