"""Programs of the tests that die again and again and say so: a line of JSON for each of their lives."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 240


def lives_of(module: str, directory: Path) -> list[dict[str, Any]]:
    """What `python -m MODULE DIRECTORY SEED` tells, which ends well; the seed is printed."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    done = subprocess.run(
        [sys.executable, "-m", module, str(directory), str(seed)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lives[-3:]}\n{done.stderr[-2000:]}"
    return lives
