"""The error taxonomy: every failure a caller can meet is one of these classes.

Each error says whether trying again can help (`retryable`) and whether the write may have happened (`outcome`).
Drivers' errors are translated once, at the edge of a backend, by code and never by message text, and chained with
`from`. No message ever holds a secret, a password or a message's content.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Outcome = Literal["not_applied", "unknown"]


class DalError(Exception):
    """Base of all errors of this library.

    operation  what was tried, as `users.update` or `commit`; empty when raised outside a call.
    backend    name of the store that reported it: `file`, `sqlite`, `postgresql`, …; empty at the boundary.
    retryable  the same call may succeed later without any change by the caller.
    outcome    `not_applied`: nothing was written.  `unknown`: the answer was lost; the write may or may not be there.
    """

    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        backend: str = "",
        retryable: bool | None = None,
        outcome: Outcome = "not_applied",
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.backend = backend
        self.retryable = self.default_retryable if retryable is None else retryable
        self.outcome: Outcome = outcome

    @property
    def message(self) -> str:
        """What was tried, on what, what was found and what to do."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.operation, self.backend, self.retryable, self.outcome))


def _rebuild(
    cls: type[DalError], message: str, operation: str, backend: str, retryable: bool, outcome: Outcome
) -> DalError:
    return cls(message, operation=operation, backend=backend, retryable=retryable, outcome=outcome)


class NotFoundError(DalError):
    """The row to change is not there."""


class AlreadyExistsError(DalError):
    """Another row holds this id or unique key."""


class ConflictError(DalError):
    """Somebody was faster: a stale version, an unexpected sequence, or a serialization failure.

    Read again and retry; `run_in_transaction` does. `retryable` is True where repeating the same transaction can help.
    """


class FencedError(ConflictError):
    """The store does not take writes for this entity now, because a live move is switching it."""

    default_retryable = True


class MissingReferenceError(DalError):
    """The row refers to a user or chat that is not there."""


class InvalidInputError(DalError, ValueError):
    """The caller's value is refused at the boundary; nothing was written."""


class LimitExceededError(InvalidInputError):
    """The value is well formed but larger than a named limit allows."""


class QuotaExceededError(DalError):
    """The owner's quota has no room for this."""


class AccessDeniedError(DalError):
    """The caller may not do that with this file, or there is no such file: who has no right does not learn which."""


class UnsupportedError(DalError):
    """This backend, or this state of it, cannot do that."""


class UnavailableError(DalError):
    """The store did not answer, or answered that it cannot serve now."""

    default_retryable = True


class DalTimeoutError(UnavailableError):
    """The store did not answer in the configured time."""


class CorruptDataError(DalError):
    """Stored data is not what this library wrote; it is named, isolated and never guessed at."""


class ConfigurationError(DalError):
    """A setting or URL is wrong; the message names the variable, the value (never a secret) and what is allowed."""


class SchemaError(DalError):
    """The store's schema is missing, older or newer than this library; nothing was written."""


def transaction_over(operation: str, backend: str) -> UnsupportedError:
    """The error for a call in a transaction that has ended: what it had may be somebody else's by now."""
    return UnsupportedError(
        f"{operation}: this transaction is over; begin another", operation=operation, backend=backend
    )
