"""A machine that stands still for seconds is no fault of the library's, and no test waits for it in vain.

Leases expire then, connections are given up, a cutover withdraws: all as promised, but not what a test expects that is
about something else. So a watch notes when this process got no processor, and a test that has failed in such a moment
is run once more; the summary of the run counts it. Nothing else is ever run again.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from time import monotonic
from typing import Any, Final

import pytest

#: Half of the shortest bound that the library keeps, which is that of a fence.
STALL_S: Final = 1.0
_TICK_S: Final = 0.1


class Watch(threading.Thread):
    """Looks at the clock ten times a second. Cost: a thousandth of a processor."""

    def __init__(self) -> None:
        super().__init__(name="stalls", daemon=True)
        self._longest_s = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        before = monotonic()
        while not self._ended.wait(_TICK_S):
            now = monotonic()
            self._longest_s = max(self._longest_s, now - before - _TICK_S)
            before = now

    def begin(self) -> None:
        """Forgets what has been: another test begins."""
        self._longest_s = 0.0

    def has_stalled(self) -> bool:
        """Whether the process stood still since then."""
        return self._longest_s >= STALL_S

    def end(self) -> None:
        self._ended.set()
        self.join()


class Stalls:
    """The plugin: `pytest-rerunfailures` runs a test again where its condition is true when the test has failed."""

    def __init__(self) -> None:
        self._watch = Watch()

    def pytest_sessionstart(self) -> None:
        self._watch.start()

    def pytest_sessionfinish(self) -> None:
        self._watch.end()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            item.add_marker(pytest.mark.flaky(reruns=1, condition=self._watch.has_stalled))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self._watch.begin()
        return (yield)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_handlecrashitem(self, crashitem: str, sched: Any) -> None:
        """A test that took its worker with it has failed: nobody knows whether that one stood still."""
        sched.config.failures_db.set_test_reruns(crashitem, 0)
