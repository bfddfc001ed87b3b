"""SIGKILL at every request to either store, and at random moments: no file or a whole one, and sums that are right."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.engines.dying import lives_of
from tests.files.killing import RANDOM_DEATHS


def test_whenever_it_is_killed_there_is_no_file_or_a_whole_one(tmp_path: Path) -> None:
    """One program: killed before every other of its requests until it comes through, then at random moments; after each
    death what is left is read, counted, swept, and compared again."""
    lives = lives_of("tests.files.killing", tmp_path)
    for life in lives:
        assert life["seen"] == 0, life
    steps = [life["code"] for life in lives if "step" in life]
    assert steps == [-signal.SIGKILL] * (len(steps) - 1) + [0]
    assert len(steps) > 15
    assert [life["code"] for life in lives if "death" in life] == [-signal.SIGKILL] * RANDOM_DEATHS
    swept = {name for life in lives for name in life["found"]["swept"]}
    assert {"orphan_blobs", "expired_uploads"} <= swept, "nothing was ever left"
