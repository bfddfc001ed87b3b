"""A short fault run of a live move on every ordered pair of stores: nothing is lost, resurrected or written twice.

Each run is a process of its own, for it forks. `make torture` does the same for longer, with more of everything.
"""

from __future__ import annotations

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


@pytest.mark.parametrize(("source", "target"), [*permutations(BACKENDS, 2), (LEGACY, "sqlite")])
def test_a_move_under_faults_keeps_every_promise(source: str, target: str, tmp_path: Path) -> None:
    for backend in (source, target):
        if not is_movable(backend):
            pytest.skip(f"{backend} cannot take part in a move yet")
    command = [sys.executable, "-m", "tests.torture", "--quick", "--source", source, "--target", target]
    done = subprocess.run(
        [*command, "--seed", str(SEED), "--keep", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if "ENGINE NOT TESTED" in done.stderr:
        for backend in (source, target):
            if backend in ("d1", "postgresql"):
                honesty.not_tested(backend, done.stderr.strip())
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-6000:]}"
