"""Fetching blocks from several peers at once: all is asked for, nothing twice, and nobody can hold it up for long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random

import pytest

from koinon.limits import MAX_SYNC_BLOCKS
from koinon.v1.consensus_pb2 import Commit
from koinon.v1.peer_pb2 import CommittedBlock
from node.catch_up import Answer, Ask, CatchUp
from tests.consensus.rig import validators_of

GOAL = 5_000


def answer(peer: str, start: int, count: int) -> Answer:
    return Answer(peer, start, [CommittedBlock(commit=Commit(height=start + i)) for i in range(count)])


def behind(*peers: str, goal: int = GOAL) -> CatchUp:
    catch_up = CatchUp()
    for peer in peers:
        catch_up.heard(peer, goal)
    return catch_up


def ranges(asks: Sequence[Ask]) -> list[tuple[int, int]]:
    return sorted((ask.from_height, ask.end) for ask in asks)


def test_different_ranges_are_asked_of_different_peers_at_once() -> None:
    asks = behind("a", "b", "c").tick(0)
    assert {ask.peer for ask in asks} == {"a", "b", "c"}
    assert len(asks) == 4  # as many as the window holds
    covered = ranges(asks)
    assert covered[0][0] == 1
    assert all(end == start for (_, end), (start, _) in pairwise(covered))
    assert len({ask.count for ask in asks}) == 1


def test_ranges_grow_while_answers_are_whole_and_shrink_for_all_peers_to_what_fits() -> None:
    catch_up = behind("a", "b", "c")
    height, counts = 0, []
    while height < GOAL // 2:
        for ask in catch_up.tick(height):
            counts.append(ask.count)
            catch_up.arrived(answer(ask.peer, ask.from_height, ask.count))
        while (taken := catch_up.take(height)) is not None:
            height = taken.end - 1
    assert max(counts) == MAX_SYNC_BLOCKS
    fresh = behind("a", "b", "c")
    first, *_ = fresh.tick(0)
    fresh.arrived(answer(first.peer, 1, 5))
    fresh.take(0)
    fresh._questions.clear()  # as the next interval does
    fresh._asked.clear()
    assert {ask.count for ask in fresh.asks(5)} == {5}


def test_blocks_are_handed_on_in_order_however_they_arrive() -> None:
    catch_up = behind("a", "b")
    asks = catch_up.tick(0)
    for ask in reversed(asks):
        assert catch_up.take(0) is None
        assert catch_up.arrived(answer(ask.peer, ask.from_height, ask.count))
    height = 0
    while (taken := catch_up.take(height)) is not None:
        assert taken.from_height == height + 1
        height = taken.end - 1
    assert height == max(ask.end for ask in asks) - 1


def test_memory_is_bounded_when_the_first_range_does_not_come() -> None:
    catch_up = behind(*"abcdefgh")
    asks = catch_up.tick(0)
    for ask in asks[1:]:
        catch_up.arrived(answer(ask.peer, ask.from_height, ask.count))
    assert len(asks) == 4
    assert catch_up.asks(0) == []


def test_the_rest_of_a_short_answer_is_asked_for() -> None:
    catch_up = behind("a", "b")
    first = catch_up.tick(0)[0]
    catch_up.tick(0)  # a new interval: questions are allowed again
    assert catch_up.arrived(answer(first.peer, 1, 10))
    assert catch_up.take(0) is not None
    catch_up._questions.clear()  # as the next interval does
    gap = next(ask for ask in catch_up.asks(10) if ask.from_height == 11)
    assert gap.count <= 10  # as much as lately fitted
    assert gap.end <= first.end


def test_a_silent_peer_is_replaced_after_an_interval_and_rests() -> None:
    catch_up = behind("a", "b")
    silent = set()
    for _ in range(2):  # the interval in which it was asked may have been short
        for ask in catch_up.tick(0):
            if ask.peer == "a":
                silent.add(ask.from_height)
            else:
                catch_up.arrived(answer("b", ask.from_height, ask.count))
    again = catch_up.tick(0)
    assert {ask.peer for ask in again} == {"b"}
    assert silent & {ask.from_height for ask in again}


def test_a_silent_peer_is_asked_again_later_when_nobody_else_can_be() -> None:
    catch_up = behind("a")
    assert catch_up.tick(0)
    assert any(catch_up.tick(0) for _ in range(20))


def test_a_liar_is_asked_nothing_and_its_other_answers_are_dropped() -> None:
    catch_up = behind("liar", "b")
    for ask in catch_up.tick(0):
        if ask.peer == "liar":
            catch_up.arrived(answer("liar", ask.from_height, ask.count))
    catch_up.disbelieve("liar")
    asks = catch_up.tick(0)
    assert catch_up.take(0) is None
    assert {ask.peer for ask in asks} == {"b"}


def test_an_answer_nobody_asked_for_is_not_kept() -> None:
    catch_up = behind("a", "b")
    asked = {ask.from_height: ask for ask in catch_up.tick(0)}
    other = "b" if asked[1].peer == "a" else "a"
    assert not catch_up.arrived(answer(other, 1, 10))
    assert not catch_up.arrived(answer(asked[1].peer, 2, 10))
    assert not catch_up.arrived(Answer(asked[1].peer, 1, []))


def test_more_blocks_than_asked_for_are_not_kept() -> None:
    catch_up = behind("a")
    asked = catch_up.tick(0)[0]
    assert catch_up.arrived(answer("a", 1, 2 * asked.count))
    taken = catch_up.take(0)
    assert taken is not None
    assert len(taken.blocks) == asked.count


def test_an_answer_that_is_here_is_not_asked_for_again_while_it_is_verified() -> None:
    catch_up = behind("a", "b")
    asks = catch_up.tick(0)
    here = asks[0]
    came, other = answer(here.peer, here.from_height, here.count), "b" if here.peer == "a" else "a"
    assert catch_up.takes(came)
    assert not catch_up.takes(answer(other, here.from_height, here.count))
    again = [ask for _ in range(20) for ask in catch_up.tick(0)]
    assert again
    assert here.from_height not in {ask.from_height for ask in again}
    assert catch_up.arrived(came)
    assert catch_up.take(0) is not None


def test_the_rest_of_an_answer_is_asked_for_while_it_is_verified() -> None:
    catch_up = behind("a", "b", "c")
    first = next(ask for ask in catch_up.tick(0) if ask.from_height == 1)
    came = answer(first.peer, 1, 5)
    assert catch_up.takes(came)
    catch_up._questions.clear()  # as the next interval does
    assert 6 in {ask.from_height for ask in catch_up.asks(0)}
    assert catch_up.arrived(came)


def test_a_gap_of_one_is_left_alone_for_an_interval() -> None:
    catch_up = behind("a", goal=1)
    assert catch_up.tick(0) == []
    assert ranges(catch_up.tick(0)) == [(1, 2)]


def test_who_no_longer_keeps_a_block_is_not_asked_for_it() -> None:
    catch_up = behind("pruned", "whole")
    catch_up.tick(0)
    catch_up.lacks("pruned", 3_000)
    catch_up.tick(0)
    asks = catch_up.tick(0)
    assert all(ask.from_height >= 3_000 for ask in asks if ask.peer == "pruned")


def test_nobody_keeps_a_block_when_some_say_so_and_no_other_sends_it() -> None:
    validators = validators_of(1, 1, 1, 1)
    catch_up = behind("v1", "v2", "v3")
    catch_up.lacks("v1", 2_000)
    assert not catch_up.nobody_keeps(1, validators)
    catch_up.lacks("v2", 3_000)
    assert not catch_up.nobody_keeps(1, validators)  # v3 may send it
    for _ in range(30):
        catch_up.tick(0)
    assert catch_up.nobody_keeps(1, validators)  # v3 died before it answered, or withholds
    assert not catch_up.nobody_keeps(2_500, validators)
    catch_up.heard("observer", GOAL)
    assert not catch_up.nobody_keeps(1, validators)


def test_the_silence_of_all_but_one_does_not_make_a_block_nobodys() -> None:
    catch_up = behind("v1", "v2", "v3")
    catch_up.lacks("v1", 2_000)
    for _ in range(60):
        catch_up.tick(0)
    assert not catch_up.nobody_keeps(1, validators_of(1, 1, 1, 1))


def test_who_says_now_that_it_keeps_a_block_and_now_that_it_does_not_is_not_waited_for() -> None:
    catch_up = behind("v1", "v2", "v3")
    catch_up.lacks("v1", 2_000)
    catch_up.lacks("v2", 2_000)
    for _ in range(8):
        catch_up.lacks("v3", 1)
        catch_up.tick(0)
        catch_up.lacks("v3", 2_000)
    catch_up.lacks("v3", 1)
    assert catch_up.nobody_keeps(1, validators_of(1, 1, 1, 1))


@pytest.mark.parametrize("seed", range(20))
def test_every_block_comes_through_liars_silence_and_short_answers(seed: int) -> None:
    """One honest peer among three others is enough; the window is never exceeded."""
    rng = Random(seed)
    catch_up = behind("honest", "liar", "silent", "short")
    height, waiting = 0, list[Ask]()
    for _ in range(3_000):
        if height >= GOAL:
            break
        for peer in ("honest", "liar", "silent", "short"):
            catch_up.heard(peer, GOAL)
        waiting += catch_up.tick(height)
        rng.shuffle(waiting)
        for ask in waiting:
            count = ask.count if ask.peer != "short" else rng.randint(1, ask.count)
            if ask.peer != "silent":
                catch_up.arrived(answer(ask.peer, ask.from_height, count))
        waiting = []
        while (taken := catch_up.take(height)) is not None:
            assert taken.from_height <= height + 1
            if taken.peer == "liar":
                catch_up.disbelieve("liar")
                continue
            height = max(height, taken.end - 1)
            waiting += catch_up.asks(height)
            assert len(catch_up._asked) + len(catch_up._answers) <= 8
    assert height >= GOAL
