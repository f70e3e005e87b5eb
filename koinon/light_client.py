"""A light client: which headers are the chain's, from the genesis alone and without executing anything.

After arXiv:2010.07031 ("A Tendermint light client"), section 4. A header from anyone is trusted when

1. the validators that come with it are in form, and the header's certificate holds a quorum of them;
2. these validators are known to be the right ones, in one of two ways:

   - **by name**: the header trusted before says that they are the next ones (``next_validators_hash``); so it is
     for the next block always, and for later ones as long as nobody joined, left or changed a key;
   - **by voucher** (skipping): of the validators that the header trusted before names as the next ones, *more than a
     third* by power signed this later header, with the keys they had. One of them is correct, and a correct
     validator signs a header only under the validators that its own ledger names;

3. the header is of this chain, of the height that was signed, names those validators, and comes later.

Where neither way leads to a header, one between must be fetched: ``follow`` asks for the middle, again and again, so
that a chain of any length takes a few headers per change of validators, and a forger is refused after
as many questions as the logarithm of the distance.

A **way** is for whoever cannot ask: in a receipt, with a snapshot. On it are last headers of sets of validators, which
name the next ones; each leads to the next by name or by voucher, and the last by name to what it was made for
(``lead``). There those vouch who signed the header before, though it sees some leave: the one before that named them.

**What it rests on**: at no time did validators with a third of the power, or more, sign what they should not; that
includes keys of validators who left long ago. The paper bounds this by a trusting period, after which a
header is too old to begin from. Here the beginning is the genesis, of any age, and no clock is trusted, so
there is none: whoever distrusts old keys begins from a newer genesis of the same chain's making, or asks several nodes.
The one asked learns which headers are wanted. It can withhold and it can be behind, but not lie.

Sans-IO: ``follow`` yields heights and is sent signed headers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from koinon import canonical, genesis_form
from koinon.errors import Corrupt, InvalidInput
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.consensus_pb2 import Header
from koinon.v1.identity_pb2 import Genesis
from koinon.validators import ValidatorSet, verify_commit


class UntrustedHeader(Corrupt):
    """The header is not the chain's, or nothing shows that it is."""

    default_rule = "untrusted-header"


class TooFar(UntrustedHeader):
    """The header is signed by those it names, but too few of those we know are among them: one between may help."""


@dataclass(frozen=True, slots=True)
class TrustedHeader:
    """A header of the chain, and who signed it. The genesis counts as one, of height 0 and signed by nobody."""

    header: Header
    block_hash: bytes
    validators: ValidatorSet  # of this height
    signers: tuple[str, ...]  # institutions, ascending

    @property
    def height(self) -> int:
        return int(self.header.height)


def root(genesis: Genesis) -> TrustedHeader:
    """Where trust begins: the genesis, valid and from someone you trust, as if it were a header."""
    validators = genesis_form.validators(genesis)
    header = Header(
        chain_id=genesis_form.chain_id(genesis),
        time_ms=genesis.time_ms,
        validators_hash=validators.hash(),
        next_validators_hash=validators.hash(),
    )
    return TrustedHeader(header, canonical.ZERO_HASH, validators, ())


def advance(trusted: TrustedHeader, signed: SignedHeader, *, skip: bool = True, leaving: bool = False) -> TrustedHeader:
    """Trust a later header from anyone. Raises UntrustedHeader; of that, TooFar where headers between may help.

    Without ``skip`` the validators must be those that ``trusted`` names as the next ones. With ``leaving`` who signed
    ``trusted`` may vouch, even where it names others as the next ones.
    """
    chain_id, height = trusted.header.chain_id, int(signed.commit.height)
    # 1. those who come with it signed it
    try:
        validators = ValidatorSet.of(signed.validators)
    except InvalidInput as error:
        raise _untrusted(error.message) from error
    block_hash = canonical.block_hash(signed.header)
    try:
        verify_commit(chain_id, validators, signed.commit, block_hash, height)
    except Corrupt as error:
        raise _untrusted(error.message) from error
    signers = tuple(item.institution for item in signed.commit.signatures)

    # 2. they are the right ones
    next_hash, known = trusted.header.next_validators_hash, trusted.validators
    if validators.hash() != next_hash:
        if not skip or height <= trusted.height + 1:
            raise _untrusted("the validators given are not those that the chain names")
        may_vouch = leaving or known.hash() == next_hash
        if not may_vouch or _vouching_power(known, validators, signers) < known.more_than_third:
            raise TooFar(
                f"too few of those who follow block {trusted.height} signed block {height}",
                hint="verify a block between the two first",
            )

    # 3. the header agrees; parsed only now
    try:
        header = Header.FromString(signed.header)
    except DecodeError:
        raise _untrusted("the signed bytes are not a header of this version") from None
    if header.chain_id != chain_id or header.height != height:
        raise _untrusted("the header is of another chain or height than its signatures")
    if header.validators_hash != validators.hash():
        raise _untrusted(f"block {height} names other validators than those who signed it")
    if height <= trusted.height or header.time_ms < trusted.header.time_ms:
        raise _untrusted(f"block {height} does not come after block {trusted.height}")
    return TrustedHeader(header, block_hash, validators, signers)


def lead(trusted: TrustedHeader, way: Iterable[SignedHeader]) -> TrustedHeader:
    """Where a way from anyone leads: its last header, or ``trusted`` if there is none. Raises UntrustedHeader."""
    for signed in way:
        trusted = advance(trusted, signed, leaving=True)
        if trusted.header.next_validators_hash == trusted.header.validators_hash:
            raise _untrusted(f"block {trusted.height} changes no validators")
    return trusted


def vouch(known: ValidatorSet, signed: SignedHeader) -> bool:
    """Are more than a third of these, with the keys that they had, among those who signed a header that is trusted?"""
    signers = tuple(item.institution for item in signed.commit.signatures)
    return _vouching_power(known, ValidatorSet.of(signed.validators), signers) >= known.more_than_third


def follow(trusted: TrustedHeader, height: int) -> Generator[int, SignedHeader, list[TrustedHeader]]:
    """The way from a trusted header to a later height: headers newly trusted, ascending, the last at ``height``.

    Yields the height of the header it needs, and wants it sent. Raises UntrustedHeader.
    """
    way: list[TrustedHeader] = []
    fetched: dict[int, SignedHeader] = {}
    wanted = [height]  # descending: each lies between what is trusted and the one before
    while wanted:
        target = wanted[-1]
        if target not in fetched:
            fetched[target] = yield target
            if fetched[target].commit.height != target:
                raise _untrusted(f"block {target} was asked for, and {fetched[target].commit.height} came")
        try:
            trusted = advance(trusted, fetched[target])
        except TooFar:  # hence target >= trusted.height + 2, and the middle is neither of the two
            wanted.append((trusted.height + target) // 2)
        else:
            way.append(trusted)
            del fetched[wanted.pop()]
    return way


class LightClient:
    """Remembers what it trusts, so that the next question begins nearby."""

    def __init__(self, genesis: Genesis) -> None:
        """``genesis`` is valid, and the only thing believed."""
        self._trusted = [root(genesis)]  # ascending by height

    def __len__(self) -> int:
        """Number of headers trusted so far, without the genesis."""
        return len(self._trusted) - 1

    def verify(self, height: int) -> Generator[int, SignedHeader, TrustedHeader]:
        """The trusted header at a height of at least 1. Yields and raises as ``follow``."""
        nearest = self._trusted[self._place(height) - 1]
        if nearest.height == height:
            return nearest
        way = yield from follow(nearest, height)
        for found in way:
            self._remember(found)
        return way[-1]

    def learn(self, way: Iterable[SignedHeader]) -> None:
        """Trust the headers of a way from anyone, as far as each follows from the one before. Raises UntrustedHeader.

        It leads to any header, where others are not to be had.
        """
        for signed in way:
            nearest = self._trusted[self._place(int(signed.commit.height)) - 1]
            if nearest.height < signed.commit.height:
                self._remember(advance(nearest, signed, leaving=True))

    def _remember(self, found: TrustedHeader) -> None:
        place = self._place(found.height)
        if self._trusted[place - 1].height != found.height:  # another question may have found it meanwhile
            self._trusted.insert(place, found)

    def _place(self, height: int) -> int:
        """Behind the last one of at most this height."""
        return bisect_right(self._trusted, height, key=lambda item: item.height)


def _vouching_power(known: ValidatorSet, signing: ValidatorSet, signers: tuple[str, ...]) -> int:
    """Power in ``known`` of those who signed as members of ``signing`` with the key that they had in ``known``."""
    return known.power(name for name in signers if _key(known, name) == _key(signing, name))


def _key(validators: ValidatorSet, institution: str) -> bytes | None:
    member = validators.member(institution)
    return member.public_key if member else None


def _untrusted(problem: str) -> UntrustedHeader:
    return UntrustedHeader(problem, hint="fetch it again, from another member's node")
