"""A local cache of what is read from a remote blob store: see `dal.blobs.cache.layer`."""

from dal.blobs.cache.layer import Cached, CacheStats

__all__ = ["CacheStats", "Cached"]
