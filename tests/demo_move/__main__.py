"""`make demo-move`: the given corpus, or made data, from files to PostgreSQL under writers, with its figures."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from dal.cli.demo_data import write_demo_data
from tests.demo_move.children import CommandFailedError
from tests.demo_move.story import Plan, Story
from tests.engines.postgres import EngineMissingError, PostgresServer, obtain

_CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus"
_FILES = ("corpus_a.jsonl.gz", "corpus_a_user_memory.jsonl.gz")
_MADE_CHATS = 5_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo_move", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=_CORPUS, help="where corpus_a.jsonl.gz lies")
    parser.add_argument("--chats", type=int, help="so many made chats instead of the corpus")
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--processes", type=int, default=4, help="of the writers")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds between two calls of a writer")
    given = parser.parse_args(arguments)
    try:
        server = obtain(durable=True)
    except EngineMissingError as error:
        print(f"ENGINE NOT TESTED: postgresql ({error})", file=sys.stderr)
        return 1
    try:
        return tell(server, given)
    finally:
        server.close()


def tell(server: PostgresServer, given: argparse.Namespace) -> int:
    """Runs the story; 0 when nothing is missing at the end."""
    with tempfile.TemporaryDirectory(prefix="dal-demo-move-") as place:
        files = [given.corpus / name for name in _FILES]
        if given.chats is not None or not all(path.is_file() for path in files):
            print("made data" if given.chats is not None else f"no corpus at {given.corpus}: made data instead")
            files = list(write_demo_data(Path(place), given.chats or _MADE_CHATS))
        plan = Plan(
            files=files,
            source=f"file:{place}/data",
            target=server.create_database("dal_demo_move"),
            log=Path(place) / "log",
            writers=given.writers,
            processes=given.processes,
            pause_s=given.pause,
        )
        story = Story(plan, say)
        try:
            asyncio.run(story.run())
        except CommandFailedError as error:
            story.problems.append(str(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        for problem in story.problems:
            print(f"PROBLEM: {problem}", file=sys.stderr)
        return 1 if story.problems else 0


def say(label: str, text: str) -> None:
    print(f"  {label:<16}{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
