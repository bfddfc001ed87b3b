"""SQL backends: one compiler and one store for all of them; an engine adds an executor and a dialect value."""

from dal.backends.sql.compiler import Compiler, Read, Write
from dal.backends.sql.dialect import (
    Dialect,
    Executor,
    Link,
    Result,
    SearchSql,
    Session,
    Statement,
    Step,
    Violation,
)
from dal.backends.sql.plan import Run, plan_each, ref_guards, runs, steps_of_run
from dal.backends.sql.store import SqlStore

__all__ = [
    "Compiler",
    "Dialect",
    "Executor",
    "Link",
    "Read",
    "Result",
    "Run",
    "SearchSql",
    "Session",
    "SqlStore",
    "Statement",
    "Step",
    "Violation",
    "Write",
    "plan_each",
    "ref_guards",
    "runs",
    "steps_of_run",
]
