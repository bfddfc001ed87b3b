"""The real exports that lie beside the project, where they are there: every conversation arrives, twice the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal import create_data_access
from dal.importing import Format, import_file

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "exports"

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples are not here")


@pytest.mark.parametrize(
    ("name", "format", "chats", "messages"),
    [
        ("chatgpt_branching.json", "chatgpt", 2, 5),
        ("chatgpt_conversations.json", "chatgpt", 1, 11),
        ("claude_conversations.json.gz", "claude", 85, 557),
        ("claude_thinking.json", "claude", 1, 2),
        ("openwebui_chat_blob.json", "openwebui", 1, 2),
        ("langchain_file_history.json", "langchain", 1, 9),
        ("langchain_sql_history.db", "langchain-sqlite", 1, 9),
        ("realpersonachat_native", "dialogue", 3, 90),  # 10279 and 10577 are one dialogue
    ],
)
async def test_a_real_export_is_recognised_and_imported(
    tmp_path: Path, name: str, format: Format, chats: int, messages: int
) -> None:
    async with create_data_access(f"sqlite:{tmp_path / 'store.db'}") as dal:
        report = await import_file(dal, SAMPLES / name)
        assert (report.chats, report.messages, report.refused) == (chats, messages, 0)
        again = await import_file(dal, SAMPLES / name, format=format)
        assert (again.chats, again.grown, again.messages, again.refused) == (0, 0, 0, 0)
