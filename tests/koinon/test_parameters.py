"""Parameters of the consortium: each bound holds, and is explained."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import FieldDescriptor

from koinon.errors import InvalidInput
from koinon.parameters import PARAMETERS, check, defaults, get
from koinon.v1.identity_pb2 import Parameters


def test_every_parameter_has_bounds_and_a_reason() -> None:
    assert list(PARAMETERS) == [field.name for field in Parameters.DESCRIPTOR.fields]
    assert all(bounds.reason and bounds.least <= bounds.default <= bounds.most for bounds in PARAMETERS.values())


def test_defaults_hold() -> None:
    check(defaults())


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_bounds_are_enforced_at_both_ends(name: str) -> None:
    bounds = PARAMETERS[name]
    for value, fits in (
        (bounds.least, True),
        (bounds.most, True),
        (bounds.least - 1, bounds.added and bounds.least == 1),  # 0: older than the parameter
        (bounds.most + 1, False),
    ):
        if value < 0 and Parameters.DESCRIPTOR.fields_by_name[name].type == FieldDescriptor.TYPE_UINT32:
            continue  # the wire cannot even say so
        parameters = defaults()
        setattr(parameters, name, value)
        if name == "max_committee":
            parameters.min_committee = 3
        if fits:
            check(parameters)
        else:
            with pytest.raises(InvalidInput, match=name) as caught:
                check(parameters)
            assert caught.value.rule == "parameters"
            assert bounds.reason in caught.value.hint


@pytest.mark.parametrize("name", [name for name, bounds in PARAMETERS.items() if bounds.added])
def test_a_genesis_older_than_a_parameter_means_its_default(name: str) -> None:
    assert not getattr(defaults(), name)
    assert get(defaults(), name) == PARAMETERS[name].default
    assert get(Parameters(**{name: 7_777}), name) == 7_777


def test_a_committee_must_be_possible() -> None:
    parameters = defaults()
    parameters.min_committee, parameters.max_committee = 7, 5
    with pytest.raises(InvalidInput, match="min_committee 7"):
        check(parameters)


def test_no_more_than_the_whole_of_a_price_is_given_away() -> None:
    parameters = defaults()
    parameters.computing_share_bp, parameters.coordinator_share_bp, parameters.fund_share_bp = 5_000, 3_000, 2_000
    check(parameters)
    parameters.fund_share_bp += 1
    with pytest.raises(InvalidInput, match="add up to 10001"):
        check(parameters)
