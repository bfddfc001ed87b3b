"""Random words of the waist, in a world so small that keys collide, parents are missing and guards fail often."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from dal.ops import Compare, Count, Delete, Guard, Insert, Op, Query, Ref, Search, Select, Sum, Update, Upsert, Value
from dal.search import parse_query
from dal.tables import TABLES, Kind
from dal.testing import rows
from dal.testing.nasty import DOCUMENTS, NUMBERS, TEXTS

_NUMBERS: Final = st.integers(1, 4)
_IDS: Final = _NUMBERS.map(rows.row_id)
_MOMENTS: Final = st.integers(0, 3).map(rows.moment)
_WORDS: Final = st.sampled_from(["word", "other word", "caf\u00e9", "\u968e\u5dee\u6a5f\u95a2", "repo-map", ""])
_DOCUMENTS: Final = st.sampled_from([d for d in [*DOCUMENTS.values(), *NUMBERS.values()] if len(repr(d)) < 500])

#: What a column may hold in this world; the few values of unique keys make them collide.
_BY_COLUMN: Final[dict[str, SearchStrategy[Value]]] = {
    "clerk_id": st.sampled_from([None, "k", "K", "k "]),
    "chat_id": st.sampled_from(["k", "K", "k ", "l"]),
    "storage_key": st.sampled_from(["k", "K", "k "]),
    "memory_type": st.sampled_from(["a", "b"]),
    "key": st.sampled_from(["k", "K", "k "]),
    "sequence_number": st.integers(1, 4),
    "message_count": st.integers(0, 3),
    "version": st.integers(1, 3),
    "status": st.sampled_from(["active", "closed"]),
    "profile": st.sampled_from(["general", "coder"]),
    "content": _WORDS,
    "token_count": st.sampled_from([None, 0, 7]),
    "file_size": st.sampled_from([0, 1, 2**40]),
    "part_number": st.integers(1, 2),
    "grantee_id": st.sampled_from([None, "k", "K"]),
    "token_hash": st.sampled_from([None, "k", "K"]),
    "ip_address": st.sampled_from([None, "192.0.2.1", "2001:db8::1"]),
}
_BY_KIND: Final[dict[Kind, SearchStrategy[Value]]] = {
    Kind.ID: _IDS,
    Kind.INT: st.integers(0, 3),
    Kind.BIGINT: st.integers(0, 3),
    Kind.BOOL: st.booleans(),
    Kind.TIME: _MOMENTS,
    Kind.JSON: _DOCUMENTS,
    Kind.IP: st.sampled_from(["192.0.2.1"]),
}
#: Columns whose order every engine must give alike: keys compare by code point, free text only for equality.
_ORDERED: Final = {"clerk_id", "chat_id", "storage_key", "key"}


def _column(table: str, column: str) -> SearchStrategy[Value]:
    declared = TABLES[table].by_name[column]
    if declared.kind is Kind.JSON:
        return _DOCUMENTS
    if column in _BY_COLUMN:
        return _BY_COLUMN[column]
    some = _texts(declared.max_chars) if declared.kind is Kind.TEXT else _BY_KIND[declared.kind]
    return st.one_of(st.none(), some) if declared.nullable else some


def _texts(max_chars: int | None) -> SearchStrategy[Value]:
    return st.sampled_from([text for text in TEXTS.values() if max_chars is None or len(text) <= max_chars])


def _row(table: str) -> SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries({name: _column(table, name) for name in TABLES[table].names})


def _key(table: str) -> SearchStrategy[dict[str, Value]]:
    # A key column that may be null is looked for with a value.
    return st.sampled_from(TABLES[table].unique_keys).flatmap(
        lambda key: st.fixed_dictionaries({name: _column(table, name).filter(lambda v: v is not None) for name in key})
    )


def _compare(table: str) -> SearchStrategy[Compare]:
    plain = [c.name for c in TABLES[table].columns if c.kind is not Kind.JSON]

    def build(name: str) -> SearchStrategy[Compare]:
        column, value = TABLES[table].by_name[name], _column(table, name)
        present = value.filter(lambda v: v is not None)
        choices = [
            st.builds(Compare, st.just(name), st.sampled_from(["=", "!="]), value),
            st.builds(Compare, st.just(name), st.just("in"), st.lists(present, max_size=3).map(tuple)),
        ]
        if name in _ORDERED or column.kind in (Kind.ID, Kind.INT, Kind.BIGINT, Kind.TIME):
            comparators = st.sampled_from(["<", "<=", ">", ">=", "null or >"])
            choices.append(st.builds(Compare, st.just(name), comparators, present))
        return st.one_of(choices)

    return st.sampled_from(plain).flatmap(build)


#: Tables enough for every kind of key, parent and way of keeping rows; more of one kind would only meet less often.
WRITTEN: Final = (
    *("users", "chat_sessions", "messages", "user_memory", "files", "system_logs"),
    *("multipart_uploads", "multipart_parts", "file_permissions", "user_quotas", "file_access_logs"),
)
_TABLE_NAMES: Final = st.sampled_from(WRITTEN)
_UPSERT_KEYS: Final = st.sampled_from(
    [("user_memory", ("user_id", "memory_type", "key")), ("users", ("id",)), ("files", ("storage_key",))]
)


@st.composite
def inserts(draw: st.DrawFn) -> Insert:
    table = draw(_TABLE_NAMES)
    return Insert(table, draw(_row(table)), draw(st.sampled_from([(), ("id",), TABLES[table].names])))


@st.composite
def upserts(draw: st.DrawFn) -> Upsert:
    table, on = draw(_UPSERT_KEYS)
    free = [name for name in TABLES[table].names if name not in (*on, "id", "version", "clerk_id")]
    update = tuple(draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True)))
    where = tuple(draw(st.lists(_compare(table), max_size=1)))
    row = draw(_row(table).filter(lambda row: all(row[name] is not None for name in on)))
    add = draw(st.sampled_from([{}, {"version": 1}]))
    return Upsert(table, row, on, update, add, where, draw(st.sampled_from([(), ("id", "version")])))


@st.composite
def updates(draw: st.DrawFn) -> Update:
    table = draw(_TABLE_NAMES)
    free = [name for name in TABLES[table].names if name not in ("id", "version", "message_count")]
    names = draw(st.lists(st.sampled_from(free), max_size=2, unique=True))
    add: dict[str, int] = draw(st.sampled_from([{}, {"version": 1}])) if "version" in TABLES[table].by_name else {}
    changes = {name: draw(_column(table, name)) for name in names}
    if not changes and not add:
        changes = {"created_at": rows.moment(1)}
    return Update(table, draw(_key(table)), changes, add, draw(st.sampled_from([(), TABLES[table].names])))


@st.composite
def deletes(draw: st.DrawFn) -> Delete:
    table = draw(_TABLE_NAMES)
    return Delete(table, tuple(draw(st.lists(_compare(table), min_size=1, max_size=2))))


@st.composite
def guards(draw: st.DrawFn) -> Guard:
    table = draw(st.sampled_from(["users", "chat_sessions", "user_memory", "user_quotas"]))
    names = draw(st.lists(st.sampled_from(["version", "status", "created_at"]), max_size=2, unique=True))
    expect = {name: draw(_column(table, name)) for name in names if name in TABLES[table].by_name}
    key = draw(_key(table))
    where = draw(st.lists(_compare(table), max_size=1))
    if table == "user_quotas":
        ref = Ref(table, draw(st.one_of(st.just(key), _key(table))), "max_bytes", draw(st.integers(-1, 1)))
        where.append(Compare("taken_bytes", draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="])), ref))
    return Guard(table, key, expect, tuple(where))


@st.composite
def appends(draw: st.DrawFn, chat: int | None = None) -> list[Op]:
    """A message added as the repository adds one: the chat's count raised, its id and number taken by Ref."""
    key: dict[str, Value] = draw(_key("chat_sessions")) if chat is None else {"id": rows.row_id(chat)}
    row = draw(_row("messages")) | {"id": rows.row_id(draw(st.integers(1, 10**6)))}
    raised = Update("chat_sessions", key, {"last_activity_at": draw(_MOMENTS)}, {"message_count": 1, "version": 1})
    refs = {
        "chat_session_id": Ref("chat_sessions", key, "id"),
        "sequence_number": Ref("chat_sessions", key, "message_count"),
    }
    return [raised, Insert("messages", {**row, **refs}, ("sequence_number", "chat_session_id"))]


def batches() -> SearchStrategy[list[Op]]:
    """One to four operations of any kind, or an append."""
    one: SearchStrategy[Op] = st.one_of(inserts(), inserts(), upserts(), updates(), deletes(), guards())
    return st.one_of(st.lists(one, min_size=1, max_size=4), appends())


@st.composite
def queries(draw: st.DrawFn) -> Query:
    table = draw(_TABLE_NAMES)
    where = tuple(draw(st.lists(_compare(table), max_size=2)))
    kind = draw(st.sampled_from(["select", "select", "count", "sum", "search"]))
    if kind == "count":
        return Count(table, where)
    if kind == "sum":
        return Sum("files", "file_size", tuple(draw(st.lists(_compare("files"), max_size=2))))
    limit = draw(st.integers(1, 4))
    if kind == "search":
        filters = tuple(draw(st.lists(_compare("messages"), max_size=1)))
        place = draw(st.one_of(st.none(), st.tuples(_MOMENTS, st.integers(1, 4), _IDS)))
        words = draw(
            st.sampled_from(["word", "WORD other", "cafe", "\u5dee", "\u5dee\u6a5f", "repo-map", "map", "x", ""])
        )
        return Search("messages", parse_query(words), filters, place, limit, ("id", "content"))
    order = draw(st.sampled_from([("id",), ("-id",), ("created_at", "-id"), ("-created_at", "-id")]))
    after = tuple(draw(_column(table, name.lstrip("-"))) for name in order) if draw(st.booleans()) else None
    path = ("chat_session_id.chat_id",) if table == "messages" else ()
    columns = draw(st.sampled_from([(), ("id", "created_at"), ("created_at", *path, "id")]))
    return Select(table, where, order, after, draw(st.one_of(st.none(), st.just(limit))), columns)
