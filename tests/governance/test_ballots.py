"""Ballots: thresholds at their boundaries, and that nothing but the ballots decides."""

from __future__ import annotations

from fractions import Fraction as Exact
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.ballots import Outcome, missing_weight, resolve, tally
from koinon.v1.constitution_pb2 import DecisionPolicy, Fraction
from koinon.v1.governance_pb2 import CHOICE_ABSTAIN, CHOICE_NO, CHOICE_YES, Ballot, Tally

CHOICES = {"y": CHOICE_YES, "n": CHOICE_NO, "a": CHOICE_ABSTAIN}


def part(text: str) -> Fraction | None:
    numerator, slash, denominator = text.partition("/")
    return Fraction(numerator=int(numerator), denominator=int(denominator)) if slash else None


def policy(participation: str = "1/2", approval: str = "1/2", veto: str = "") -> DecisionPolicy:
    return DecisionPolicy(participation=part(participation), approval=part(approval), veto=part(veto))


def count(ballots: str, total: int) -> Tally:
    """A tally of members of weight 1: 'yyn' of four is two for, one against, one silent."""
    return Tally(yes=ballots.count("y"), no=ballots.count("n"), abstain=ballots.count("a"), total=total)


@pytest.mark.parametrize(
    ("ballots", "total", "terms", "early", "at_the_end"),
    [
        # a majority of four
        ("", 4, policy(), "open", "expired"),
        ("y", 4, policy(), "open", "expired"),
        ("yy", 4, policy(), "open", "accepted"),  # exactly half took part; the others may still say no
        ("yyy", 4, policy(), "accepted", "accepted"),
        ("nn", 4, policy(), "rejected", "rejected"),  # no more than half can be won
        ("yn", 4, policy(), "open", "rejected"),  # one half is not more than one half
        ("yyn", 4, policy(), "open", "accepted"),
        ("aaa", 4, policy(), "open", "rejected"),
        ("aaaa", 4, policy(), "rejected", "rejected"),
        ("yaa", 4, policy(), "open", "accepted"),
        ("yaaa", 4, policy(), "accepted", "accepted"),
        # more than two thirds of three are all three
        ("yy", 3, policy("2/3", "2/3"), "open", "accepted"),
        ("yyn", 3, policy("2/3", "2/3"), "rejected", "rejected"),
        ("yyy", 3, policy("2/3", "2/3"), "accepted", "accepted"),
        # a fraction that is not reached although the ballots are clear
        ("yyy", 4, policy("1/1"), "open", "expired"),
        ("yyya", 4, policy("1/1"), "accepted", "accepted"),
        # a veto of a quarter of all weight
        ("yyyn", 4, policy(veto="1/4"), "rejected", "rejected"),
        ("yyy", 4, policy(veto="1/4"), "open", "accepted"),  # the fourth may still veto
        ("yyya", 4, policy(veto="1/4"), "accepted", "accepted"),
        ("yyyn", 4, policy(veto="2/4"), "accepted", "accepted"),
    ],
)
def test_thresholds(ballots: str, total: int, terms: DecisionPolicy, early: str, at_the_end: str) -> None:
    assert resolve(terms, count(ballots, total), closed=False).value == early
    assert resolve(terms, count(ballots, total), closed=True).value == at_the_end


def test_ballots_count_by_weight_and_only_members() -> None:
    members = {"case": 3, "iu": 1, "um": 0}
    ballots = [
        Ballot(institution="case", choice=CHOICE_NO),
        Ballot(institution="iu", choice=CHOICE_YES),
        Ballot(institution="um", choice=CHOICE_YES),
        Ballot(institution="gone", choice=CHOICE_ABSTAIN),
    ]
    assert tally(ballots, members) == Tally(yes=1, no=3, total=4)
    assert missing_weight(tally(ballots[1:], members)) == 3


# --- properties

_PARTS = st.integers(1, 12).flatmap(
    lambda denominator: st.integers(1, denominator).map(lambda numerator: f"{numerator}/{denominator}")
)
_APPROVALS = _PARTS.filter(lambda text: Exact(1, 2) <= Exact(text) < 1)
_POLICIES = st.builds(policy, _PARTS, _APPROVALS, st.one_of(st.just(""), _PARTS))
_MEMBERS = st.lists(st.integers(0, 5), min_size=1, max_size=5).map(
    lambda weights: {f"m{number}": weight for number, weight in enumerate(weights)}
)


@st.composite
def elections(draw: st.DrawFn) -> tuple[DecisionPolicy, dict[str, int], list[Ballot]]:
    """A policy, members, and a ballot of some of them."""
    members = draw(_MEMBERS.filter(lambda weights: any(weights.values())))
    ballots = []
    for name in members:
        choice = draw(st.sampled_from(("", "y", "n", "a")))
        if choice:
            ballots.append(Ballot(institution=name, choice=CHOICES[choice]))
    return draw(_POLICIES), members, ballots


def by_hand(terms: DecisionPolicy, members: dict[str, int], ballots: list[Ballot]) -> str:
    """The outcome at the end, with exact fractions and none of the production arithmetic."""
    said = {ballot.institution: ballot.choice for ballot in ballots}
    weight = {name: sum(members[m] for m in members if said.get(m) == choice) for name, choice in CHOICES.items()}
    total = sum(members.values())

    def exact(fraction: Fraction) -> Exact:
        return Exact(fraction.numerator, fraction.denominator)

    if terms.HasField("veto") and weight["n"] and Exact(weight["n"], total) >= exact(terms.veto):
        return "rejected"
    if Exact(sum(weight.values()), total) < exact(terms.participation):
        return "expired"
    said_either = weight["y"] + weight["n"]
    return "accepted" if said_either and Exact(weight["y"], said_either) > exact(terms.approval) else "rejected"


@given(elections())
def test_the_end_is_what_exact_fractions_say(election: tuple[DecisionPolicy, dict[str, int], list[Ballot]]) -> None:
    terms, members, ballots = election
    assert resolve(terms, tally(ballots, members), closed=True).value == by_hand(terms, members, ballots)


@given(elections())
def test_an_early_outcome_is_what_any_further_ballots_lead_to(
    election: tuple[DecisionPolicy, dict[str, int], list[Ballot]],
) -> None:
    terms, members, ballots = election
    early = resolve(terms, tally(ballots, members), closed=False)
    missing = [name for name in members if name not in {ballot.institution for ballot in ballots}]
    ends = set()
    for choices in _all_choices(len(missing)):
        further = [
            Ballot(institution=name, choice=CHOICES[choice])
            for name, choice in zip(missing, choices, strict=True)
            if choice
        ]
        ends.add(by_hand(terms, members, [*ballots, *further]))
    if early is Outcome.ACCEPTED:
        assert ends == {"accepted"}
    if early is Outcome.REJECTED:
        assert "accepted" not in ends
    if ends == {"accepted"}:
        assert early is Outcome.ACCEPTED, "decided as early as possible"
    if "accepted" not in ends:
        assert early is Outcome.REJECTED, "decided as early as possible"


def _all_choices(length: int) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for _ in range(length):
        found = [(*choices, choice) for choices in found for choice in ("", "y", "n", "a")]
    return found


@given(elections())
def test_the_order_of_ballots_does_not_matter(election: tuple[DecisionPolicy, dict[str, int], list[Ballot]]) -> None:
    """Each ballot is resolved as it comes, as on the ledger, and the rest come too late once it is decided."""
    terms, members, ballots = election
    ends = set()
    for order in list(permutations(ballots))[:24]:
        cast: list[Ballot] = []
        outcome = Outcome.OPEN
        for ballot in order:
            cast.append(ballot)
            outcome = resolve(terms, tally(cast, members), closed=False)
            if outcome is not Outcome.OPEN:
                break
        if outcome is Outcome.OPEN:
            outcome = resolve(terms, tally(cast, members), closed=True)
        ends.add(outcome)
    assert len(ends) == 1
