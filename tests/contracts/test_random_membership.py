"""Random decisions about members, whatever nodes are up: the ledger can always go on, and validator sets overlap."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from koinon.limits import LIVE_HEARTBEATS, MIN_NOTICE_BLOCKS
from koinon.rules import RULES
from koinon.v1.identity_pb2 import (
    KEY_PURPOSE_VALIDATOR,
    MEMBER_STATUS_ACTIVE,
    BeginVoting,
    GiveNotice,
    RevokeKey,
    RotateKey,
    WithdrawNotice,
)
from koinon.validators import ValidatorSet
from node.contracts import keys, tables
from tests.contracts.consortium import MEMBERS, Consortium, key
from tests.contracts.decree import Action, admit, decree, readmit, remove, set_power, suspend
from tests.contracts.test_membership import double_vote

NEWCOMERS = ("osu", "wsu", "pitt")
NAMES = (*MEMBERS, *NEWCOMERS)
ANYONE = st.sampled_from(NAMES)
ONE = st.one_of(
    st.builds(set_power, ANYONE, st.integers(0, 4)),
    st.builds(suspend, ANYONE),
    st.builds(readmit, ANYONE),
    st.builds(remove, ANYONE),
    st.builds(admit, st.sampled_from(NEWCOMERS), st.integers(0, 30), st.integers(0, 2)),
    st.builds(admit, st.sampled_from(NEWCOMERS), st.integers(100, 130), st.integers(0, 2)),
)


class Membership(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.consortium = Consortium()
        self.consortium.wait(1)
        self.seen_ms = dict.fromkeys(MEMBERS, self.consortium.time_ms)
        self.rotations = 0
        self.before = self.validators()

    def validators(self) -> ValidatorSet:
        return ValidatorSet.of(self.consortium.app.info().validators)

    @rule(actions=st.lists(ONE, min_size=1, max_size=3))
    def decide(self, actions: list[Action]) -> None:
        refused = decree(self.consortium, *actions)
        assert not refused or refused in RULES

    @rule(first=ANYONE, second=ANYONE, exclude=st.sampled_from((suspend, remove)))
    def exclude_two(self, first: str, second: str, exclude: Callable[[str], Action]) -> None:
        """At one height, or one after the other."""
        if decree(self.consortium, exclude(first), exclude(second)):
            decree(self.consortium, exclude(first))

    @rule(down=st.sampled_from(MEMBERS[1:]), action=ONE)
    def decide_while_one_is_down(self, down: str, action: Action) -> None:
        self.some_are_down({down}, 400_000)
        decree(self.consortium, action)

    @rule(institution=ANYONE)
    def begin_voting(self, institution: str) -> None:
        height = self.consortium.app.info().height
        self.consortium.send(institution, BeginVoting(height=height))

    @rule(institution=ANYONE, revoke=st.booleans())
    def change_key(self, institution: str, revoke: bool) -> None:
        self.rotations += 1
        if revoke:
            message = RevokeKey(purpose=KEY_PURPOSE_VALIDATOR, reason="stolen")
            self.consortium.send(f"{institution}/operator", message)
        else:
            new = key(f"{institution} {self.rotations}").public_key
            self.consortium.send(f"{institution}/operator", RotateKey(purpose=KEY_PURPOSE_VALIDATOR, key=new))

    @rule(institution=ANYONE)
    def accuse(self, institution: str) -> None:
        self.consortium.decide(evidence=(double_vote(institution, self.consortium.app.info().height),))

    @rule(silent=st.sets(st.sampled_from(MEMBERS[1:]), max_size=2), after_ms=st.sampled_from((1, 5_000, 400_000)))
    def some_are_down(self, silent: set[str], after_ms: int) -> None:
        """As few as the ledger bears: else nothing is decided, and there is nothing to check."""
        now = self.validators()
        up = [name for name in NAMES if name not in silent]
        self.consortium.silent = silent if now.power(up) >= now.quorum else set()
        self.consortium.wait(after_ms)
        self.consortium.wait(1)

    @rule(institution=ANYONE, blocks=st.integers(MIN_NOTICE_BLOCKS - 1, MIN_NOTICE_BLOCKS + 2), stays=st.booleans())
    def give_notice(self, institution: str, blocks: int, stays: bool) -> None:
        height = self.consortium.app.info().height + 1 + blocks
        self.consortium.send(f"{institution}/operator", GiveNotice(height=height, reason="moves on"))
        if stays:
            self.consortium.send(f"{institution}/operator", WithdrawNotice(reason="stays"))

    @rule()
    def blocks_pass(self) -> None:
        """So that notices become due."""
        for _ in range(MIN_NOTICE_BLOCKS):
            self.consortium.wait(1)
            self.check_change()

    @invariant()
    def a_change_leaves_a_quorum_that_was_seen_of_late_and_overlaps(self) -> None:
        self.check_change()

    @invariant()
    def who_gave_notice_is_expected_to_leave(self) -> None:
        state = self.consortium.app._new_state()
        expected = [(item.notice.height, item.descriptor.id.encode()) for item in self.consortium.app.institutions()]
        assert sorted(item for item in expected if item[0]) == list(tables.DEPARTURES.all(state))
        assert all(status == MEMBER_STATUS_ACTIVE for status in self.leaving())

    def leaving(self) -> list[int]:
        return [item.status for item in self.consortium.app.institutions() if item.HasField("notice")]

    def check_change(self) -> None:
        """By our own book: who was in a certificate, or said itself that it is there."""
        for block in self.consortium.blocks[-2:]:
            for name in (*block.signers, block.proposer):
                self.seen_ms[name] = max(self.seen_ms.get(name, 0), block.time_ms)
        for record in self.consortium.records()[-5:]:
            if record.kind == "institution.empowered" and record.actor in NAMES:
                self.seen_ms[record.actor] = max(self.seen_ms.get(record.actor, 0), record.time_ms)
        before, self.before = self.before, self.validators()
        if before == self.before:
            return
        since_ms = self.consortium.time_ms - (LIVE_HEARTBEATS + 1) * 5_000
        live = [name for name, seen_ms in self.seen_ms.items() if seen_ms >= since_ms]
        assert self.before.power(live) >= self.before.quorum
        old, new = ({member.institution: member.power for member in each} for each in (before, self.before))
        changed = [name for name in {*old, *new} if old.get(name) != new.get(name)]
        kept = sum(min(power, new.get(name, 0)) for name, power in old.items())
        assert len(changed) <= 1 or 3 * kept > 2 * max(before.total_power, self.before.total_power)

    @invariant()
    def every_validator_has_one_key_in_force(self) -> None:
        state, height = self.consortium.app._new_state(), self.consortium.app.info().height + 2
        for member in self.validators():
            assert keys.validator_key(state, member.institution, height) == member.public_key

    def teardown(self) -> None:
        again = Consortium(self.consortium.store, self.consortium.genesis)
        assert again.app.info() == self.consortium.app.info()


TestMembership = Membership.TestCase
TestMembership.settings = settings(max_examples=40, stateful_step_count=25)
