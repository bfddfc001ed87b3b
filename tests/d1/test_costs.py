"""The table of costs in the documentation is what D1's engine counts."""

from __future__ import annotations

from tests.d1 import costs
from tests.d1.conftest import Place


async def test_the_page_says_what_is_measured(place: Place) -> None:
    """`python -m tests.d1.costs` writes it anew."""
    assert costs.table_of(costs.PAGE.read_text(encoding="utf-8")) == costs.table(await costs.measure(place.database))


async def test_no_read_of_a_page_looks_at_more_than_it_gives(place: Place) -> None:
    """A look-up reads a row, a page of 20 one row more than it returns, wherever in 1,000 it begins."""
    found = await costs.measure(place.database)
    for name, most in {
        "users.get": 1,
        "chats.get": 1,
        "memory.get": 1,
        "messages.history of 20": 21,
        "messages.history of 20 behind 500": 22,
        "chats.list of a user, a page of 20": 21,
        "audit.list of a user, a page of 20": 21,
    }.items():
        assert found[name].requests == 1
        assert found[name].rows_written == 0
        assert found[name].rows_read <= most, name
