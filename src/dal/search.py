"""The one meaning of search, in Python, so that every backend finds the same messages.

Text is brought to a canonical form: NFKC, case-folded, Latin accents removed, everything but letters, marks and digits
taken as a boundary. A query matches when each of its space-separated parts stands in the canonical text: whole words in
scripts with spaces, any substring in scripts without (Han, kana, Thai, Lao, Khmer, Myanmar), parts joined by
punctuation (`repo-map`) next to each other.

Stores with an index keep `index_terms` of each message: words, and overlapping bigrams plus the last character for
scripts without spaces. Terms only narrow the candidates; `matches` decides. Built-in tokenisers of the engines found 19
of 2,882 Japanese and 1 of 3,217 Chinese matches, and differ from each other.
"""
# INTERFACE (to be filled in by the search module's author; names are fixed):
#   class SearchQuery(NamedTuple): patterns: tuple[str, ...]; terms: tuple[QueryTerm, ...]
#   class QueryTerm(NamedTuple): text: str; prefix: bool      (prefix: any indexed term that begins with text)
#   OVERFLOW_TERM: str                       carried by a message with too many terms; such a message is always a candidate
#   def canonical(text: str) -> str
#   def parse_query(text: str) -> SearchQuery            never fails; a text without any word has no patterns: finds nothing
#   def matches(query: SearchQuery, text: str) -> bool
#   def index_terms(text: str) -> list[str]              distinct, sorted; only letters, marks and digits: no quoting needed
#   def snippet(query: SearchQuery, text: str, *, max_chars: int = 160) -> str

from __future__ import annotations

from typing import NamedTuple


class QueryTerm(NamedTuple):
    text: str
    prefix: bool


class SearchQuery(NamedTuple):
    patterns: tuple[str, ...]
    terms: tuple[QueryTerm, ...]
