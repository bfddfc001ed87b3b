"""D1's export, by Cloudflare's own tool: refused while the search index is there, and what to do about it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dal import create_data_access
from dal.cli.app import app
from dal.schema import schema_directory
from tests.engines import honesty
from tests.engines.postgres import EngineMissingError
from tests.engines.wrangler import Wrangler, WranglerError


@pytest.fixture
def wrangler(tmp_path: Path) -> Wrangler:
    """A local database with the library's schema in it, which wrangler has applied."""
    try:
        made = Wrangler(tmp_path / "project", schema_directory("sqlite"))
    except EngineMissingError as error:
        honesty.not_tested("wrangler", str(error))
    made.apply()
    return made


async def add_and_find(url: str) -> list[str]:
    async with create_data_access(url) as dal:
        if await dal.chats.get("c-1") is None:
            await dal.chats.create("c-1")
            await dal.messages.add("c-1", "user", "What is a difference engine?")
        return [hit.message.content for hit in (await dal.messages.search("engine")).items]


async def command(*arguments: str) -> None:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    assert result.exit_code == 0, result.output


async def test_a_database_can_be_exported_once_its_search_index_is_dropped(wrangler: Wrangler, tmp_path: Path) -> None:
    url = f"sqlite:{wrangler.database}"
    found = await add_and_find(url)
    assert found == ["What is a difference engine?"]
    with pytest.raises(WranglerError, match="cannot export databases with Virtual Tables"):
        wrangler.export(tmp_path / "refused.sql")

    await command("search", "drop", "--url", url, "--yes")
    exported = wrangler.export(tmp_path / "exported.sql")
    assert "What is a difference engine?" in exported
    assert "message_search" not in exported

    await command("search", "rebuild", "--url", url)
    assert await add_and_find(url) == found
    assert wrangler.pending() == []
