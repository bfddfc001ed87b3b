"""Whether the stores hold what the writers were told: ledgers are replayed and compared with the primaries' rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from dal.move.canonical import same_row
from dal.move.checking import check
from dal.move.sides import Side, UnitGates
from dal.ops import Row, Select
from dal.replica import UNIT_OF
from dal.store import Store
from dal.tables import TABLES
from tests.torture.documents import LOOSE
from tests.torture.file_rows import OF_FILES
from tests.torture.ledger import SUFFIX, Change, Content, RowKey, lines_of, plain

#: How long after a fault its errors may still come.
_LATE_S: Final = 1.0
#: Errors that no fault explains: they say something of the rows.
_OF_ROWS: Final = ("NotFoundError", "AlreadyExistsError", "MissingReferenceError", "InvalidInputError")
#: What `run_in_transaction` may end with after its attempts.
_TRANSACTIONS: Final = ("swap", "talk")


class Window(NamedTuple):
    """A time in which a store was away."""

    name: str
    began_s: float
    ended_s: float


class Doubt(NamedTuple):
    """A call of which nobody knows whether it was carried out: all of its rows say so, or none."""

    lane: str
    what: str
    rows: list[tuple[RowKey, Content, Content]]


@dataclass
class Told:
    """What all ledgers say together.

    rows      what each row may hold: one content, or two after a call in doubt.
    refused   rows of calls that failed, by the error that said they were not carried out.
    """

    rows: dict[RowKey, list[Content]] = field(default_factory=dict)
    owner: dict[RowKey, str] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    refused: dict[RowKey, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    acknowledged: int = 0
    longest_s: float = 0.0
    longest_undisturbed_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)


def read_ledgers(directory: Path, windows: Sequence[Window]) -> Told:
    told = Told()
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        _replay(path, told, windows)
    return told


def _replay(path: Path, told: Told, windows: Sequence[Window]) -> None:
    lane = path.name.removesuffix(SUFFIX)
    role = lane.partition("-")[0]
    pending: tuple[str, list[Change]] | None = None
    for line in lines_of(path):
        kind, at_s = line[0], line[1]
        if kind == "intend":
            pending = (line[2], [Change(tuple(key), content) for key, content in line[3]])
        elif kind == "ok":
            assert pending is not None
            changes = pending[1] if line[3] is None else [Change(tuple(key), content) for key, content in line[3]]
            for key, content in changes:
                told.rows[key] = [content]
                told.owner[key] = lane
            told.acknowledged += 1
            if role == "moving":
                told.longest_s = max(told.longest_s, line[2])
                if not _is_disturbed(at_s, line[2], windows):
                    told.longest_undisturbed_s = max(told.longest_undisturbed_s, line[2])
            pending = None
        elif kind in ("error", "refused"):
            assert pending is not None
            _failed(told, lane, pending, line, windows)
            pending = None
        elif kind == "broken":
            told.problems.append(f"{lane} at {at_s:.3f}: {line[2]}")
        elif kind == "unread":
            told.errors[f"{role}: reading: {line[2]}"] += 1
            if not _is_disturbed(at_s, 0.0, windows):
                told.problems.append(
                    f"{lane} at {at_s:.3f}: a read failed while both stores served: {line[2]}: {line[3]}"
                )
    if pending is not None:
        _doubt(told, lane, *pending)


def _failed(
    told: Told, lane: str, pending: tuple[str, list[Change]], line: list[Any], windows: Sequence[Window]
) -> None:
    what, changes = pending
    _, at_s, took_s, error, outcome, message = line
    role = lane.partition("-")[0]
    told.errors[f"{role}: {error} ({outcome})"] += 1
    if outcome == "unknown":
        _doubt(told, lane, what, changes)
    else:
        told.refused.update((key, f"{lane} at {at_s:.3f}: {what}: {error}: {message}") for key, _ in changes)
    if role == "foreign":
        return
    is_fenced = error == "FencedError"
    if is_fenced and role == "moving":
        told.problems.append(f"{lane} at {at_s:.3f}: {what}: FencedError reached a writer of the move: {message}")
    elif error in _OF_ROWS and outcome == "not_applied":
        told.problems.append(f"{lane} at {at_s:.3f}: {what}: {error}: {message}")
    elif (
        not is_fenced
        and not _is_disturbed(at_s, took_s, windows)
        and not (error == "ConflictError" and what in _TRANSACTIONS)
    ):
        told.problems.append(f"{lane} at {at_s:.3f}: {what} failed while both stores served: {error}: {message}")


def _doubt(told: Told, lane: str, what: str, changes: Sequence[Change]) -> None:
    rows: list[tuple[RowKey, Content, Content]] = []
    for key, content in changes:
        before = told.rows.get(key, [None])
        rows.append((key, before[-1], content))
        told.rows[key] = [*before, content]
        told.owner[key] = lane
    told.doubts.append(Doubt(lane, what, rows))


def _is_disturbed(at_s: float, took_s: float, windows: Sequence[Window]) -> bool:
    return any(at_s - took_s <= window.ended_s + _LATE_S and at_s >= window.began_s for window in windows)


# Rows ----------------------------------------------------------------------------------------------------------------


async def read_rows(store: Store, table: str) -> dict[str, Row]:
    """Every row of a table by its id."""
    found: dict[str, Row] = {}
    place = TABLES[table].names.index("id")
    for row in await store.read(Select(table, order=("id",))):
        found[str(row[place])] = row
    return found


class Held(NamedTuple):
    """What both stores hold, by table and id."""

    source: dict[str, dict[str, Row]]
    target: dict[str, dict[str, Row]]

    @staticmethod
    async def of(source: Store, target: Store) -> Held:
        return Held(
            {table: await read_rows(source, table) for table in TABLES},
            {table: await read_rows(target, table) for table in TABLES},
        )

    def at(self, side: Side, table: str) -> dict[str, Row]:
        return (self.source if side == "source" else self.target)[table]


def differences(held: Held) -> list[str]:
    """Rows that one side alone holds, or that differ."""
    problems: list[str] = []
    for name, table in TABLES.items():
        ours, theirs = held.source[name], held.target[name]
        for id_ in ours.keys() | theirs.keys():
            if id_ not in theirs:
                problems.append(f"{name}['{id_}'] is at the source only")
            elif id_ not in ours:
                problems.append(f"{name}['{id_}'] is at the target only")
            elif not same_row(table, ours[id_], theirs[id_]):
                problems.append(f"{name}['{id_}'] differs: {ours[id_]!r:.300} and {theirs[id_]!r:.300}")
    return problems


async def checked(source: Store, target: Store) -> list[str]:
    """What the library's own check says."""
    problems: list[str] = []
    for mode in ("deep", "quick", "tail"):
        report = await check(source, target, mode=mode, pause_s=0.05)
        if report.differences:
            problems.append(f"the {mode} check reports {report.differences} differences")
    return problems


def compare(told: Told, held: Held, gates: Mapping[str, UnitGates]) -> list[str]:
    """Where the primaries' rows are not what the ledgers say."""
    rows = _by_key(held, gates)
    problems: list[str] = []
    for key, contents in told.rows.items():
        found = rows.get(key)
        if any(_fits(content, found) for content in contents):
            continue
        expected = contents[-1]
        if found is None:
            kind = "LOST"
        elif expected is None:
            kind = "RESURRECTED"
        else:
            wrong = [name for name, value in expected.items() if found.get(name) != value]
            kind = f"WRONG in {', '.join(f'{n}: {found.get(n)!r:.80} not {expected[n]!r:.80}' for n in wrong)}"
        problems.append(f"{kind}: {key} of {told.owner[key]}")
    problems += [
        f"UNEXPECTED: {key}; {told.refused.get(key, 'nobody wrote it')}" for key in rows.keys() - told.rows.keys()
    ]
    for doubt in told.doubts:
        done = {_is_done(before, after, rows.get(key)) for key, before, after in doubt.rows} - {None}
        if len(done) > 1:
            problems.append(f"HALF DONE: {doubt.what} of {doubt.lane}: {[key for key, *_ in doubt.rows]}")
    return problems + _numbers(held, gates)


def _fits(content: Content, found: dict[str, Any] | None) -> bool:
    if content is None or found is None:
        return content is None and found is None
    return all(found.get(name) == value for name, value in content.items())


def _is_done(before: Content, after: Content, found: dict[str, Any] | None) -> bool | None:
    is_before, is_after = _fits(before, found), _fits(after, found)
    return None if is_before == is_after else is_after


def _primary(gates: Mapping[str, UnitGates], table: str) -> Side:
    found = gates[UNIT_OF[table]].primary
    assert found is not None, "every unit has a primary by now"
    return found


def _by_key(held: Held, gates: Mapping[str, UnitGates]) -> dict[RowKey, dict[str, Any]]:
    chats: dict[str, str] = {}
    found: dict[RowKey, dict[str, Any]] = {}
    for name, table in TABLES.items():
        for row in held.at(_primary(gates, name), name).values():
            values = plain(dict(zip(table.names, row, strict=True)))
            match name:
                case "users":
                    key: RowKey = ("user", values["id"])
                case "chat_sessions":
                    key = ("chat", values["chat_id"])
                    chats[values["id"]] = values["chat_id"]
                case "messages":
                    values["chat_id"] = chats.get(values["chat_session_id"])
                    key = ("message", values["id"])
                case "user_memory":
                    key = ("memory", values["user_id"], values["memory_type"], values["key"])
                case "files":
                    key = ("file", values["id"])
                case "user_quotas":
                    key = ("quota", values["user_id"])
                case "system_logs":
                    key = ("log", values["trace_id"])
                case _:
                    key = (OF_FILES[name], values["id"])
            if key in found:
                values["id"] = f"{found[key]['id']} and {values['id']}"  # two rows of one key: it will not fit
            found[key] = values
    return found


def _numbers(held: Held, gates: Mapping[str, UnitGates]) -> list[str]:
    """Chats whose messages are not numbered 1…n."""
    problems: list[str] = []
    names, of = TABLES["messages"].names, TABLES["chat_sessions"].names
    numbers: dict[str, list[int]] = {}
    side = _primary(gates, "messages")
    for row in held.at(side, "messages").values():
        chat, number = row[names.index("chat_session_id")], row[names.index("sequence_number")]
        assert isinstance(number, int)
        numbers.setdefault(str(chat), []).append(number)
    for id_, row in held.at(side, "chat_sessions").items():
        if str(row[of.index("chat_id")]).startswith(LOOSE):
            continue
        found = sorted(numbers.get(id_, []))
        count = row[of.index("message_count")]
        if found != list(range(1, len(found) + 1)) or count != len(found):
            problems.append(
                f"NUMBERS: {row[of.index('chat_id')]!r} counts {count} and has {len(found)}: {_gaps(found)}"
            )
    return problems


def _gaps(found: list[int]) -> str:
    missing = sorted(set(range(1, (found[-1] if found else 0) + 1)) - set(found))
    twice = [number for number, times in Counter(found).items() if times > 1]
    return f"missing {missing[:5]}, twice {twice[:5]}"


def events_of(directory: Path) -> list[dict[str, Any]]:
    path = directory / "events"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
