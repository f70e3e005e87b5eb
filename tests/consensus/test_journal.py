"""The journal: what is read back, what may be signed, and when a validator without its past may vote again."""

from __future__ import annotations

from pathlib import Path

import pytest

from koinon.errors import Corrupt
from koinon.limits import MAX_CLOCK_DRIFT_MS
from node.consensus.events import Event, HeightStarted, ProposalReceived, Step, TimedOut, Timer, VoteReceived
from node.consensus.messages import NIL, Proposal, VoteType
from node.journal import NOTHING, Journal, last_signed
from node.ledger import blocks
from node.store.memory import MemoryStore
from node.store.wal import FileWal, MemoryWal
from tests.consensus.rig import KEYS
from tests.ledger.chain import FOUR, digest, genesis, signed_proposal, signed_vote

NOW = 1_800_000_000_000
LATER = NOW + MAX_CLOCK_DRIFT_MS
BLOCK = blocks.build(genesis(), [b"x" * 1_000], [], None, "v1").value
KEY = KEYS["v0"].public_key


def born() -> MemoryWal:
    wal = MemoryWal()
    Journal.create(wal, KEY)
    return wal


def opened(wal: MemoryWal | FileWal, now_ms: int = NOW) -> Journal:
    return Journal(wal, KEY, "v0", now_ms)


def safe_height(journal: Journal) -> int | None:
    return journal.votes_from_height


def own_vote(height: int, round_: int, vote_type: VoteType = VoteType.PREVOTE) -> VoteReceived:
    return VoteReceived(signed_vote("v0", vote_type, height, round_, NIL))


def own_proposal(height: int, round_: int) -> ProposalReceived:
    proposal = signed_proposal("v0", height, round_, BLOCK)
    return ProposalReceived(proposal, True)


def events() -> list[Event]:
    another = Proposal(1, 1, 0, BLOCK, "v2", b"signature")
    return [
        ProposalReceived(signed_proposal("v1", 1, 0, BLOCK), True),
        own_vote(1, 0),
        VoteReceived(signed_vote("v2", VoteType.PRECOMMIT, 1, 0, digest("x"), 5)),
        TimedOut(Timer(Step.PRECOMMIT, 1, 0)),
        ProposalReceived(another, False),
    ]


def test_what_was_appended_is_replayed() -> None:
    wal = born()
    journal = opened(wal)
    assert journal.replay(1) is None
    for event in [HeightStarted(1, FOUR), *events()]:
        journal.append(event)
    assert opened(wal).replay(1) == events()
    assert opened(wal).replay(2) is None


def test_a_height_that_started_forgets_the_one_before() -> None:
    wal = born()
    journal = opened(wal)
    for event in [HeightStarted(1, FOUR), *events(), HeightStarted(2, FOUR), own_vote(2, 0)]:
        journal.append(event)
    assert opened(wal).replay(2) == [own_vote(2, 0)]


def test_a_block_is_written_once_per_height() -> None:
    wal = born()
    journal = opened(wal)
    for round_ in range(50):
        journal.append(ProposalReceived(signed_proposal("v1", 1, round_, BLOCK), True))
    assert sum(map(len, wal.records())) < len(BLOCK.block) + 50 * 200


def test_the_log_starts_anew_when_it_is_large_and_forgets_no_signature() -> None:
    wal = born()
    journal = opened(wal)
    large = [blocks.build(genesis(), [bytes([i]) * 60_000] * 30, [], None, "v1").value for i in range(10)]
    for height, value in enumerate(large, start=1):
        journal.append(HeightStarted(height, FOUR))
        journal.append(ProposalReceived(signed_proposal("v0", height, 0, value), True))
    journal.append(HeightStarted(11, FOUR))
    assert len(wal.records()) == 2
    reopened = opened(wal)
    assert not reopened.may_vote(10, 10**6, VoteType.PRECOMMIT)
    assert reopened.may_propose(11, 0)


# --- signing


def test_positions_only_ever_advance() -> None:
    journal = opened(born())
    journal.append(HeightStarted(5, FOUR))
    assert not journal.may_vote(4, 9, VoteType.PRECOMMIT)
    assert journal.may_propose(5, 0)
    journal.append(own_proposal(5, 1))
    assert not journal.may_propose(5, 1)
    assert not journal.may_propose(5, 0)
    assert journal.may_vote(5, 1, VoteType.PREVOTE)
    journal.append(own_vote(5, 1))
    assert not journal.may_vote(5, 1, VoteType.PREVOTE)
    assert journal.may_vote(5, 1, VoteType.PRECOMMIT)
    journal.append(own_vote(5, 1, VoteType.PRECOMMIT))
    assert not journal.may_vote(5, 1, VoteType.PRECOMMIT)
    assert not journal.may_vote(5, 0, VoteType.PRECOMMIT)
    assert journal.may_vote(5, 2, VoteType.PREVOTE)
    assert journal.may_vote(6, 0, VoteType.PREVOTE)


@pytest.mark.parametrize("last", [own_proposal(5, 2), own_vote(5, 2), own_vote(5, 2, VoteType.PRECOMMIT)])
def test_positions_survive_a_restart(last: ProposalReceived | VoteReceived) -> None:
    wal = born()
    before = opened(wal)
    before.append(HeightStarted(5, FOUR))
    before.append(last)
    after = opened(wal)
    for round_ in range(4):
        assert after.may_propose(5, round_) == before.may_propose(5, round_)
        for vote_type in VoteType:
            assert after.may_vote(5, round_, vote_type) == before.may_vote(5, round_, vote_type)


def test_our_own_vote_seen_elsewhere_counts_as_signed() -> None:
    """A key used on two machines, or a restored backup: what others show us of ours, we do not contradict."""
    journal = opened(born())
    journal.append(HeightStarted(5, FOUR))
    journal.append(own_vote(5, 3))
    assert not journal.may_vote(5, 2, VoteType.PRECOMMIT)


def test_a_log_ahead_of_the_ledger_is_replayed_when_the_ledger_is_there_again() -> None:
    """The ledger was lost and is fetched anew: what this validator is locked on must not be forgotten on the way."""
    wal = born()
    before = opened(wal)
    before.append(HeightStarted(5, FOUR))
    before.append(own_vote(5, 0, VoteType.PRECOMMIT))
    after = opened(wal)
    assert after.replay(1) is None
    after.append(HeightStarted(1, FOUR))
    after.append(TimedOut(Timer(Step.PROPOSE, 1, 0)))
    assert not after.may_vote(1, 9, VoteType.PRECOMMIT)
    for journal in (after, opened(wal)):
        assert journal.replay(5) == [own_vote(5, 0, VoteType.PRECOMMIT)]
        assert journal.replay(5) == []


# --- a lost past


def test_a_new_key_may_vote_at_once() -> None:
    assert opened(born()).votes_from_height == 0
    assert opened(born()).may_vote(1, 0, VoteType.PREVOTE)


@pytest.mark.parametrize("of", ["nothing", "another key"])
def test_without_its_signing_state_a_validator_observes_until_a_safe_height(of: str) -> None:
    wal = MemoryWal()
    if of == "another key":
        Journal.create(wal, KEYS["v1"].public_key)
    journal = opened(wal)
    assert safe_height(journal) is None
    assert not journal.may_vote(10**9, 0, VoteType.PREVOTE)
    assert not journal.may_propose(10**9, 0)
    journal.observe(70, NOW + MAX_CLOCK_DRIFT_MS, LATER)  # may have been made before the loss, by a clock that is ahead
    assert safe_height(journal) is None
    journal.observe(71, NOW + MAX_CLOCK_DRIFT_MS + 1, LATER)
    assert safe_height(journal) == 72
    assert not journal.may_vote(71, 0, VoteType.PREVOTE)
    assert journal.may_vote(72, 0, VoteType.PREVOTE)
    journal.observe(90, NOW + 10 * MAX_CLOCK_DRIFT_MS, LATER)
    assert safe_height(journal) == 72


def test_a_loss_counts_as_noticed_at_every_start_and_whenever_the_clock_jumps_ahead() -> None:
    """The clock may have been slow before: then a block from before the loss would look like one from after it."""
    wal = MemoryWal()
    opened(wal)
    journal = opened(wal, LATER)
    assert not journal.observe(10, LATER + 1, LATER)
    journal.look_at_clock(LATER + 2 * MAX_CLOCK_DRIFT_MS)
    assert not journal.observe(11, LATER + 2 * MAX_CLOCK_DRIFT_MS, LATER + 2 * MAX_CLOCK_DRIFT_MS)
    assert journal.observe(12, LATER + 3 * MAX_CLOCK_DRIFT_MS + 1, LATER + 3 * MAX_CLOCK_DRIFT_MS)
    assert opened(wal).votes_from_height == 13


def test_a_block_from_the_future_of_our_clock_makes_no_height_safe() -> None:
    journal = opened(MemoryWal())
    assert not journal.observe(10, LATER + 3_600_000, LATER)
    assert journal.votes_from_height is None


def test_a_log_that_ends_before_what_the_ledger_says_was_signed_is_lost() -> None:
    wal = born()
    journal = opened(wal)
    older = wal.records()
    for event in (HeightStarted(8, FOUR), own_vote(8, 0), own_vote(8, 0, VoteType.PRECOMMIT)):
        journal.append(event)
    before = journal.signed
    journal.sync()
    signed = journal.signed
    assert before < signed, "only what is on the disk counts"
    assert Journal(wal, KEY, "v0", NOW, signed).votes_from_height == 0, "this log has it"

    wal.reset(older)
    assert Journal(wal, KEY, "v0", NOW, before).votes_from_height == 0, "what was never relied on is not missed"
    lost = Journal(wal, KEY, "v0", NOW, signed)
    assert lost.votes_from_height is None
    assert lost.signed == signed
    assert not lost.may_vote(9, 0, VoteType.PREVOTE)
    again = Journal(wal, KEY, "v0", NOW + 1, signed)
    again.observe(10, NOW + 2 * MAX_CLOCK_DRIFT_MS, LATER)
    assert again.votes_from_height == 11, "the loss is noticed once"
    assert Journal(wal, KEY, "v0", NOW, signed).votes_from_height == 11


def test_what_the_ledger_says_was_signed_is_read_with_care() -> None:
    store, journal = MemoryStore(), opened(born())
    assert last_signed(store) == NOTHING
    journal.append(own_vote(8, 2, VoteType.PRECOMMIT))
    journal.sync()
    store.write([journal.mark()], sync=True)
    assert last_signed(store) == journal.signed == (8, 2, VoteType.PRECOMMIT)
    key, mark = journal.mark()
    assert mark is not None
    for bad in (b"", b"x", mark + b"\0"):
        store.write([(key, bad)], sync=True)
        with pytest.raises(Corrupt, match="the ledger does not say") as caught:
            last_signed(store)
        assert "node repair" in caught.value.hint


def test_who_votes_again_contradicts_nothing_that_others_told_it() -> None:
    wal = MemoryWal()
    journal = opened(wal)
    told: list[Event] = [own_proposal(8, 0), own_vote(8, 2, VoteType.PRECOMMIT)]
    for event in (HeightStarted(8, FOUR), *told):
        journal.append(event)
    assert not journal.may_vote(8, 3, VoteType.PREVOTE)
    journal.vote_again(8)
    wal.crash()
    again = opened(wal)
    assert again.votes_from_height == 8
    assert not again.may_propose(8, 0)
    assert not again.may_vote(8, 2, VoteType.PRECOMMIT)
    assert again.may_vote(8, 3, VoteType.PREVOTE)
    assert again.replay(8) == told


# --- on disk


def test_in_a_file_with_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "wal"
    wal = FileWal(path)
    Journal.create(wal, KEY)
    journal = opened(wal)
    for event in [HeightStarted(1, FOUR), *events()]:
        journal.append(event)
    journal.sync()
    journal.append(own_vote(1, 1))
    wal.close()
    path.write_bytes(path.read_bytes()[:-1])
    assert opened(FileWal(path)).replay(1) == events()


@pytest.mark.parametrize(
    "record", [b"", b"?", b"P", b"P\x01" + bytes(32), b"Vjunk", b"T\x09" + bytes(12), b"Bjunk", b"Lx"]
)
def test_a_record_that_cannot_be_read_is_not_skipped(record: bytes) -> None:
    wal = born()
    wal.append(record)
    with pytest.raises(Corrupt, match="the write-ahead log holds a record"):
        opened(wal)


# --- a new key for the same validator


def test_an_adopted_key_is_covered_after_a_restart_as_well_as_the_old_one() -> None:
    wal = MemoryWal()
    Journal.create(wal, KEYS["v1"].public_key)
    journal = Journal(wal, KEYS["v1"].public_key, "v1", NOW)
    journal.append(HeightStarted(7, FOUR))
    journal.adopt(KEYS["v2"].public_key)  # synced at once
    journal.append(TimedOut(Timer(Step.PROPOSE, 7, 0)))
    wal.crash()
    for key in (KEYS["v1"], KEYS["v2"]):
        again = Journal(wal, key.public_key, "v1", NOW)
        assert again.votes_from_height == 0
        assert again.may_vote(7, 0, VoteType.PREVOTE)
        assert not again.may_vote(6, 9, VoteType.PRECOMMIT)


def test_a_new_key_does_not_make_a_lost_signing_state_good() -> None:
    wal = MemoryWal()
    journal = Journal(wal, KEYS["v1"].public_key, "v1", NOW)
    assert journal.votes_from_height is None
    journal.adopt(KEYS["v2"].public_key)
    again = Journal(wal, KEYS["v2"].public_key, "v1", NOW + 1)
    assert again.votes_from_height is None
    assert again.observe(9, NOW + MAX_CLOCK_DRIFT_MS + 2, LATER)
    assert Journal(wal, KEYS["v2"].public_key, "v1", NOW + 2).votes_from_height == 10
    assert Journal(wal, KEYS["v1"].public_key, "v1", NOW + 2).votes_from_height == 10


def test_a_key_that_was_never_adopted_has_lost_its_state() -> None:
    wal = MemoryWal()
    Journal.create(wal, KEYS["v1"].public_key)
    assert Journal(wal, KEYS["v2"].public_key, "v1", NOW).votes_from_height is None
    assert Journal(wal, KEYS["v1"].public_key, "v1", NOW).votes_from_height is None  # and nothing was left of it


def test_both_keys_survive_a_new_log() -> None:
    wal = MemoryWal()
    Journal.create(wal, KEYS["v1"].public_key)
    journal = Journal(wal, KEYS["v1"].public_key, "v1", NOW)
    journal.adopt(KEYS["v2"].public_key)
    journal._bytes = 2**40
    journal.append(HeightStarted(7, FOUR))
    assert [record[:1] for record in wal.records()] == [b"S", b"S", b"H"]
    assert Journal(wal, KEYS["v2"].public_key, "v1", NOW).votes_from_height == 0
