"""Reads the files of a set in the order of their application, and asks the rules of each statement."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from dal.schema.connection import EngineName, Place
from dal.schema.files import MigrationSet, Script
from dal.schema.findings import Finding
from dal.schema.linting import columns, d1, destructive, files, locks, rebuild, squawk
from dal.schema.linting.acts import Act, Plain, Pragma
from dal.schema.linting.catalog import Catalog, Work
from dal.schema.linting.context import Check, Context, Hit
from dal.schema.linting.grammar import acts
from dal.schema.linting.rules import BREAKS_RUNNING, RULES
from dal.schema.linting.words import Token, read
from dal.schema.statements import Statement

_CHECKS: Final[tuple[Check, ...]] = (
    destructive.check,
    rebuild.check,
    columns.check,
    locks.check,
    files.foreign_keys,
    files.transaction,
    files.repeatable,
    d1.check,
)
_ON: Final = frozenset({"ON", "1", "TRUE", "YES"})


def lint(migrations: MigrationSet, place: Place, *, applied: Collection[str] | None = None) -> list[Finding]:
    """What in the files is dangerous, by file and line; nothing is run and no database asked.

    applied  names of the migrations that a database has: they are not judged, and tables of files that are pending
             together are nobody's yet. None judges every file as if those before it had been applied long ago.
    """
    catalog = Catalog()
    work = Work()
    judged: list[tuple[Script, list[Finding]]] = []
    for migration in migrations.migrations:
        is_applied = applied is not None and migration.name in applied
        made = work.created if applied is not None and not is_applied else set()
        work = Work(created=made)
        found = _script(migration.up, place, catalog, work, is_way_back=False)
        if is_applied:
            work = Work()
            continue
        judged.append((migration.up, found))
        if migration.down is not None:
            # A way back starts from what the file has left behind, and leaves the others alone.
            back = _script(migration.down, place, catalog.copy(), Work(), is_way_back=True)
            judged.append((migration.down, back))
    if place == "postgresql":
        squawk.review(migrations.directory, judged)
    return [
        finding
        for script, found in judged
        for finding in sorted(found, key=lambda one: one.line or 0)
        if finding.rule not in script.directives.allow
    ]


def _script(script: Script, place: Place, catalog: Catalog, work: Work, *, is_way_back: bool) -> list[Finding]:
    engine: EngineName = "postgresql" if place == "postgresql" else "sqlite"
    texts = [(statement, read(statement.sql, engine)) for statement in script.statements]
    told = [(statement, words, act) for statement, words in texts for act in acts(words, engine)]
    context = Context(
        place=place,
        engine=engine,
        rollback=is_way_back,
        in_transaction=script.directives.transaction,
        foreign_keys=script.directives.foreign_keys,
        catalog=catalog,
        work=work,
        acts=[act for _, _, act in told],
    )
    found: list[Finding] = []
    seen: Statement | None = None
    for index, (statement, words, act) in enumerate(told):
        context.index = index
        hits = list(_hits(act, statement.sql, words, context, is_first=statement is not seen))
        if script.directives.phase == "expand":
            hits += list(_out_of_phase(hits, act, context))
        seen = statement
        found += _findings(hits, script.name, statement, context)
        catalog.apply(act, work)
        _note_pragma(act, context)
    return found


def _hits(act: Act, sql: str, words: list[Token], context: Context, *, is_first: bool) -> Iterator[Hit]:
    for check in _CHECKS:
        yield from check(act, context)
    if isinstance(act, Plain) and act.words[:1] == ("EXECUTE",) and not is_first:
        yield Hit("dynamic-sql", act.place, "EXECUTE runs a text that is not written here")
    if is_first and context.place == "d1":
        yield from d1.statement(sql, words)


def _out_of_phase(hits: list[Hit], act: Act, context: Context) -> Iterator[Hit]:
    for hit in hits:
        if hit.rule in BREAKS_RUNNING:
            yield Hit(
                "phase-mismatch", hit.place, f"this file promises to break nothing (phase=expand), and {hit.message}"
            )
    yield from destructive.breaks_readers(act, context)


def _findings(hits: list[Hit], file: str, statement: Statement, context: Context) -> Iterator[Finding]:
    for hit in hits:
        rule = RULES[hit.rule]
        if context.place not in rule.places or (context.rollback and not rule.way_back):
            continue
        yield Finding(
            rule=rule.name,
            severity=rule.severity,
            file=file,
            line=statement.line_of(hit.place),
            message=hit.message,
            advice=hit.advice or rule.safe_way,
        )


def _note_pragma(act: Act, context: Context) -> None:
    if not isinstance(act, Pragma) or not act.value:
        return
    if act.name == "defer_foreign_keys":
        context.work.deferred = act.value in _ON
    elif act.name == "foreign_keys" and not context.in_transaction and context.place != "d1":
        context.work.unenforced = act.value not in _ON
