"""Findings, files and statements as people read them (`file:line`, so that an editor can jump there), and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dal.cli.output import one_line, printable

if TYPE_CHECKING:
    from dal.schema import Migrated, Migration
    from dal.schema.findings import Finding


def findings_json(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """rule, severity, file, line, message, advice of each."""
    return [asdict(finding) for finding in findings]


def print_findings(findings: Iterable[Finding], directory: Path | None, *, to_stderr: bool = False) -> None:
    """`migrations/0003_x.sql:4: error: drop-table: …`, the safe way indented below it.

    directory  of the files, as the reader's shell would find it.
    """
    out = sys.stderr if to_stderr else sys.stdout
    prefix = "dal: " if to_stderr else ""
    for finding in findings:
        file = finding.file if directory is None or not finding.file else str(shown_path(directory / finding.file))
        where = file if finding.line is None else f"{file}:{finding.line}"
        parts = (one_line(where), finding.severity, finding.rule, one_line(finding.message))
        print(prefix + ": ".join(part for part in parts if part), file=out)
        if finding.advice:
            print(f"{prefix}    {one_line(finding.advice)}", file=out)


def print_statements(migrations: Iterable[Migration]) -> None:
    """Every statement as SQL, with a comment that says where it stands."""
    for migration in migrations:
        for statement in migration.statements:
            where = f"{shown_path(migration.up.path)}:{statement.line}"
            print(f"-- {one_line(where)}\n{printable(statement.sql)};\n")


def shown_path(path: Path) -> Path:
    """From the working directory where it lies below it, as one would type it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def migrated_json(done: Iterable[Migrated]) -> list[dict[str, object]]:
    """name, duration_ms and statements of each."""
    return [{"name": m.name, "duration_ms": m.duration_ms, "statements": m.statements} for m in done]


def migrated_rows(done: Iterable[Migrated]) -> list[tuple[object, ...]]:
    """Cells of a table: name, statements, ms."""
    return [(m.name, m.statements, m.duration_ms) for m in done]
