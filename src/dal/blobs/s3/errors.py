"""Answers of S3 as errors of the library: by status and code, never by message text; and which may pass."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final
from xml.etree import ElementTree

import httpx

from dal.errors import (
    AlreadyExistsError,
    ConfigurationError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    Outcome,
    UnavailableError,
    UnsupportedError,
)
from dal.values import Clock

BACKEND: Final = "s3"

#: Statuses after which the same request may succeed, and codes that say so whatever the status.
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_PASSING_CODES: Final = frozenset({"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown"})
#: Refused before anything was done.
_NOT_APPLIED: Final = frozenset({429, 503})
_BY_CODE: Final[dict[str, type[DalError]]] = {
    "NoSuchKey": NotFoundError,
    "NoSuchUpload": NotFoundError,
    "NoSuchBucket": ConfigurationError,
    "PreconditionFailed": AlreadyExistsError,
    "InvalidRange": InvalidInputError,
    "InvalidPart": InvalidInputError,
    "InvalidPartOrder": InvalidInputError,
    "EntityTooSmall": InvalidInputError,
    "EntityTooLarge": LimitExceededError,
    "KeyTooLongError": LimitExceededError,
    "BadDigest": CorruptDataError,
    "InvalidDigest": CorruptDataError,
    "XAmzContentSHA256Mismatch": CorruptDataError,
    "IncompleteBody": CorruptDataError,
    "NotImplemented": UnsupportedError,
    "AuthorizationHeaderMalformed": ConfigurationError,  # the region is another one
    "PermanentRedirect": ConfigurationError,
}
_BY_STATUS: Final[dict[int, type[DalError]]] = {
    301: ConfigurationError,
    307: ConfigurationError,
    401: ConfigurationError,
    403: ConfigurationError,
    404: NotFoundError,
    412: AlreadyExistsError,
    413: LimitExceededError,
    416: InvalidInputError,
    501: UnsupportedError,
}


def code_of(body: bytes) -> str:
    """The code in an error's XML; empty where it has none, as the answer to a HEAD."""
    try:
        return ElementTree.fromstring(body).findtext("Code", "")  # noqa: S314  # expat bounds what entities make
    except ElementTree.ParseError:
        return ""


def may_pass(status: int, code: str) -> bool:
    """Whether the same request may succeed later."""
    return status in _PASSING or code in _PASSING_CODES


def answer_error(operation: str, subject: str, status: int, code: str, *, is_write: bool) -> DalError:
    """What an answer that is no success means."""
    said = f"{operation}: {subject}: the server answered {status} {code}".rstrip()
    named = f"blobs.{operation}"
    if may_pass(status, code):
        outcome: Outcome = "unknown" if is_write and status not in _NOT_APPLIED else "not_applied"
        return UnavailableError(said, operation=named, backend=BACKEND, outcome=outcome)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is None:
        return UnavailableError(said, operation=named, backend=BACKEND, retryable=False)
    advice = "; look at BLOB_URL, its region, the access key and this machine's clock"
    return kind(f"{said}{advice if kind is ConfigurationError else ''}", operation=named, backend=BACKEND)


def transport_error(operation: str, subject: str, error: httpx.TransportError, *, is_write: bool) -> DalError:
    """What a connection that failed means."""
    # No connection, nothing done; behind that, the request may have arrived.
    is_unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    kind = DalTimeoutError if isinstance(error, httpx.TimeoutException) else UnavailableError
    return kind(
        f"{operation}: {subject}: no answer ({type(error).__name__})",
        operation=f"blobs.{operation}",
        backend=BACKEND,
        outcome="unknown" if is_write and not is_unsent else "not_applied",
    )


def retry_after_s(headers: httpx.Headers, clock: Clock) -> float | None:
    """The seconds that an answer asks to be left alone for; None where it does not say."""
    said = headers.get("retry-after", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max((parsedate_to_datetime(said) - clock()).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None
