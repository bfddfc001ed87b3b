"""Blobs in a directory: see `dal.blobs.local.store`."""

from dal.blobs.local.store import LocalBlobStore

__all__ = ["LocalBlobStore"]
