"""The paths that are measured, each as one row: who does what, in how many tasks, against whom, and what is promised.

A row is a value; the backends' modules list theirs. The promises are those of the project's requirements.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from tests.bench.data import RARE_WORD, Data
from tests.bench.measure import Call
from tests.bench.subject import Subject
from tests.bench.targets import Target

#: What a side does, call by call, on its subject and the data.
Workload: TypeAlias = Callable[[Subject, Data], Call]

#: Names of the library's own subject, with the search migration left out and with it.
DAL = "dal"
DAL_SEARCH = "dal with search"


class Against(NamedTuple):
    """A baseline of a row, and what the library must reach beside it.

    subject   its name on the stage.
    tasks     None: as many as the library has.
    workload  None: the same as the library's.
    """

    subject: str
    targets: tuple[Target, ...] = ()
    tasks: int | None = None
    workload: Workload | None = None


class Row(NamedTuple):
    """One path.

    title   what is done; `{…}` are fields of the scale.
    who     the library's subject; in a control, the baseline that is measured beside its twin.
    writes  both sides make the same number of calls.
    calls   in each round; None fills its time.
    rounds  at most; None: as many as the pace asks for.
    bulk    a call handles a whole file.
    """

    title: str
    workload: Workload
    against: tuple[Against, ...]
    tasks: int = 1
    who: str = DAL
    writes: bool = False
    calls: int | None = None
    rounds: int | None = None
    bulk: bool = False


def get_chat(subject: Subject, data: Data) -> Call:
    chats, get = data.chats, subject.get_chat
    return lambda n: get(chats[n % len(chats)])


def create_chat(subject: Subject, data: Data) -> Call:
    create = subject.create_chat
    return lambda n: create(f"new-{n}")


def list_chats(subject: Subject, data: Data) -> Call:
    read = subject.list_chats
    return lambda _: read(50)


def get_message(subject: Subject, data: Data) -> Call:
    ids, get = data.message_ids, subject.get_message
    return lambda n: get(ids[n % len(ids)])


def history(place: int, limit: int = 20) -> Workload:
    """The newest messages of the chat whose length stands at this place of the scale."""

    def workload(subject: Subject, data: Data) -> Call:
        chat, read = data.chat_of_length[data.scale.lengths[place]], subject.history
        return lambda _: read(chat, limit)

    return workload


def append(tasks: int) -> Workload:
    """Every task to a chat of its own."""

    def workload(subject: Subject, data: Data) -> Call:
        chats, add, text = data.chats[:tasks], subject.append, data.text
        return lambda n: add(chats[n % tasks], "user", text(n))

    return workload


def append_shared(subject: Subject, data: Data) -> Call:
    chat, add, text = data.chats[0], subject.append, data.text
    return lambda n: add(chat, "user", text(n))


def memory_set(subject: Subject, data: Data) -> Call:
    users, keys, put, value = data.users, data.keys, subject.memory_set, data.value
    return lambda n: put(users[n % len(users)], keys[n // len(users) % len(keys)], value(n))


def memory_get(subject: Subject, data: Data) -> Call:
    users, keys, get = data.users, data.keys, subject.memory_get
    return lambda n: get(users[n % len(users)], keys[n // len(users) % len(keys)])


def mixed(tasks: int) -> Workload:
    """Four histories of a chat for one append to it, in no regular order; every task has chats of its own."""

    def workload(subject: Subject, data: Data) -> Call:
        chats, writes, text = data.chats, data.writes, data.text
        add, read = subject.append, subject.history

        def call(n: int) -> Awaitable[object]:
            chat = chats[n % tasks]
            return add(chat, "user", text(n)) if writes[n % len(writes)] else read(chat, 20)

        return call

    return workload


def search(subject: Subject, data: Data) -> Call:
    find = subject.search
    return lambda _: find(RARE_WORD)


def bulk(subject: Subject, data: Data) -> Call:
    files = data.bulk_files
    return lambda n: subject.bulk(files[n])
