"""SIGKILL at every request to either store, and at random moments: no file or a whole one, and sums that are right."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.files.killing import RANDOM_DEATHS

ROOT = Path(__file__).parents[2]


def test_whenever_it_is_killed_there_is_no_file_or_a_whole_one(tmp_path: Path) -> None:
    """One program: killed before every other of its requests until it comes through, then at random moments; after each
    death what is left is read, counted, swept, and compared again."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.files.killing", str(tmp_path), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lives[-3:]}\n{done.stderr[-2000:]}"
    for life in lives:
        assert life["seen"] == 0, life
    steps = [life["code"] for life in lives if "step" in life]
    assert steps == [-signal.SIGKILL] * (len(steps) - 1) + [0]
    assert len(steps) > 15
    assert [life["code"] for life in lives if "death" in life] == [-signal.SIGKILL] * RANDOM_DEATHS
    swept = {name for life in lives for name in life["found"]["swept"]}
    assert {"orphan_blobs", "expired_uploads"} <= swept, "nothing was ever left"
