"""Importing a file: parse, write, make searchable.

The next batch is parsed in a thread while earlier ones are being committed, one ahead and no more, so memory stays
constant. Rows are written without search entries, which are made in bulk afterwards: several times faster than one by
one. Everything is repeatable: after a crash at any point, import the same file again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Final, Literal, cast

from dal.access import DataAccess
from dal.collector import rare_collections
from dal.errors import UnsupportedError
from dal.importing.batches import Batch, BatchReader, Format
from dal.importing.document import BadText
from dal.importing.exports import open_source
from dal.importing.lanes import Lanes
from dal.importing.loader import Loader
from dal.importing.report import MAX_REFUSALS_KEPT, ImportReport, Progress, Refusal
from dal.store import SearchIndex
from dal.values import check_limit

DEFAULT_BATCH_ROWS: Final = 5000
MAX_BATCH_ROWS: Final = 15_000  # a commit also holds users and chats, and MAX_BATCH_OPS in all
_INDEX_ROWS: Final = 2000
_LANES: Final = 3  # one batch is encoded while the server works on others


async def import_file(
    data_access: DataAccess,
    path: str | PathLike[str],
    *,
    format: Format = "auto",
    user: str | None = None,
    on_bad_text: BadText = "refuse",
    batch_rows: int = DEFAULT_BATCH_ROWS,
    on_progress: Callable[[Progress], None] | None = None,
    on_refusal: Callable[[Refusal], None] | None = None,
) -> ImportReport:
    """What was written, was there already, and was refused, of a file: JSON lines or an export, plain or gzip.

    format       `conversations` or `memory` (JSON lines), the name of an export's format (dal.importing.formats), or
                 `auto`: an export where the file can be nothing else, else lines, each by its fields.
    path         may also be a directory of files of one format, `*.json`, which are imported as one.
    user         whose the conversations of an export are that names nobody.
    on_bad_text  `refuse` records with U+0000 or lone surrogates, or `replace` those by U+FFFD.
    batch_rows   rows of one commit, 1..15,000; a conversation is never split, even when it is larger.
    on_progress  called after every batch; on_refusal for every refused record, in no promised order.

    Every conversation is written whole or not at all. A second run over the same file writes nothing; over one whose
    conversations have grown, the new messages. A chat that is stored with other messages is refused, never changed.
    Raises       InvalidInputError: the file cannot be opened.  UnavailableError, SchemaError: the store cannot go on;
                 whole batches are durable, and running it again continues.
    Cost         memory of four batches; a few reads and a commit for each.
    """
    check_limit("batch_rows", batch_rows, MAX_BATCH_ROWS)
    path = Path(path)
    report = ImportReport(str(path))
    started = time.perf_counter()

    def refuse(refusal: Refusal) -> None:
        refusal = refusal._replace(file=reader.file_of(refusal.line))
        report.refused += 1
        if len(report.refusals) < MAX_REFUSALS_KEPT:
            report.refusals.append(refusal)
        if on_refusal is not None:
            on_refusal(refusal)

    read_bytes = 0

    async def write(batch: Batch, load: Callable[[], Awaitable[None]]) -> None:
        nonlocal read_bytes
        await load()
        report.load_s = time.perf_counter() - started
        read_bytes = max(read_bytes, batch.read_bytes)
        if on_progress is not None:
            on_progress(_progress(report, read_bytes, reader.size_bytes))

    # The parser's thread ends before the file it reads is closed, whatever happens here.
    with open_source(path, format, user) as reader, ThreadPoolExecutor(1, "dal-import") as parser, rare_collections():
        batches = BatchReader(reader, path, kind=format, on_bad_text=on_bad_text, batch_rows=batch_rows)
        loader = Loader(data_access.store, report, refuse, batches.file_time)
        parse = partial(asyncio.get_running_loop().run_in_executor, parser, next, iter(batches), None)
        async with Lanes(min(_LANES, data_access.capabilities.commit_lanes)) as lanes:
            ahead = parse()
            while (batch := await ahead) is not None:
                ahead = parse()
                for refusal in batch.refusals:
                    refuse(refusal)
                keys = {record.key for record in batch.records}
                await lanes.wait_for(keys)
                load = await loader.prepare(batch.records)
                await lanes.start(partial(write, batch, load), keys)
    await _index(data_access, report, reader.size_bytes, on_progress)
    return report


async def _index(
    data_access: DataAccess, report: ImportReport, size_bytes: int, on_progress: Callable[[Progress], None] | None
) -> None:
    """Makes searchable whatever is not yet, of this import or of an earlier one that was interrupted."""
    if not data_access.capabilities.search:
        return
    index = cast(SearchIndex, data_access.store)
    started = time.perf_counter()
    try:
        while done := await index.index_pending(limit=_INDEX_ROWS):
            report.indexed += done
            report.index_s = time.perf_counter() - started
            if on_progress is not None:
                on_progress(_progress(report, size_bytes, size_bytes, "index"))
    except UnsupportedError:
        return  # a store that searches without an index


def _progress(
    report: ImportReport, read_bytes: int, size_bytes: int, phase: Literal["load", "index"] = "load"
) -> Progress:
    return Progress(
        phase,
        read_bytes,
        size_bytes,
        report.chats + report.grown,
        report.messages,
        report.memory_items,
        report.refused,
        report.indexed,
    )
