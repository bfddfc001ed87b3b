"""Live moves: the data of one store to another while everybody writes, checked before the switch and reversible after.

A move knows stores by the waist and by `dal.replica`, never by their engine.
"""
