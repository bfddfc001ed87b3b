"""The program of `make demo-move` with little data on the real engines: it runs, and says when something is lost."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from dal import create_data_access
from dal.cli.demo_data import write_demo_data
from tests.demo_move import children
from tests.demo_move.story import Plan, Story
from tests.engines.postgres import PostgresServer

#: How long the story may take on a machine with too much to do.
PATIENCE_S = 300


async def test_it_tells_figures_and_whether_all_is_there(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, "-m", "tests.demo_move.hurried"))
    said: list[tuple[str, str]] = []
    plan = Plan(
        files=write_demo_data(tmp_path, 14),
        source=f"file:{tmp_path / 'data'}",
        target=postgres_server.create_database(),
        log=tmp_path / "log",
        writers=3,
        processes=2,
        pause_s=0.05,
    )
    story = Story(plan, lambda label, text: said.append((label, text)))
    async with asyncio.timeout(PATIENCE_S):
        await story.run()
    assert story.problems == []
    labels = [label for label, _ in said if not label.startswith("after ")]
    assert labels[:5] == ["old data", "writers", "copied", "verified", "meanwhile"]
    assert [label for label in labels[5:-5] if label] == ["cutover"] * 5 + ["rollback"] * 2 + ["cutover"] * 2
    assert labels[-5:] == ["checked", "longest stall", "mover's memory", "writers", "in PostgreSQL"]

    said.clear()
    async with create_data_access(plan.target) as access:
        await access.chats.delete("writer-2-1")
        await access.chats.create("writer-2-1")
    await story.account()
    assert [label for label, _ in said] == ["writers"]
    assert len(story.problems) == 2
    assert "writer-2-1: of " in story.problems[0]
    assert "messages: " in story.problems[1]
