"""A conversation with branches as records: one for the branch that was open, one for each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dal.importing.formats.branches import Branch, branches
from dal.importing.formats.fields import Fields
from dal.ops import JsonValue


def tree_records(
    chat: Fields, parents: Mapping[str, str | None], current: str | None, messages: Mapping[str, Fields]
) -> Iterator[Fields]:
    """The chat with its current branch, then the other branches.

    chat      the record without its messages; others are named after it, `<chat_id>/<first message>`.
    messages  what each message becomes; nodes that hold none are left out, and so are branches without any.
    """
    home: dict[str, str] = {}  # the chat that each node is in
    for number, branch in enumerate(branches(parents, current) or [Branch([], None)]):
        chat_id = str(chat["chat_id"])
        found: list[JsonValue] = [messages[node] for node in branch.messages if node in messages]
        if number:
            if not found:
                continue
            first = next(node for node in branch.messages if node in messages)
            chat_id = f"{chat_id}/{first}"
        home.update(dict.fromkeys(branch.messages, chat_id))
        record = {**chat, "chat_id": chat_id, "messages": found}
        if number:
            of = chat["chat_id"] if branch.behind is None else home.get(branch.behind, chat["chat_id"])
            fork: Fields = {"of": of, "behind": branch.behind}
            metadata = chat.get("metadata")
            record["metadata"] = {**(metadata if type(metadata) is dict else {}), "branch": fork}
            record["started_at"] = first_time(found)
        yield record


def first_time(messages: list[JsonValue]) -> JsonValue:
    """When the first message was written, for a chat that says nothing of its start."""
    return messages[0].get("at") if messages and type(messages[0]) is dict else None
