"""The permission table against the same rules written out by hand, over every role and relation."""

from __future__ import annotations

from itertools import product

import pytest

from governance.permissions import PERMISSIONS, Subject, allowed, wanted
from koinon.v1.identity_pb2 import (
    ROLE_ANALYST,
    ROLE_FEEDER,
    ROLE_GATEWAY,
    ROLE_NODE,
    ROLE_OPERATOR,
    ROLE_REGULATOR,
    Role,
)
from koinon.v1.transaction_pb2 import Operation

OPERATIONS = [field.name for field in Operation.DESCRIPTOR.oneofs_by_name["operation"].fields]
ROLES = [ROLE_OPERATOR, ROLE_ANALYST, ROLE_REGULATOR, ROLE_NODE, ROLE_GATEWAY, ROLE_FEEDER]


# Who may, in prose: the shorthand stands for the conditions in ``expected``.
MAY = {
    "its operator": (
        *("register_person", "revoke_person", "withdraw_dataset", "grant_access", "deny_access"),
        *("revoke_key", "withdraw_proposal", "withdraw_application", "define_union"),
        *("give_notice", "withdraw_notice"),
    ),
    "its operator or itself": (
        *("withdraw_demand", "counter_offer", "answer_dispute", "withdraw_dispute", "revoke_token"),
    ),
    "its operator, itself or a gateway itself": ("cancel_task",),
    "its operator or feeder": ("publish_dataset",),
    "its operator or the owner": ("transfer_points", "set_union_members", "claim_earnings"),
    "its operator or whose key it is": ("rotate_key",),
    "its operator or node": ("update_endpoints", "begin_voting"),
    "an operator elsewhere": ("verify_dataset", "withdraw_verification"),
    "an analyst": ("post_demand",),
    "an analyst or gateway": ("request_access", "submit_task"),
    "itself": ("accept_offer",),
    "itself, also a gateway": ("withdraw_request", "receive_result"),
    "an operator": ("propose", "cast_ballot", "apply_for_membership"),
    "a party's operator": ("rule_dispute",),
    "a party's operator or itself": ("open_dispute",),
    "a party's node": ("accept_task", "complete_task", "fail_task"),
    "a regulator": ("record_reading",),
}


def expected(operation: str, role: Role.ValueType, *, institution: bool, person: bool, party: bool) -> bool:
    """Who may: own institution, the person itself, a party's institution."""
    (who,) = [who for who, operations in MAY.items() if operation in operations]
    operator, analyst, gateway = role == ROLE_OPERATOR, role == ROLE_ANALYST, role == ROLE_GATEWAY
    return {
        "its operator": operator and institution,
        "its operator or itself": (operator and institution) or (analyst and person),
        "its operator or the owner": (operator and (institution or person)) or (analyst and person),
        "its operator or whose key it is": (operator and institution)
        or (role in (ROLE_ANALYST, ROLE_REGULATOR, ROLE_GATEWAY, ROLE_FEEDER) and person),
        "its operator or node": role in (ROLE_OPERATOR, ROLE_NODE) and institution,
        "an operator elsewhere": operator and not institution,
        "its operator, itself or a gateway itself": (operator and institution) or ((analyst or gateway) and person),
        "its operator or feeder": role in (ROLE_OPERATOR, ROLE_FEEDER) and institution,
        "an analyst": analyst,
        "an analyst or gateway": analyst or gateway,
        "itself": analyst and person,
        "itself, also a gateway": (analyst or gateway) and person,
        "an operator": operator,
        "a party's operator": operator and party,
        "a party's operator or itself": (operator and party) or (analyst and person),
        "a party's node": role == ROLE_NODE and party,
        "a regulator": role == ROLE_REGULATOR,
    }[who]


def test_every_operation_has_a_row_and_no_other_does() -> None:
    assert list(PERMISSIONS) == OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_table_says_what_the_rules_say(operation: str) -> None:
    for role, institution, person, party in product(ROLES, (True, False), (True, False), (True, False)):
        subject = Subject(
            institution="um" if institution else "iu",
            person="um/x" if person else "um/y",
            parties=("iu", "um") if party else ("case", "iu"),
        )
        assert allowed(operation, "um/x", "um", [role], subject) == expected(
            operation, role, institution=institution, person=person, party=party
        ), (operation, Role.Name(role), institution, person, party)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_roles_no_permission(operation: str) -> None:
    assert not allowed(operation, "um/x", "um", [], Subject("um", "um/x", ["um"]))


def test_a_subject_that_is_nobodys_fits_nobody() -> None:
    assert not allowed("revoke_token", "um/x", "um", [ROLE_OPERATOR, ROLE_ANALYST], Subject())


def test_an_operation_without_a_row_is_nobodys() -> None:
    assert not allowed("mint_points", "um/x", "um", ROLES, Subject("um", "um/x", ["um"]))


def test_words_for_a_refusal() -> None:
    assert wanted("withdraw_demand") == "analyst who is the person concerned or operator of the institution concerned"
