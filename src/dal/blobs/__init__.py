"""Blob stores: where the contents of files lie. See `dal.blobs.base` for what one is."""
