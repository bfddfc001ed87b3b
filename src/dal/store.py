"""The waist: what every backend is, and all that repositories, layers and moves know of it.

A store reads queries and commits lists of operations. The behaviour below is the contract; `dal.testing` turns each
sentence of it into a test that a backend of anybody's can run.

Rows are tuples of Python values in the order of the query's `columns` (or the table's declared columns): text as `str`,
times as aware UTC `datetime`, JSON documents as plain Python values, ids as lower-case UUID text. Values handed in have
passed the boundary (dal.values): a store does not check them again.

Errors are only those of `dal.errors`, with `backend` set; a driver's error never leaves a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from dal.ops import JsonValue, Op, Query, Receipt, Row, Select, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, and its limits, as data.

    backend              its name, as errors carry it.
    durable              a commit that returned survives power loss.
    multi_process        several processes may use one store at once.
    interactive_transactions  `transaction()` holds locks (True) or is an optimistic unit of work (False).
    search               full-text search is there; else Search raises UnsupportedError.
    triggers             a live move can install its capture triggers.
    commit_lanes         how many merged batches group commit may keep in flight; 1 for a store with a single writer.
    max_text_bytes       longest text value, UTF-8 encoded; longer ones are refused before anything is sent.
    max_batch_ops        operations in one commit.
    """

    backend: str
    durable: bool
    multi_process: bool
    interactive_transactions: bool
    search: bool
    triggers: bool
    commit_lanes: int
    max_text_bytes: int
    max_batch_ops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """What a store says of itself. `parts` holds at least `reachable`; where they have a meaning also `schema`,
    `latency_ms`, `pool`, `disk_free_bytes`, `damaged`: a list of sentences, each naming data that cannot be read and
    that no query shows, and `problems`: a list of sentences, each a reason for `degraded`."""

    status: Literal["ok", "degraded", "down"]
    parts: Mapping[str, JsonValue] = field(default_factory=dict)


class ReadCommit(Protocol):
    """The two words that repositories use, inside a transaction and outside one."""

    async def read(self, query: Query) -> list[Row]:
        """The rows the query asks for.

        Sees every commit that returned before the call, by whatever task or process (inside a transaction: its own
        writes too). A query without `order` returns rows in no promised order. Unknown tables or columns are a
        programming error (KeyError or ValueError at once).
        """
        ...

    async def commit(self, ops: Sequence[Op]) -> Receipt:
        """Carries out the operations in order, all or none, and returns when they are durable.

        Inside a transaction they become visible to it at once and durable when the transaction ends.

        Refused, with nothing written:
        AlreadyExistsError     a unique key is taken (`id` included).
        MissingReferenceError  a parent row, or the row of a Ref, is not there.
        ConflictError          a Guard does not hold, or the engine reports a serialization failure (retryable).
        UnavailableError       the store does not answer. `outcome="unknown"` when it may have committed all the same.
        A cancelled call either happens whole or not at all and leaves no lock or connection behind.
        """
        ...


class Store(ReadCommit, Protocol):
    """A backend, or a layer around one."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def open(self) -> None:
        """Makes the store ready. Raises UnavailableError, ConfigurationError or SchemaError, within the timeouts.

        A second call on an open store does nothing. A store that was closed may be opened again; until then every call
        raises UnavailableError with `retryable` False.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[ReadCommit]:
        """Several commits kept together: all durable when the block ends, none when it raises.

        Serializable: what it read still holds when it commits, else ConflictError (retryable). Its reads see its own
        writes; nobody else sees them before it ends. A commit inside that is refused leaves the transaction usable:
        only that batch has not happened.
        """
        ...

    async def health(self) -> StoreHealth:
        """Never raises, and answers within HEALTH_TIMEOUT_S; `down` when closed."""
        ...

    async def close(self) -> None:
        """Lets go of everything; calls under way finish or fail clearly. A second call does nothing."""
        ...


@runtime_checkable
class SearchIndex(Protocol):
    """What a store with a search index offers beside the waist, for bulk loads and repair.

    Layers hand it through; the command line and the importer use it.
    """

    async def index_pending(self, *, limit: int = 1000) -> int:
        """Indexes up to `limit` rows that are not in the index; how many it did. 0 means the index is whole."""
        ...

    async def drop_search(self) -> None:
        """Empties the index, to be built again with index_pending."""
        ...


class Stored(NamedTuple):
    """Rows as a store has them, and what makes values of them.

    rows      in the order of the query's columns; ids are text in any case.
    decoders  by place in a row, for columns whose form is not the waist's value. A decoder gives one value for one form
              and raises ValueError for what is none; null of a nullable column is not given to it. Without an entry the
              column holds values.
    """

    rows: Sequence[tuple[object, ...]]
    decoders: Mapping[int, Callable[..., Value]]


@runtime_checkable
class StoredRows(Protocol):
    """What a store whose rows have another form than the waist's offers beside it: comparisons of many rows ask for it,
    for what has the same form in two stores need not be decoded. Layers do not hand it through."""

    async def read_stored(self, query: Select) -> Stored:
        """The rows that `read` would give, as they are in the store."""
        ...
