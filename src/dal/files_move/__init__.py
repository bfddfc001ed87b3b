"""Moving files' contents from one blob store, or a directory, to another while the application goes on.

Nothing is kept of how far a move has come: both stores are listed in the order of their keys and merged, and what is in
the target with the source's size and checksum is done. Killed at any moment, it goes on when it is run again.
"""
