"""The formats by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from dal.importing.formats import chatgpt, claude, dialogue, langchain, openwebui
from dal.ops import JsonValue

Fields = dict[str, JsonValue]


class Export(NamedTuple):
    """One format whose files are JSON.

    recognises  whether a value can only be of this format: the first object of the file, or of the list it holds.
    convert     the records of one such object, given the file's name without its ending; of the whole document
                where `is_whole`. Raises InvalidInputError naming the field, never its content.
    """

    recognises: Callable[[JsonValue], bool]
    convert: Callable[[JsonValue, str], Iterator[Fields]]
    is_whole: bool = False


FORMATS: Final[dict[str, Export]] = {
    "chatgpt": Export(chatgpt.recognises, chatgpt.convert),
    "claude": Export(claude.recognises, claude.convert),
    "openwebui": Export(openwebui.recognises, openwebui.convert),
    "langchain": Export(langchain.recognises, langchain.convert, is_whole=True),
    "dialogue": Export(dialogue.recognises, dialogue.convert),
}
