"""The audit trail: `dal.audit`, written once and never changed; it outlives the users it speaks of."""

from __future__ import annotations

from datetime import datetime

from dal.models import AuditEvent, Page
from dal.ops import Compare, JsonValue
from dal.repositories.base import Repository
from dal.tables import SYSTEM_LOGS
from dal.values import check_object, check_time


class Audit(Repository):
    """Record what happened, and look it up."""

    table = SYSTEM_LOGS

    async def record(
        self,
        action: str,
        *,
        user_id: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        level: str = "info",
        message: str | None = None,
        context: dict[str, JsonValue] | None = None,
        trace_id: str | None = None,
        ip_address: str | None = None,
        user_agent: str | None = None,
        request_uri: str | None = None,
    ) -> AuditEvent:
        """The event as stored.

        action      what happened, 1..255 characters, as `user.login`.
        user_id     who did it; any text, since a trail also names those that are no user.
        ip_address  an IPv4 or IPv6 address, without a netmask or zone.
        Cost        one round trip.
        """
        return await self._create(
            AuditEvent,
            {
                "id": self._new_id(),
                "action": action,
                "user_id": user_id,
                "entity_type": entity_type,
                "entity_id": entity_id,
                "level": level,
                "message": message,
                "context": check_object("context", context),
                "trace_id": trace_id,
                "ip_address": ip_address,
                "user_agent": user_agent,
                "request_uri": request_uri,
                "created_at": self._now(),
            },
        )

    async def list(
        self,
        *,
        user_id: str | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        action: str | None = None,
        level: str | None = None,
        trace_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[AuditEvent]:
        """A page of events, newest first.

        since, until  from this moment on, and before that one.
        limit         1..1000.
        """
        filters = self._filters(
            user_id=user_id,
            entity_type=entity_type,
            entity_id=entity_id,
            action=action,
            level=level,
            trace_id=trace_id,
        )
        if since is not None:
            filters.append(Compare("created_at", ">=", check_time("since", since)))
        if until is not None:
            filters.append(Compare("created_at", "<", check_time("until", until)))
        return await self._page(AuditEvent, ("-created_at", "-id"), filters, limit=limit, after=after)
