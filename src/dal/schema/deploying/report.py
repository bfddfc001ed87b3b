"""Three reports of a deployment, each for people (`.txt`) and for programs (`.json`), ready to attach to a release.

`execution-log`: what was done, when, by which version, and how it ended. `validation-report`: what the checks before
and after found. `baseline-timings`: how long each file took on a scratch database and on the real one, and the plans
and times of the key queries, to compare the next release with. Nothing in them is secret: addresses have no password,
and where PostgreSQL quotes rows of the database (DETAIL: Key (email)=(…) is duplicated), the quotation is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from dal.schema.checking.explain import Explained
from dal.schema.deploying.deployment import Deployment
from dal.schema.findings import Finding

#: Of every report; changes when a program that reads one would have to.
FORMAT: Final = 1
_Facts: TypeAlias = dict[str, object]
_UNIT: Final = "ms"
#: The connection's word before the server's, and the runner's behind it.
_DETAIL, _STATEMENT = " DETAIL: ", "; the statement: "


def write_reports(deployment: Deployment, directory: Path) -> list[Path]:
    """Writes the reports, each in place of one of the same name, and says where. The directory is made where it is
    missing. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    reports: dict[str, tuple[_Facts, Callable[[Deployment], list[str]]]] = {
        "execution-log": (execution_log(deployment), _execution_text),
        "validation-report": (validation_report(deployment), _validation_text),
        "baseline-timings": (baseline_timings(deployment), _timings_text),
    }
    for name, (facts, text) in reports.items():
        title = name.replace("-", " ").capitalize()
        lines = [title, "=" * len(title), *_pairs(_head(deployment)), "", *text(deployment)]
        document = {"report": name, "format": FORMAT, **_head(deployment), **facts}
        contents = {
            ".txt": "\n".join(line.rstrip() for line in lines),
            ".json": json.dumps(document, default=str, ensure_ascii=False, indent=2, sort_keys=True),
        }
        for suffix, content in contents.items():
            path = directory / f"{name}{suffix}"
            # A path may hold bytes that are no text; a report of it is still a report.
            _replace(path, f"{content}\n".encode("utf-8", "replace"))
            written.append(path)
    return written


def execution_log(deployment: Deployment) -> _Facts:
    """What was done, as plain dictionaries and lists."""
    backup = deployment.backup
    return {
        "outcome": discreet(deployment.message),
        "phases": [
            {
                "name": phase.name,
                "state": phase.state,
                "duration_ms": phase.duration_ms,
                "message": discreet(phase.message),
                "findings": _findings(phase.findings),
            }
            for phase in deployment.phases
        ],
        "pending": [] if deployment.plan is None else [migration.name for migration in deployment.plan.pending],
        "left_out": [] if deployment.plan is None else [list(pair) for pair in deployment.plan.left_out],
        "migrations": [
            {"name": done.name, "duration_ms": done.duration_ms, "statements": done.statements}
            for done in deployment.migrated
        ],
        "backup": None
        if backup is None
        else {
            "file": str(backup.path),
            "sha256": backup.manifest.sha256,
            "size_bytes": backup.manifest.size_bytes,
            "rows": {name: digest.rows for name, digest in sorted(backup.manifest.tables.items())},
            "restore": deployment.restore_hint,
        },
    }


def validation_report(deployment: Deployment) -> _Facts:
    """What the checks found, as plain dictionaries and lists."""
    validation, verification = deployment.validation, deployment.verification
    return {
        "findings": _findings(deployment.findings),
        "validation": None if validation is None else validation.to_dict(),
        "verification": None if verification is None else verification.to_dict(),
    }


def baseline_timings(deployment: Deployment) -> _Facts:
    """How long things took, as plain dictionaries and lists."""
    tried = {} if deployment.validation is None else {file.name: file for file in deployment.validation.files}
    applied = {done.name: done for done in deployment.migrated}
    return {
        "migrations": [
            {
                "name": name,
                "applied_ms": applied[name].duration_ms if name in applied else None,
                "scratch_up_ms": tried[name].up_ms if name in tried else None,
                "scratch_down_ms": tried[name].down_ms if name in tried else None,
            }
            for name in dict.fromkeys([*tried, *applied])
        ],
        "queries": [
            {
                "name": explained.query.name,
                "place": explained.query.place,
                "duration_ms": explained.duration_ms,
                "indexes": list(explained.indexes),
                "full_scans": list(explained.full_scans),
                "plan": list(explained.plan_lines),
                "problems": list(explained.problems),
            }
            for explained in deployment.explained
        ],
    }


# As text --------------------------------------------------------------------------------------------------------------


def _execution_text(deployment: Deployment) -> list[str]:
    lines = [*_wrapped("Outcome", discreet(deployment.message)), "", "Phases"]
    lines += _table(
        ("phase", "state", _UNIT, ""),
        [(phase.name, phase.state, phase.duration_ms, discreet(phase.message)) for phase in deployment.phases],
    )
    lines += ["", "Migrations"]
    lines += _table(("file", "statements", _UNIT), [(m.name, m.statements, m.duration_ms) for m in deployment.migrated])
    if deployment.plan is not None and deployment.plan.left_out:
        lines += ["", "Left out", *_table(("file", "why"), deployment.plan.left_out)]
    if deployment.backup is not None:
        manifest = deployment.backup.manifest
        facts = {
            "file": deployment.backup.path,
            "size": f"{manifest.size_bytes} bytes",
            "sha-256": manifest.sha256,
            "tables": f"{len(manifest.tables)}, {sum(digest.rows for digest in manifest.tables.values())} rows",
            "restore": deployment.restore_hint,
        }
        lines += ["", "Backup", *_pairs(facts)]
    return lines


def _validation_text(deployment: Deployment) -> list[str]:
    lines = ["Findings", *_finding_lines(deployment.findings), "", "Tried on a scratch database"]
    if deployment.validation is None:
        lines += ["  not tried"]
    else:
        lines += _table(
            ("file", "statements", "forward", "back", "again"),
            [(f.name, f.statements, f.up_ms, f.down_ms, f.again_ms) for f in deployment.validation.files],
        )
    lines += ["", "Verified after"]
    verification = deployment.verification
    if verification is None:
        return [*lines, "  not verified"]
    lines += _table(("objects", "found"), list(verification.objects.items()))
    lines += ["", "Differences", *_bullets(str(difference) for difference in verification.differences)]
    lines += ["", "Checks"]
    lines += _table(
        ("check", "result", _UNIT),
        [(check.query.name, check.problem or "as expected", check.duration_ms) for check in verification.checks],
    )
    return lines


def _timings_text(deployment: Deployment) -> list[str]:
    facts = baseline_timings(deployment)
    rows = [tuple(row.values()) for row in _rows(facts["migrations"])]
    lines = ["Migrations, ms", *_table(("file", "applied", "scratch", "scratch back"), rows), "", "Queries"]
    lines += _table(
        ("query", _UNIT, "indexes", "reads all of"),
        [(e.query.name, e.duration_ms, ", ".join(e.indexes), ", ".join(e.full_scans)) for e in deployment.explained],
    )
    for explained in deployment.explained:
        lines += ["", *_plan_lines(explained)]
    return lines


def _plan_lines(explained: Explained) -> list[str]:
    return [explained.query.name, *(f"  {line}" for line in explained.plan_lines)]


def _finding_lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        lines.append(f"  {finding.severity}: {finding}")
        lines += [f"    {finding.advice}"] if finding.advice else []
    return lines or ["  none"]


# Shared ---------------------------------------------------------------------------------------------------------------


def _head(deployment: Deployment) -> _Facts:
    return {
        "result": "ok" if deployment.ok else "failed",
        "database": deployment.address,
        "environment": deployment.environment,
        "set": deployment.schema_set,
        "engine": f"{deployment.engine} {deployment.server_version}".strip(),
        "tool": f"dal {deployment.tool_version}",
        "started_at": _time(deployment.started_at),
        "ended_at": _time(deployment.started_at + timedelta(milliseconds=deployment.duration_ms)),
        "duration_ms": deployment.duration_ms,
    }


def discreet(message: str) -> str:
    """Without what follows PostgreSQL's DETAIL, up to the last place where our own words go on."""
    before, detail, after = message.partition(_DETAIL)
    _, statement, rest = after.rpartition(_STATEMENT)
    return f"{before}{detail}left out{statement}{rest if statement else ''}" if detail else message


def _findings(findings: Iterable[Finding]) -> list[_Facts]:
    return [
        {
            "rule": finding.rule,
            "severity": finding.severity,
            "file": finding.file,
            "line": finding.line,
            "message": finding.message,
            "advice": finding.advice,
        }
        for finding in findings
    ]


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rows(value: object) -> list[_Facts]:
    assert isinstance(value, list)  # noqa: S101  # made above
    return value


def _pairs(facts: _Facts) -> list[str]:
    width = max(len(name) for name in facts) + 2
    return [f"{name.replace('_', ' '):<{width}}{'-' if value is None else value}" for name, value in facts.items()]


def _wrapped(title: str, text: str) -> list[str]:
    return [title, *_bullets(text.split("; "))]


def _bullets(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines] or ["  none"]


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Columns as wide as their widest cell, numbers to the right."""
    if not rows:
        return ["  none"]
    cells = [tuple("-" if cell is None else " ".join(str(cell).split()) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in (header, *cells)) for column in range(len(header))]
    numeric = [all(isinstance(row[n], int | float | None) for row in rows) for n in range(len(header))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        for row in (tuple(header), *cells)
    ]


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all: a release must not carry half a report."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
