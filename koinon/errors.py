"""Every error a user of Koinon meets.

::

    KoinonError
    ├── InvalidInput            the caller's arguments, files or SQL            exit 2   INVALID_ARGUMENT
    │   ├── InvalidName         a malformed institution, person, dataset, column name
    │   ├── InvalidFile         unreadable, empty, ragged or wrongly encoded; a wrong genesis, key or profile
    │   └── UnsupportedQuery    SQL outside what a joint query may say
    ├── NotFound                no such dataset, task, token, person            exit 3   NOT_FOUND
    ├── Refused                 a rule of the consortium says no                exit 4   FAILED_PRECONDITION
    │   ├── PermissionRefused   the caller may not                              exit 4   PERMISSION_DENIED
    │   └── TaskFailed          a task ended without a result                   exit 4   FAILED_PRECONDITION
    ├── Unauthenticated         no valid ticket, wrong key                      exit 5   UNAUTHENTICATED
    ├── Unavailable             the node is down, syncing, or out of reach      exit 6   UNAVAILABLE
    │   └── DeadlineExceeded    nothing decided in time; nothing is lost        exit 6   DEADLINE_EXCEEDED
    │       └── StatusUnknown   a transaction was sent, its outcome is not known yet
    ├── Exhausted               a bound was hit: pool, disk, message size       exit 7   RESOURCE_EXHAUSTED
    └── Corrupt                 a disk, file or peer contradicts the ledger     exit 8   DATA_LOSS

Each carries the ``rule`` that refused (a word of koinon.rules), a ``message`` for a person, and a
``hint``: what to do next. The table of gRPC statuses and exit codes is in the classes themselves.
"""

from __future__ import annotations

from typing import ClassVar


class KoinonError(Exception):
    """Base of all. ``rule`` names what refused, ``hint`` says what to do; both may be empty."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[str] = "INTERNAL"  # name of a grpc.StatusCode
    default_rule: ClassVar[str] = "internal"

    def __init__(self, message: str, *, rule: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.rule = rule or self.default_rule
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InvalidInput(KoinonError):
    exit_code = 2
    status = "INVALID_ARGUMENT"
    default_rule = "invalid-input"


class InvalidName(InvalidInput):
    default_rule = "invalid-name"


class InvalidFile(InvalidInput):
    default_rule = "invalid-file"


class UnsupportedQuery(InvalidInput):
    default_rule = "unsupported-query"


class NotFound(KoinonError):
    exit_code = 3
    status = "NOT_FOUND"
    default_rule = "not-found"


class Refused(KoinonError):
    exit_code = 4
    status = "FAILED_PRECONDITION"
    default_rule = "refused"


class PermissionRefused(Refused):
    status = "PERMISSION_DENIED"
    default_rule = "permission"


class TaskFailed(Refused):
    """A task ended without a result; ``task_id`` finds it on the ledger."""

    default_rule = "task-failed"

    def __init__(self, message: str, *, rule: str = "", hint: str = "", task_id: str = "") -> None:
        super().__init__(message, rule=rule, hint=hint)
        self.task_id = task_id


class Unauthenticated(KoinonError):
    exit_code = 5
    status = "UNAUTHENTICATED"
    default_rule = "unauthenticated"


class Unavailable(KoinonError):
    exit_code = 6
    status = "UNAVAILABLE"
    default_rule = "unavailable"


class DeadlineExceeded(Unavailable):
    status = "DEADLINE_EXCEEDED"
    default_rule = "deadline"


class StatusUnknown(DeadlineExceeded):
    """A transaction was sent and not decided in time: ask for ``transaction_id``, or send ``envelope`` again."""

    default_rule = "status-unknown"

    def __init__(
        self, message: str, *, rule: str = "", hint: str = "", transaction_id: bytes = b"", envelope: bytes = b""
    ) -> None:
        super().__init__(message, rule=rule, hint=hint)
        self.transaction_id = transaction_id
        self.envelope = envelope


class Exhausted(KoinonError):
    exit_code = 7
    status = "RESOURCE_EXHAUSTED"
    default_rule = "exhausted"


class Corrupt(KoinonError):
    exit_code = 8
    status = "DATA_LOSS"
    default_rule = "corrupt"


BY_STATUS: dict[str, type[KoinonError]] = {
    cls.status: cls
    for cls in (
        KoinonError,
        InvalidInput,
        NotFound,
        Refused,
        PermissionRefused,
        Unauthenticated,
        Unavailable,
        DeadlineExceeded,
        Exhausted,
        Corrupt,
    )
}
"""What a client raises for each gRPC status it receives."""
