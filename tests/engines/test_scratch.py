"""A run keeps its files in memory only where that can do all a disk can, and has room."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.engines import child, scratch


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for memory, and nobody who has chosen."""
    monkeypatch.setattr(scratch, "MEMORY", tmp_path)
    monkeypatch.delenv(scratch.VARIABLE, raising=False)
    return tmp_path


def _say(monkeypatch: pytest.MonkeyPatch, *, free_bytes: int, flags: int = 0) -> None:
    found = SimpleNamespace(f_flag=flags, f_frsize=4096, f_bavail=free_bytes // 4096)
    monkeypatch.setattr(os, "statvfs", lambda _: found)


def test_files_are_in_memory_where_there_is_room(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _say(monkeypatch, free_bytes=scratch.ROOM_BYTES)
    scratch.prefer_memory()
    assert scratch.is_memory()
    made = child.private_directory("dal-scratch-")
    assert made.parent == memory


@pytest.mark.parametrize(
    ("free_bytes", "flags"),
    [(scratch.ROOM_BYTES - 4096, 0), (scratch.ROOM_BYTES, scratch.NO_PROGRAMS)],
    ids=["full", "noexec"],
)
def test_files_are_on_the_disk_where_memory_is_short_or_runs_no_program(
    memory: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, flags: int
) -> None:
    _say(monkeypatch, free_bytes=free_bytes, flags=flags)
    scratch.prefer_memory()
    assert not scratch.is_memory()
    made = child.private_directory("dal-scratch-")
    child.remove(made)
    assert made.parent != memory


def test_files_are_on_the_disk_where_there_is_no_such_memory(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "MEMORY", memory / "none")
    scratch.prefer_memory()
    assert not scratch.is_memory()


def test_who_has_chosen_a_place_gets_it(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _say(monkeypatch, free_bytes=scratch.ROOM_BYTES)
    monkeypatch.setenv(scratch.VARIABLE, str(memory / "elsewhere"))
    scratch.prefer_memory()
    assert os.environ[scratch.VARIABLE] == str(memory / "elsewhere")
    assert not scratch.is_memory()
