"""A randomised fault run of live moves on real stores: writers, readers, movers, cutovers, and what can befall them.

One supervisor forks everybody, plays a schedule drawn from a seed, lets the move come to rest, and compares what the
writers were told with what the stores hold. `python -m tests.torture --help` says how it is started.
"""
