"""Fewer collections while rows are made: for everybody who asks, and for nobody afterwards."""

from __future__ import annotations

import gc

from dal.collector import rare_collections


def test_the_collector_is_put_back_when_the_last_block_ends() -> None:
    before = gc.get_threshold()
    with rare_collections():
        with rare_collections():
            assert gc.get_threshold()[0] == 100_000
        assert gc.get_threshold()[0] == 100_000
    assert gc.get_threshold() == before


def test_a_collector_that_was_switched_off_stays_off() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with rare_collections():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
