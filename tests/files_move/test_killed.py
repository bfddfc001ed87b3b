"""SIGKILL before requests to the target, and at random moments: a large blob goes on behind what has arrived."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.engines.dying import lives_of
from tests.files_move.killing import AT_ONCE, LARGE_BYTES, PART_BYTES, SMALL


def test_whenever_it_is_killed_it_goes_on_and_sends_nothing_twice_but_what_was_on_its_way(tmp_path: Path) -> None:
    lines = lives_of("tests.files_move.killing", tmp_path)
    for line in lines:
        assert (line["same"], line["left"]) == (True, []), line
    *steps, chain = lines
    assert [line["code"] for line in steps] == [-signal.SIGKILL] * (len(steps) - 1) + [0]
    assert len(steps) > 10
    for line in steps:
        assert line["ended"] == 0, line
        # What was on its way, and what had arrived but was not noted yet.
        assert line["sent"] <= LARGE_BYTES + AT_ONCE * PART_BYTES, line
    assert chain["code"] == 0, chain
    assert chain["deaths"] > 1, chain
    assert json.loads(chain["said"]).keys() == {"copied", "there"}
    assert sum(json.loads(chain["said"]).values()) == SMALL + 1
    assert chain["sent"] <= LARGE_BYTES + chain["deaths"] * AT_ONCE * PART_BYTES, chain
