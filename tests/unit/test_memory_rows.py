"""The order of ids that rows in memory keep once it was asked for."""

from __future__ import annotations

import random

from dal.backends.rows import MemoryRows, Scan, encode
from dal.tables import USERS
from dal.testing import rows


def test_ids_stay_in_order_while_rows_come_change_and_go() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, users, there = random.Random(seed), MemoryRows(USERS), set[str]()
    for step in range(600):
        number = dice.randrange(60)
        if dice.random() < 0.4:
            users.remove(rows.row_id(number))
            there.discard(rows.row_id(number))
        else:
            users.put(encode(USERS, rows.user(number, clerk_id=f"{number} {step}")))  # another unique key each time
            there.add(rows.row_id(number))
        after = rows.row_id(dice.randrange(60))
        expected = sorted(row_id for row_id in there if row_id > after)
        assert users.ids_behind(after) == expected
        for detached in (False, True):
            found, is_ordered = users.scan(Scan(order=("id",), after=(after,), detached=detached))
            assert ([row[0] for row in found], is_ordered) == (expected, True)
