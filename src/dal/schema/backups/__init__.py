"""The whole of a database in a file, with proof of what it holds."""
