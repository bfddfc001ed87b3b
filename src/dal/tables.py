"""Every table, declared once as data.

The SQL compiler, the memory interpreter, the file layout, import and export, the consistency check and live moves are
loops over these declarations. A test proves that `schema/*/NNNN_*.sql`, applied, give exactly these tables.
"""

from __future__ import annotations

from typing import Final

from dal.file_tables import FILE_TABLES, FILES
from dal.table import (
    VERSION,
    Column,
    Index,
    Kind,
    Parent,
    Table,
    id_column,
    json_column,
    text_column,
    time_column,
)

__all__ = [
    "CHAT_SESSIONS",
    "CHILDREN",
    "FILES",
    "MESSAGES",
    "SYSTEM_LOGS",
    "TABLES",
    "USERS",
    "USER_MEMORY",
    "Column",
    "Index",
    "Kind",
    "Parent",
    "Table",
]

USERS: Final = Table(
    "users",
    (
        id_column(),
        text_column("clerk_id", 255, nullable=True, min_chars=1),
        text_column("email", 255, nullable=True),
        text_column("name", 255, nullable=True),
        json_column("profile"),
        json_column("preferences"),
        text_column("status", 50, min_chars=1),
        time_column("created_at"),
        time_column("updated_at"),
        time_column("last_active_at", nullable=True),
        VERSION,
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
        id_column(),
        text_column("chat_id", 255, min_chars=1),
        id_column("user_id", nullable=True),
        text_column("title", 255, nullable=True),
        text_column("profile", 50, min_chars=1),
        json_column("metadata"),
        text_column("status", 50, min_chars=1),
        Column("message_count", Kind.INT),
        time_column("created_at"),
        time_column("updated_at"),
        time_column("last_message_at", nullable=True),
        # Never null: the last message's time, else the chat's own. What listings are ordered by.
        time_column("last_activity_at"),
        VERSION,
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
        id_column(),
        id_column("chat_session_id"),
        text_column("role", 50, min_chars=1),
        text_column("content"),
        json_column("metadata"),
        Column("sequence_number", Kind.INT),
        Column("token_count", Kind.INT, nullable=True),
        Column("abuse_flagged", Kind.BOOL),
        time_column("created_at"),
        VERSION,
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
        id_column(),
        id_column("user_id"),
        text_column("memory_type", 100, min_chars=1),
        text_column("key", 255, min_chars=1),
        json_column("value"),
        time_column("expires_at", nullable=True),
        time_column("created_at"),
        time_column("updated_at"),
        VERSION,
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

# The audit trail. `user_id` has no foreign key on purpose: a trail outlives those it speaks of.
SYSTEM_LOGS: Final = Table(
    "system_logs",
    (
        id_column(),
        text_column("action", 255, min_chars=1),
        text_column("user_id", 255, nullable=True),
        text_column("entity_type", 255, nullable=True),
        text_column("entity_id", 255, nullable=True),
        text_column("level", 20, min_chars=1),
        text_column("message", nullable=True),
        json_column("context"),
        text_column("trace_id", 255, nullable=True),
        Column("ip_address", Kind.IP, nullable=True),
        text_column("user_agent", nullable=True),
        text_column("request_uri", nullable=True),
        time_column("created_at"),
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
TABLES: Final[dict[str, Table]] = {
    t.name: t for t in (USERS, CHAT_SESSIONS, MESSAGES, USER_MEMORY, *FILE_TABLES, SYSTEM_LOGS)
}

#: Tables that hold rows of this one, with the column that points here.
CHILDREN: Final[dict[str, tuple[tuple[Table, Parent], ...]]] = {
    name: tuple((t, p) for t in TABLES.values() for p in t.parents if p.table == name) for name in TABLES
}
