"""A role that was granted what the page for production says, and nothing else, does all that an application does."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from dal import NewMessage, create_data_access
from dal.backends.postgresql.errors import translate
from dal.errors import ConfigurationError
from tests.docs import pages
from tests.postgresql.conftest import MakeRole, OpenStore

PAGE = pages.DOCS / "how-to" / "run-in-production.md"


def recipe() -> LiteralString:
    """The page's statements, with a place for the role."""
    (block,) = [block for block in pages.blocks(PAGE) if block.language == "sql"]
    assert block.text.count("chat_app") == 3
    return block.text.replace("chat_app", "{role}")


async def test_the_grants_of_the_page_are_enough_for_an_application(role: MakeRole, tmp_path: Path) -> None:
    address = await role(recipe())
    async with create_data_access(address, blob_url=f"file:{tmp_path / 'blobs'}") as dal:
        assert (await dal.health()).status == "ok"
        ada = await dal.users.create(name="Ada", email="ada@example.com")
        await dal.chats.create("c", user_id=ada.id)
        await dal.messages.add("c", "user", "What is a loom?")
        await dal.messages.add_many("c", [NewMessage("assistant", "A machine."), NewMessage("user", "Thanks.")])
        assert len((await dal.messages.search("loom")).items) == 1
        await dal.memory.set(ada.id, "preferences", "tone", "brief", ttl=3600)
        await dal.memory.purge_expired()
        await dal.audit.record("user.login", user_id=ada.id)
        async with dal.transaction() as tx:
            await tx.users.update(ada.id, name="Countess")
            await tx.messages.add("c", "user", "Goodbye.")
        file = await dal.files.upload(ada.id, "loom.txt", b"a drawing")
        await dal.files.delete(file.id)
        await dal.files.sweep()
        await dal.files.monitoring.record()
        await dal.chats.delete("c")


async def test_an_application_with_these_grants_cannot_change_the_ledger(role: MakeRole) -> None:
    address = await role(recipe())
    with psycopg.connect(address, autocommit=True) as connection:
        for statement in (
            "DELETE FROM dal_migrations",
            "DELETE FROM dal_migration_details",
            "CREATE TABLE own (id INT)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.parametrize("table", ["dal_migrations", "dal_migration_details"])
async def test_a_ledger_that_may_not_be_read_is_named(
    role: MakeRole, open_store: OpenStore, table: LiteralString
) -> None:
    address = await role(recipe() + f"; REVOKE SELECT ON {table} FROM {{role}}")
    with pytest.raises(ConfigurationError, match=rf"lacks a privilege: permission denied for table {table}; grant it"):
        await open_store(address)


async def test_a_table_that_may_not_be_written_is_named(role: MakeRole) -> None:
    address = await role(recipe() + "; REVOKE INSERT ON messages FROM {role}")
    async with create_data_access(address) as dal:
        await dal.chats.create("c")
        with pytest.raises(ConfigurationError, match="permission denied for table messages; grant it"):
            await dal.messages.add("c", "user", "Hello")


def test_what_somebody_elses_trigger_says_of_a_privilege_is_not_told(url: str) -> None:
    """It may quote a row."""
    refused = "DO $$ BEGIN RAISE 'not for %', 's3cret-content' USING ERRCODE = '42501'; END $$"
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute(refused)
    assert "s3cret" in str(caught.value)
    translated = translate(caught.value, "commit")
    assert isinstance(translated, ConfigurationError)
    assert translated.message == "commit: the user lacks a privilege; grant it (SQLSTATE 42501)"
