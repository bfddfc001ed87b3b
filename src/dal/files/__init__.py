"""Files with their contents: rows in the data store, bytes in a blob store. See `dal.files.service`."""
