"""squawk, a linter for PostgreSQL, as a second reader: it knows more of PostgreSQL than the rules of this package.

It reads one file at a time and knows nothing of the files before, so it only warns; whether `up` goes on never depends
on an optional package. Rules of squawk that ask what a rule of this package asks are left to ours. It is found beside
the interpreter, where the extra `dal[lint]` puts it; it needs no network and no database.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from dal.schema.files import Script
from dal.schema.findings import Finding
from dal.schema.linting.rules import RULES
from dal.schema.linting.words import one_of

#: squawk's rules that a rule of ours stands for, with knowledge of the whole set; and matters of taste.
OURS: Final[dict[str, str]] = {
    "require-concurrent-index-creation": "create-index-not-concurrent",
    "require-concurrent-index-deletion": "drop-index-not-concurrent",
    "require-concurrent-reindex": "reindex",
    "ban-concurrent-index-creation-in-transaction": "concurrently-in-transaction",
    "adding-field-with-default": "add-column-volatile-default",
    "adding-required-field": "not-null-without-default",
    "adding-not-nullable-field": "set-not-null",
    "adding-foreign-key-constraint": "foreign-key-not-valid",
    "constraint-missing-not-valid": "foreign-key-not-valid",
    "adding-serial-primary-key-field": "unique-constraint-blocks",
    "disallowed-unique-constraint": "unique-constraint-blocks",
    "changing-column-type": "change-column-type",
    "renaming-column": "rename",
    "renaming-table": "rename",
    "renaming-object": "rename",
    "ban-drop-table": "drop-table",
    "ban-drop-column": "drop-column",
    "ban-drop-schema": "drop-schema",
    "ban-drop-database": "drop-schema",
    "prefer-robust-stmts": "not-repeatable",
    "transaction-nesting": "transaction-control",
    "ban-uncommitted-transaction": "transaction-control",
}
#: `up` sets a lock timeout itself; the others say how to write, not what breaks.
_TASTE: Final = one_of(
    "require-lock-timeout require-statement-timeout require-timeout-settings require-table-schema "
    "require-enum-value-ordering prefer-bigint-over-int prefer-bigint-over-smallint prefer-identity prefer-repack "
    "prefer-text-field prefer-timestamp-tz ban-char-field"
)
_PLAIN_NAME: Final = re.compile(r"(?:rollback/)?\w+\.sql")
#: Windows takes command lines of 32 KB.
_FILES_AT_ONCE: Final = 100
_TIMEOUT_S: Final = 30
#: Named, so that no .squawk.toml of a directory above is found.
CONFIG: Final = Path(__file__).with_name("squawk.toml")


def executable() -> Path | None:
    """squawk beside the interpreter; one elsewhere on the machine may be any version."""
    suffix = ".exe" if sys.platform == "win32" else ""
    for directory in (Path(sysconfig.get_path("scripts")), Path(sys.executable).parent):
        found = directory / f"squawk{suffix}"
        if found.is_file():
            return found
    return None


def review(directory: Path, judged: Sequence[tuple[Script, list[Finding]]]) -> None:
    """Adds squawk's findings to those of each forward file, or one that says that it could not be asked."""
    scripts = {
        script.name: (script, found)
        for script, found in judged
        if not script.name.startswith("rollback/") and script.statements and _PLAIN_NAME.fullmatch(script.name)
    }
    if not scripts:
        return
    program = executable()
    if program is None:
        _missing(next(iter(scripts.values()))[1], "squawk, the second reader of PostgreSQL files, is not installed")
        return
    for in_transaction in (True, False):
        names = [name for name, (script, _) in scripts.items() if script.directives.transaction is in_transaction]
        for start in range(0, len(names), _FILES_AT_ONCE):
            chunk = names[start : start + _FILES_AT_ONCE]
            try:
                reports = _run(program, directory, chunk, in_transaction=in_transaction)
            except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
                _missing(next(iter(scripts.values()))[1], f"squawk could not be asked: {error}")
                return
            for name, finding in reports:
                scripts[name][1].append(finding)


def _run(program: Path, directory: Path, names: list[str], *, in_transaction: bool) -> list[tuple[str, Finding]]:
    command = [str(program), "--reporter", "json", "--config", str(CONFIG), *names]
    if in_transaction:
        command.insert(1, "--assume-in-transaction")
    # It exits with 1 where it has found something, and then says so in JSON.
    answer = subprocess.run(  # noqa: S603  # a program of this installation, with names of files
        command, cwd=directory, capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    if not answer.stdout:
        raise ValueError(answer.stderr.decode(errors="replace").strip() or f"it ended with {answer.returncode}")
    return list(_findings(json.loads(answer.stdout)))


def _findings(reports: list[dict[str, object]]) -> Iterator[tuple[str, Finding]]:
    for report in reports:
        rule, file, line = str(report["rule_name"]), str(report["file"]), report["line"]
        if rule in OURS or rule in _TASTE:
            continue
        yield (
            file,
            Finding(
                rule=f"squawk-{rule}",
                severity="warning",
                file=file,
                line=line + 1 if isinstance(line, int) else None,  # it counts from 0
                message=str(report["message"]),
                advice=str(report["help"] or ""),
            ),
        )


def _missing(found: list[Finding], message: str) -> None:
    rule = RULES["squawk-missing"]
    found.append(
        Finding(rule=rule.name, severity=rule.severity, message=f"{message}. {rule.why}", advice=rule.safe_way)
    )
