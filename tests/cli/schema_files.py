"""A small set of migrations that both engines take, and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

AUTHORS: Final = "0001_authors.sql"
BOOKS: Final = "0002_books.sql"
SEED: Final = "0003_seed.sql"
FILES: Final = {
    AUTHORS: "-- Who writes.\nCREATE TABLE authors (\n    id BIGINT PRIMARY KEY,\n    name TEXT NOT NULL\n);\n",
    f"rollback/{AUTHORS}": "DROP TABLE authors;\n",
    BOOKS: "-- What they write.\n"
    "CREATE TABLE books (\n    id BIGINT PRIMARY KEY,\n"
    "    author_id BIGINT NOT NULL REFERENCES authors (id) ON DELETE CASCADE,\n    title TEXT NOT NULL\n);\n"
    "CREATE INDEX idx_books_author_id ON books (author_id);\n",
    f"rollback/{BOOKS}": "DROP TABLE books;\n",
    SEED: "-- dal:env seed\nINSERT INTO authors (id, name) VALUES (1, 'Ada');\n",
    f"rollback/{SEED}": "DELETE FROM authors WHERE id = 1;\n",
    "checks/verify.sql": "-- Authors without a name\n-- expect: 0\nSELECT count(*) FROM authors WHERE name = '';\n",
    "checks/explain.sql": "-- Books of an author\n-- expect-index: idx_books_author_id\n"
    "SELECT title FROM books WHERE author_id = 7;\n",
}


def write_files(directory: Path, files: Mapping[str, str] = FILES) -> Path:
    """The files in a directory, which is made."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def broken(directory: Path) -> Path:
    """A third file whose second statement no engine takes."""
    text = (
        "CREATE TABLE reviews (id BIGINT PRIMARY KEY);\n\nCREATE TABLE oops (id BIGINT REFERENCES nowhere (id), , );\n"
    )
    rollback = "rollback/0004_reviews.sql"
    return write_files(directory, {"0004_reviews.sql": text, rollback: "DROP TABLE reviews;\n"})
