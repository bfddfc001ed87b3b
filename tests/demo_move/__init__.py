"""A whole move from files to PostgreSQL under writers, with its figures: `make demo-move`, `python -m tests.demo_move`.

It runs the operator's own commands as processes (`dal import`, `dal move start`, `check`, `cutover`, `rollback`) and
writers in processes of theirs, so that what is measured of the mover is the mover's. With the given corpus where it
lies beside the checkout, else with made data. Nothing here is a test of time.
"""
