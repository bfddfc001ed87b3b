"""`dal schema …` as a process, in a project whose environment names a database and a set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.schema_sets.sets import SchemaSet

TIMEOUT_S: Final = 120


class Project:
    """A directory with a `dal.toml` whose environment `dev` is one database with one set of migrations."""

    def __init__(self, directory: Path, schema_set: SchemaSet, url: str) -> None:
        self._directory = directory
        self._url = url
        (directory / "dal.toml").write_text(
            f'[schema]\ndirectory = "{schema_set.copy(directory)}"\n[environments.dev]\nurl = "$DEV_URL"\nseed = true\n'
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output and messages of `dal schema …`."""
        done = subprocess.run(
            [sys.executable, "-m", "dal.cli", "schema", *arguments],
            cwd=self._directory,
            env={"PATH": os.environ.get("PATH", os.defpath), "DEV_URL": self._url, "NO_COLOR": "1"} | _d1_settings(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What the command says as JSON, once it has ended with this code."""
        found, output, messages = self.run(*arguments, "--env", "dev", "--json")
        assert found == code, f"{arguments}: {output}{messages}"
        answer: dict[str, Any] = json.loads(output)
        return answer


def _d1_settings() -> dict[str, str]:
    """What reaches a D1 beside its URL, where a test has one."""
    return {name: os.environ[name] for name in ("D1_API_TOKEN", "D1_API_BASE") if name in os.environ}
