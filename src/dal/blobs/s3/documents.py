"""The XML that S3 speaks: what is sent, and what is read of the answers. Values only, no requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from dal.blobs.base import BlobInfo, Part
from dal.blobs.s3.errors import BACKEND
from dal.errors import UnavailableError


class Listed(NamedTuple):
    """One page of something: what is on it, and the parameters that ask for the next; None on the last."""

    entries: list[ElementTree.Element]
    following: dict[str, str] | None


def parse(body: bytes, operation: str) -> ElementTree.Element:
    """The answer's document, its names without their namespace. UnavailableError where it is none, or an error.

    A copy and a completion begin to answer 200 before they are done, and may end in an error.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat bounds what entities make
    except ElementTree.ParseError as error:
        raise _wrong(operation, "an answer that is no XML") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    if root.tag == "Error":
        raise _wrong(operation, f"200 and then {root.findtext('Code', 'an error')}")
    return root


def page(root: ElementTree.Element, entry: str, following: dict[str, str]) -> Listed:
    """A page of a listing. `following` names the parameter of the next request for each element that fills it."""
    is_last = root.findtext("IsTruncated", "false") != "true"
    marks = {parameter: root.findtext(element, "") for element, parameter in following.items()}
    return Listed(root.findall(entry), None if is_last else marks)


def blob(entry: ElementTree.Element, prefix: str) -> BlobInfo:
    """A blob of a listing, under the store's own key."""
    return BlobInfo(
        unquote(entry.findtext("Key", "")).removeprefix(prefix),
        int(entry.findtext("Size", "0")),
        _time(entry.findtext("LastModified", "")),
        etag=entry.findtext("ETag", "").strip('"') or None,
    )


def part(entry: ElementTree.Element) -> Part:
    """A part that arrived."""
    return Part(
        int(entry.findtext("PartNumber", "0")), int(entry.findtext("Size", "0")), entry.findtext("ETag", "").strip('"')
    )


def started(entry: ElementTree.Element) -> datetime:
    """When an upload in parts was begun."""
    return _time(entry.findtext("Initiated", ""))


def completion(parts: Sequence[Part]) -> bytes:
    """What makes a blob of parts."""
    named = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;</ETag></Part>"
        for part in parts
    )
    return f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>".encode()


def deletion(names: Sequence[str]) -> bytes:
    """What deletes many blobs at once."""
    objects = "".join(f"<Object><Key>{escape(name)}</Key></Object>" for name in names)
    return f"<Delete>{objects}<Quiet>true</Quiet></Delete>".encode()


def not_deleted(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """What was not deleted: the key, and the code that says why."""
    for error in root.findall("Error"):
        yield error.findtext("Key", ""), error.findtext("Code", "")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _wrong(operation: str, found: str) -> UnavailableError:
    return UnavailableError(
        f"{operation}: the server gave {found}", operation=f"blobs.{operation}", backend=BACKEND, outcome="unknown"
    )
