"""The conformance kit for blob stores: see `dal.testing.blobs.conformance`."""
