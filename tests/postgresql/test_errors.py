"""The error table: every SQLSTATE that matters has its class, its outcome, and no text of the server's."""

from __future__ import annotations

import psycopg
import pytest
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from dal.backends.postgresql.errors import connection_refused, translate, translate_read
from dal.backends.sql import Violation
from dal.errors import (
    ConfigurationError,
    ConflictError,
    CorruptDataError,
    DalError,
    DalTimeoutError,
    InvalidInputError,
    LimitExceededError,
    SchemaError,
    UnavailableError,
    UnsupportedError,
)

SECRET = "s3cret-content"

TABLE = [
    ("0A000", UnsupportedError, False),
    ("08006", UnavailableError, True),
    ("22001", InvalidInputError, False),
    ("22021", InvalidInputError, False),
    ("25006", UnavailableError, True),
    ("25P03", UnavailableError, True),
    ("26000", ConfigurationError, False),
    ("28000", ConfigurationError, False),
    ("28P01", ConfigurationError, False),
    ("3D000", ConfigurationError, False),
    ("40001", ConflictError, True),
    ("40P01", ConflictError, True),
    ("42501", ConfigurationError, False),
    ("42703", SchemaError, False),
    ("42P01", SchemaError, False),
    ("42P05", ConfigurationError, False),
    ("53100", UnavailableError, True),
    ("53300", UnavailableError, True),
    ("54000", LimitExceededError, False),
    ("55P03", DalTimeoutError, True),
    ("57014", DalTimeoutError, True),
    ("57P01", UnavailableError, True),
    ("57P02", UnavailableError, True),
    ("57P03", UnavailableError, True),
    ("58030", UnavailableError, True),
    ("XX001", CorruptDataError, False),
    ("42601", DalError, False),
]


def _error(state: str) -> psycopg.Error:
    return psycopg.errors.lookup(state)(SECRET)


@pytest.mark.parametrize(("state", "found", "retryable"), TABLE, ids=[row[0] for row in TABLE])
def test_each_sqlstate_has_its_error(state: str, found: type[DalError], retryable: bool) -> None:
    error = translate(_error(state), "commit")
    assert type(error) is found
    assert error.retryable is retryable
    assert error.outcome == "not_applied"
    assert (error.backend, error.operation) == ("postgresql", "commit")
    assert state in error.message
    assert SECRET not in error.message


@pytest.mark.parametrize("state", ["23505", "23503", "23502", "23514"])
def test_a_broken_constraint_names_its_statement(state: str) -> None:
    found = translate(_error(state), "commit", statement=3)
    assert isinstance(found, Violation)
    assert found.statement == 3


@pytest.mark.parametrize("state", ["08006", "57P01", "57P02", "57P03"])
def test_a_write_on_its_way_when_the_connection_ends_may_have_happened(state: str) -> None:
    error = translate(_error(state), "commit", sent=True)
    assert isinstance(error, UnavailableError)
    assert error.outcome == "unknown"


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014", "53100"])
def test_a_write_that_the_server_refused_has_not_happened(state: str) -> None:
    error = translate(_error(state), "commit", sent=True)
    assert isinstance(error, DalError)
    assert error.outcome == "not_applied"


@pytest.mark.parametrize(
    ("error", "found", "outcome"),
    [
        (psycopg.OperationalError("server closed the connection"), UnavailableError, "unknown"),
        (psycopg.InterfaceError("the connection is closed"), UnavailableError, "unknown"),
        (PoolTimeout("no connection"), DalTimeoutError, "not_applied"),
        (TooManyRequests("too many"), DalTimeoutError, "not_applied"),
        (PoolClosed("closed"), UnavailableError, "not_applied"),
        (psycopg.ProgrammingError("cannot adapt"), DalError, "not_applied"),
    ],
)
def test_an_error_without_a_code_is_told_by_its_class(
    error: psycopg.Error, found: type[DalError], outcome: str
) -> None:
    translated = translate(error, "commit", sent=True)
    assert type(translated) is found
    assert translated.outcome == outcome


def test_a_read_never_has_an_unknown_outcome() -> None:
    assert translate_read(psycopg.OperationalError("gone")).outcome == "not_applied"


def test_a_refused_connection_says_where_and_why() -> None:
    error = connection_refused("28P01", "postgresql://db:5432/app", needs_password=False)
    assert isinstance(error, ConfigurationError)
    assert "postgresql://db:5432/app" in error.message
    assert "28P01" in error.message
    assert isinstance(connection_refused("", "postgresql://db/app", needs_password=True), ConfigurationError)
    assert isinstance(connection_refused("", "postgresql://db/app", needs_password=False), UnavailableError)
