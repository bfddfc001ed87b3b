"""Blobs in a bucket of S3, R2 or what speaks like them: see `dal.blobs.s3.store`."""

from dal.blobs.s3.store import S3BlobStore

__all__ = ["S3BlobStore"]
