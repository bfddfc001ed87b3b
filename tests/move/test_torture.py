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


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.torture", *options, "--seed", str(SEED)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


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
