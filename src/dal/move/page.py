"""What every page of a report shares: its head with the style, the colours of its kinds, and bars.

A page holds everything it needs and asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --equal: #4c9f70; --missing: #c8453b; --extra: #d9822b; --stale: #b8a12f;
  --content_differs: #8a4fbf; --orphan: #6b7280; --pending: #4a86c5; --line: #8884; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem; vertical-align: top;
  border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .85rem; overflow-wrap: anywhere; } .verdict { font-size: 1.2rem; font-weight: 600; }
.bar { display: block; width: 100%; height: 1rem; } .wide { width: 60%; }
.key { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; } .faint { opacity: .7; }
"""


def head(title: str, verdict: str, kinds: Iterable[str]) -> str:
    """The page down to its verdict. `kinds` are the parts of bars, each a class and a colour of its own name."""
    colours = "".join(f".{kind} {{ fill: var(--{kind}); background: var(--{kind}); }}" for kind in kinds)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}: {escape(verdict)}</title><style>{_STYLE}{colours}</style></head><body>"
        f'<h1>{escape(title)}</h1><p class="verdict">{escape(verdict)}</p>'
    )


def fact_table(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and what they stand for, a row each."""
    yield "<table>"
    yield from (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in lines)
    yield "</table>"


def bar_of(parts: Sequence[str]) -> str:
    """A bar of these parts, 1000 wide."""
    return f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img">{"".join(parts)}</svg>'


def part(kind: str, left: float, width: float, title: str = "") -> str:
    """A part of a bar."""
    shown = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect class="{kind}" x="{left:.1f}" width="{width:.1f}" height="10">{shown}</rect>'
