"""`python -m tests.move.file_foreign DIRECTORY`: a program that writes a file store's files itself, knowing no library.

Until it is told to end or finds no directory any more it adds lines to its chat, rewrites its user's document and the
items of its memory. It prints each write once it is done: the table, the id, and a mark that the row then holds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from dal.testing import rows

USER, CHAT, MEMORY = 71, 72, 73
FIRST_MESSAGE = 80_000


def main(directory: Path) -> None:
    (user,) = directory.glob(f"users/*/{rows.row_id(USER)}.json")
    (memory,) = directory.glob(f"memory/*/{rows.row_id(USER)}.json")
    (lines,) = directory.glob(f"chats/*/chat-{CHAT}.jsonl")
    message = json.loads(lines.read_text().splitlines()[0])
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        mark = f"mark {number}"
        try:
            match number % 3:
                case 0:
                    row_id = rows.row_id(FIRST_MESSAGE + number)
                    row = message | {"id": row_id, "sequence_number": 1000 + number, "content": mark}
                    with lines.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print("messages", row_id, mark, flush=True)
                case 1:
                    _rewrite(user, json.loads(user.read_text()) | {"name": mark})
                    print("users", rows.row_id(USER), mark, flush=True)
                case 2:
                    document = json.loads(memory.read_text())
                    document["items"][0]["value"] = mark
                    _rewrite(memory, document)
                    print("user_memory", document["items"][0]["id"], mark, flush=True)
        except (NotADirectoryError, FileNotFoundError) as error:
            print("refused", type(error).__name__, "-", flush=True)
            return
        time.sleep(0.002)


def _rewrite(path: Path, document: object) -> None:
    """As careful programs do: beside it, then renamed."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(document))
    aside.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
