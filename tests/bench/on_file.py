"""The file store: beside one JSON document per chat rewritten atomically, and fsynced JSON lines."""

from __future__ import annotations

from typing import Final

from dal import create_data_access
from tests.bench import paths
from tests.bench.baselines.files import JsonDocuments, JsonLines
from tests.bench.paths import DAL, Against, Row
from tests.bench.stage import Stage
from tests.bench.subject import Ours, Subject
from tests.bench.targets import Measure, Target

_DOCUMENTS: Final = "documents"
_LINES: Final = "lines"

_SPEEDUP: Final = Target(Measure.SPEEDUP)
_THROUGHPUT: Final = Target(Measure.THROUGHPUT)
_PER_DOCUMENT: Final = (Against(_DOCUMENTS, (_SPEEDUP,)),)


class FileStage(Stage):
    """Every subject has a directory of its own."""

    backend = "file"
    rows = (
        Row("get a chat", paths.get_chat, _PER_DOCUMENT),
        Row("history(20), chat of {lengths[0]:,}", paths.history(0), _PER_DOCUMENT),
        Row("history(20), chat of {lengths[1]:,}", paths.history(1), _PER_DOCUMENT),
        Row("history(20), chat of {lengths[2]:,}", paths.history(2), _PER_DOCUMENT),
        Row(
            "history(10), chat of {lengths[2]:,} beside one of {lengths[0]:,}",
            paths.history(2, 10),
            (Against(DAL, (Target(Measure.SLOWDOWN, 1.2),), workload=paths.history(0, 10)),),
        ),
        Row(
            "append, 1 task",
            paths.append(1),
            (Against(_LINES, (_SPEEDUP,)), *_PER_DOCUMENT),
            writes=True,
        ),
        Row(
            "append, 16 tasks, own chats",
            paths.append(16),
            (Against(_DOCUMENTS, (Target(Measure.THROUGHPUT, 8),)), Against(_LINES, (_THROUGHPUT,), tasks=1)),
            16,
            writes=True,
        ),
        Row(
            "append, 16 tasks, one chat",
            paths.append_shared,
            (Against(_DOCUMENTS, (_THROUGHPUT,)), Against(_LINES, (_THROUGHPUT,), tasks=1)),
            16,
            writes=True,
        ),
        Row(
            "append, 100 tasks, own chats",
            paths.append(100),
            (
                Against(
                    _LINES,
                    (Target(Measure.THROUGHPUT, 3), Target(Measure.P99_MS, 10)),
                    tasks=1,
                ),
            ),
            100,
            writes=True,
        ),
        Row(
            "append, 100 tasks, one chat",
            paths.append_shared,
            (Against(_LINES, (Target(Measure.THROUGHPUT, 3), Target(Measure.P99_MS, 10)), tasks=1),),
            100,
            writes=True,
        ),
        Row("memory.get", paths.memory_get, _PER_DOCUMENT),
        Row("memory.set", paths.memory_set, _PER_DOCUMENT, writes=True),
        Row("mixed 80/20, 100 tasks", paths.mixed(100), (Against(_DOCUMENTS, (_THROUGHPUT,)),), 100, writes=True),
        Row(
            "bulk import, {bulk_messages:,} messages",
            paths.bulk,
            (Against(_DOCUMENTS, (_THROUGHPUT,)),),
            writes=True,
            calls=1,
            bulk=True,
        ),
        Row("search, a rare word", paths.search, _PER_DOCUMENT),
    )

    async def make(self, name: str) -> Subject:
        match name:
            case paths.DAL:
                url = f"file:{self.directory / 'dal'}"
                async with create_data_access(url) as dal:
                    await self.data.fill(dal)
                return Ours(create_data_access(url))
            case "documents":
                return JsonDocuments(self.directory / "documents", self.data)
            case _:
                return JsonLines(self.directory / "lines")
