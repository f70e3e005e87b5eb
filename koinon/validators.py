"""Who votes on a block, with how much power: quorum arithmetic, proposer rotation, commit certificates.

The one place where thresholds are computed. Safety assumes that validators holding *less than one third*
of the voting power are faulty in any way (arXiv:1807.04938, section 2: n > 3f, here in units of power):

- ``quorum`` (the paper's 2f + 1): any two sets of that power share a correct validator;
- ``one_third`` (the paper's f + 1): any set of that power contains a correct validator.

All arithmetic is on integers. Needs only the base install, because receipts are verified with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import gcd

from koinon import canonical, keys
from koinon.errors import Corrupt, InvalidInput, InvalidName
from koinon.limits import MAX_TOTAL_POWER, MAX_VALIDATORS
from koinon.names import check_institution
from koinon.v1 import consensus_pb2 as pb


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One validator: institution, Ed25519 public key (32 bytes), voting power (at least 1)."""

    institution: str
    public_key: bytes
    power: int


@dataclass(frozen=True)
class ValidatorSet:
    """The validators of one height, ascending by institution. Immutable; equal sets compare and hash equal.

    Build it with ``ValidatorSet.of``, which checks what comes from outside.
    """

    members: tuple[Member, ...]

    @classmethod
    def of(cls, validators: Iterable[pb.Validator]) -> ValidatorSet:
        """Check and take over validators from outside.

        Raises InvalidInput (rule ``validator-set``) unless they are 1 to MAX_VALIDATORS, strictly ascending by
        institution, each with a key of its own and a power of at least 1, in total at most MAX_TOTAL_POWER.
        """
        members = tuple(Member(v.institution, v.public_key, v.power) for v in validators)
        problem = _problem(members)
        if problem:
            raise InvalidInput(problem, rule="validator-set", hint="use the genesis file that the members agreed on")
        return cls(members)

    def to_proto(self) -> tuple[pb.Validator, ...]:
        """The same validators as messages."""
        return tuple(pb.Validator(institution=m.institution, public_key=m.public_key, power=m.power) for m in self)

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, institution: str) -> bool:
        return institution in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.institution: member for member in self.members}

    def member(self, institution: str) -> Member | None:
        """The validator of this institution, if it has one."""
        return self._by_name.get(institution)

    def power(self, institutions: Iterable[str]) -> int:
        """Voting power of these institutions together; each counts once, strangers count nothing."""
        by_name = self._by_name
        return sum(by_name[name].power for name in set(institutions) if name in by_name)

    @cached_property
    def total_power(self) -> int:
        return sum(member.power for member in self.members)

    @cached_property
    def quorum(self) -> int:
        """The least power that is more than two thirds of the total: ⌊2·total / 3⌋ + 1."""
        return 2 * self.total_power // 3 + 1

    @cached_property
    def one_third(self) -> int:
        """The least power that cannot all be faulty: ⌈total / 3⌉."""
        return (self.total_power + 2) // 3

    @cached_property
    def more_than_third(self) -> int:
        """The least power that is more than one third of the total: what light clients ask of a voucher."""
        return self.total_power // 3 + 1

    @cached_property
    def faults_tolerated(self) -> int:
        """How many validators may be faulty at once, whichever they are: ⌊(n - 1) / 3⌋ when powers are equal."""
        faulty = count = 0
        for power in sorted((member.power for member in self.members), reverse=True):
            faulty += power
            if faulty >= self.one_third:
                break
            count += 1
        return count

    @cached_property
    def _digest(self) -> bytes:
        return canonical.validators_hash((m.institution, m.public_key, m.power) for m in self.members)

    def hash(self) -> bytes:
        """What a block header says about this set."""
        return self._digest

    def proposer(self, height: int, round_: int) -> str:
        """Who proposes in this round of this height: a pure function of the set, known to all in advance.

        Smooth weighted round robin: over one period every validator has turns in proportion to its power,
        spread evenly.
        """
        turns = _rotation(tuple(member.power for member in self.members))
        return self.members[turns[(height + round_) % len(turns)]].institution


def _problem(members: Sequence[Member]) -> str:
    if not 1 <= len(members) <= MAX_VALIDATORS:
        return f"{len(members)} validators: there must be 1 to {MAX_VALIDATORS}"
    for member in members:
        try:
            check_institution(member.institution)
        except InvalidName as error:
            return error.message
        if len(member.public_key) != keys.PUBLIC_KEY_BYTES:
            return f"the validator key of {member.institution} is not {keys.PUBLIC_KEY_BYTES} bytes"
        if member.power < 1:
            return f"{member.institution} has no voting power"
    if any(a.institution >= b.institution for a, b in pairwise(members)):
        return "validators are not in ascending order, or one is named twice"
    if len({member.public_key for member in members}) != len(members):
        return "two validators share one key"
    total = sum(member.power for member in members)
    if total > MAX_TOTAL_POWER:
        return f"total voting power {total} exceeds {MAX_TOTAL_POWER}"
    return ""


@lru_cache(maxsize=16)
def _rotation(powers: tuple[int, ...]) -> tuple[int, ...]:
    """Indexes of the validators in the order of their turns, one period long (total power / gcd)."""
    divisor = gcd(*powers)
    weights = [power // divisor for power in powers]
    total = sum(weights)
    credit = [0] * len(weights)
    turns = []
    for _ in range(total):
        for index, weight in enumerate(weights):
            credit[index] += weight
        turn = credit.index(max(credit))  # the first of equals: ascending by institution
        credit[turn] -= total
        turns.append(turn)
    return tuple(turns)


def verify_commit(chain_id: str, validators: ValidatorSet, commit: pb.Commit, block_hash: bytes, height: int) -> None:
    """Check that ``commit`` proves that ``validators`` decided ``block_hash`` at ``height``.

    1. The certificate is for this height and this block, and nothing is attached to it that would be kept with it.
    2. Its signers are validators, ascending, each at most once.
    3. Together they hold a quorum of the voting power.
    4. Every signature is valid over the signer's precommit (canonical.vote_bytes) with the time it states.

    Trust: ``commit`` may come from anyone; everything else is the caller's own knowledge.
    Raises Corrupt (rule ``commit-certificate``).
    """
    if commit.height != height or commit.block_hash != block_hash or len(block_hash) != canonical.HASH_BYTES:
        raise _bad_commit(height, "it is for another block")
    if len(commit.signatures) > len(validators):
        raise _bad_commit(height, "it has more signatures than there are validators")
    known = pb.Commit()
    known.CopyFrom(commit)
    known.DiscardUnknownFields()
    if known.ByteSize() != commit.ByteSize():
        raise _bad_commit(height, "it carries more than height, round, block and signatures")
    previous, power = "", 0
    for item in commit.signatures:
        member = validators.member(item.institution)
        if member is None:
            raise _bad_commit(height, f"{item.institution!r} is no validator at this height")
        if item.institution <= previous:
            raise _bad_commit(height, "signers are not in ascending order, or one signed twice")
        previous = item.institution
        power += member.power
    if power < validators.quorum:
        raise _bad_commit(height, f"signers hold power {power}, a quorum is {validators.quorum}")
    for item in commit.signatures:
        member = validators.member(item.institution)
        signed = canonical.vote_bytes(chain_id, pb.VOTE_TYPE_PRECOMMIT, height, commit.round, block_hash, item.time_ms)
        if member is None or not keys.verify(member.public_key, signed, item.signature):
            raise _bad_commit(height, f"the signature of {item.institution!r} is not valid")


def _bad_commit(height: int, reason: str) -> Corrupt:
    return Corrupt(
        f"the commit certificate of block {height} does not hold: {reason}",
        rule="commit-certificate",
        hint="fetch the block or the receipt again, from another member's node",
    )
