"""The light client: honest chains of any history are followed, and no forger gets a header in."""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon import light_client
from koinon.light_client import LightClient, TooFar, TrustedHeader, UntrustedHeader
from koinon.rules import RULES
from koinon.v1.audit_pb2 import SignedHeader
from koinon.v1.consensus_pb2 import Header
from koinon.validators import ValidatorSet
from tests.koinon.header_chain import HeaderChain, validators

FOUR = validators(case=1, iu=1, uk=1, um=1)
OSU_FOR_CASE = validators(iu=1, osu=1, uk=1, um=1)
OTHERS = validators(mit=1, osu=1, ucl=1, yale=1)
ALL = validators(case=1, iu=1, mit=1, osu=1, uk=1, ucl=1, um=1, yale=1)


def trusted(chain: HeaderChain, height: int) -> TrustedHeader:
    return chain.run(LightClient(chain.genesis).verify(height))


# --- honest chains


def test_one_question_reaches_any_height_while_nobody_comes_or_goes() -> None:
    chain = HeaderChain([FOUR])
    found = trusted(chain, 1_000_000)
    assert chain.asked == [1_000_000]
    assert found.height == 1_000_000
    assert found.header == chain.header(1_000_000)
    assert found.signers == ("case", "iu", "uk", "um")


def test_a_small_change_is_skipped_over() -> None:
    chain = HeaderChain([FOUR] * 500 + [OSU_FOR_CASE])
    assert trusted(chain, 1_000).validators == OSU_FOR_CASE
    assert chain.asked == [1_000]


def test_a_large_change_is_found_by_halving() -> None:
    chain = HeaderChain([FOUR] * 300 + [OTHERS])
    assert trusted(chain, 1_000).validators == OTHERS
    assert 300 in chain.asked  # the only header of the old validators that names the new ones
    assert len(chain.asked) <= 2 * log2(1_000)


def test_large_changes_one_after_the_other_are_followed_block_by_block() -> None:
    chain = HeaderChain([validators(**{f"m{number}": 1}) for number in range(16)])
    assert trusted(chain, 16).height == 16
    assert sorted(set(chain.asked)) == list(range(1, 17))


def test_what_is_trusted_is_not_asked_for_again() -> None:
    chain = HeaderChain([FOUR] * 300 + [OTHERS])
    client = LightClient(chain.genesis)
    newest = chain.run(client.verify(1_000))
    assert len(client) == len(set(chain.asked))
    chain.asked.clear()
    assert chain.run(client.verify(1_000)) is newest
    assert chain.asked == []
    assert chain.run(client.verify(400)).height == 400  # between two trusted ones
    assert chain.asked == [400]
    assert chain.run(client.verify(1_001)).height == 1_001


def test_a_new_key_alone_does_not_lose_trust() -> None:
    chain = HeaderChain([FOUR] * 5 + [validators(case=1, iu=1, uk=1, um_2=1)])
    assert trusted(chain, 50).height == 50
    assert chain.asked == [50]


SETS = st.lists(
    st.dictionaries(
        st.sampled_from(["case", "iu", "osu", "uk", "um", "um_2"]), st.integers(1, 4), min_size=1, max_size=4
    ).filter(lambda powers: not {"um", "um_2"} <= set(powers)),
    min_size=1,
    max_size=24,
)


@settings(max_examples=60)
@given(sets=SETS, data=st.data())
def test_every_honest_chain_is_followed_to_any_height_in_any_order(
    sets: list[dict[str, int]], data: st.DataObject
) -> None:
    chain = HeaderChain([validators(**powers) for powers in sets])
    client = LightClient(chain.genesis)
    for height in data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=4)):
        before = len(chain.asked)
        assert chain.run(client.verify(height)).header == chain.header(height)
        assert len(set(chain.asked[before:])) == len(chain.asked[before:])  # nothing is asked for twice
        assert set(chain.asked[before:]) <= set(range(1, height + 1))


# --- forgers. Each makes a header of height 100 for a client that trusts the genesis, or block 10.


def forged(chain: HeaderChain, height: int) -> Header:
    header = chain.header(height)
    header.state_commitment = bytes(32)
    return header


def header_changed(chain: HeaderChain) -> SignedHeader:
    """An honest header, edited."""
    signed = chain.at(100)
    signed.header = forged(chain, 100).SerializeToString(deterministic=True)
    return signed


def too_few(chain: HeaderChain) -> SignedHeader:
    return chain.sign(forged(chain, 100), FOUR, ["iu", "um"])


def one_stranger(chain: HeaderChain) -> SignedHeader:
    header = forged(chain, 100)
    header.validators_hash = OTHERS.hash()
    return chain.sign(header, OTHERS)


def powers_changed(chain: HeaderChain) -> SignedHeader:
    """One of the four gives itself all the power: its signature alone is not more than a third of what is known."""
    alone = validators(case=1, iu=1, uk=1, um=100)
    header = forged(chain, 100)
    header.validators_hash = alone.hash()
    return chain.sign(header, alone, ["um"])


def validators_of_another_header(chain: HeaderChain) -> SignedHeader:
    """Signed by the right ones, but the header names others."""
    header = chain.header(100)
    header.validators_hash = OSU_FOR_CASE.hash()
    return chain.sign(header, FOUR)


def another_height(chain: HeaderChain) -> SignedHeader:
    return chain.sign(chain.header(99), FOUR, height=100)


def before_its_time(chain: HeaderChain) -> SignedHeader:
    header = chain.header(100)
    header.time_ms = chain.genesis.time_ms - 1
    return chain.sign(header)


def another_chain(chain: HeaderChain) -> SignedHeader:
    header = chain.header(100)
    header.chain_id = "other-0011223344556677"
    return chain.sign(header)


def no_certificate(chain: HeaderChain) -> SignedHeader:
    signed = chain.at(100)
    signed.ClearField("commit")
    return signed


def nothing(chain: HeaderChain) -> SignedHeader:
    return SignedHeader()


def keys_swapped(chain: HeaderChain) -> SignedHeader:
    """The four's names, with keys of the forger's: names vouch for nothing."""
    impostors = ValidatorSet.of(
        [item for name in ("case", "iu", "uk", "um") for item in validators(**{f"{name}_2": 1}).to_proto()]
    )
    header = forged(chain, 100)
    header.validators_hash = impostors.hash()
    return chain.sign(header, impostors)


FORGERS: list[Callable[[HeaderChain], SignedHeader]] = [
    header_changed,
    too_few,
    one_stranger,
    powers_changed,
    validators_of_another_header,
    another_height,
    before_its_time,
    another_chain,
    no_certificate,
    nothing,
    keys_swapped,
]


@pytest.mark.parametrize("forger", FORGERS)
@pytest.mark.parametrize("start", [0, 10, 99])
def test_a_forged_header_is_refused(forger: Callable[[HeaderChain], SignedHeader], start: int) -> None:
    chain = HeaderChain([FOUR])
    base = trusted(chain, start) if start else light_client.root(chain.genesis)
    with pytest.raises(UntrustedHeader) as caught:
        light_client.advance(base, forger(chain))
    assert caught.value.rule in RULES
    assert caught.value.hint


@pytest.mark.parametrize("height", [1, 9, 10])
def test_a_header_that_does_not_come_later_is_refused(height: int) -> None:
    chain = HeaderChain([FOUR])
    with pytest.raises(UntrustedHeader, match="does not come after block 10"):
        light_client.advance(trusted(chain, 10), chain.at(height))


def test_a_certificate_of_validators_who_left_is_refused_once_their_leaving_is_known() -> None:
    chain = HeaderChain([FOUR] * 50 + [OTHERS])
    old = forged(chain, 100)
    old.validators_hash = FOUR.hash()
    for start in (50, 51, 90):
        with pytest.raises(UntrustedHeader):
            light_client.advance(trusted(chain, start), chain.sign(old, FOUR))


def test_a_third_does_not_vouch_and_more_does() -> None:
    known = validators(case=2, iu=2, uk=2)
    chain = HeaderChain([known])
    for newer, enough in (
        (validators(case=1, mit=1, osu=1), False),  # exactly a third of what is known
        (validators(case=1, iu=1, osu=1), True),
    ):
        header = chain.header(100)
        header.validators_hash = newer.hash()
        chain = HeaderChain([known] * 98 + [newer])
        if enough:
            assert light_client.advance(light_client.root(chain.genesis), chain.at(100)).height == 100
        else:
            with pytest.raises(TooFar):
                light_client.advance(light_client.root(chain.genesis), chain.at(100))


def test_only_signers_vouch_not_members() -> None:
    newer = validators(case=1, iu=1, mit=3, osu=3, ucl=3)
    chain = HeaderChain([FOUR] * 50 + [newer])
    header = chain.header(100)
    base = light_client.root(chain.genesis)
    assert light_client.advance(base, chain.sign(header, newer, ["case", "iu", "mit", "osu"])).height == 100
    with pytest.raises(TooFar):
        light_client.advance(base, chain.sign(header, newer, ["case", "mit", "osu", "ucl"]))


def test_newcomers_cannot_let_themselves_in_at_the_next_block() -> None:
    chain = HeaderChain([FOUR])
    header = chain.header(11)
    header.validators_hash = ALL.hash()
    with pytest.raises(UntrustedHeader, match="names") as caught:
        light_client.advance(trusted(chain, 10), chain.sign(header, ALL))
    assert not isinstance(caught.value, TooFar)


def test_without_skipping_only_named_validators_count() -> None:
    chain = HeaderChain([FOUR] * 5 + [OSU_FOR_CASE])
    base = light_client.root(chain.genesis)
    with pytest.raises(UntrustedHeader, match="names"):
        light_client.advance(base, chain.at(7), skip=False)
    base = light_client.advance(base, chain.at(5), skip=False)
    assert light_client.advance(base, chain.at(7), skip=False).height == 7


@pytest.mark.parametrize("height", [2, 100, 100_000])
def test_a_node_that_invents_a_history_is_refused_after_few_questions(height: int) -> None:
    """It answers whatever is asked, signed by validators of its own making."""
    honest, invented = HeaderChain([FOUR]), HeaderChain([OTHERS])
    invented.chain_id = honest.chain_id
    with pytest.raises(UntrustedHeader):
        invented.run(LightClient(honest.genesis).verify(height))
    assert len(invented.asked) <= log2(height) + 2


def test_the_last_headers_of_all_sets_are_a_way_where_no_others_are_to_be_had() -> None:
    chain = HeaderChain([validators(a=1, b=1)] * 10 + [validators(a_2=1, b_2=1)] * 10 + [validators(a_3=1, b_3=1)] * 10)
    client = LightClient(chain.genesis)
    client.learn([chain.at(10), chain.at(20)])
    client.learn([chain.at(10)])
    assert len(client) == 2
    assert chain.run(client.verify(29)).header == chain.header(29)
    assert chain.asked == [29]
    with pytest.raises(UntrustedHeader):
        LightClient(chain.genesis).learn([chain.at(20)])
    forged = chain.sign(chain.header(20), names=["a"])
    with pytest.raises(UntrustedHeader):
        LightClient(chain.genesis).learn([chain.at(10), forged])


def test_a_way_goes_by_name_or_by_voucher_of_who_signed_the_header_before() -> None:
    chain = HeaderChain([FOUR] * 5 + [OSU_FOR_CASE] * 5 + [FOUR] * 5 + [OTHERS] * 5 + [FOUR])
    base = light_client.root(chain.genesis)
    for ends in ([], [5], [10], [5, 10], [5, 15], [15], [15, 20]):
        assert light_client.lead(base, [chain.at(end) for end in ends]).height == (ends or [0])[-1]
    for ends, problem in (
        ([20], "too few"),  # nobody of the genesis
        ([5, 20], "too few"),
        ([15, 10], "names"),
        ([4], "changes no validators"),
        ([5, 9], "changes no validators"),
    ):
        with pytest.raises(UntrustedHeader, match=problem):
            light_client.lead(base, [chain.at(end) for end in ends])


def test_on_a_way_too_nobody_vouches_for_the_very_next_block() -> None:
    chain = HeaderChain([FOUR] * 5 + [OTHERS])
    header = forged(chain, 6)
    header.validators_hash = FOUR.hash()
    with pytest.raises(UntrustedHeader, match="names"):
        light_client.lead(light_client.root(chain.genesis), [chain.at(5), chain.sign(header, FOUR)])


def test_who_vouches_is_the_same_for_the_maker_of_a_way() -> None:
    newer = validators(case=1, iu=1, mit=3, osu=3, ucl=3)
    header = HeaderChain([newer]).header(100)
    chain = HeaderChain([FOUR] * 50 + [newer])
    assert light_client.vouch(FOUR, chain.sign(header, newer, ["case", "iu", "mit", "osu"]))
    assert not light_client.vouch(FOUR, chain.sign(header, newer, ["case", "mit", "osu", "ucl"]))
    assert not light_client.vouch(FOUR, chain.sign(header, validators(case_2=1, iu_2=1, uk_2=1, um_2=1)))


def test_another_header_than_the_one_asked_for_is_refused() -> None:
    chain = HeaderChain([FOUR])
    driver = LightClient(chain.genesis).verify(100)
    assert next(driver) == 100
    with pytest.raises(UntrustedHeader, match="asked for"):
        driver.send(chain.at(99))


CHANGED = HeaderChain([FOUR] * 5 + [OSU_FOR_CASE])
BYTES = CHANGED.at(9).SerializeToString()


@settings(max_examples=200)
@given(position=st.integers(0, len(BYTES) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_proves_nothing_else(position: int, bit: int) -> None:
    data = bytearray(BYTES)
    data[position] ^= 1 << bit
    try:
        found = light_client.advance(light_client.root(CHANGED.genesis), SignedHeader.FromString(bytes(data)))
    except (DecodeError, UntrustedHeader):
        return
    assert found.header == CHANGED.header(9)
