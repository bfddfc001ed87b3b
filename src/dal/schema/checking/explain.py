"""Key queries and their plans: a query that reads a whole table is found before production finds it.

The queries stand in `checks/explain.sql` beside the migrations. PostgreSQL plans them without sequential scans wherever
there is another way, so that the empty tables of a test tell what full ones will do; SQLite plans by its statistics
alone, which do not mind how many rows there are. A query's time is that of running it, not of its plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from dal.errors import DalError, SchemaError, UnavailableError
from dal.schema.checking.query_plan import Plan, postgresql_plan, sqlite_plan
from dal.schema.checking.questions import DIRECTORY, Query, queries, read_queries, reads_only
from dal.schema.connection import Connection

_RUNS: Final = 5
#: First column of each B-tree index over several.
_LEADING: Final = """
SELECT c.relname::text, pg_get_indexdef(i.indexrelid, 1, true)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indnkeyatts > 1 AND a.amname = 'btree' AND pg_table_is_visible(c.oid)
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One query and its plan.

    plan_lines     as the engine gives it, nested by indentation.
    indexes        that it uses.
    full_scans     tables that it reads from end to end.
    whole_indexes  indexes that it reads from end to end; allowed, and worth a look.
    duration_ms    median of several runs; None for a statement that writes, which is planned and never run.
    problems       why the check fails; empty where it does not.
    """

    query: Query
    plan_lines: tuple[str, ...]
    indexes: tuple[str, ...]
    full_scans: tuple[str, ...]
    whole_indexes: tuple[str, ...]
    duration_ms: float | None
    problems: tuple[str, ...]

    @property
    def full_scan(self) -> bool:
        return bool(self.full_scans)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, object]:
        """The same as plain dictionaries and lists, for a report."""
        return asdict(self) | {"ok": self.ok}


async def explain(
    connection: Connection, source: Path | Sequence[str | Query], *, runs: int = _RUNS
) -> list[Explained]:
    """Every query with its plan and its time, in order.

    source  a directory of migrations, whose `checks/explain.sql` is read (no file, no queries), or the queries.
    runs    how often each query is run for its time; 0: not at all.
    Raises  SchemaError: a query is refused (it names file and line), or the file is wrong.
    """
    chosen = _queries(connection, source)
    leading: dict[str, str] = {}
    if chosen and connection.engine == "postgresql":
        leading = {str(index): str(column) for index, column in await connection.fetch(_LEADING)}
    return [await _explained(connection, query, leading, runs) for query in chosen]


def _queries(connection: Connection, source: Path | Sequence[str | Query]) -> list[Query]:
    if isinstance(source, Path):
        return list(read_queries(source / DIRECTORY / "explain.sql", connection.engine))
    found: list[Query] = []
    for query in source:
        found += [query] if isinstance(query, Query) else queries(query, connection.engine)
    return found


async def _explained(connection: Connection, query: Query, leading: Mapping[str, str], runs: int) -> Explained:
    try:
        rows = await connection.explain(query.sql)
        duration_ms = await _duration_ms(connection, query.sql, runs)
    except UnavailableError:
        raise
    except DalError as error:
        raise SchemaError(f"{query.place}: {error.message}", operation="schema.explain") from error
    plan = sqlite_plan(rows) if connection.engine == "sqlite" else postgresql_plan(str(rows[0][0]), leading)
    return Explained(
        query=query,
        plan_lines=plan.lines,
        indexes=plan.indexes,
        full_scans=plan.full_scans,
        whole_indexes=plan.whole_indexes,
        duration_ms=duration_ms,
        problems=tuple(_problems(query, plan)),
    )


def _problems(query: Query, plan: Plan) -> list[str]:
    found = []
    if plan.full_scans and not query.allow_scan:
        found.append(f"reads every row of {', '.join(plan.full_scans)}")
    if query.indexes and not set(query.indexes) & set(plan.indexes):
        used = ", ".join(plan.indexes) or "none"
        found.append(f"index {' or '.join(query.indexes)} expected, used {used}")
    return found


async def _duration_ms(connection: Connection, sql: str, runs: int) -> float | None:
    if not runs or not reads_only(sql, connection.engine):
        return None
    times = []
    for _ in range(runs):
        started = perf_counter()
        await connection.fetch(sql)
        times.append((perf_counter() - started) * 1000)
    return round(median(times), 3)
