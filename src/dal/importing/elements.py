"""The objects of a JSON file one after another, in constant memory, without parsing them.

A list at the top is taken apart; objects may also just follow each other, as in JSON lines. Whatever is wrong with the
file as a whole - it ends too early, something stands between the objects - comes out as an element with a problem,
after every whole one before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from dal.importing.lines import MAX_LINE_BYTES, Line

_OUTSIDE: Final = re.compile(rb'["\[\]{}]')
_IN_TEXT: Final = re.compile(rb'["\\]')
_BETWEEN: Final = b" \t\r\n,"
_QUOTE, _BACKSLASH, _LIST = b'"'[0], b"\\"[0], b"["[0]
_OPENING: Final = b"[{"


def elements(
    chunks: Iterable[bytes | str], *, is_whole: bool = False, max_bytes: int = MAX_LINE_BYTES
) -> Iterator[Line]:
    """The elements, numbered from 1.

    chunks    the file; a text at the end says why there is no more of it.
    is_whole  the document itself is the one element, also when it is a list.
    """
    buffer = bytearray()
    depth = number = position = 0
    base = 0  # the depth at which elements stand: 1 inside the list that is taken apart
    start = 0  # of the element that has begun, else where the one before ended
    in_text = False
    for chunk in chunks:
        if isinstance(chunk, str):
            yield Line(number + 1, b"", chunk)
            return
        buffer += chunk
        while match := (_IN_TEXT if in_text else _OUTSIDE).search(buffer, position):
            found, position = buffer[match.start()], match.end()
            if in_text:
                if found == _BACKSLASH:
                    position += 1
                else:
                    in_text = False
            elif found == _QUOTE:
                in_text = True
            elif found in _OPENING:
                depth += 1
                if depth == base + 1:
                    if buffer[start : match.start()].strip(_BETWEEN):
                        break
                    start = match.start()
                    if found == _LIST and depth == 1 and not is_whole:
                        base, start = 1, position
            else:
                depth -= 1
                if depth == base:
                    number += 1
                    yield Line(number, bytes(buffer[start:position]))
                    start = position
                elif depth < base:
                    if depth < 0 or buffer[start : match.start()].strip(_BETWEEN):
                        break
                    base, start = 0, position
        else:
            position = max(position, len(buffer))  # an escaped character may lie in the next chunk
            if len(buffer) - start > max_bytes:
                yield Line(number + 1, b"", f"larger than {max_bytes} bytes; what comes behind it was not read")
                return
            del buffer[:start]
            position -= start
            start = 0
            continue
        yield Line(number + 1, b"", "something other than objects stands here; what comes behind it was not read")
        return
    if depth or in_text:
        yield Line(number + 1, b"", "the file ends too early; everything before this has been read")
    elif buffer[start:].strip(_BETWEEN):
        yield Line(number + 1, b"", "expected JSON objects, or a list of them")
