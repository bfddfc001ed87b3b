"""A directory of chat files that programs without the library write, as the source of a live move.

The files stay what they are and whose they are. Their rows are kept in an image beside them, an SQLite store with the
registry and the gates of the move; looking at the files again and again carries what changed into the image, as writes
like any other. The move copies from the image. It leads one way: after the cutover nothing is written to the files.
"""

from dal.legacy.store import LegacyStore

__all__ = ["LegacyStore"]
