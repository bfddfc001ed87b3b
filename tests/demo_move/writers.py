"""A process of writers: JSON lines about how they are doing until its standard input ends, then what they were told."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from dataclasses import asdict

from dal.cli.demo_writers import Writers

_REPORT_EVERY_S = 0.2


async def work(given: argparse.Namespace) -> None:
    writers = Writers(given.source, given.target, given.count, name=given.name, pause_s=given.pause)
    try:
        await writers.start()
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        while not ended.done():
            say({"answered": writers.acknowledged, "failed": writers.failed, "slowest_s": writers.slowest_s()})
            await asyncio.wait({ended}, timeout=_REPORT_EVERY_S)
        ended.result()
        await writers.stop()
        say({"slowest_s": writers.slowest_s(), "ledgers": [asdict(ledger) for ledger in writers.ledgers]})
    finally:
        await writers.close()


def say(report: dict[str, object]) -> None:
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of standard input says when it is over
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of each refused write, which is tried again
    parser = argparse.ArgumentParser(prog="python -m tests.demo_move.writers", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--pause", type=float, default=0.1)
    asyncio.run(work(parser.parse_args()))
