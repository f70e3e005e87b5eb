"""The permission table against the same rules written out by hand, over every role and relation."""

from __future__ import annotations

from itertools import product

import pytest

from governance.permissions import PERMISSIONS, Subject, allowed, wanted
from koinon.v1.identity_pb2 import ROLE_ANALYST, ROLE_NODE, ROLE_OPERATOR, ROLE_REGULATOR, Role
from koinon.v1.transaction_pb2 import Operation

OPERATIONS = [field.name for field in Operation.DESCRIPTOR.oneofs_by_name["operation"].fields]
ROLES = [ROLE_OPERATOR, ROLE_ANALYST, ROLE_REGULATOR, ROLE_NODE]


def expected(operation: str, role: Role.ValueType, *, institution: bool, person: bool, party: bool) -> bool:
    """Who may, in prose turned into conditions: own institution, the person itself, a party's institution."""
    if operation in ("register_person", "revoke_person", "publish_dataset", "withdraw_dataset"):
        return role == ROLE_OPERATOR and institution
    if operation in ("verify_dataset", "withdraw_verification"):
        return role == ROLE_OPERATOR and not institution
    if operation in ("accept_offer", "withdraw_request"):
        return role == ROLE_ANALYST and person
    if operation == "open_dispute":
        return (role == ROLE_OPERATOR and party) or (role == ROLE_ANALYST and person)
    if operation == "rule_dispute":
        return role == ROLE_OPERATOR and party
    if operation in ("withdraw_demand", "counter_offer", "answer_dispute", "withdraw_dispute"):
        return (role == ROLE_OPERATOR and institution) or (role == ROLE_ANALYST and person)
    if operation in ("grant_access", "deny_access"):
        return role == ROLE_OPERATOR and institution
    if operation == "rotate_key":
        return (role == ROLE_OPERATOR and institution) or (role in (ROLE_ANALYST, ROLE_REGULATOR) and person)
    if operation == "revoke_key":
        return role == ROLE_OPERATOR and institution
    if operation in ("update_endpoints", "begin_voting"):
        return role in (ROLE_OPERATOR, ROLE_NODE) and institution
    if operation in ("request_access", "submit_task", "post_demand"):
        return role == ROLE_ANALYST
    if operation in ("propose", "cast_ballot", "apply_for_membership"):
        return role == ROLE_OPERATOR
    if operation in ("withdraw_proposal", "withdraw_application"):
        return role == ROLE_OPERATOR and institution
    if operation in ("revoke_token", "cancel_task"):
        return (role == ROLE_OPERATOR and institution) or (role == ROLE_ANALYST and person)
    if operation in ("accept_task", "complete_task", "fail_task"):
        return role == ROLE_NODE and party
    if operation == "define_union":
        return role == ROLE_OPERATOR and institution
    if operation in ("transfer_points", "set_union_members", "claim_earnings"):
        return (role == ROLE_OPERATOR and (institution or person)) or (role == ROLE_ANALYST and person)
    raise AssertionError(f"say who may {operation}")


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
    assert wanted("cancel_task") == "analyst who is the person concerned or operator of the institution concerned"
