"""What a file's content says that it is, told from its first bytes, and whether that fits what somebody declared.

Signatures are those of the library `filetype` (20 µs; puremagic takes 300 to 1,800 and is less sure). Text, HTML, SVG
and XML have none and are told here. What is no text and has no known signature stays unknown.
"""

from __future__ import annotations

import codecs
import mimetypes
import re
from functools import cache
from typing import Final

from dal.blobs.base import BINARY
from dal.errors import InvalidInputError

_TEXT: Final = "text/plain"

_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")
_MARKUP_BYTES: Final = 1024
_HTML: Final = re.compile(
    r"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script|iframe|meta)\b", re.I | re.S
).match
_SVG: Final = re.compile(r"<svg[\s>]", re.I).search
_XML: Final = re.compile(r"\s*<(?:\?xml|!DOCTYPE)\s", re.I).match

_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}").fullmatch
_PARAMETERS: Final = re.compile(r"(?:\s*;\s*[A-Za-z0-9_.-]+=(?:[A-Za-z0-9_.:+/-]+|\"[ !#-\[\]-~]*\"))*\s*").fullmatch

#: Types that are one another's other names, or whose signature does not tell them apart: the first of each row is
#: what is found.
_FAMILIES: Final = (
    ("application/x-msdownload", "application/vnd.microsoft.portable-executable", "application/x-dosexec"),
    ("application/x-executable", "application/x-elf", "application/x-sharedlib", "application/x-pie-executable"),
    ("application/gzip", "application/x-gzip", "application/x-tgz", "application/x-gtar-compressed"),
    ("application/x-rar-compressed", "application/vnd.rar", "application/x-rar"),
    ("application/x-sqlite3", "application/vnd.sqlite3"),
    ("application/x-bzip2", "application/x-bzip"),
    ("application/rtf", "text/rtf"),
    ("application/font-sfnt", "font/ttf", "font/otf", "font/sfnt", "application/x-font-ttf"),
    ("application/font-woff", "font/woff", "font/woff2"),
    ("audio/x-wav", "audio/wav", "audio/vnd.wave"),
    ("audio/x-flac", "audio/flac"),
    ("audio/x-aiff", "audio/aiff"),
    ("audio/mpeg", "audio/mp3"),
    ("audio/ogg", "video/ogg", "application/ogg", "audio/opus"),
    ("audio/midi", "audio/mid"),
    ("image/apng", "image/png"),
    ("image/png", "image/apng"),
    ("image/x-icon", "image/vnd.microsoft.icon"),
    ("image/bmp", "image/x-ms-bmp"),
    ("image/jpeg", "image/jpg"),
    ("image/jpx", "image/jp2"),
    ("image/tiff", "image/x-adobe-dng", "image/x-nikon-nef", "image/x-sony-arw"),
    ("video/mp4", "audio/mp4", "audio/x-m4a", "video/x-m4v", "video/quicktime", "video/3gpp", "image/heic"),
    ("video/quicktime", "video/mp4", "image/heic", "image/heif"),
    ("video/3gpp", "video/mp4", "audio/3gpp"),
    ("image/heic", "image/heif"),
    ("audio/mp4", "video/mp4", "audio/x-m4a"),
    ("video/webm", "audio/webm", "video/x-matroska", "audio/x-matroska"),
    ("video/x-matroska", "video/webm", "audio/webm", "audio/x-matroska"),
    ("video/x-msvideo", "video/avi", "video/msvideo"),
    ("video/x-ms-wmv", "video/x-ms-asf", "audio/x-ms-wma"),
    ("application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint", "application/x-ole-storage"),
    ("application/vnd.ms-excel", "application/msword", "application/vnd.ms-powerpoint"),
    ("application/vnd.ms-powerpoint", "application/msword", "application/vnd.ms-excel"),
)  # fmt: skip
_SAME: Final = {row[0]: frozenset(row) for row in _FAMILIES}
#: Formats that many others are built on: a declared type that has no signature of its own may well be one of them.
_CONTAINERS: Final = frozenset(("application/zip", "application/gzip", "application/x-sqlite3", "application/msword"))
_ZIPPED: Final = re.compile(
    r"application/(?:zip|x-zip-compressed|java-archive|epub\+zip|vnd\..+|.+\+zip|x-.+)"
).fullmatch
_MARKED_UP: Final = frozenset(("text/html", "image/svg+xml", "application/xml"))
_IMAGE_LIKE: Final = ("image/", "audio/", "video/", "font/")


def sniff(head: bytes) -> str | None:
    """The type that the first bytes show; `text/plain` for any other text; None for what nobody knows."""
    import filetype  # type: ignore[import-untyped]  # 15 ms to import, for whoever uploads

    if not head:
        return None
    found: str | None = filetype.guess_mime(head)
    if found is not None and found != BINARY:
        return found
    return _text_type(head)


def type_of(declared: str | None, found: str | None, filename: str, *, is_empty: bool = False) -> str:
    """The type to store: what was declared, where the content bears it out; without it what the content says.

    found   what `sniff` saw.
    Raises InvalidInputError: no media type, or the content is something else.
    """
    guessed = mimetypes.guess_type(filename, strict=False)[0]
    declared = check_declared(declared)
    essence = None if declared is None else _essence(declared)
    if declared is None or essence is None or essence == BINARY:
        if guessed is not None and (is_empty or fits(guessed, found)):
            return guessed
        return found or BINARY
    if not is_empty and not fits(essence, found):
        raise InvalidInputError(
            f"mime_type: {essence} was declared, but the content is {found or 'of no such kind'}; "
            "declare what it is, or nothing"
        )
    return declared


def check_declared(declared: str | None) -> str | None:
    """A declared type as it is stored, before its content is seen. Raises InvalidInputError: no media type."""
    if declared is None:
        return None
    if not isinstance(declared, str):
        raise InvalidInputError(f"mime_type: expected text, found {type(declared).__name__}")
    _essence(declared)
    return declared.strip()


def fits(declared: str, found: str | None) -> bool:
    """Whether content in which `found` was seen can be what was declared."""
    if found is None:
        return not _is_textual(declared) and declared not in _signed()
    if found == _TEXT or found in _MARKED_UP:
        if declared.startswith(_IMAGE_LIKE) and declared != "image/svg+xml":
            return False
        return declared not in _signed() or declared == "application/postscript"
    if declared in _SAME.get(found, (found,)):
        return True
    if found == "application/zip":
        return bool(_ZIPPED(declared)) and not declared.startswith("application/x-rar")
    if found.startswith("application/vnd.o") and declared == "application/zip":  # office documents are zip archives
        return True
    return found in _CONTAINERS and declared.startswith("application/") and declared not in _signed()


def essence_of(mime_type: str) -> str:
    """A media type without its parameters, as blob stores keep it; not every store takes them."""
    return mime_type.partition(";")[0].strip().lower() or BINARY


def is_allowed(mime_type: str, found: str | None, allowed: tuple[str, ...], *, is_empty: bool = False) -> bool:
    """Whether a list of types allows this one, in whose content `found` was seen: a name alone opens no door."""
    essence = essence_of(mime_type)
    if not allowed:
        return True
    if not any(_matches(essence, pattern) for pattern in allowed):
        return False
    return found is not None or is_empty or not essence.startswith(_IMAGE_LIKE)


def _matches(essence: str, pattern: str) -> bool:
    pattern = pattern.lower()
    return essence.startswith(pattern[:-1]) if pattern.endswith("/*") else essence == pattern


def _essence(declared: str) -> str:
    """The type without its parameters. Raises InvalidInputError for what cannot stand in a header."""
    essence, semicolon, rest = declared.partition(";")
    essence = essence.strip().lower()
    if len(declared) > 255 or not _TYPE(essence) or not _PARAMETERS(f"{semicolon}{rest}"):
        raise InvalidInputError(f"mime_type: {declared[:60]!a} is no media type, as text/plain is")
    return essence


def _text_type(head: bytes) -> str | None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _TEXT
    if _CONTROLS.search(head):
        return None
    try:
        start = codecs.getincrementaldecoder("utf-8-sig")().decode(head[:_MARKUP_BYTES])  # it may end in a character
    except UnicodeDecodeError:
        start = head[:_MARKUP_BYTES].decode("latin-1")  # without control bytes it is text all the same
    if _HTML(start):
        return "text/html"
    if start.lstrip().startswith("<") and _SVG(start):
        return "image/svg+xml"
    return "application/xml" if _XML(start) else _TEXT


def _is_textual(declared: str) -> bool:
    return declared.startswith("text/") or declared.endswith(("+xml", "+json", "/json", "/xml", "/javascript"))


@cache
def _signed() -> frozenset[str]:
    """Types whose content always shows a signature."""
    import filetype

    known = {kind.mime for kind in filetype.TYPES} | {name for row in _FAMILIES for name in row}
    return frozenset(known - {BINARY, "application/x-ole-storage"})
