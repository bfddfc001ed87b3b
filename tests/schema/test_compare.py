"""Comparison: each difference is one sentence that names the object, what was found and what was expected."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dal.schema.connection import EngineName
from dal.schema.inspection.compare import differences
from dal.schema.inspection.objects import (
    ColumnInfo,
    ForeignKeyInfo,
    IndexInfo,
    Snapshot,
    TableInfo,
    TriggerInfo,
    UniqueInfo,
    ViewInfo,
)

USERS = TableInfo(
    columns={
        "id": ColumnInfo(type="INTEGER", nullable=False),
        "email": ColumnInfo(type="VARCHAR(255)", default="''"),
        "team": ColumnInfo(type="INTEGER"),
    },
    primary_key=("id",),
    uniques=(UniqueInfo(columns=("email",)),),
    checks=("CHECK (id > 0)",),
    foreign_keys=(ForeignKeyInfo(columns=("team",), table="teams", to_columns=("id",), on_delete="CASCADE"),),
    options=("STRICT",),
)
EXPECTED = Snapshot(
    engine="postgresql",
    tables={"users": USERS, "teams": TableInfo(columns={"id": ColumnInfo(type="INTEGER")})},
    indexes={"by_email": IndexInfo(table="users", parts=("email", "id DESC"), where="email > 'a'")},
    views={"v": ViewInfo(definition="SELECT id FROM users")},
    triggers={"g": TriggerInfo(table="users", definition="AFTER INSERT ON users EXECUTE FUNCTION f()")},
    enums={"Mood": ("good", "bad")},
    functions={"f()": "CREATE FUNCTION f() …"},
)


def sentences(found: Snapshot, expected: Snapshot = EXPECTED, *, column_order: bool = False) -> list[str]:
    return [str(difference) for difference in differences(expected, found, column_order=column_order)]


def with_users(table: TableInfo) -> Snapshot:
    return replace(EXPECTED, tables=EXPECTED.tables | {"users": table})


def with_column(column: ColumnInfo) -> Snapshot:
    return with_users(replace(USERS, columns=USERS.columns | {"email": column}))


def with_index(index: IndexInfo) -> Snapshot:
    return replace(EXPECTED, indexes={"by_email": index})


EMAIL = USERS.columns["email"]
INDEX = EXPECTED.indexes["by_email"]
KEY = USERS.foreign_keys[0]


def test_equal_snapshots_have_no_differences() -> None:
    assert sentences(with_users(replace(USERS))) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (replace(EMAIL, type="TEXT"), "type TEXT, expected VARCHAR(255)"),
        (replace(EMAIL, nullable=False), "NOT NULL, expected nullable"),
        (replace(EMAIL, default=None), "default none, expected ''"),
        (replace(EMAIL, default="'x'"), "default 'x', expected ''"),
        (replace(EMAIL, generated="STORED (id)"), "generated STORED (id), expected none"),
        (replace(EMAIL, collation="C"), "collation C, expected none"),
    ],
)
def test_a_column(found: ColumnInfo, sentence: str) -> None:
    assert sentences(with_column(found)) == [f"table users, column email: {sentence}"]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (replace(USERS, primary_key=()), "table users: primary key none, expected (id)"),
        (replace(USERS, uniques=()), "table users, UNIQUE (email): missing"),
        (replace(USERS, checks=(*USERS.checks, "CHECK (team > 0)")), "table users, CHECK (team > 0): unexpected"),
        (replace(USERS, options=()), "table users: not STRICT, as expected"),
        (replace(USERS, options=("STRICT", "UNLOGGED")), "table users: UNLOGGED, not expected"),
        (replace(USERS, foreign_keys=()), "table users, foreign key (team) to teams (id): missing"),
        (
            replace(USERS, foreign_keys=(replace(KEY, on_delete="SET NULL"),)),
            "table users, foreign key (team) to teams (id): ON DELETE SET NULL, expected ON DELETE CASCADE",
        ),
        (
            replace(USERS, foreign_keys=(replace(KEY, deferrable="DEFERRABLE"),)),
            "table users, foreign key (team) to teams (id): DEFERRABLE, expected not deferrable",
        ),
        (replace(USERS, virtual="fts5(a)"), "table users: virtual, fts5(a), expected a plain table"),
    ],
)
def test_a_table(found: TableInfo, sentence: str) -> None:
    assert sentences(with_users(found)) == [sentence]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (replace(INDEX, unique=True), "unique, expected not unique"),
        (replace(INDEX, parts=("email", "id")), "parts (email, id), expected (email, id DESC)"),
        (replace(INDEX, where=""), "condition none, expected email > 'a'"),
        (replace(INDEX, method="gin"), "method gin, expected btree"),
        (replace(INDEX, include=("team",)), "included columns (team), expected none"),
        (replace(INDEX, valid=False), "invalid: PostgreSQL does not use it; drop it and build it again"),
    ],
)
def test_an_index(found: IndexInfo, sentence: str) -> None:
    assert sentences(with_index(found)) == [f"index by_email on users: {sentence}"]


def test_missing_and_unexpected_are_two_ways_of_looking() -> None:
    less = replace(EXPECTED, tables={"users": USERS}, indexes={}, views={}, triggers={}, enums={}, functions={})
    names = ["table teams", "index by_email on users", "view v", "trigger g on users", "enum Mood", "function f()"]
    assert sentences(less) == [f"{name}: missing" for name in names]
    assert sentences(EXPECTED, less) == [f"{name}: unexpected" for name in names]
    assert {difference.what for difference in differences(EXPECTED, less)} == {"missing"}


def test_labels_of_an_enum_count_in_their_order() -> None:
    found = replace(EXPECTED, enums={"Mood": ("bad", "good")})
    assert sentences(found) == ["enum Mood: labels (bad, good), expected (good, bad)"]


def test_long_definitions_are_shown_where_they_part() -> None:
    start = "SELECT " + ", ".join(f"column_{number}" for number in range(100))
    expected = replace(EXPECTED, views={"v": ViewInfo(definition=f"{start} FROM users")})
    (sentence,) = sentences(replace(EXPECTED, views={"v": ViewInfo(definition=f"{start} FROM teams")}), expected)
    assert sentence.startswith("view v: defined as …")
    assert sentence.count("FROM") == 2
    assert len(sentence) < 200


def test_the_order_of_columns_counts_where_it_is_asked_for() -> None:
    moved = with_users(replace(USERS, columns=dict(reversed(USERS.columns.items()))))
    assert sentences(moved) == []
    assert sentences(moved, column_order=True) == [
        "table users: columns in the order (team, email, id), expected (id, email, team)"
    ]


def test_two_equal_checks_are_not_one() -> None:
    twice = with_users(replace(USERS, checks=USERS.checks * 2))
    assert sentences(twice) == ["table users, CHECK (id > 0): unexpected"]


@pytest.mark.parametrize(("engine", "count"), [("sqlite", 0), ("postgresql", 1)])
def test_case_of_words_counts_on_postgresql_only(engine: EngineName, count: int) -> None:
    one, other = [
        replace(EXPECTED, engine=engine, views={"v": ViewInfo(definition=text)})
        for text in ("SELECT Id FROM users WHERE a = 'X'", "select id from users where a = 'X'")
    ]
    assert len(differences(one, other)) == count
    strings = replace(other, views={"v": ViewInfo(definition="select id from users where a = 'x'")})
    assert len(differences(other, strings)) == 1


def test_names_are_compared_as_they_are_written() -> None:
    renamed = replace(EXPECTED, engine="sqlite", enums={"mood": ("good", "bad")})
    assert sentences(renamed, replace(EXPECTED, engine="sqlite")) == ["enum Mood: missing", "enum mood: unexpected"]
