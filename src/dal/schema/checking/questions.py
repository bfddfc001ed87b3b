"""Files of queries beside the migrations: `checks/explain.sql` and `checks/verify.sql`, and what they expect.

Plain SQL that the engines' own shells run as well; what is expected of a query stands in comments before it:

    -- Indexes of the dashboard                    its name in reports
    -- expect: 41                                  its one value; several with commas, in one row or one column
    -- expect: >= 41
    -- expect-rows: 0                              how many rows it gives
    -- expect-index: idx_files_user_id or idx_files_user_created
    -- allow-scan                                  it may read a whole table
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Final

from dal.errors import SchemaError
from dal.schema.connection import EngineName
from dal.schema.statements import split_statements, tokens

DIRECTORY: Final = "checks"
_COMMENT: Final = re.compile(r"\s*--\s?(.*)")
_ANNOTATION: Final = re.compile(r"((?:expect|allow)[\w-]*)(?:\s*:\s*(.*?)|)\s*")
_KNOWN: Final = frozenset({"expect", "expect-rows", "expect-index", "allow-scan"})
_VALUE: Final = re.compile(r"\s*('(?:[^']|'')*'|[^,]*?)\s*(?:,|$)")
_COMPARED: Final = re.compile(r"(>=|<=|<>|!=|>|<|=)?\s*(.*)")
_WRITES: Final = ("INSERT", "UPDATE", "DELETE", "MERGE", "INTO")
_OPERATORS: Final = {">=": ge, "<=": le, "<>": ne, "!=": ne, ">": gt, "<": lt, "=": eq, None: eq}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query and what is expected of it.

    name          the comment before it, else its first line.
    file, line    where it stands; empty and 1 where it comes from no file.
    values        what its cells must be, as they were written; None where nothing is said.
    rows          how many rows it must give; None where nothing is said.
    indexes       one of them must be used; empty where nothing is said.
    allow_scan    it may read a whole table.
    """

    sql: str
    name: str
    file: str = ""
    line: int = 1
    values: tuple[str, ...] | None = None
    rows: int | None = None
    indexes: tuple[str, ...] = ()
    allow_scan: bool = False

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.file}:{self.line}" if self.file else self.name

    def unmet(self, found: Sequence[tuple[object, ...]]) -> str:
        """In what the rows are not what was expected, as `41 expected, found 40`; empty where they are."""
        if self.rows is not None and len(found) != self.rows:
            return f"{self.rows} rows expected, found {len(found)}"
        if self.values is None:
            return ""
        if len(found) == 1:
            cells: Sequence[object] = found[0]
        elif all(len(row) == 1 for row in found):
            cells = [row[0] for row in found]
        else:
            return f"{_listed(self.values)} expected, found {len(found)} rows of {len(found[0])} columns"
        if len(cells) == len(self.values) and all(map(_fits, self.values, cells)):
            return ""
        return f"{_listed(self.values)} expected, found {_listed([_written(cell) for cell in cells])}"


def reads_only(sql: str, engine: EngineName) -> bool:
    """The statement can be run without changing anything, as far as its words tell: a function may still write."""
    found = [token for token in tokens(sql, engine) if token.kind in ("word", "sign")]
    if not found or any(token.says(*_WRITES) for token in found):
        return False
    if engine == "sqlite" and found[0].says("PRAGMA"):
        return not any(token.says("=") for token in found)
    return found[0].says("SELECT", "VALUES", "WITH")


def read_queries(path: Path, engine: EngineName) -> tuple[Query, ...]:
    """The queries of a file; none where it is not there.

    Raises  SchemaError: it cannot be read or split, or a comment expects something unknown; it names file and line.
    """
    if not path.is_file():
        return ()
    name = f"{DIRECTORY}/{path.name}"
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        return queries(text, engine, file=name)
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{name}: cannot be read: {error}") from error


def queries(text: str, engine: EngineName, *, file: str = "") -> tuple[Query, ...]:
    """The queries of a script, each with the comments before it. Raises SchemaError as `read_queries`."""
    try:
        statements = split_statements(text, engine)
    except SchemaError as error:
        raise SchemaError(f"{file or 'queries'}: {error.message}") from error
    lines = text.split("\n")
    found = []
    end = 0  # lines before it are read
    for statement in statements:
        comments = [
            (number + 1, comment[1])
            for number in range(end, statement.line - 1)
            if (comment := _COMMENT.fullmatch(lines[number])) is not None
        ]
        found.append(_query(statement.sql, statement.line, comments, file))
        end = statement.line + statement.sql.count("\n")
    return tuple(found)


def _query(sql: str, line: int, comments: Sequence[tuple[int, str]], file: str) -> Query:
    name = ""
    said: dict[str, str] = {}
    for number, comment in comments:
        annotation = _ANNOTATION.fullmatch(comment)
        if annotation is None:
            name = name or comment.strip()
            continue
        word, value = annotation[1], annotation[2] or ""
        if word not in _KNOWN or (not value) != (word == "allow-scan"):
            raise SchemaError(
                f"{file}:{number}: `-- {comment.strip()}` is not known here; what is: -- expect: VALUES, "
                "-- expect-rows: N, -- expect-index: NAME or NAME, -- allow-scan"
            )
        said[word] = value
    rows = said.get("expect-rows")
    if rows is not None and not rows.isdecimal():
        raise SchemaError(f"{file}:{line}: -- expect-rows: {rows} is no number")
    return Query(
        sql=sql,
        name=name or sql.split("\n")[0],
        file=file,
        line=line,
        values=_values(said["expect"]) if "expect" in said else None,
        rows=None if rows is None else int(rows),
        indexes=tuple(re.split(r"\s+or\s+", said["expect-index"])) if "expect-index" in said else (),
        allow_scan="allow-scan" in said,
    )


def _values(text: str) -> tuple[str, ...]:
    return tuple(match[1] for match in _VALUE.finditer(text) if match[0])


def _fits(expected: str, cell: object) -> bool:
    """`41`, `>= 41`, `NULL`, `text`, `'text'`: numbers are compared as numbers, everything else as text."""
    match = _COMPARED.fullmatch(expected)
    operator, wanted = (match[1], match[2]) if match is not None else (None, expected)
    compare = _OPERATORS[operator]
    if cell is None or wanted.upper() == "NULL":
        return compare is eq and cell is None and wanted.upper() == "NULL"
    if wanted[:1] != "'":
        try:
            return bool(compare(Decimal(_written(cell)), Decimal(wanted)))
        except InvalidOperation:
            pass
    text = wanted[1:-1].replace("''", "'") if wanted[:1] == "'" else wanted
    return bool(compare(_written(cell), text))


def _written(cell: object) -> str:
    if cell is None:
        return "NULL"
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) if values else "nothing"
