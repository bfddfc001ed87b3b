"""Lines of files: where they end, and what becomes of damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dal import InvalidInputError
from dal.importing.lines import Line, LineReader


def lines(path: Path, **options: int) -> list[Line]:
    with LineReader(path, **options) as reader:
        return list(reader)


def test_lines_end_at_newline_only(tmp_path: Path) -> None:
    text = "one\u2028still\x85one\rone\ntwo"
    (tmp_path / "f").write_bytes(text.encode())
    assert [line.data.decode() for line in lines(tmp_path / "f")] == text.split("\n")


def test_a_last_line_without_newline_counts_and_an_empty_one_after_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a\n\nb\n")
    assert lines(tmp_path / "f") == [Line(1, b"a"), Line(2, b""), Line(3, b"b")]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert lines(tmp_path / "f") == []


def test_gzip_is_known_by_its_content_and_may_have_several_members(tmp_path: Path) -> None:
    (tmp_path / "plain.name").write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert [line.data for line in lines(tmp_path / "plain.name")] == [b"a", b"bc", b"d"]


def test_a_byte_order_mark_is_not_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfa\n\xef\xbb\xbfb")
    assert [line.data for line in lines(tmp_path / "f")] == [b"a", b"\xef\xbb\xbfb"]


def test_a_line_longer_than_a_chunk_stays_whole(tmp_path: Path) -> None:
    long = b"x" * 1_000_000
    (tmp_path / "f").write_bytes(b"a\n" + long + b"\nb\n")
    assert [line.data for line in lines(tmp_path / "f")] == [b"a", long, b"b"]


@pytest.mark.parametrize("end", [b"\nc\n", b"\n", b""])
def test_a_line_beyond_the_limit_is_a_problem_and_the_next_ones_are_not(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "f").write_bytes(b"a\n" + b"x" * 900_000 + end)
    first, second, *rest = lines(tmp_path / "f", max_line_bytes=800_000)
    assert first == Line(1, b"a")
    assert second.number == 2
    assert second.data == b""
    assert second.problem == "the line has 900000 bytes, at most 800000 allowed"
    assert [line.data for line in rest] == [b"c"] * (b"c" in end)


def test_a_gzip_cut_short_gives_every_whole_line_and_then_the_problem(tmp_path: Path) -> None:
    whole = b"".join(b"line %d %d\n" % (n, n * 7919) for n in range(20_000))
    data = gzip.compress(whole)
    (tmp_path / "f").write_bytes(data[: len(data) // 2])
    found = lines(tmp_path / "f")
    assert found[-1].problem is not None
    assert "ends early" in found[-1].problem
    kept = b"".join(line.data + b"\n" for line in found[:-1])
    assert len(kept) > 50_000
    assert whole.startswith(kept)


def test_a_damaged_gzip_gives_a_problem(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(b"line %d %d\n" % (n, n * 7919) for n in range(20_000))))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "f").write_bytes(bytes(data))
    assert "damaged" in (lines(tmp_path / "f")[-1].problem or "")


def test_trailing_garbage_behind_a_gzip_gives_a_problem(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(b"a\n") + b"garbage")
    first, last = lines(tmp_path / "f")
    assert first == Line(1, b"a")
    assert last.problem is not None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing-here: cannot be read: No such file"):
        LineReader(tmp_path / "nothing-here")


def test_the_position_reaches_the_size(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(gzip.compress(b"a\n" * 1000))
    with LineReader(tmp_path / "f") as reader:
        assert list(reader)
        assert reader.position_bytes == reader.size_bytes == (tmp_path / "f").stat().st_size
