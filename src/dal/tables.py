"""Every table, declared once as data.

The SQL compiler, the memory interpreter, the file layout, import and export, the consistency check and live moves are
loops over these declarations. A test proves that `schema/*/NNNN_*.sql`, applied, give exactly these tables.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Final, Literal, NamedTuple


class Kind(Enum):
    """What a column holds, as the waist sees it."""

    ID = "id"  # UUID as lower-case text with hyphens
    TEXT = "text"
    INT = "int"  # 32 bits
    BIGINT = "bigint"  # 64 bits
    BOOL = "bool"
    TIME = "time"  # aware datetime in UTC, microseconds
    JSON = "json"  # any JSON value; reads back equal
    IP = "ip"  # an IPv4 or IPv6 address as text


class Column(NamedTuple):
    name: str
    kind: Kind
    nullable: bool = False
    max_chars: int | None = None
    min_chars: int = 0


class Index(NamedTuple):
    """`-column` descends. A unique index is how a unique key is kept."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False


class Parent(NamedTuple):
    """A foreign key to the parent's `id`, and what a delete of the parent does to the rows here."""

    column: str
    table: str
    on_delete: Literal["cascade", "set null"]


class Table:
    """One declared table. `key` is always the column `id`; other unique keys come from the unique indexes."""

    def __init__(
        self,
        name: str,
        columns: tuple[Column, ...],
        *,
        indexes: tuple[Index, ...] = (),
        parents: tuple[Parent, ...] = (),
        owner: str | None = None,
        expires: str | None = None,
        search: str | None = None,
        search_order: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.columns = columns
        self.indexes = indexes
        self.parents = parents
        self.owner = owner  # column or column path that holds the owner's user id
        self.expires = expires  # column after which a row is invisible
        self.search = search  # column that Search looks into
        self.search_order = search_order
        self.key = "id"

    def __repr__(self) -> str:
        return f"Table({self.name!r})"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in declared order: the order of a row without an explicit `columns`."""
        return tuple(c.name for c in self.columns)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {c.name: c for c in self.columns}

    @cached_property
    def unique_keys(self) -> tuple[tuple[str, ...], ...]:
        """Every declared unique key as a tuple of columns, the primary key first."""
        return ((self.key,), *(i.columns for i in self.indexes if i.unique))

    @cached_property
    def parent_of(self) -> dict[str, Parent]:
        return {p.column: p for p in self.parents}


def _id(name: str = "id", *, nullable: bool = False) -> Column:
    return Column(name, Kind.ID, nullable)


def _text(name: str, max_chars: int | None = None, *, nullable: bool = False, min_chars: int = 0) -> Column:
    return Column(name, Kind.TEXT, nullable, max_chars, min_chars)


def _time(name: str, *, nullable: bool = False) -> Column:
    return Column(name, Kind.TIME, nullable)


def _json(name: str) -> Column:
    return Column(name, Kind.JSON)


_VERSION: Final = Column("version", Kind.BIGINT)

USERS: Final = Table(
    "users",
    (
        _id(),
        _text("clerk_id", 255, nullable=True, min_chars=1),
        _text("email", 255, nullable=True),
        _text("name", 255, nullable=True),
        _json("profile"),
        _json("preferences"),
        _text("status", 50, min_chars=1),
        _time("created_at"),
        _time("updated_at"),
        _time("last_active_at", nullable=True),
        _VERSION,
    ),
    indexes=(
        Index("idx_users_clerk_id", ("clerk_id",), unique=True),
        Index("idx_users_email", ("email",)),
        Index("idx_users_status", ("status",)),
        Index("idx_users_created", ("-created_at", "-id")),
    ),
    owner="id",
)

CHAT_SESSIONS: Final = Table(
    "chat_sessions",
    (
        _id(),
        _text("chat_id", 255, min_chars=1),
        _id("user_id", nullable=True),
        _text("title", 255, nullable=True),
        _text("profile", 50, min_chars=1),
        _json("metadata"),
        _text("status", 50, min_chars=1),
        Column("message_count", Kind.INT),
        _time("created_at"),
        _time("updated_at"),
        _time("last_message_at", nullable=True),
        # Never null: the last message's time, else the chat's own. What listings are ordered by.
        _time("last_activity_at"),
        _VERSION,
    ),
    indexes=(
        Index("idx_chat_sessions_chat_id", ("chat_id",), unique=True),
        Index("idx_chat_sessions_user_id", ("user_id",)),
        Index("idx_chat_sessions_profile", ("profile",)),
        Index("idx_chat_sessions_status", ("status",)),
        Index("idx_chat_sessions_last_message", ("last_message_at",)),
        Index("idx_chat_sessions_user_recent", ("user_id", "-last_message_at")),
        Index("idx_chat_sessions_activity", ("-last_activity_at", "-id")),
        Index("idx_chat_sessions_user_activity", ("user_id", "-last_activity_at", "-id")),
    ),
    parents=(Parent("user_id", "users", "set null"),),
    owner="user_id",
)

MESSAGES: Final = Table(
    "messages",
    (
        _id(),
        _id("chat_session_id"),
        _text("role", 50, min_chars=1),
        _text("content"),
        _json("metadata"),
        Column("sequence_number", Kind.INT),
        Column("token_count", Kind.INT, nullable=True),
        Column("abuse_flagged", Kind.BOOL),
        _time("created_at"),
        _VERSION,
    ),
    indexes=(
        Index("idx_messages_chat_session", ("chat_session_id",)),
        Index("idx_messages_role", ("role",)),
        Index("idx_messages_sequence", ("chat_session_id", "sequence_number"), unique=True),
        Index("idx_messages_created_at", ("created_at",)),
        Index("idx_messages_abuse_flagged", ("abuse_flagged",)),
        Index("idx_messages_chat_recent", ("chat_session_id", "-created_at")),
    ),
    parents=(Parent("chat_session_id", "chat_sessions", "cascade"),),
    owner="chat_session_id.user_id",
    search="content",
    search_order=("-created_at", "-sequence_number", "-id"),
)

USER_MEMORY: Final = Table(
    "user_memory",
    (
        _id(),
        _id("user_id"),
        _text("memory_type", 100, min_chars=1),
        _text("key", 255, min_chars=1),
        _json("value"),
        _time("expires_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _VERSION,
    ),
    indexes=(
        Index("idx_user_memory_lookup", ("user_id", "memory_type", "key"), unique=True),
        Index("idx_user_memory_user_id", ("user_id",)),
        Index("idx_user_memory_type", ("memory_type",)),
        Index("idx_user_memory_expires", ("expires_at",)),
    ),
    parents=(Parent("user_id", "users", "cascade"),),
    owner="user_id",
    expires="expires_at",
)

FILES: Final = Table(
    "files",
    (
        _id(),
        _id("user_id"),
        _text("filename", 255, min_chars=1),
        _text("storage_key", 255, min_chars=1),
        _text("mime_type", 255, min_chars=1),
        Column("file_size", Kind.BIGINT),
        _text("checksum", 255, nullable=True),
        _json("metadata"),
        _text("status", 50, min_chars=1),
        _time("created_at"),
        _time("updated_at"),
        _VERSION,
    ),
    indexes=(
        Index("idx_files_storage_key", ("storage_key",), unique=True),
        Index("idx_files_user_created", ("user_id", "-created_at", "-id")),
        Index("idx_files_status", ("status",)),
        Index("idx_files_created", ("-created_at", "-id")),
    ),
    parents=(Parent("user_id", "users", "cascade"),),
    owner="user_id",
)

# The audit trail. `user_id` has no foreign key on purpose: a trail outlives those it speaks of.
SYSTEM_LOGS: Final = Table(
    "system_logs",
    (
        _id(),
        _text("action", 255, min_chars=1),
        _text("user_id", 255, nullable=True),
        _text("entity_type", 255, nullable=True),
        _text("entity_id", 255, nullable=True),
        _text("level", 20, min_chars=1),
        _text("message", nullable=True),
        _json("context"),
        _text("trace_id", 255, nullable=True),
        Column("ip_address", Kind.IP, nullable=True),
        _text("user_agent", nullable=True),
        _text("request_uri", nullable=True),
        _time("created_at"),
    ),
    indexes=(
        Index("idx_system_logs_level", ("level",)),
        Index("idx_system_logs_trace_id", ("trace_id",)),
        Index("idx_system_logs_created_at", ("created_at",)),
        Index("idx_system_logs_recent", ("-created_at", "-id")),
        Index("idx_system_logs_user", ("user_id", "-created_at", "-id")),
        Index("idx_system_logs_entity", ("entity_type", "entity_id", "-created_at", "-id")),
        Index("idx_system_logs_action", ("action", "-created_at", "-id")),
    ),
    owner="user_id",
)

#: Parents before children: the order in which rows can be copied.
TABLES: Final[dict[str, Table]] = {t.name: t for t in (USERS, CHAT_SESSIONS, MESSAGES, USER_MEMORY, FILES, SYSTEM_LOGS)}

#: Tables that hold rows of this one, with the column that points here.
CHILDREN: Final[dict[str, tuple[tuple[Table, Parent], ...]]] = {
    name: tuple((t, p) for t in TABLES.values() for p in t.parents if p.table == name) for name in TABLES
}
