"""What one SQL engine is to the shared compiler and store: a dialect (a value) and an executor (a protocol).

A dialect says how the engine writes placeholders, encodes and decodes each kind of column, locks a row and keeps search
terms. An executor runs statements, which are plain values, and reports a broken constraint as `Violation`; the store
knows the operations and turns it into an error of the taxonomy. Every other driver error is translated by the executor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from dal.ops import JsonValue, Op, Row, Value
from dal.schema.connection import EngineName
from dal.tables import Kind

if TYPE_CHECKING:
    from dal.backends.sql.compiler import Compiler
    from dal.search import SearchQuery


class Link(NamedTuple):
    """A parameter that an earlier statement of the same batch returned: filled in before the statement runs.

    row      place in `params` of a `many` statement; 0 otherwise.
    position place in that parameter row.
    source   index of the earlier statement in the batch, one with `returns`.
    column   place in the row it returned.
    plus     added to it.
    A source that returned no row is a Violation of kind "missing".
    """

    row: int
    position: int
    source: int
    column: int
    plus: int


class Statement(NamedTuple):
    """One SQL statement with its parameters.

    params   empty: the text is run as it is (a migration may hold any character, `%` too).
    returns  its rows are wanted.
    many     `params` is a list of parameter rows; the statement runs once for each. Never with `returns`.
    links    parameters to fill in at run time; `params` then holds lists. Only planners whose executor resolves links
             between statements without a round trip (SQLite) make them.
    recall   makes a SELECT that gives the rows it returned, for an executor that learns later that a batch was carried
             out and its answer lost (D1). counted: their number goes too, for it could not be found out afterwards.
    """

    sql: str
    params: Sequence[object] = ()
    returns: bool = False
    many: bool = False
    links: Sequence[Link] = ()
    recall: Callable[[], Statement] | None = None
    counted: bool = False


class Result(NamedTuple):
    """What a statement did: the number of rows it wrote, and the rows it returned."""

    written: int
    rows: Sequence[tuple[object, ...]] = ()


class Step(NamedTuple):
    """A statement and the operations `ops[start:stop]` that it carries out.

    settle  turns the result (and the parameters, links filled in) into (count, returned row) of each of them, in
            order; None for a statement of the store's own, as one that feeds the search index.
    """

    statement: Statement
    start: int
    stop: int
    settle: Callable[[Result, Sequence[object]], Sequence[tuple[int, Row | None]]] | None = None


#: Encodes one value for the driver, or decodes one the driver gave.
Encoder: TypeAlias = Callable[..., object]
Decoder: TypeAlias = Callable[..., Value]
#: Turns a batch of operations into steps. Steps keep the order of the operations.
Planner: TypeAlias = Callable[[Sequence[Op], "Compiler"], list[Step]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSql:
    """How an engine keeps the search terms of a table, as SQL around the shared compiler.

    present    SELECT that gives a row where the index exists.
    insert     INSERT INTO … SELECT …, (terms placeholder) FROM messages; the compiler appends the WHERE.
    insert_many  the same for many rows in one statement, where executing `insert` for each costs more, else empty; up
               to and including its WHERE. Its one parameter holds their terms and ids, made by encode_list.
    delete     DELETE FROM … up to and including `IN (SELECT … FROM messages`; the compiler appends the WHERE and `)`.
    candidate  condition on a row of messages, with one placeholder for the encoded query.
    pending    condition on a row of messages that is not in the index.
    clear      statements that empty the index.
    settle     statements that follow a bulk build of it: the planner's statistics, where the engine would be late.
    encode_terms  index terms as the parameter of `insert`; encode_query as that of `candidate`.
    """

    present: str
    insert: str
    delete: str
    candidate: str
    pending: str
    clear: tuple[str, ...]
    settle: tuple[str, ...]
    encode_terms: Callable[[Sequence[str]], object]
    encode_query: Callable[[SearchQuery], object]
    insert_many: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One engine's SQL, as a value.

    engine       which of the schema directories it takes; D1 is `sqlite`.
    placeholders  by kind: `?`, `%s`, or with a cast. `placeholder` is that of a plain integer or text.
    encoders     by kind, for kinds whose Python value the driver does not take as it is. JSON sees None as null.
    decoders     by kind, for kinds whose driver value is not the waist's. Never called with None.
    contains     `{column}` and the kind to SQL that holds when the column is in the one parameter made by encode_list.
    encode_list  encoded values to that parameter.
    distinct     operator for "differs, null being a value".
    row_lock     appended to a Guard's sub-select so that the row stays as it was seen until the batch commits.
    plan         turns batches into statements; the default is one statement an operation (plan.plan_each).
    selected     by kind, how a column stands in a list of results: `CAST({} AS TEXT)`; other kinds as they are.
    plan_searched the same where the search index is there, feeding it too; None: the store feeds it behind the batch.
    """

    engine: EngineName
    placeholder: str
    encoders: Mapping[Kind, Encoder]
    decoders: Mapping[Kind, Decoder]
    contains: Callable[[str, Kind], str]
    encode_list: Callable[[list[object]], object]
    distinct: str
    search: SearchSql
    plan: Planner
    placeholders: Mapping[Kind, str]
    row_lock: str = ""
    selected: Mapping[Kind, str] = field(default_factory=dict)
    plan_searched: Planner | None = None


class Violation(Exception):
    """A constraint refused a statement. Raised by executors, caught by the store, never seen by callers.

    kind        unique, foreign key, not null, check, or missing (a link without a row).
    statement   index of the refused statement in the batch; None where the engine does not say.
    constraint  name of the constraint or index; empty where the engine does not give it apart from its message.
    """

    def __init__(
        self,
        kind: Literal["unique", "foreign key", "not null", "check", "missing"],
        *,
        statement: int | None = None,
        constraint: str = "",
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.statement = statement
        self.constraint = constraint


class Session(Protocol):
    """Runs statements: an executor outside a transaction, or what its `transaction()` gives."""

    async def fetch(self, statement: Statement) -> Sequence[tuple[object, ...]]:
        """The rows of one reading statement; it sees every batch that returned before."""
        ...

    async def batch(self, statements: Sequence[Statement]) -> Sequence[Result]:
        """Runs them in order, all or none, and returns when they are durable; inside a transaction, when they are
        part of it (a refused batch leaves the transaction usable). One round trip or thread hop where the engine
        allows it. A cancelled call has happened whole or not at all. Raises Violation and errors of the taxonomy."""
        ...


class Executor(Session, Protocol):
    """What a new SQL engine implements, beside a Dialect."""

    async def open(self) -> None:
        """Connects, within the timeouts; UnavailableError or ConfigurationError otherwise. Twice is harmless."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """A serializable transaction: committed when the block ends, rolled back when it raises or is cancelled."""
        ...

    async def health(self) -> tuple[dict[str, JsonValue], list[str]]:
        """The engine's own parts of `StoreHealth.parts` (pool, disk space …) and the problems that degrade it.
        May raise; the store bounds its time and measures reachability and latency by itself."""
        ...

    async def close(self) -> None:
        """Lets go of every connection and thread. Twice is harmless."""
        ...
