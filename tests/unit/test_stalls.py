"""A test that fails is run again where the machine stood still meanwhile, once, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

_CONFTEST = """
from tests.stalls import Stalls

def pytest_configure(config):
    config.pluginmanager.register(Stalls())
"""

#: A call that keeps the interpreter's lock is what a machine that stands still is to the other threads.
_TESTS = """
import ctypes
import os
import pytest

lives = []

def stand_still():
    ctypes.PyDLL(None).usleep(1_500_000)

def test_that_has_no_such_excuse():
    raise AssertionError

def test_that_was_stopped():
    lives.append("one more")
    stand_still()
    assert len(lives) == 2

@pytest.fixture
def stopped():
    lives.append("one more")
    if len(lives) == 3:
        stand_still()
        raise ValueError

def test_whose_fixture_was_stopped(stopped):
    pass

def test_that_is_not_the_one_that_was_stopped():
    raise AssertionError

def test_that_fails_again():
    stand_still()
    raise AssertionError

def test_that_passes_in_spite_of_it():
    stand_still()

def test_that_takes_its_worker_along():
    stand_still()
    os._exit(3)
"""


def test_a_test_that_failed_while_the_machine_stood_still_is_run_once_more(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_them.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "--numprocesses", "1", "-p", "no:cacheprovider", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, "-rRfEp", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = [line.split() for line in done.stdout.splitlines() if "test_them.py::" in line]
    ends = {(words[1].partition("::")[2], words[0]) for words in told if words[0].isupper()}
    assert sorted(ends) == [
        ("test_that_fails_again", "FAILED"),
        ("test_that_fails_again", "RERUN"),
        ("test_that_has_no_such_excuse", "FAILED"),
        ("test_that_is_not_the_one_that_was_stopped", "FAILED"),
        ("test_that_passes_in_spite_of_it", "PASSED"),
        ("test_that_takes_its_worker_along", "FAILED"),
        ("test_that_was_stopped", "PASSED"),
        ("test_that_was_stopped", "RERUN"),
        ("test_whose_fixture_was_stopped", "PASSED"),
        ("test_whose_fixture_was_stopped", "RERUN"),
    ], done.stdout
