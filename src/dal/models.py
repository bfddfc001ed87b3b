"""The records an application gets: frozen pydantic models.

They are validated when somebody else makes them (`User.model_validate(...)`) and not again when a row comes out of the
store, whose columns are typed already: `build` fills a model the way pydantic's own constructor does, in 0.4 µs instead
of 1.5 µs (`model_validate`) or 3 µs (`model_construct`), and gives an object that is equal to a validated one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")

# The slots of a pydantic model, filled directly because a frozen model refuses setattr.
_set_values = BaseModel.__dict__["__dict__"].__set__
_set_fields = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def build(model: type[R], values: Mapping[str, object] | Iterable[tuple[str, object]]) -> R:
    """A record from the values of all its fields, in order, taken as they are; a dict becomes the record's own."""
    record = model.__new__(model)
    _set_values(record, values if type(values) is dict else dict(values))
    _set_fields(record, _all_fields(model))
    _set_extra(record, None)
    _set_private(record, None)
    return record


@cache
def _all_fields(model: type[BaseModel]) -> set[str]:
    """One set for all records of a model: making it anew would double the cost, and pydantic changes only copies."""
    return set(model.model_fields)


class Record(BaseModel):
    """Base of the records: immutable, no unknown fields, usable as a FastAPI response model."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class User(Record):
    """A person or account. `clerk_id` is the caller's own key, unique where it is given."""

    id: str
    clerk_id: str | None = None
    email: str | None = None
    name: str | None = None
    profile: dict[str, JsonValue] = Field(default_factory=dict)
    preferences: dict[str, JsonValue] = Field(default_factory=dict)
    status: str = "active"
    created_at: datetime
    updated_at: datetime
    last_active_at: datetime | None = None
    version: int = 1


class ChatSession(Record):
    """A conversation. `chat_id` is the caller's own key, unique; `message_count` is also the last sequence number."""

    id: str
    chat_id: str
    user_id: str | None = None
    title: str | None = None
    profile: str = "general"
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    status: str = "active"
    message_count: int = 0
    created_at: datetime
    updated_at: datetime
    last_message_at: datetime | None = None
    version: int = 1


class Message(Record):
    """One message. `sequence_number` counts 1, 2, 3 … in its chat, without gaps, and is the order of a conversation."""

    id: str
    chat_id: str
    role: str
    content: str
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    sequence_number: int
    token_count: int | None = None
    abuse_flagged: bool = False
    created_at: datetime
    version: int = 1


class MemoryItem(Record):
    """Something remembered of a user, under a type and a key; invisible from `expires_at` on."""

    id: str
    user_id: str
    memory_type: str
    key: str
    value: JsonValue
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1


class FileRecord(Record):
    """What is known of a file; its bytes lie in a blob store under `storage_key`. `checksum` reads `sha256:…`."""

    id: str
    user_id: str
    filename: str
    storage_key: str
    mime_type: str
    file_size: int
    checksum: str | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    status: str = "active"
    created_at: datetime
    updated_at: datetime
    version: int = 1


class AuditEvent(Record):
    """One line of the audit trail; never changed once written, and kept when its user goes."""

    id: str
    action: str
    user_id: str | None = None
    entity_type: str | None = None
    entity_id: str | None = None
    level: str = "info"
    message: str | None = None
    context: dict[str, JsonValue] = Field(default_factory=dict)
    trace_id: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None
    request_uri: str | None = None
    created_at: datetime


class NewMessage(Record):
    """A message to be added by `messages.add_many`; `id` makes the call repeatable, `created_at` defaults to now."""

    role: str
    content: str
    metadata: dict[str, JsonValue] | None = None
    token_count: int | None = None
    id: str | None = None
    created_at: datetime | None = None

    def __init__(
        self,
        role: str,
        content: str,
        metadata: dict[str, JsonValue] | None = None,
        token_count: int | None = None,
        id: str | None = None,
        created_at: datetime | None = None,
    ) -> None:
        """Positional or by name, unchecked here: the repository checks every field and says which one is wrong."""
        _set_fields(self, {"role", "content", "metadata", "token_count", "id", "created_at"})
        _set_extra(self, None)
        _set_private(self, None)
        self.__dict__.update(
            role=role, content=content, metadata=metadata, token_count=token_count, id=id, created_at=created_at
        )

    # pydantic calls a constructor of one's own when it validates, unless it is marked as its own: so `model_validate`
    # (a request body, say) stays validated.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


class SearchHit(Record):
    """A message that was found, and a piece of its content around the first match, at most 160 characters."""

    message: Message
    snippet: str


class Page(Record, Generic[T]):
    """One page of a listing. `next` goes back in as `after`; None means that this was the last page."""

    items: list[T]
    next: str | None = None


@cache
def _page_model(model: type[BaseModel]) -> type[Page[Any]]:
    return Page[model]  # type: ignore[valid-type]  # parametrised at run time, so that it serialises its own records


def page(model: type[R], items: list[R], next: str | None) -> Page[R]:
    """A page of records of this model, taken as they are."""
    return build(_page_model(model), {"items": items, "next": next})


class Health(Record):
    """How the store is: `ok`, `degraded` (it serves, but something needs a person) or `down`.

    `parts` says `reachable`, `schema`, `latency_ms`, `pool`, `disk_free_bytes` where they have a meaning, and
    `problems`: sentences, each a reason for a status other than `ok`.
    """

    status: Literal["ok", "degraded", "down"]
    parts: dict[str, JsonValue] = Field(default_factory=dict)
