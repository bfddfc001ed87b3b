"""Rows compared in the forms in which stores have them: equal where their values are, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dal.backends.d1.dialect import d1_dialect
from dal.backends.postgresql.dialect import postgresql_dialect
from dal.backends.postgresql.document import encode_document
from dal.backends.sql import Compiler, Dialect, plan_each
from dal.backends.sql.sqlite import encode_json, sqlite_dialect
from dal.errors import CorruptDataError
from dal.factory import create_store
from dal.move.checking import check
from dal.move.columns import differing_rows
from dal.move.differences import Difference
from dal.ops import JsonValue, Select, Value
from dal.store import Stored, StoredRows
from dal.tables import MESSAGES, TABLES, Kind, Table
from dal.testing import rows
from tests.move.pairs import Pair, pair, schemas_of_pairs, seeded
from tests.move.replicas import run_sqlite
from tests.move.test_canonical import documents, equal_in_meaning

__all__ = ["pair", "schemas_of_pairs"]

ID = rows.row_id
Decoders = Mapping[int, Callable[..., Value]]
#: A column of each kind that has more than one form, as (table, name).
COLUMNS: Final = {
    Kind.TIME: ("messages", "created_at"),
    Kind.JSON: ("user_memory", "value"),
    Kind.BOOL: ("messages", "abuse_flagged"),
    Kind.BIGINT: ("messages", "version"),
    Kind.TEXT: ("users", "name"),
}
DIALECTS: Final[dict[str, Callable[[], Dialect]]] = {
    "sqlite": lambda: sqlite_dialect(plan_each),
    "postgresql": lambda: postgresql_dialect(plan_each, plan_each),
    "d1": lambda: d1_dialect(plan_each, plan_each),
}
MOMENT: Final = rows.moment(0)


class Form(NamedTuple):
    """What a store has in one column."""

    store: str
    form: object

    def page(self, kind: Kind) -> Stored:
        """A row that holds it, of a store that was opened for itself."""
        name, column = COLUMNS[kind]
        table = TABLES[name]
        row = tuple(self.form if other == column else other for other in table.names)
        place = table.names.index(column)
        return Stored([row], {at: decode for at, decode in decoders_of(self.store, table).items() if at == place})


def decoders_of(store: str, table: Table) -> Decoders:
    return Compiler(DIALECTS[store]()).decoders_of(Select(table.name)) if store in DIALECTS else {}


def differ(kind: Kind, left: Form, right: Form) -> bool:
    table = TABLES[COLUMNS[kind][0]]
    found = differing_rows(table, left.page(kind), right.page(kind))
    assert found == differing_rows(table, right.page(kind), left.page(kind))
    return found == {0}


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05.678901Z"), Form("postgresql", "2026-01-02 03:04:05.678901+00")),
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05.678901Z"), Form("postgresql", "2026-01-02 12:04:05.678901+09")),
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05.000000Z"), Form("sqlite", "2026-01-02T03:04:05+00:00")),
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05Z"), Form("d1", "2026-01-02T05:34:05+02:30")),
        (Kind.TIME, Form("postgresql", "2026-01-02 03:04:05+00"), Form("postgresql", "2026-01-01 22:04:05-05")),
        (Kind.TIME, Form("values", MOMENT), Form("sqlite", MOMENT.isoformat())),
        (Kind.JSON, Form("sqlite", '{"a":1,"b":[1.0]}'), Form("postgresql", '{"b": [1], "a": 1}')),
        (Kind.JSON, Form("sqlite", '{"a":1,"b":[1.0]}'), Form("sqlite", '{ "b": [1], "a": 1.0 }')),
        (Kind.JSON, Form("sqlite", "1e16"), Form("postgresql", "10000000000000000")),
        (Kind.JSON, Form("sqlite", "-0.0"), Form("postgresql", f"-0.{'0' * 330}1")),
        (Kind.JSON, Form("sqlite", '"\\u00e9"'), Form("sqlite", '"\u00e9"')),
        (Kind.JSON, Form("sqlite", "null"), Form("values", None)),
        (Kind.JSON, Form("values", [1.0]), Form("values", [1])),
        (Kind.BOOL, Form("sqlite", 1), Form("postgresql", True)),
        (Kind.BOOL, Form("sqlite", 1), Form("sqlite", 2)),
        (Kind.BIGINT, Form("d1", "9007199254740993"), Form("sqlite", 2**53 + 1)),
        (Kind.TEXT, Form("sqlite", None), Form("postgresql", None)),
    ],
)
def test_other_forms_of_one_value_are_equal(kind: Kind, left: Form, right: Form) -> None:
    assert not differ(kind, left, right)


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05.678901Z"), Form("postgresql", "2026-01-02 03:04:05.678902+00")),
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05.678901Z"), Form("sqlite", "2026-01-02T03:04:05.678902Z")),
        (Kind.TIME, Form("sqlite", "2026-01-02T03:04:05Z"), Form("postgresql", "2026-01-02 03:04:05+01")),
        (Kind.JSON, Form("sqlite", "1"), Form("sqlite", "true")),
        (Kind.JSON, Form("sqlite", '{"a":[0]}'), Form("postgresql", '{"a": [false]}')),
        (Kind.JSON, Form("values", {"a": 1}), Form("values", {"a": True})),
        (Kind.JSON, Form("values", [0]), Form("postgresql", "[false]")),
        (Kind.JSON, Form("sqlite", "0.0"), Form("sqlite", "-0.0")),
        (Kind.JSON, Form("values", 0.0), Form("values", -0.0)),
        (Kind.JSON, Form("sqlite", "null"), Form("sqlite", '"null"')),
        (Kind.JSON, Form("sqlite", "9007199254740992"), Form("postgresql", "9007199254740993")),
        (Kind.BOOL, Form("sqlite", 0), Form("postgresql", True)),
        (Kind.BIGINT, Form("d1", "9007199254740993"), Form("sqlite", 2**53)),
        (Kind.TEXT, Form("sqlite", None), Form("postgresql", "")),
        (Kind.TEXT, Form("sqlite", "null"), Form("sqlite", None)),
        (Kind.TEXT, Form("sqlite", "Caf\u00e9"), Form("postgresql", "Cafe\u0301")),
        (Kind.TEXT, Form("sqlite", "key"), Form("sqlite", "key ")),
    ],
)
def test_what_looks_alike_differs(kind: Kind, left: Form, right: Form) -> None:
    assert differ(kind, left, right)


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        (Kind.JSON, Form("sqlite", '{"a": '), Form("postgresql", '{"a": 1}')),
        (Kind.JSON, Form("sqlite", None), Form("values", None)),  # no value, and the document null
        (Kind.JSON, Form("sqlite", None), Form("sqlite", "null")),
        (Kind.TIME, Form("sqlite", "some day"), Form("values", MOMENT)),
        (Kind.TIME, Form("sqlite", "some day"), Form("sqlite", "another")),
    ],
)
def test_what_cannot_be_decoded_is_equal_to_nothing(kind: Kind, left: Form, right: Form) -> None:
    assert differ(kind, left, right)


@pytest.mark.parametrize(
    ("kind", "form"), [(Kind.TIME, Form("sqlite", "some day")), (Kind.JSON, Form("postgresql", "{"))]
)
def test_what_two_stores_have_in_the_same_form_is_not_decoded(kind: Kind, form: Form) -> None:
    """It would fail: `page` makes decoders for each of the two."""
    assert not differ(kind, form, form)


WRITTEN: Final[dict[str, Callable[[JsonValue], object]]] = {
    "values": lambda document: document,
    "sqlite": encode_json,
    "d1": lambda document: json.dumps(document, indent=1),
    "postgresql": encode_document,
}


@given(documents, documents, st.sampled_from(sorted(WRITTEN)), st.sampled_from(sorted(WRITTEN)))
def test_documents_differ_if_and_only_if_their_values_do(
    left: JsonValue, right: JsonValue, ours: str, theirs: str
) -> None:
    is_equal = equal_in_meaning(left, right)
    assert differ(Kind.JSON, Form(ours, WRITTEN[ours](left)), Form(theirs, WRITTEN[theirs](right))) is not is_equal
    assert not differ(Kind.JSON, Form(ours, WRITTEN[ours](left)), Form(theirs, WRITTEN[theirs](left)))


FORMS: Final[dict[str, dict[str, object]]] = {
    "sqlite": {"metadata": '{"n":1,"a":true}', "created_at": "2026-01-02T03:04:05.000000Z", "abuse_flagged": 1},
    "postgresql": {"metadata": '{"a": true, "n": 1}', "created_at": "2026-01-02 03:04:05+00", "abuse_flagged": True},
}


def page_of(store: str, changed: Mapping[int, Mapping[str, object]]) -> Stored:
    """Twenty messages, some of them with other values."""
    made = [{**rows.message(n, 1), **FORMS[store], **changed.get(n, {})} for n in range(20)]
    return Stored([tuple(row.values()) for row in made], decoders_of(store, MESSAGES))


@pytest.mark.parametrize("theirs", FORMS)
def test_the_rows_that_differ_are_named_and_no_others(theirs: str) -> None:
    """Each in another column, between rows that are equal in the same form and in others."""
    other_forms: dict[int, dict[str, object]] = {
        4: {"metadata": '{ "n": 1.0, "a": true }', "created_at": "2026-01-02T12:04:05+09:00"},
        5: {"metadata": '{"a": true, "n": 1.0}'},
    }
    changed: dict[int, dict[str, object]] = {
        3: {"content": "another"},
        6: {"metadata": '{"a": 1, "n": 1}'},
        8: {"created_at": "2026-01-02T03:04:05.000001+00:00"},
        13: {"token_count": None, "content": "another"},
        19: {"version": 7},
    }
    assert differing_rows(MESSAGES, page_of("sqlite", {}), page_of(theirs, other_forms | changed)) == set(changed)
    assert differing_rows(MESSAGES, page_of("sqlite", other_forms), page_of(theirs, {})) == set()


def test_pages_without_rows_are_equal() -> None:
    for table in TABLES.values():
        assert differing_rows(table, Stored([], {}), Stored((), decoders_of("sqlite", table))) == set()


async def test_stored_rows_are_those_that_are_read(pair: Pair) -> None:
    for store in pair:
        if not isinstance(store, StoredRows):
            continue
        for name, table in TABLES.items():
            query = Select(name, order=("id",), after=(str(seeded()[name][0]["id"]),), limit=3)
            found = await store.read_stored(query)
            values = await store.read(query)
            assert values, name
            assert differing_rows(table, found, Stored(values, {})) == set()
            assert [row[0] for row in found.rows] == [row[0] for row in values]


async def test_forms_that_other_programs_write_are_read_for_what_they_mean(tmp_path: Path) -> None:
    """Both stores are SQLite, so that whatever has another form there is another text."""
    places = tmp_path / "source.db", tmp_path / "target.db"
    pair = Pair(*[create_store(f"sqlite://{place}") for place in places])
    await pair.open()
    await pair.seed()
    values = {300: '{"a":1,"b":[1.0,null]}', 301: "1", 302: "null", 303: "-0.0", 304: '{"a":null}'}
    others = {300: '{ "b": [1, null], "a": 1 }', 301: "true", 302: '"null"', 303: "0.0", 304: "{}"}
    for place, texts in zip(places, (values, others), strict=True):
        run_sqlite(place, *[f"UPDATE user_memory SET value = '{v}' WHERE id = '{ID(n)}'" for n, v in texts.items()])
    run_sqlite(places[0], "UPDATE messages SET created_at = '2026-01-02T03:04:05.000000Z'")
    run_sqlite(places[1], "UPDATE messages SET created_at = '2026-01-02T12:04:05+09:00'")
    run_sqlite(places[1], f"UPDATE messages SET created_at = '2026-01-02T03:04:05+09:00' WHERE id = '{ID(207)}'")
    found: list[Difference] = []
    await check(*pair, pause_s=0, on_difference=found.append)
    await pair.close()
    assert {(d.table, rows.number_of(d.id), d.fields) for d in found} == {
        ("messages", 207, ("created_at",)),
        *[("user_memory", number, ("value",)) for number in (301, 302, 303, 304)],
    }


async def test_a_document_that_is_no_json_ends_the_check_unless_both_stores_have_it_so(tmp_path: Path) -> None:
    places = tmp_path / "source.db", tmp_path / "target.db"
    pair = Pair(*[create_store(f"sqlite://{place}") for place in places])
    await pair.open()
    await pair.seed()
    damage = f"UPDATE files SET metadata = '{{\"a\": ' WHERE id = '{ID(403)}'"
    for place in places:
        run_sqlite(place, damage, settings=["PRAGMA ignore_check_constraints = 1"])
    assert (await check(*pair, pause_s=0)).is_equal
    run_sqlite(places[1], f"UPDATE files SET metadata = '{{}}' WHERE id = '{ID(403)}'")
    with pytest.raises(CorruptDataError, match="files in the source: a stored value"):
        await check(*pair, pause_s=0)
    await pair.close()
