"""What the schema engine has to say about files and databases: one shape for every check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    rule      its name, as `late-migration` or `drop-table`: what `-- dal:allow` and `--allow` silence.
    severity  `error`: `up` refuses.  `warning`: shown, and `up` goes on.
    file      file name of the migration (`rollback/…` for a way back); empty where it concerns the database.
    line      in that file, from 1; None where it concerns the whole of it.
    message   what was found, and why it matters.
    advice    the safe way; empty where there is none to give.
    """

    rule: str
    severity: Literal["error", "warning"]
    file: str = ""
    line: int | None = None
    message: str
    advice: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{where}: {self.rule}: {self.message}" if where else f"{self.rule}: {self.message}"


def errors(findings: tuple[Finding, ...] | list[Finding]) -> list[Finding]:
    """Those that make `up` refuse."""
    return [finding for finding in findings if finding.severity == "error"]
