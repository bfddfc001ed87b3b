"""`python -m tests.bench`: measures, prints, and writes JSON or the documentation page when asked to."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.bench import machine, report
from tests.bench.data import Scale
from tests.bench.measure import Pace
from tests.bench.run import BACKENDS, run

_ROOT: Final = Path(__file__).parents[2]
_FULL: Final = Pace(rounds=9, round_s=0.4, warm_up_s=0.3)
_QUICK: Final = Pace(rounds=3, round_s=0.15, warm_up_s=0.15)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORDS", help="comma-separated: backends, and words of paths")
    parser.add_argument("--quick", action="store_true", help="few short rounds: a rough look")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--corpus", type=Path, help="take the texts from this .jsonl.gz in the import format")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md, or its sections of --only")
    chosen = parser.parse_args(arguments)
    words = [word.strip().lower() for word in chosen.only.split(",") if word.strip()]
    pace = _QUICK if chosen.quick else _FULL
    if chosen.rounds:
        pace = pace._replace(rounds=chosen.rounds)
    if chosen.write_docs and not set(words) <= set(BACKENDS):
        parser.error("--write-docs writes whole sections: with it, --only takes names of backends")
    console = Console(width=None if sys.stdout.isatty() else 200)
    described = machine.describe()
    for name, value in described.items():
        console.print(f"{name}: {value}", highlight=False)
    found, engines = asyncio.run(run(console, pace, Scale(), words=words, corpus=chosen.corpus))
    if not found:
        console.print(f"nothing to measure; backends are {', '.join(BACKENDS)}")
        return 2
    if chosen.json:
        chosen.json.write_text(report.as_json(described | engines, found), encoding="utf-8")
    if chosen.write_docs:
        report.write_page(_ROOT / "docs" / "benchmarks.md", described, engines, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
