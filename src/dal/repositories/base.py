"""What the repositories share: the store, the clock, the id maker, and the checks at the boundary.

A repository turns a call into values of the waist and rows back into records. It checks everything a caller hands in
before anything is sent, so that bad input is refused in the same way on every backend.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction
from typing import NamedTuple, ParamSpec, TypeVar

from pydantic import BaseModel

from dal.cursor import Listing
from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    DalError,
    InvalidInputError,
    NotFoundError,
    Outcome,
    UnavailableError,
)
from dal.limits import MAX_INT64, MAX_PAGE_ROWS
from dal.models import Page, build, page
from dal.ops import Compare, Guard, Insert, Op, Row, Select, Update, Value
from dal.store import ReadCommit
from dal.tables import Kind, Table
from dal.values import Clock, IdMaker, as_id, check_column, check_int, check_limit, check_object

P = ParamSpec("P")
R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")


class Context(NamedTuple):
    """What every repository of one DataAccess works with."""

    store: ReadCommit
    clock: Clock
    new_id: IdMaker
    backend: str


def checked_row(table: Table, values: Mapping[str, Value]) -> dict[str, Value]:
    """A whole row, each value checked by the table's declaration."""
    return {c: check_column(table, c, values[c]) for c in table.names}


def whole_row(table: Table, values: Mapping[str, Value]) -> Insert:
    """The insert of a whole row, each value checked by the table's declaration."""
    return Insert(table.name, checked_row(table, values))


class Repository:
    """Base of the typed repositories. Its subclasses' public calls name themselves in every error they raise."""

    table: Table

    def __init_subclass__(cls) -> None:
        for name, function in list(vars(cls).items()):
            operation = f"{cls.__name__.lower()}.{name}"
            if name.startswith("_"):
                continue
            if iscoroutinefunction(function):
                setattr(cls, name, _named(operation, function))
            elif isasyncgenfunction(function):
                setattr(cls, name, _named_generator(operation, function))

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self.backend = context.backend
        self._now = context.clock
        self._new_id = context.new_id

    async def _one(self, model: type[R], key: str, value: Value, *extra: Compare) -> R | None:
        rows = await self._store.read(Select(self.table.name, (Compare(key, "=", value), *extra), limit=1))
        return self._record(model, rows[0]) if rows else None

    def _record(self, model: type[R], row: Row) -> R:
        """A record whose fields are columns of this table; columns that are no field of it stay behind."""
        return build(model, zip(self.table.names, row, strict=True))

    def _insert(self, values: Mapping[str, Value]) -> Insert:
        return whole_row(self.table, values)

    async def _create(self, model: type[R], values: Mapping[str, Value], *, given_id: bool = False) -> R:
        """Inserts a row and gives it back.

        A repeat gives what is stored: after a lost answer (an id made here can only be taken by this very call's first
        try) and, under an id of the caller's, when all that the caller chose is the same.
        """
        insert = self._insert(values)
        try:
            await self._store.commit((insert,))
        except AlreadyExistsError as error:
            row_id: str = insert.row["id"]  # type: ignore[assignment]  # no Ref in `_insert`
            stored = await self._behind(self._one(model, "id", row_id), error.outcome)
            if stored is None or not self._same(stored, insert.row, given_id=given_id):
                error.outcome = "not_applied"  # also after a lost answer: the row was looked for
                raise
            return stored
        return self._record(model, tuple(insert.row[c] for c in self.table.names))  # type: ignore[misc]

    def _same(self, stored: BaseModel, row: Mapping[str, object], *, given_id: bool) -> bool:
        later = {"created_at", "updated_at", "last_active_at", "version"} if given_id else set()
        return all(getattr(stored, c, row[c]) == row[c] for c in self.table.names if c not in later)

    async def _change(
        self,
        model: type[R],
        key: Mapping[str, str],
        changes: Mapping[str, object],
        *,
        allowed: Sequence[str],
        expected_version: int | None,
        where: tuple[Compare, ...] = (),
    ) -> R:
        """Sets columns of one row, raises its version, and gives the row back.

        where   what the row meets, or it is not there.
        Raises NotFoundError; ConflictError when the row is not at `expected_version`; InvalidInputError for a column
        that callers may not change.
        """
        values: dict[str, Value] = {}
        for column, value in changes.items():
            if column not in allowed:
                raise InvalidInputError(f"{self.table.name}: {column!r} cannot be updated; use {', '.join(allowed)}")
            if self.table.by_name[column].kind is Kind.JSON:  # every document that may be updated is an object
                values[column] = check_object(f"{self.table.name}.{column}", value)
            else:
                values[column] = check_column(self.table, column, value)
        expected: dict[str, Value] = {}
        if expected_version is not None:
            expected["version"] = check_int("expected_version", expected_version, 1, MAX_INT64)
        ops: list[Op] = [Guard(self.table.name, key, expected, where)] if expected or where else []
        if not values:  # nothing to change is no change: the row as it is, the version still checked
            return await self._unchanged(model, key, expected_version, where)
        values["updated_at"] = self._now()
        ops.append(Update(self.table.name, key, values, {"version": 1}, self.table.names))
        try:
            row = (await self._store.commit(ops)).rows[-1]
        except ConflictError as error:
            if not error.retryable and ops[:-1]:  # a guard refused it: this says what was found
                await self._behind(self._unchanged(model, key, expected_version, where), error.outcome)
            raise
        if row is None:
            raise self._not_found(key)
        return self._record(model, row)

    async def _unchanged(
        self, model: type[R], key: Mapping[str, str], expected_version: int | None, where: tuple[Compare, ...]
    ) -> R:
        at = tuple(Compare(c, "=", v) for c, v in key.items())
        rows = await self._store.read(Select(self.table.name, (*at, *where)))
        if not rows:
            raise self._not_found(key)
        found = rows[0][self.table.names.index("version")]
        if expected_version is not None and found != expected_version:
            raise ConflictError(
                f"{self.table.name}{list(key.values())!r} is at version {found}, expected {expected_version}; "
                "read it again and retry"
            )
        return self._record(model, rows[0])

    async def _behind(self, read: Awaitable[T], outcome: Outcome) -> T:
        """What a read behind a write gives. Where it cannot be had, its error says what became of the write."""
        try:
            return await read
        except UnavailableError as error:
            error.outcome = outcome
            raise

    def _not_found(self, key: Mapping[str, str]) -> NotFoundError:
        return NotFoundError(f"{self.table.name}: no row with {dict(key)!r}")

    async def _page(
        self,
        model: type[R],
        order: tuple[str, ...],
        filters: Sequence[Compare],
        *,
        limit: int,
        after: str | None,
    ) -> Page[R]:
        """One page of a listing in this order, whose last column is unique."""
        listing = Listing(self.table.name, order, tuple(filters))
        count = check_limit("limit", limit, MAX_PAGE_ROWS)
        rows = await self._store.read(
            Select(self.table.name, tuple(filters), order, listing.after(after), count + 1, self.table.names)
        )
        items = [self._record(model, r) for r in rows[:count]]
        if len(rows) <= count:
            return page(model, items, None)
        places = [self.table.names.index(c.removeprefix("-")) for c in order]
        return page(model, items, listing.cursor([rows[count - 1][i] for i in places]))

    def _filters(self, **values: object) -> list[Compare]:
        """`column = value` for every filter that was given."""
        return [
            Compare(column, "=", check_column(self.table, column, value))
            for column, value in values.items()
            if value is not None
        ]


def _named(operation: str, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """The same call, whose errors say which call it was and on which backend."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except DalError as error:
            _name(error, operation, args[0])
            raise

    return call


def _named_generator(operation: str, function: Callable[P, AsyncIterator[T]]) -> Callable[P, AsyncIterator[T]]:
    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        try:
            async for item in function(*args, **kwargs):
                yield item
        except DalError as error:
            _name(error, operation, args[0])
            raise

    return call


def _name(error: DalError, operation: str, repository: object) -> None:
    error.operation = operation
    if not error.backend and isinstance(repository, Repository):
        error.backend = repository.backend


def known_id(field: str, value: object) -> str | None:
    """The id in canonical form, or None for text that no row can have as its id."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{field}: expected text, got {type(value).__name__}")
    return as_id(value)
