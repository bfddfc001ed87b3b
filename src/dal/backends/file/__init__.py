"""The file store: a directory of JSON documents and JSON-lines files that people can read."""

from dal.backends.file.store import FileStore

__all__ = ["FileStore"]
