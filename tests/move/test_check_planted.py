"""Differences planted at random in one of two equal stores: the check names exactly those, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dal.move.checking import check
from dal.move.differences import Difference
from dal.ops import Compare, Delete, Insert, JsonValue, Op, Ref, Upsert, Value
from dal.tables import CHILDREN, TABLES, Kind
from dal.testing import rows
from tests.move.pairs import COUNTS, FIRST, PAIRS, Pair, more, pair_of, seeded
from tests.move.test_canonical import documents, equal_in_meaning

ID = rows.row_id

#: Columns that may hold anything of their kind: no key, no reference.
FREE = {
    name: tuple(
        column.name
        for column in table.columns
        if column.name not in {"id", *table.parent_of, *(c for key in table.unique_keys for c in key)}
    )
    for name, table in TABLES.items()
}
#: Tables whose rows nothing hangs on.
LEAVES = tuple(name for name, children in CHILDREN.items() if not children)
NEW: dict[str, Callable[[int], Mapping[str, Value | Ref]]] = {
    "users": rows.user,
    "chat_sessions": rows.chat,
    "messages": lambda n: rows.message(n, 100),
    "user_memory": lambda n: rows.memory(n, 1),
    "files": lambda n: rows.file(n, 1),
    "system_logs": rows.log,
}
#: Two of a user's would be refused, and the ones there hold the users already.
UNIQUE = "user_quotas"

_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)
VALUES: dict[Kind, st.SearchStrategy[Value]] = {
    Kind.ID: st.integers(1, 9).map(rows.row_id),
    Kind.TEXT: _texts | st.sampled_from(["\u00e9", "e\u0301", "\u00c5", "\u212b", " ", "x "]),
    Kind.INT: st.integers(0, 2**31 - 1),
    Kind.BIGINT: st.integers(1, 2**63 - 1),
    Kind.BOOL: st.booleans(),
    Kind.TIME: st.integers(0, 10).map(rows.moment),
    Kind.JSON: cast("st.SearchStrategy[Value]", documents),
    Kind.IP: st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.1"]),
}


class Planted(NamedTuple):
    """One difference: what is done to the target, what undoes it, and what the check has to say."""

    do: Op
    undo: Op
    kind: str
    table: str
    id: str
    fields: tuple[str, ...]

    @property
    def named(self) -> set[tuple[str, str, str, tuple[str, ...]]]:
        return {(self.kind, self.table, self.id, self.fields)} if self.kind else set()


def _write(table: str, row: dict[str, Value]) -> Upsert:
    return Upsert(table, row, ("id",), tuple(name for name in row if name != "id"))


def _new(table: str, number: int) -> Mapping[str, Value | Ref]:
    return NEW[table](number) if table in NEW else more(table, number)


@st.composite
def planted(draw: st.DrawFn) -> Planted:
    table = draw(st.sampled_from(list(TABLES)))
    actions = ("change", "change", "extra", "missing") if table in LEAVES else ("change", "extra")
    action = draw(st.sampled_from([action for action in actions if table != UNIQUE or action != "extra"]))
    if action == "extra":
        # Before, between and behind the rows that are there.
        row = cast("dict[str, Value]", _new(table, draw(st.sampled_from((50, 950))) + draw(st.integers(0, 40))))
        row_id = cast(str, row["id"])
        return Planted(Insert(table, row), Delete(table, (Compare("id", "=", row_id),)), "extra", table, row_id, ())
    row = seeded()[table][draw(st.integers(0, COUNTS[table] - 1))]
    row_id = cast(str, row["id"])
    if action == "missing":
        return Planted(Delete(table, (Compare("id", "=", row_id),)), Insert(table, row), "missing", table, row_id, ())
    name = draw(st.sampled_from(FREE[table]))
    value = draw(VALUES[TABLES[table].by_name[name].kind])
    if isinstance(value, str):
        value = value[: TABLES[table].by_name[name].max_chars]
    before = row[name]
    is_json = TABLES[table].by_name[name].kind is Kind.JSON
    same = equal_in_meaning(cast(JsonValue, before), cast(JsonValue, value)) if is_json else before == value
    # The target's version is the higher one, if any: nobody calls that stale.
    return Planted(
        _write(table, row | {name: value}),
        _write(table, row),
        "" if same else "content_differs",
        table,
        row_id,
        () if same else (name,),
    )


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


async def _named(pair: Pair) -> set[tuple[str, str, str, tuple[str, ...]]]:
    found: list[Difference] = []
    report = await check(*pair, pause_s=0, on_difference=found.append)
    assert report.is_equal is not bool(found)
    assert len(found) == report.differences
    return {(d.kind, d.table, d.id, d.fields) for d in found}


@pytest.mark.parametrize("name", [*PAIRS, "sqlite-sqlite"])
def test_exactly_what_was_planted_is_named(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner
) -> None:
    for fixture in ("sqlite_with_schema", "postgres_with_schema", "d1_schema"):
        request.getfixturevalue(fixture)
    pair = pair_of(name, request, tmp_path)
    runner.run(pair.open())
    runner.run(pair.seed())

    @settings(
        max_examples=10 if "d1" in name else 50,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(st.lists(planted(), min_size=1, max_size=4, unique_by=lambda p: (p.table, p.id)))
    def try_it(differences: list[Planted]) -> None:
        runner.run(pair.target.commit([difference.do for difference in differences]))
        try:
            assert runner.run(_named(pair)) == set().union(*(difference.named for difference in differences))
        finally:
            runner.run(pair.target.commit([difference.undo for difference in reversed(differences)]))
        assert runner.run(_named(pair)) == set()

    try:
        try_it()
    finally:
        runner.run(pair.close())


def test_differences_are_planted_in_every_table_and_every_kind_of_column() -> None:
    assert set(FREE) == set(TABLES) == set(FIRST)
    kinds = {TABLES[table].by_name[name].kind for table, names in FREE.items() for name in names}
    assert kinds == set(Kind)
