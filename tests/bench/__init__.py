"""Benchmarks: every path of the library beside the code one would write by hand on the same driver.

`python -m tests.bench` (or `make bench`). Both sides have the same tables, indexes, rows and durability, and take turns
round by round in one process, so that what disturbs the machine disturbs both. Nothing here is a test of time: the
tests only prove that the harness still runs.
"""
