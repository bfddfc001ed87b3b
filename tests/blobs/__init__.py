"""Blob stores: the kit on each of ours, what only one of them promises, faults, and their layers."""
