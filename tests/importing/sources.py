"""Files to import, made by the tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from dal.ops import JsonValue

TIME = "2024-03-01T09:00:00"


Fields = dict[str, JsonValue]


def message(content: str = "hello", role: str = "user", at: str | None = TIME, **more: JsonValue) -> Fields:
    return {"role": role, "content": content, "at": at, "metadata": {}, **more}


def conversation(chat_id: str = "c-1", *texts: str, user: str | None = "ada", **more: JsonValue) -> Fields:
    """A conversation with these messages, a minute between them."""
    messages: list[JsonValue] = [message(text, at=f"2024-03-01T09:{n:02d}:00") for n, text in enumerate(texts)]
    return {
        "chat_id": chat_id,
        "user": user,
        "source": "tests",
        "title": None,
        "started_at": TIME,
        "metadata": {},
        "messages": messages,
        **more,
    }


def write(path: Path, records: Iterable[JsonValue | bytes]) -> Path:
    """One line for each record; bytes are a line as it is."""
    lines = [r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
