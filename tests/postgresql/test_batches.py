"""How a batch is carried out: as few statements as its shape allows, with the meaning of one at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import pytest

from dal.backends.memory import MemoryStore
from dal.backends.postgresql.dialect import encode_array, encode_copy, encode_terms, postgresql_dialect
from dal.backends.postgresql.plan import COPY_ROWS, plan, plan_searched
from dal.backends.sql import Compiler, SqlStore
from dal.errors import AlreadyExistsError, DalError, MissingReferenceError
from dal.layers.merge import merge
from dal.ops import Compare, Delete, Guard, Insert, Op, Ref, Select, Update
from dal.search import OVERFLOW_TERM, SearchQuery, parse_query
from dal.store import Store
from dal.tables import TABLES
from tests.postgresql.rows import append, chat, message, raise_count, user

COMPILER: Final = Compiler(postgresql_dialect(plan, plan_searched))

NASTY = ["", " ", "NULL", '"', "\\", '\\"', "{a,b}", "a\tb\nc\r\\.", "\\N", "日本語 😀", "'; --", "%s %%", "\u2028"]


def _sqls(ops: Sequence[Op], *, searched: bool = True) -> list[str]:
    return [step.statement.sql for step in (plan_searched if searched else plan)(ops, COMPILER)]


# How many statements


def test_an_append_is_one_statement() -> None:
    assert len(_sqls(append("c"))) == 1
    assert len(_sqls(append("c"), searched=False)) == 1
    assert len(_sqls(append("c", n=50))) == 1


@pytest.mark.parametrize("searched", [True, False])
def test_appends_that_were_merged_are_one_statement(searched: bool) -> None:
    ops = merge([append(f"c{k % 7}", n=1 + k % 3) for k in range(40)]).ops
    assert len(_sqls(ops, searched=searched)) == 1


def test_the_text_is_the_same_for_any_number_of_rows() -> None:
    few = merge([append(f"c{k}") for k in range(2)]).ops
    many = merge([append(f"c{k}") for k in range(200)]).ops
    assert _sqls(few) == _sqls(many)


def test_a_guard_before_an_append_is_a_statement_of_its_own() -> None:
    ops = [Guard("chat_sessions", {"chat_id": "c"}, {"message_count": 0}), *append("c")]
    first, second = _sqls(ops)
    assert "FOR UPDATE" in first
    assert "UPDATE chat_sessions" in second


def test_many_rows_go_by_copy_and_few_in_one_insert() -> None:
    rows = [user() for _ in range(COPY_ROWS)]
    assert _sqls(rows)[0].startswith("COPY users ")
    assert [sql.count("INSERT INTO users") for sql in _sqls(rows[:-1])] == [1]
    later = [message("00000000-0000-7000-8000-000000000001", n + 1, search_later=True) for n in range(COPY_ROWS)]
    assert _sqls(later)[0].startswith("COPY messages ")


def test_two_updates_of_one_row_are_two_statements() -> None:
    assert len(_sqls([raise_count("a"), raise_count("b"), raise_count("a")])) == 2


# The same meaning, however it is put together

CHAT_B: Final = chat("b")
BATCHES: Final[dict[str, list[list[Op]]]] = {
    "appends to one chat": [append("a"), append("a", n=3), append("a")],
    "merged appends": [merge([append("ab"[k % 2], n=1 + k % 3) for k in range(9)]).ops],
    "an append to a chat that is not there": [append("nowhere")],
    "merged with one that is not there": [merge([append("a"), append("nowhere"), append("b")]).ops],
    "updates, one of nothing": [[raise_count("a"), raise_count("nowhere"), raise_count("b")]],
    "two updates of one row": [[raise_count("a"), raise_count("b"), raise_count("a", 5)]],
    "inserts that refer by different keys": [
        [
            message(Ref("chat_sessions", key, "id"), Ref("chat_sessions", key, "version", 4))
            for key in ({"chat_id": "a"}, {"id": str(CHAT_B.row["id"])})
        ]
    ],
    "an update of nothing and an append": [[raise_count("nowhere"), *append("a")]],
    "an insert that refers to a row of an earlier batch": [
        [message(Ref("chat_sessions", {"chat_id": "a"}, "id"), Ref("chat_sessions", {"chat_id": "a"}, "version", 4))]
    ],
    "inserts that refer to different rows": [
        [
            message(
                Ref("chat_sessions", {"chat_id": name}, "id"), Ref("chat_sessions", {"chat_id": name}, "version", 4)
            )
            for name in ("a", "b")
        ]
    ],
    "a renamed chat": [
        [
            Update("chat_sessions", {"chat_id": "a"}, {"chat_id": "z"}, {"message_count": 1}),
            message(Ref("chat_sessions", {"chat_id": "z"}, "id"), Ref("chat_sessions", {"chat_id": "z"}, "version", 4)),
        ]
    ],
    "a chat, renamed, under its old name": [
        [
            Update("chat_sessions", {"chat_id": "a"}, {"chat_id": "z"}, {"message_count": 1}),
            message(Ref("chat_sessions", {"chat_id": "a"}, "id"), Ref("chat_sessions", {"chat_id": "a"}, "version", 4)),
        ]
    ],
    "rows with odd text": [[chat(text) for text in NASTY if text], append("a", content="".join(NASTY))],
    "many rows with odd text": [[chat(f"{k}{text}") for k in range(10) for text in NASTY]],
    "many appends with odd text": [merge([append("a", content=text) for text in NASTY]).ops],
    "one row twice": [[(row := user()), row]],
    "one row of many twice": [[*(rows := [user() for _ in range(150)]), rows[7]]],
    "a message of no chat among many": [
        [message("00000000-0000-7000-8000-0000000000ff", n + 1, search_later=True) for n in range(150)]
    ],
    "a delete between": [[*append("a"), Delete("messages", (Compare("role", "=", "user"),)), *append("a")]],
}


@pytest.mark.parametrize("name", BATCHES)
async def test_a_batch_does_what_the_interpreter_does(store: SqlStore, name: str) -> None:
    model = MemoryStore()
    await model.open()
    chats: list[Op] = [chat("a"), CHAT_B]
    for each in (store, model):
        await each.commit(chats)
    for ops in BATCHES[name]:
        assert await _outcome(store, ops) == await _outcome(model, ops)
    for table in TABLES:
        query = Select(table, order=("id",))
        assert await store.read(query) == await model.read(query)


async def _outcome(store: Store, ops: Sequence[Op]) -> object:
    try:
        return await store.commit(ops)
    except DalError as error:
        return type(error)


async def test_a_refused_row_among_many_refuses_them_all(store: SqlStore) -> None:
    rows: list[Op] = [user() for _ in range(150)]
    with pytest.raises(AlreadyExistsError):
        await store.commit([*rows, rows[0]])
    orphans: list[Op] = [message("00000000-0000-7000-8000-0000000000ff", n, search_later=True) for n in range(150)]
    with pytest.raises(MissingReferenceError):
        await store.commit([*rows, *orphans])
    assert await store.read(Select("users", limit=1)) == []


async def test_a_refusal_in_the_middle_of_a_batch_logs_nothing(
    store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = user()
    await store.commit([first])
    # Each is a statement of its own: the refusal of the first comes in while they are sent.
    deletes: list[Op] = [Delete("users", (Compare("name", "=", f"n{n}"),)) for n in range(1_000)]
    with caplog.at_level(logging.WARNING), pytest.raises(AlreadyExistsError):
        await store.commit([first, *deletes])
    assert caplog.messages == []
    assert len(await store.read(Select("users"))) == 1


# Search terms


@pytest.mark.parametrize("batch", ["append", "add many", "merged", "insert", "inserts"])
async def test_rows_are_found_however_they_were_written(store: SqlStore, batch: str) -> None:
    row = chat("a")
    await store.commit([row, chat("b")])
    session = str(row.row["id"])
    batches: dict[str, list[Op]] = {
        "append": append("a", content="a needle"),
        "add many": append("a", n=3, content="a needle"),
        "merged": merge([append("ab"[k % 2], content="a needle") for k in range(4)]).ops,
        "insert": [message(session, 1, content="a needle")],
        "inserts": [message(session, n, content="a needle") for n in (1, 2)],
    }
    await store.commit(batches[batch])
    from dal.ops import Search

    found = await store.read(Search("messages", parse_query("needle"), columns=("content",)))
    assert found == [("a needle",)] * sum(isinstance(op, Insert) for op in batches[batch])


def test_terms_that_a_tsvector_cannot_hold_give_the_overflow_term() -> None:
    assert encode_terms(["a", "b"]) == "a b"
    assert encode_terms([f"{n:064d}" for n in range(20_000)]) == OVERFLOW_TERM


def test_a_query_for_every_term_takes_overflowing_messages_too() -> None:
    query: SearchQuery = parse_query("repo 検索")
    assert COMPILER.dialect.search.encode_query(query) == f"('repo' & '検索') | '{OVERFLOW_TERM}'"


# Encodings


def test_arrays_and_copy_write_odd_values_as_the_server_reads_them() -> None:
    assert encode_array([None, "NULL", 'a"b\\c', 7, True]) == '{NULL,"NULL","a\\"b\\\\c",7,True}'
    assert encode_array(["NULL", "", "a,b"]) == '{"NULL","","a,b"}'
    assert encode_array(['a"b\\c', "{}", ""]) == '{"a\\"b\\\\c","{}",""}'
    assert encode_array(['a"', "b\0c"]) == '{"a\\"","b\0c"}'  # for the server to refuse, as one text
    assert encode_array([]) == "{}"
    assert encode_copy([["a\tb", "\\N"], [None, 7]]) == b"a\\tb\t\\N\n\\\\N\t7\n"
