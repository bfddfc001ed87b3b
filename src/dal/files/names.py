"""The name of a file as people gave it, made fit to be shown. It never becomes a path or a key.

Unicode's NFC; no control characters, no marks that turn the direction of text (with them `exe.gpj` reads `jpg.exe`), no
invisible ones; `/` and `\\` become `_`; no blanks around it and no dots at its end; at most 255 characters and 255
bytes of UTF-8, shortened before its extension; and the names of Windows' devices get a `_` before them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from dal.errors import InvalidInputError
from dal.limits import MAX_FILENAME_BYTES, MAX_FILENAME_CHARS, MAX_GIVEN_FILENAME_CHARS
from dal.values import check_text

# Directional marks and isolates, zero-width spaces, line and paragraph separators, soft hyphen, tags. Joiners stay:
# Persian, Indic scripts and emoji need them.
_UNSEEN: Final = re.compile(
    "[\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SEPARATORS: Final = re.compile(r"[/\\\u2044\u2215\u29f8\uff0f\uff3c]")
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.I).fullmatch
_MAX_EXTENSION_CHARS: Final = 20


def display_name(filename: object) -> str:
    """The name as it is stored and shown. Raises InvalidInputError where nothing is left of it."""
    name = check_text("filename", filename, max_chars=MAX_GIVEN_FILENAME_CHARS, min_chars=1)
    if not (name.isascii() and name.isprintable()):
        name = _UNSEEN.sub("", unicodedata.normalize("NFC", name))
        name = "".join(c for c in name if unicodedata.category(c) != "Cc")
    name = _SEPARATORS.sub("_", name).strip().rstrip(". ")
    if not name:
        raise InvalidInputError("filename: nothing that can be shown is left of it; give another")
    if _DEVICE(name):
        name = f"_{name}"
    if len(name) > MAX_FILENAME_CHARS or (not name.isascii() and len(name.encode()) > MAX_FILENAME_BYTES):
        name = _shortened(name)
    return name


def _shortened(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > _MAX_EXTENSION_CHARS:
        stem, dot, extension = name, "", ""
    end = f"{dot}{extension}"
    room = MAX_FILENAME_BYTES - len(end.encode())
    stem = stem[: MAX_FILENAME_CHARS - len(end)].encode()[:room].decode(errors="ignore").rstrip(". \u200d\u200c")
    return unicodedata.normalize("NFC", f"{stem}{end}")
