"""`python -m tests.demo_move.hurried MODULE ARGUMENTS…`: the module as a program, with shorter waits in its moves."""

from __future__ import annotations

import runpy
import sys

from tests.torture.pace import shorten

if __name__ == "__main__":
    shorten()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
