"""`python -m tests.move.legacy_writer ROOT NAME`: a program that writes legacy chat files, and knows no library.

Until its writes fail it appends lines to a chat, writes another one anew in place, replaces its user's memory, and
makes and removes exports of conversations. It prints each write once it is done: what was written, and its number.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(root: Path, name: str) -> None:
    sessions, memory = root / "data" / "chat_sessions", root / "data" / "memory"
    exports = root / "conversations" / name
    messages: list[dict[str, str]] = []
    refused: set[str] = set()
    print("ready", flush=True)
    number = 0
    while len(refused) < 2:
        number += 1
        kind = ("lines", "document", "memory", "export", "removal")[number % 5]
        try:
            match kind:
                case "lines":
                    with (sessions / f"lines-{name}.jsonl").open("a") as file:
                        file.write(json.dumps({"role": "user", "content": f"mark {number}"}) + "\n")
                case "document":
                    messages.append({"role": "user", "content": f"mark {number}"})
                    try:
                        with (sessions / f"{name}.json").open("w") as file:
                            file.write('{"messages": ')
                            file.flush()  # whoever reads now finds half a document
                            file.write(json.dumps(messages) + "}")
                    except OSError:
                        messages.pop()
                        raise
                case "memory":
                    aside = memory / f".{name}.new"
                    aside.write_text(json.dumps({"facts": [f"mark {number}"]}))
                    aside.replace(memory / f"{name}.json")
                case "export":
                    exports.mkdir(parents=True, exist_ok=True)
                    chat = {"messages": [{"role": "user", "content": f"mark {number}"}]}
                    (exports / f"{number}.json").write_text(json.dumps(chat))
                case "removal":
                    if number % 10 == 9:
                        continue
                    (exports / f"{number - 1}.json").unlink()
            print(kind, number, flush=True)
        except OSError as error:
            refused.add("memory" if kind == "memory" else "chats")
            print("refused", type(error).__name__, kind, flush=True)
        time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
