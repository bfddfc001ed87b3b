"""A move is no change of the schema: `dal schema verify` and `drift` see the database as it was declared."""

from __future__ import annotations

import pytest

from dal import schema
from dal.schema.inspection.objects import snapshot
from tests.move.replicas import Site, on_sql


@on_sql
@pytest.mark.parametrize("keep_fence", [None, True])
async def test_a_move_leaves_the_schema_as_it_was_declared(site: Site, keep_fence: bool | None) -> None:
    async with site.store._schema_connection() as connection:  # type: ignore[attr-defined]
        before = await snapshot(connection)
        await site.install("primary")
        if keep_fence:
            await site.replica.uninstall(keep_fence=True)
        assert await snapshot(connection) == before
        migrations = schema.library_set(connection.engine)
        assert (await schema.verify(connection, migrations)).ok
        assert await schema.drift(connection, migrations) == []
        assert (await schema.status(connection)).pending == ()
