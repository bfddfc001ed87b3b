"""Writes batches of records into a store, each record whole or not at all.

A batch is one commit, planned while an earlier one is written. When it is refused - somebody else took a key, a stored
document is corrupt, a value is too large for this backend - its records are tried one at a time, so that a bad one
never takes others with it. When the answer is lost or the store is busy the batch is planned again from what is stored
by then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import cast

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from dal.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    DalError,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
    QuotaExceededError,
)
from dal.importing.batches import Record
from dal.importing.conversations import Conversation
from dal.importing.personas import Persona
from dal.importing.plan import Plan
from dal.importing.plan_chats import plan_conversations
from dal.importing.plan_memory import plan_personas
from dal.importing.report import ImportReport, Refusal
from dal.importing.users import Users
from dal.limits import RETRY_ATTEMPTS, RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S
from dal.ops import Op
from dal.store import Store

# Errors that speak of the records; every other one speaks of the store and ends the import.
_REFUSALS = (
    AlreadyExistsError,
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    MissingReferenceError,
    NotFoundError,
    QuotaExceededError,
)


class Loader:
    """Writes records and counts them in the report. `refuse` gets every record that cannot be written."""

    def __init__(
        self, store: Store, report: ImportReport, refuse: Callable[[Refusal], None], file_time: datetime
    ) -> None:
        self._store = store
        self._report = report
        self._refuse = refuse
        self._file_time = file_time
        self._users = Users(store)

    async def prepare(self, records: Sequence[Record]) -> Callable[[], Awaitable[None]]:
        """Plans a batch; what comes back makes it durable when it is called.

        Batches are prepared one after another, in the order of the file, and may be written side by side.
        """
        try:
            plan = await self._plan(records) if records else None
        except DalError:
            plan = None  # met again, and looked into, when the batch is written
        return partial(self._write_planned, records, plan)

    async def load(self, records: Sequence[Record]) -> None:
        """Makes records durable. Raises what is wrong with the store, never what is wrong with a record."""
        try:
            plan = await self._write(records)
        except _REFUSALS as error:
            self._users.forget()
            if len(records) == 1:
                self._refuse(self._refusal(records[0], f"{type(error).__name__}: {error.message}"))
                return
            for record in records:
                await self.load([record])
            return
        self._count(plan, records)

    async def _write_planned(self, records: Sequence[Record], plan: Plan | None) -> None:
        if not records:
            return
        if plan is not None:
            try:
                await self._commit(plan.ops)
            except DalError:
                self._users.forget()
            else:
                self._count(plan, records)
                return
        await self.load(records)

    async def _write(self, records: Sequence[Record]) -> Plan:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, DalError) and error.retryable),
            stop=stop_after_attempt(RETRY_ATTEMPTS),
            wait=wait_random_exponential(RETRY_FIRST_WAIT_S, RETRY_MAX_WAIT_S),
            before_sleep=lambda _: self._users.forget(),
            reraise=True,
        ):
            with attempt:
                plan = await self._plan(records)
                await self._commit(plan.ops)
        return plan

    async def _plan(self, records: Sequence[Record]) -> Plan:
        if isinstance(records[0], Conversation):
            return await plan_conversations(self._store, self._users, cast("Sequence[Conversation]", records))
        return await plan_personas(self._store, self._users, cast("Sequence[Persona]", records), self._file_time)

    async def _commit(self, ops: list[Op]) -> None:
        most = self._store.capabilities.max_batch_ops
        if len(ops) <= most:
            if ops:
                await self._store.commit(ops)
            return
        async with self._store.transaction() as transaction:  # one conversation larger than a commit may be
            for start in range(0, len(ops), most):
                await transaction.commit(ops[start : start + most])

    def _count(self, plan: Plan, records: Sequence[Record]) -> None:
        report = self._report
        report.users = self._users.created
        report.chats += plan.chats
        report.grown += plan.grown
        report.messages += plan.messages
        report.memory_items += plan.memory_items
        report.unchanged += plan.unchanged
        report.replaced += sum(record.replaced for record in records)
        for record in records:
            if record.line in plan.conflicts:
                self._refuse(self._refusal(record, plan.conflicts[record.line]))

    def _refusal(self, record: Record, reason: str) -> Refusal:
        chat_id = record.chat_id if isinstance(record, Conversation) else None
        return Refusal(self._report.file, record.line, chat_id, record.user, reason)
