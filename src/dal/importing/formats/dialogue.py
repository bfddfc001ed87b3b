"""One file for each dialogue, as RealPersonaChat has them, and its file of who the speakers are.

The one who speaks first in the list of interlocutors is the user, to whom the chat belongs, and everybody else an
assistant; who it was is in the metadata. Times without a zone are taken as UTC. What is said of the speakers becomes
user memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dal.errors import InvalidInputError
from dal.importing.formats.fields import Fields, a_list, a_text, an_object, first_text, kept
from dal.importing.formats.times import export_time
from dal.importing.formats.trees import first_time
from dal.ops import JsonValue

_CHAT: Final = frozenset({"dialogue_id", "utterances"})
_MESSAGE: Final = frozenset({"text", "timestamp", "interlocutor_id", "utterance_id"})


def recognises(value: JsonValue) -> bool:
    if type(value) is not dict:
        return False
    return ("dialogue_id" in value and type(value.get("utterances")) is list) or _is_speakers(value)


def convert(value: JsonValue, _name: str) -> Iterator[Fields]:
    """The dialogue, or the memory of each speaker."""
    dialogue = an_object(value, "a dialogue")
    if _is_speakers(dialogue):
        for key, value in dialogue.items():
            said = an_object(value, "a speaker")
            rest = {name: value for name, value in said.items() if name != "interlocutor_id"}
            yield {**rest, "user": key, "source": "dialogue"}
        return
    chat_id = dialogue.get("dialogue_id")
    if type(chat_id) is not int and type(chat_id) is not str:
        raise InvalidInputError("dialogue_id: missing")
    speakers = dialogue.get("interlocutors")
    first = speakers[0] if type(speakers) is list and speakers else None
    messages: list[JsonValue] = []
    for number, value in enumerate(a_list(dialogue.get("utterances"), "utterances")):
        where = f"utterances[{number}]"
        message = an_object(value, where)
        speaker = a_text(message.get("interlocutor_id"), f"{where}.interlocutor_id")
        first = speaker if first is None else first
        messages.append(
            {
                "role": "user" if speaker == first else "assistant",
                "content": a_text(message.get("text"), f"{where}.text"),
                "at": export_time(message.get("timestamp")),
                "metadata": {"speaker": speaker, **kept(message, _MESSAGE)},
            }
        )
    yield {
        "chat_id": str(chat_id),
        "user": first,
        "source": "dialogue",
        "title": first_text(dialogue, "title"),
        "started_at": first_time(messages),
        "metadata": kept(dialogue, _CHAT),
        "messages": messages,
    }


def _is_speakers(value: Fields) -> bool:
    return bool(value) and all(type(v) is dict and v.get("interlocutor_id") == key for key, v in value.items())
