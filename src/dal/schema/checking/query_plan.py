"""An engine's plan of a query, read: which indexes it uses, and which tables it reads from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

#: What an index is called that is the table itself, or has no name of its own.
PRIMARY_KEY: Final = "PRIMARY KEY"

_STEP: Final = re.compile(
    r"(?P<how>SCAN|SEARCH) (?:TABLE )?(?P<table>.+?)(?: AS .+?)?"
    r"(?: USING (?P<automatic>AUTOMATIC )?(?:PARTIAL )?(?:COVERING )?INDEX (?P<index>.+?)"
    r"| USING (?:INTEGER )?(?P<key>PRIMARY KEY)| (?P<virtual>VIRTUAL TABLE INDEX .*))?"
    # What it searches for, as `(a=? AND b>?)`; a name may end in brackets, too.
    r"(?: \((?:[^()]|ANY\([^()]*\))*[=<>]\?(?:[^()]|ANY\([^()]*\))*\))?(?: LEFT-JOIN)?"
)
_UNREAL: Final = re.compile(
    r"\d+ CONSTANT ROWS?|CONSTANT ROW|\(?SUBQUERY.*|\(subquery-\d+\)|\(join-\d+\)|\d+-ROW VALUES CLAUSE"
)
_MADE: Final = re.compile(r"(?:MATERIALIZE|CO-ROUTINE|RECURSIVE) (.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan says.

    lines          for people, indented as the engine nests its steps.
    indexes        by name; `PRIMARY KEY` where a table is searched by itself.
    full_scans     tables, or the names that the query gives them, of which every row is read.
    whole_indexes  indexes that are read from end to end: better than the table, and no search.
    """

    lines: tuple[str, ...]
    indexes: tuple[str, ...]
    full_scans: tuple[str, ...]
    whole_indexes: tuple[str, ...]


def sqlite_plan(rows: Sequence[tuple[object, ...]]) -> Plan:
    """The rows of EXPLAIN QUERY PLAN: id, id of the parent, unused, text."""
    depths: dict[object, int] = {0: -1}
    steps = []
    for step, parent, _, text in rows:
        depths[step] = depths.get(parent, -1) + 1
        steps.append((depths[step], str(text)))
    made = {match[1] for _, text in steps if (match := _MADE.fullmatch(text)) is not None}
    indexes: list[str] = []
    scans: list[str] = []
    whole: list[str] = []
    for _, text in steps:
        match = _STEP.fullmatch(text)
        if match is None or match["virtual"]:
            continue  # a virtual table has its own ways
        if match["automatic"]:
            # Built for this query out of every row of the table, and thrown away after it.
            scans.append(match["table"])
            continue
        index = match["index"] or match["key"]
        if index:
            indexes.append(index)
        if match["how"] == "SCAN" and not _UNREAL.fullmatch(match["table"]) and match["table"] not in made:
            (whole if index else scans).append(index or match["table"])
    return Plan(
        lines=tuple("  " * depth + text for depth, text in steps),
        indexes=_once(indexes),
        full_scans=_once(scans),
        whole_indexes=_once(whole),
    )


def postgresql_plan(text: str, leading: Mapping[str, str] | None = None) -> Plan:
    """The JSON of EXPLAIN (FORMAT JSON), planned without sequential scans.

    leading  first column of each B-tree index over several, by name. Without sequential scans PostgreSQL reads such an
             index from end to end for a condition on its second column, where on a large table it would take the table.
    """
    indexes: list[str] = []
    scans: list[str] = []
    whole: list[str] = []
    nodes = list(_nodes(json.loads(text)[0]["Plan"], 0, ""))
    for _, table, node in nodes:
        if node["Node Type"] == "Seq Scan":
            scans.append(table)
        if "Index Name" not in node:
            continue
        index = str(node["Index Name"])
        first = (leading or {}).get(index)
        if "Index Cond" not in node and "Order By" not in node:
            indexes.append(index)
            whole.append(index)
        elif first is None or _mentions(str(node.get("Index Cond", "")), first):
            indexes.append(index)
        elif node["Node Type"] == "Index Only Scan":
            indexes.append(index)
            whole.append(index)
        else:
            scans.append(table)
    return Plan(
        lines=tuple("  " * depth + _line(node) for depth, _, node in nodes),
        indexes=_once(indexes),
        full_scans=_once(scans),
        whole_indexes=_once(whole),
    )


def _mentions(condition: str, column: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(column)}(?!\w)", condition) is not None


def _nodes(node: Mapping[str, object], depth: int, table: str) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """Depth, table (a bitmap's index stands below the node that names it) and the node itself."""
    table = str(node.get("Relation Name", table))
    yield depth, table, node
    inner = node.get("Plans")
    for child in inner if isinstance(inner, list) else []:
        yield from _nodes(child, depth + 1, table)


def _line(node: Mapping[str, object]) -> str:
    line = str(node["Node Type"])
    for word, key in (("using", "Index Name"), ("on", "Relation Name"), ("", "Alias")):
        if key in node and (key != "Alias" or node[key] != node.get("Relation Name")):
            line += f" {word} {node[key]}" if word else f" {node[key]}"
    conditions = [f"{key}: {node[key]}" for key in ("Index Cond", "Recheck Cond", "Filter") if key in node]
    return f"{line} ({'; '.join(conditions)})" if conditions else line


def _once(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
