"""The demo's statistics against figures worked out elsewhere."""

from __future__ import annotations

import pytest

from testnet.two_arms import TwoArms

TRIAL = TwoArms(treated_events=27, treated=295, control_events=52, control=307)


def test_the_published_p_value() -> None:
    assert round(TRIAL.fisher_p(), 3) == 0.005  # Elmunzer et al., 2012, Table 2
    assert round(TRIAL.chi_square_p(), 3) == 0.005


def test_risk_ratio_and_its_interval() -> None:
    assert TRIAL.risk_ratio == pytest.approx((27 / 295) / (52 / 307))
    low, high = TRIAL.risk_ratio_interval()
    assert (round(low, 2), round(high, 2)) == (0.35, 0.84)
    assert low * high == pytest.approx(TRIAL.risk_ratio**2)  # symmetric on the log scale


def test_fisher_on_the_lady_tasting_tea() -> None:
    # Fisher, The Design of Experiments (1935): 3 of 4 cups right; P = 34/70 counting both sides.
    assert TwoArms(3, 4, 1, 4).fisher_p() == pytest.approx(34 / 70)


def test_no_difference_is_no_evidence() -> None:
    equal = TwoArms(5, 50, 5, 50)
    assert equal.risk_ratio == 1
    assert equal.chi_square_p() == 1
    assert equal.fisher_p() == pytest.approx(1)
