"""A short fault run of a live move on every ordered pair of stores: nothing is lost, resurrected or written twice.

Each run is a process of its own, for it forks. `make torture` does the same for longer, with more of everything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from tests.engines import honesty
from tests.torture.places import BACKENDS, LEGACY, is_movable

ROOT = Path(__file__).parents[2]
#: How long a run may take on a machine with too much to do.
PATIENCE_S = 240
SEED = 7
#: A worker that is asked to stop before it listens: its supervisor prints how it ended.
EARLY = """
import os, signal, sys
from pathlib import Path
from tests.torture.stopping import stopped, stopping
from tests.torture.workers import forked

asked, ask = os.pipe()

async def with_a_loop():
    os.read(asked, 1)
    await stopping().wait()

def without_one():
    os.read(asked, 1)
    told = stopped()
    while not told:
        pass

for work in (with_a_loop, without_one):
    worker = forked(work, Path(sys.argv[1]))
    os.kill(worker, signal.SIGTERM)
    os.write(ask, b"x")
    print(work.__name__, os.waitpid(worker, 0)[1])
"""


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.torture", *options, "--seed", str(SEED)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_worker_that_is_asked_to_stop_before_it_listens_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EARLY, str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.splitlines() == ["with_a_loop 0", "without_one 0"]


def test_checks_beside_writers_and_cutovers_call_nothing_a_difference(tmp_path: Path) -> None:
    done = _run("--quick", "--checker", "--source", "sqlite", "--target", "file", "--keep", str(tmp_path))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
    assert re.search(r"[1-9]\d* checks beside them, of [1-9]\d* rows", done.stdout)


@pytest.mark.parametrize(("source", "target"), [*permutations(BACKENDS, 2), (LEGACY, "sqlite")])
def test_a_move_under_faults_keeps_every_promise(source: str, target: str, tmp_path: Path) -> None:
    for backend in (source, target):
        if not is_movable(backend):
            pytest.skip(f"{backend} cannot take part in a move yet")
    done = _run("--quick", "--source", source, "--target", target, "--keep", str(tmp_path))
    if "ENGINE NOT TESTED" in done.stderr:
        for backend in (source, target):
            if backend in ("d1", "postgresql"):
                honesty.not_tested(backend, done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
