"""The documentation as pages of blocks, read by a real Markdown parser.

A fence is run according to its language: `python` in the page's own interpreter session, `bash` in a shell, in the
page's own directory. An HTML comment right before a fence, which readers do not see, changes that:

    <!-- not run: why -->     the reason is for whoever reads the source; there should be few
    <!-- prints -->           the block is what the block before it printed; `…` stands for anything within a line
    <!-- needs: postgresql -->  from here on DATABASE_URL names an empty PostgreSQL database
    <!-- needs: d1 -->  from here on the D1_… variables name an empty D1 database, on the engine that D1 runs on

A fence with `title="name"` is a file: it is written there, and a shell block of the page has to use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
RUN: Final = ("python", "bash")
SHOWN_ONLY: Final = ("text", "json", "sql", "toml", "ini", "yaml")

_COMMENT: Final = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_TITLE: Final = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
    """One fence. `line` is that of its first line of code, `comment` the HTML comment before it."""

    language: str
    text: str
    line: int
    title: str | None
    comment: str


def pages() -> list[Path]:
    """README and everything below docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    """The page's path from the root, as test ids show it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fences of a page, in order."""
    comment = ""
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            found = _COMMENT.search(token.content)
            comment = found[1] if found else ""
        elif token.type == "fence":
            language, _, options = token.info.partition(" ")
            title = _TITLE.search(options)
            line = token.map[0] + 2 if token.map else 0
            yield Block(language, token.content, line, title[1] if title else None, comment)
            comment = ""
        elif not token.type.endswith("_close"):
            comment = ""
