"""Names made fit to be shown, types told from content, bombs and polyglots refused, compression where it pays."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dal import CorruptDataError, InvalidInputError, LimitExceededError
from dal.files import frames
from dal.files.archives import check_content
from dal.files.keys import is_own_blob, place_of
from dal.files.names import display_name
from dal.files.sniffing import fits, is_allowed, sniff, type_of
from dal.limits import FILE_FRAME_BYTES, MAX_FILENAME_BYTES, MAX_FILENAME_CHARS

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
GIF = b"GIF89a" + b"\0" * 100
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + b"\0" * 100
PDF = b"%PDF-1.7\n" + b"\0" * 100
EXE = b"MZ" + b"\0" * 100
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
HTML = b"<!-- x -->\n<!DOCTYPE html><html><script>alert(1)</script></html>"


def archive(names: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in names.items():
            target.writestr(name, data)
    return out.getvalue()


ZIP = archive({"a.txt": b"text"})


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("report.pdf", "report.pdf"),
        ("cafe\u0301.txt", "café.txt"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("C:\\Users\\a.txt", "C:_Users_a.txt"),
        ("a\u2215b\uff0fc", "a_b_c"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("a\r\nb\tc\x7f\x9b", "abc"),
        ("a\u200bb\ufeffc\u2028d", "abcd"),
        ("  spaced .txt. . ", "spaced .txt"),
        (".bashrc", ".bashrc"),
        ("con", "_con"),
        ("NUL.tar.gz", "_NUL.tar.gz"),
        ("com¹", "_com¹"),
        ("COM10", "COM10"),
        ("console.log", "console.log"),
        ("👩\u200d💻.txt", "👩\u200d💻.txt"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("x" * 300 + ".jpeg", "x" * 250 + ".jpeg"),
        ("é" * 200 + ".txt", "é" * 125 + ".txt"),
    ],
)
def test_a_name_is_made_fit_to_be_shown(given_name: str, shown: str) -> None:
    assert display_name(given_name) == shown


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=600))
def test_a_shown_name_stays_as_it_is_and_within_its_limits(name: str) -> None:
    try:
        shown = display_name(name)
    except InvalidInputError:
        return
    assert display_name(shown) == shown
    assert 0 < len(shown) <= MAX_FILENAME_CHARS
    assert len(shown.encode()) <= MAX_FILENAME_BYTES
    assert not set(shown) & set("/\\\r\n\u202e")


def test_a_name_of_which_nothing_is_left_or_that_is_absurdly_long_is_refused() -> None:
    for name in ("", " ", "..", "\u200e\u202e", "\0", "\ud800", 5, None):
        with pytest.raises(InvalidInputError):
            display_name(name)
    with pytest.raises(LimitExceededError):
        display_name("x" * 5000)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (PNG, "image/png"),
        (GIF, "image/gif"),
        (JPEG, "image/jpeg"),
        (PDF, "application/pdf"),
        (EXE, "application/x-msdownload"),
        (ZIP, "application/zip"),
        (SVG, "image/svg+xml"),
        (HTML, "text/html"),
        (b"  <html>", "text/html"),
        (b"<?xml version='1.0'?><a/>", "application/xml"),
        (b'{"a": 1}', "text/plain"),
        ("grüße".encode(), "text/plain"),
        ("grüße".encode("latin-1"), "text/plain"),
        ("\ufeffgr".encode("utf-16"), "text/plain"),
        ("日本".encode()[:-1], "text/plain"),
        (b"\0\1\2\3", None),
        (b"", None),
    ],
)
def test_a_type_is_told_from_the_content(data: bytes, found: str | None) -> None:
    assert sniff(data) == found


@pytest.mark.parametrize(
    ("declared", "data", "name", "stored"),
    [
        (None, PNG, "a.exe", "image/png"),
        (None, b"a,b\n", "a.csv", "text/csv"),
        (None, b"MZ\0", "a.csv", "application/x-msdownload"),
        (None, b"", "a.csv", "text/csv"),
        (None, b"", "a", "application/octet-stream"),
        (None, b"\0\1", "a", "application/octet-stream"),
        ("application/octet-stream", PNG, "a", "image/png"),
        ("image/png", PNG, "a", "image/png"),
        ("text/plain; charset=latin-1", "ü".encode("latin-1"), "a", "text/plain; charset=latin-1"),
        ("application/json", b"{}", "a", "application/json"),
        ("text/markdown", HTML, "a.md", "text/markdown"),
        ("application/vnd.android.package-archive", ZIP, "a.apk", "application/vnd.android.package-archive"),
        ("application/x-own", b"\0\1\2", "a", "application/x-own"),
        ("audio/wav", b"RIFF\0\0\0\0WAVEfmt ", "a.wav", "audio/wav"),
    ],
)
def test_a_declared_type_that_the_content_bears_out_is_stored(
    declared: str | None, data: bytes, name: str, stored: str
) -> None:
    assert type_of(declared, sniff(data), name, is_empty=not data) == stored


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("image/png", EXE),
        ("image/png", b"text"),
        ("image/png", b"\0\1\2"),
        ("image/png", SVG),
        ("image/png", GIF),
        ("application/pdf", b"plain text"),
        ("text/plain", PNG),
        ("text/plain", b"\0\1\2"),
        ("application/json", b"\0\1\2"),
        ("image/png", ZIP),
        ("application/pdf", ZIP),
        ("no type", b"x"),
        ("text/plain\r\nx: y", b"x"),
        ('text/plain; a="\n"', b"x"),
        ("a/" + "b" * 300, b"x"),
    ],
)
def test_a_declared_type_that_the_content_belies_is_refused(declared: str, data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="mime_type"):
        type_of(declared, sniff(data), "a")


def test_a_list_of_types_asks_for_content_that_shows_one() -> None:
    assert is_allowed("image/png", "image/png", ("image/*",))
    assert is_allowed("text/csv; charset=utf-8", "text/plain", ("image/png", "text/csv"))
    assert is_allowed("anything/at-all", None, ())
    assert not is_allowed("image/x-unheard-of", None, ("image/*",))
    assert not is_allowed("image/png", "image/png", ("image/gif", "imagepng", "png"))
    assert fits("application/x-own", "application/zip")
    assert not fits("application/x-rar-compressed", "application/zip")


def bomb(packed: int, unpacked: int, entries: int = 1) -> bytes:
    """An archive whose directory says so; nothing of it is there."""
    names = archive({f"{n}": b"x" for n in range(entries)})
    out, at = bytearray(names), 0
    while (at := out.find(b"PK\x01\x02", at)) >= 0:
        struct.pack_into("<LL", out, at + 20, packed, unpacked)
        at += 4
    return bytes(out)


def test_a_bomb_is_known_by_what_it_says_it_unpacks_to() -> None:
    check_content("application/zip", ZIP, ZIP, len(ZIP))
    honest = archive({"zeros": bytes(5_000_000)})
    check_content("application/zip", honest, honest, len(honest))
    for made in (bomb(10, 2**32 - 2), bomb(10, 300_000_000, 20)):
        with pytest.raises(InvalidInputError, match="bomb"):
            check_content("application/zip", made[:100], made, len(made))
    overlapping = bomb(100, 200, 50)
    with pytest.raises(InvalidInputError, match="overlap"):
        check_content("application/zip", overlapping[:100], overlapping, len(overlapping))
    zip64 = io.BytesIO()
    with zipfile.ZipFile(zip64, "w") as target, target.open("a", "w", force_zip64=True) as entry:
        entry.write(b"text")
    check_content("application/zip", zip64.getvalue(), zip64.getvalue(), len(zip64.getvalue()))


def test_what_is_two_things_at_once_is_refused() -> None:
    for data, found in ((JPEG, "image/jpeg"), (PDF, "application/pdf"), (GIF, "image/gif")):
        check_content(found, data, data, len(data))
        both = data + ZIP
        with pytest.raises(InvalidInputError, match="zip archive at once"):
            check_content(found, both, both, len(both))
    for evil in (b"<script>", b"<?PHP", b"%PDF-1.4"):
        with pytest.raises(InvalidInputError, match="picture"):
            check_content("image/gif", GIF + evil, GIF + evil, 200)
    self_extracting = EXE + ZIP
    check_content("application/x-msdownload", self_extracting, self_extracting, len(self_extracting))


@settings(max_examples=50)
@given(st.binary(max_size=300), st.sampled_from([b"PK\x05\x06", b"PK\x01\x02", b""]), st.binary(max_size=60))
def test_whatever_comes_is_judged_without_a_crash(head: bytes, magic: bytes, tail: bytes) -> None:
    data = head + magic + tail
    found = sniff(data)
    try:
        check_content(found, data, data, len(data))
        type_of(found, found, "name", is_empty=not data)
    except InvalidInputError:
        pass


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_frames_give_back_the_whole_and_every_range() -> None:
    data = (b"a line of text, " * 9 + os.urandom(5)) * 20_000
    stored = b"".join([piece async for piece in frames.compressed(pieces(data, 70_001))])
    assert len(stored) < len(data)
    for size in (1000, 65_536, len(stored)):
        assert b"".join([piece async for piece in frames.decompressed(pieces(stored, size), "k")]) == data
    table = frames.read_table(stored[-frames.table_bytes(stored[-frames.FOOTER_BYTES :], "k") :], "k")
    assert sum(frame.size for frame in table) == len(data)
    edge = FILE_FRAME_BYTES
    for start, end in ((0, 1), (edge - 1, edge + 1), (edge, 2 * edge), (len(data) - 1, len(data)), (5, len(data))):
        first, last, skip = frames.covering(table, start, end)
        part = b"".join([piece async for piece in frames.decompressed(pieces(stored[first:last], 1000), "k")])
        assert part[skip : skip + end - start] == data[start:end]
    import zstandard

    reader = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True)
    assert reader.read() == data, "whatever reads zstd reads it"


async def test_stored_frames_that_were_changed_are_noticed_and_claim_no_memory() -> None:
    import zstandard

    stored = b"".join([piece async for piece in frames.compressed(pieces(b"text " * 50_000, 1000))])
    bomb = zstandard.ZstdCompressor().compress(bytes(2**26))
    changed = bytearray(stored)
    changed[len(changed) // 3] ^= 1
    for wrong in (bytes(changed), bomb, stored[: len(stored) // 2], b"no zstd at all, and long enough"):
        with pytest.raises(CorruptDataError):
            [piece async for piece in frames.decompressed(pieces(wrong, 1000), "k")]
    with pytest.raises(CorruptDataError):
        frames.table_bytes(b"123456789", "k")


def test_compression_pays_for_text_and_not_for_what_is_dense() -> None:
    text, noise = b"a line of text\n" * 1000, os.urandom(20_000)
    assert frames.pays("text/plain", text)
    assert frames.pays("application/octet-stream", text)
    assert not frames.pays("text/plain", noise)
    assert not frames.pays("image/png", text)
    assert frames.pays("image/svg+xml", text)
    assert not frames.pays("text/plain", b"short")


def test_a_key_says_where_bytes_lie_and_whose_they_are() -> None:
    uuid = "01900000-0000-7000-8000-00000000dead"
    assert place_of(f"files/{uuid}") == (f"files/{uuid}", True, False, False)
    assert place_of(f"files/{uuid}.zst") == (f"files/{uuid}.zst", True, False, True)
    assert place_of(f"shared/{uuid}.zst@{uuid}") == (f"shared/{uuid}.zst", True, True, True)
    for theirs in ("x", f"files/{uuid}.txt", f"files/{uuid}@{uuid}", f"shared/{uuid}", f"x/files/{uuid}", "a@b.zst"):
        assert place_of(theirs) == (theirs, False, False, False)
    assert is_own_blob(f"uploads/{uuid}")
    assert not is_own_blob(f"files/{uuid}x")
