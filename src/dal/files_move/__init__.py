"""Moving files' contents from one blob store, or a directory, to another while the application goes on.

Little is kept of how far a move has come: both stores are listed in the order of their keys and merged, and what is in
the target with the source's size and checksum is done. Which parts of a large blob have arrived, a note in the target
says. Killed at any moment, it goes on when it is run again.
"""
