"""`python -m tests.torture --source sqlite --target postgresql --seconds 60 --seed 7`: torture of one pair of stores.

Without a pair, every ordered pair takes its turn, for as long as one likes. The seed is printed first; a failure prints
how it is played again. Timing is the machine's, so a seed repeats the choices and not every moment.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from itertools import count, product
from pathlib import Path

from tests.engines.postgres import EngineMissingError
from tests.torture.places import BACKENDS, LEGACY, is_movable
from tests.torture.supervisor import LOG, Plan, Supervisor

QUICK = Plan(
    seconds=2.0,
    writers=2,
    lanes=2,
    foreign=1,
    movers=1,
    switchers=1,
    switch_every_s=0.2,
    fault_every_s=0.3,
    rate=0.02,
    writer_pause_s=0.02,
    begins_settled=0.8,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--source", choices=(*BACKENDS, LEGACY))
    parser.add_argument("--target", choices=BACKENDS)
    parser.add_argument("--seconds", type=float, help="of one run")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--runs", type=int, help="so many runs, with seeds that follow each other; none: for ever")
    parser.add_argument("--quick", action="store_true", help="few processes and many faults, as in the test suite")
    parser.add_argument("--calm", action="store_true", help="no faults: only writers, movers and cutovers")
    parser.add_argument("--checker", action="store_true", help="checks beside the writers, and no faults")
    parser.add_argument("--keep", type=Path, help="leave ledgers and files of a failed run there")
    given = parser.parse_args()
    pairs = [
        (source, target)
        for source, target in product((*BACKENDS, LEGACY), BACKENDS)
        if given.source in (None, source) and given.target in (None, target) and source_is_ready(source, target)
    ]
    if not pairs:
        print("no such pair: a store of it cannot take part in a move yet", file=sys.stderr)
        return 2
    single = given.source is not None and given.target is not None
    plan = QUICK if given.quick else Plan(seconds=60.0)
    changes: dict[str, object] = {}
    if given.seconds is not None:
        changes["seconds"] = given.seconds
    if given.checker:
        changes["checkers"] = 2
    if given.calm or given.checker:
        changes |= {"rate": 0.0, "fault_every_s": 1e9}
    plan = Plan(**{**vars(plan), **changes})
    first = secrets.randbelow(10**6) if given.seed is None else given.seed
    runs = given.runs if given.runs is not None else 1 if single else None
    for number in count() if runs is None else range(runs * (1 if single else len(pairs))):
        source, target = pairs[number % len(pairs)]
        if not one_run(first + number // len(pairs), source, target, plan, given):
            return 1
    return 0


def source_is_ready(source: str, target: str) -> bool:
    return (source == LEGACY or is_movable(source)) and is_movable(target)


def one_run(seed: int, source: str, target: str, plan: Plan, given: argparse.Namespace) -> bool:
    """Whether every promise was kept."""
    print(f"seed {seed}: {source} -> {target}, {plan.seconds:g} s", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="dal-torture-"))
    try:
        outcome = Supervisor(seed, source, target, plan, directory).run()
    except EngineMissingError as error:
        print(f"ENGINE NOT TESTED: {error}", file=sys.stderr)
        shutil.rmtree(directory, ignore_errors=True)
        return True
    print("  " + outcome.figures().replace("\n", "\n  "))
    print(f"  {'FAILED' if outcome.problems else 'kept every promise'} after {outcome.seconds:.1f} s", flush=True)
    if not outcome.problems:
        shutil.rmtree(directory, ignore_errors=True)
        return True
    print(f"  the log ends: {tail_of(directory / LOG)}", file=sys.stderr)
    for problem in outcome.problems[:12]:
        print(f"  {problem}", file=sys.stderr)
    if len(outcome.problems) > 12:
        print(f"  and {len(outcome.problems) - 12} more", file=sys.stderr)
    kept = directory
    if given.keep is not None:
        kept = given.keep / f"{source}-{target}-{seed}-{int(time.time())}"
        shutil.move(directory, kept)
    print(f"  ledgers and events: {kept}", file=sys.stderr)
    options = "".join(f" --{name}" for name in ("quick", "calm", "checker") if getattr(given, name))
    print(
        f"  again: python -m tests.torture --source {source} --target {target} --seconds {plan.seconds:g} "
        f"--seed {seed}{options}",
        file=sys.stderr,
    )
    return False


def tail_of(log: Path) -> str:
    """What the processes said last, without the warning of an old SQLite, which every one of them gives."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if "can corrupt a database" not in line]
    return "\n  ".join(lines[-15:])


if __name__ == "__main__":
    sys.exit(main())
