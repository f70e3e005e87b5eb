"""Parameters of the consortium: their defaults, their bounds, and why each is bounded there. Integers only."""

from __future__ import annotations

from dataclasses import dataclass

from koinon.errors import InvalidInput
from koinon.limits import BASIS_POINTS, MAX_COMMITTEE, MAX_FEE
from koinon.v1.identity_pb2 import Parameters

_SECOND_MS = 1_000
_DAY_MS = 24 * 60 * 60 * _SECOND_MS


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one parameter is unless the genesis says otherwise, and the range it must lie in (both ends included)."""

    default: int
    least: int
    most: int
    reason: str
    added: bool = False  # after the first release: 0, in a genesis older than the parameter, means the default


PARAMETERS: dict[str, Bounds] = {
    "min_cohort_floor": Bounds(5, 1, 1_000_000, "a group of one is a person; 1 only where all data is public anyway"),
    "min_committee": Bounds(3, 3, MAX_COMMITTEE, "two parties have no honest majority"),
    "max_committee": Bounds(MAX_COMMITTEE, 3, MAX_COMMITTEE, "every pair of parties holds a connection"),
    "accept_window_ms": Bounds(15 * _SECOND_MS, _SECOND_MS, _DAY_MS, "nodes accept by themselves, within seconds"),
    "run_window_ms": Bounds(120 * _SECOND_MS, _SECOND_MS, _DAY_MS, "a task that hangs ends"),
    "heartbeat_ms": Bounds(5 * _SECOND_MS, 200, _DAY_MS, "deadlines pass by block time, so blocks must come"),
    "max_token_uses": Bounds(10_000, 1, 1_000_000_000, "unlimited use is no grant that a publisher can reason about"),
    "max_token_duration_ms": Bounds(366 * _DAY_MS, 60 * _SECOND_MS, 36_600 * _DAY_MS, "access is given for a time"),
    "request_window_ms": Bounds(
        30 * _DAY_MS, _SECOND_MS, 366 * _DAY_MS, "a request that nobody answers ends", added=True
    ),
    "computing_share_bp": Bounds(0, 0, BASIS_POINTS, "a part of a task's price, in basis points", added=True),
    "coordinator_share_bp": Bounds(0, 0, BASIS_POINTS, "a part of a task's price, in basis points", added=True),
    "fund_share_bp": Bounds(0, 0, BASIS_POINTS, "a part of a task's price, in basis points", added=True),
    "union_administrator_share_bp": Bounds(
        0, 0, BASIS_POINTS, "a part of what a data union receives, in basis points", added=True
    ),
    "provider_weighting": Bounds(
        0, 0, 3, "0 by price, 1 by published rows, 2 in equal parts, 3 by values read", added=True
    ),
    "settlement_delay_ms": Bounds(0, 0, 366 * _DAY_MS, "providers are paid within a year", added=True),
    "task_fee": Bounds(0, 0, MAX_FEE, "a fee is no wall: points to the consortium's fund, per task", added=True),
    "dataset_fee": Bounds(0, 0, MAX_FEE, "a fee is no wall: points to the fund, per new dataset", added=True),
    "request_fee": Bounds(0, 0, MAX_FEE, "a fee is no wall: points to the fund, per request for access", added=True),
    "block_retention_ms": Bounds(0, 0, 3_660 * _DAY_MS, "disks are bounded: ten years, then archives", added=True),
    "reading_window_ms": Bounds(
        60 * 60 * _SECOND_MS, 600 * _SECOND_MS, 7 * _DAY_MS, "a question and its pages, and no licence", added=True
    ),
}


def defaults() -> Parameters:
    """The parameters of a consortium that says nothing about them; those added later stay unset, see ``get``."""
    return Parameters(**{name: bounds.default for name, bounds in PARAMETERS.items() if not bounds.added})


def get(parameters: Parameters, name: str) -> int:
    """A parameter's value; its default where the parameters are older than it."""
    value: int = getattr(parameters, name)
    bounds = PARAMETERS[name]
    return bounds.default if bounds.added and not value else value


def check(parameters: Parameters) -> None:
    """Check parameters from outside: a genesis file, a proposal. Raises InvalidInput with rule ``parameters``."""
    for name, bounds in PARAMETERS.items():
        value = get(parameters, name)
        if not bounds.least <= value <= bounds.most:
            raise InvalidInput(
                f"the parameter {name} is {value}",
                rule="parameters",
                hint=f"choose a value from {bounds.least} to {bounds.most}: {bounds.reason}",
            )
    if parameters.min_committee > parameters.max_committee:
        raise InvalidInput(
            f"min_committee {parameters.min_committee} exceeds max_committee {parameters.max_committee}",
            rule="parameters",
            hint="no committee could be formed: raise max_committee or lower min_committee",
        )
    given_away = parameters.computing_share_bp + parameters.coordinator_share_bp + parameters.fund_share_bp
    if given_away > BASIS_POINTS:
        raise InvalidInput(
            f"the shares of computing, coordinator and fund add up to {given_away} basis points",
            rule="parameters",
            hint=f"{BASIS_POINTS} are the whole: leave the rest to data providers",
        )
