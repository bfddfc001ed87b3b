"""The one meaning of search, in Python, so that every backend finds the same messages.

Text is brought to a canonical form: NFKC, case-folded, Latin accents and variation selectors removed, everything but
letters, marks and digits taken as a boundary. A query matches when each of its space-separated parts stands in the
canonical text: whole words in scripts with spaces, any substring in scripts without (Han, kana, Thai, Lao, Khmer,
Myanmar), parts joined by punctuation (`repo-map`) next to each other.

Stores with an index keep `index_terms` of each message: words, and overlapping bigrams plus the last character for
scripts without spaces. Terms only narrow the candidates; `matches` decides. Built-in tokenisers of the engines found 19
of 2,882 Japanese and 1 of 3,217 Chinese matches, and differ from each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from unicodedata import combining, is_normalized, normalize

from dal.limits import MAX_TERM_CHARS, MAX_TERMS_PER_MESSAGE

#: Carried, alone, by a message with more than MAX_TERMS_PER_MESSAGE terms. A store takes such a message as a candidate
#: for every query. The character is private use, which canonical text never holds and every tokeniser of the engines
#: keeps as it is.
OVERFLOW_TERM: Final = "\ue000"

_SNIPPET_SCAN_CHARS: Final = 4_000  # of a long text at a time, until a match is found
_SNIPPET_OVERLAP_CHARS: Final = 1_000


class QueryTerm(NamedTuple):
    """A term that every matching message has in its index; with `prefix`, some indexed term begins with the text."""

    text: str
    prefix: bool


class SearchQuery(NamedTuple):
    """What to look for: `patterns` are substrings of the canonical text, all needed; `terms` narrow an index."""

    patterns: tuple[str, ...]
    terms: tuple[QueryTerm, ...]


def parse_query(text: str) -> SearchQuery:
    """The query that plain text stands for; it never fails, and nothing in it is an operator.

    A text without any letter or digit has no patterns and finds nothing.
    """
    patterns: dict[str, None] = {}
    terms: dict[QueryTerm, None] = {}
    for part in text.split():
        runs = _runs(part)
        if not runs:
            continue
        # An unspaced script may match in the middle of a run; a word must match whole.
        before = "" if runs[0][0] else " "
        after = "" if runs[-1][0] else " "
        patterns[before + " ".join(unspaced or word for unspaced, word in runs) + after] = None
        for unspaced, word in runs:
            if word:
                terms[QueryTerm(word[:MAX_TERM_CHARS], prefix=False)] = None
            elif len(unspaced) == 1:
                terms[QueryTerm(unspaced, prefix=True)] = None
            else:
                terms.update(dict.fromkeys(QueryTerm(a + b, prefix=False) for a, b in pairwise(unspaced)))
    return SearchQuery(tuple(patterns), tuple(terms))


def matches(query: SearchQuery, text: str) -> bool:
    """Whether every pattern of the query stands in the text; False for a query without any."""
    if not query.patterns:
        return False
    found_in = canonical(text)
    return all(pattern in found_in for pattern in query.patterns)


def index_terms(text: str) -> list[str]:
    """The distinct terms of a text, sorted: of letters, marks and digits only, so that no engine needs them quoted.

    Every term of a query that matches the text is among them (or begins one of them). More than MAX_TERMS_PER_MESSAGE
    give [OVERFLOW_TERM].  Cost: 1 µs for ten English words, 4 to 9 µs for twenty Japanese characters.
    """
    if text.isascii():
        terms = set(text.translate(_ASCII).split())
        if len(text) > MAX_TERM_CHARS:
            terms = {word[:MAX_TERM_CHARS] for word in terms}
    else:
        found: list[str] = []
        for unspaced, word in _runs(text):
            if word:
                found.append(word[:MAX_TERM_CHARS])
            else:  # bigrams; the last slice is the last character alone
                found += [unspaced[i : i + 2] for i in range(len(unspaced))]
        terms = set(found)
    return sorted(terms) if len(terms) <= MAX_TERMS_PER_MESSAGE else [OVERFLOW_TERM]


def canonical(text: str) -> str:
    """The text as search sees it: its runs in order, each between single spaces; one space where it has none."""
    words = text.translate(_ASCII).split() if text.isascii() else [run or word for run, word in _runs(text)]
    return f" {' '.join(words)} " if words else " "


def snippet(query: SearchQuery, text: str, *, max_chars: int = 160) -> str:
    """A piece of the original text around its first match, or its beginning where nothing is found.

    max_chars  at most so many characters, the `…` where it was cut included.
    Cost       grows with the place of the first match.
    """
    if len(text) <= max_chars:
        return text
    place = _first_match(query.patterns, text)
    begin = min(max(0, place - max_chars // 3), len(text) - max_chars)
    end = begin + max_chars
    if begin > 0:
        begin += 1
        while begin < place and combining(text[begin]):  # a mark without its letter is no text
            begin += 1
    if end < len(text):
        end -= 1
    return f"{'…' if begin > 0 else ''}{text[begin:end]}{'…' if end < len(text) else ''}"[:max_chars]


# ASCII: letters and digits lower-cased, everything else a space.
_ASCII: Final = {c: chr(c).lower() if chr(c).isalnum() else " " for c in range(128)}
_VARIATION_SELECTORS: Final = dict.fromkeys((*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
# What the quick way of folding cannot vouch for: accents and letters that hold one, Greek (an iota below a letter folds
# to a letter behind it), variation selectors.
_SUSPECT: Final = re.compile("[\u00c0-\u03ff\u1e00-\u1fff\ufe00-\ufe0f\U000e0100-\U000e01ef]")


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Runs as (unspaced, word); accents of Latin letters; grapheme clusters. Made for the first text beyond ASCII."""
    import regex  # type: ignore[import-untyped]  # 13 ms to import: an application that only lists chats never pays

    # The prolonged sound mark, 〆, 〱-〵 and 〼 are script "common" in Unicode but belong to no word with spaces.
    scripts = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー〆〱-〵〼]"
    unspaced = rf"[{scripts}&&[\p{{L}}\p{{M}}\p{{N}}]]"
    # A run begins with no foreign mark: an emoji's selector or a stray accent is not a word.
    runs = rf"({unspaced}[{unspaced}\p{{M}}]*)|([[\p{{L}}\p{{N}}]--{scripts}][[\p{{L}}\p{{M}}\p{{N}}]--{scripts}]*)"
    return (
        regex.compile(runs, regex.V1),
        regex.compile(r"(?<=\p{Latin})[\u0300-\u036f]+", regex.V1),
        regex.compile(r"\X", regex.V1),
    )


def _runs(text: str) -> list[tuple[str, str]]:
    """The runs of a text in order, each as (unspaced run, "") or ("", word)."""
    found: list[tuple[str, str]] = _patterns()[0].findall(_fold(text))
    return found


def _fold(text: str) -> str:
    """NFKC, case-folded, without Latin accents and variation selectors; folding twice changes nothing more."""
    folded = normalize("NFKC", text).casefold()
    # Most text is done here. Otherwise: a Latin letter may carry an accent, or folding left something to normalise.
    if _is_folded(folded):
        return folded
    bare = text.translate(_VARIATION_SELECTORS)
    decomposed = normalize("NFKD", normalize("NFKD", bare).casefold())
    return normalize("NFC", _patterns()[1].sub("", decomposed))


def _is_folded(text: str) -> bool:
    """Whether case-folded text is certainly folded, as nearly all is; asks for no more than a look at it."""
    return text.isascii() or (is_normalized("NFKC", text) and not _SUSPECT.search(text))


def _first_match(patterns: Sequence[str], text: str) -> int:
    """Where in the text the earliest match of any pattern begins; 0 if there is none."""
    for begin, end in _windows(text):
        window = text[begin:end]
        found_in = canonical(window)
        places = [found_in.find(pattern) for pattern in patterns]
        if any(place >= 0 for place in places):
            found = min(place for place in places if place >= 0)
            # A pattern that begins with a space matches from the letter behind it.
            return begin + _origin(window, found + (found_in[found] == " "))
    return 0


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Overlapping stretches of a text, none of which begins or ends within a word of ordinary length."""
    for start in range(0, len(text), _SNIPPET_SCAN_CHARS):
        begin, end = start, min(len(text), start + _SNIPPET_SCAN_CHARS + _SNIPPET_OVERLAP_CHARS)
        while start - _SNIPPET_OVERLAP_CHARS < begin and begin > 0 and text[begin - 1].isalnum():
            begin -= 1
        while end < len(text) and end - begin < 2 * _SNIPPET_SCAN_CHARS and text[end].isalnum():
            end += 1
        yield begin, end


def _origin(text: str, place: int) -> int:
    """The offset in the text of the grapheme that stands at this place of its canonical form."""
    quick = text.casefold()
    if len(quick) == len(text) and is_normalized("NFKC", text) and _is_folded(quick):
        # Most text: folding only expands, so of the same length is letter for letter. A mark belongs to what it marks.
        offset = _offset(quick, place)
        begin = max(text.rfind(" ", 0, offset), 0)
        return next((c.start() for c in _patterns()[2].finditer(text, begin) if c.end() > offset), offset)
    # Folding shifts offsets (㌔ becomes two letters, ｶﾞ one), so it is done again, one grapheme at a time, with a map.
    folded: list[str] = []
    origins: list[int] = []
    for cluster in _patterns()[2].finditer(text):
        piece = _fold_piece(cluster[0])
        folded.append(piece)
        origins.extend([cluster.start()] * len(piece))
    return origins[_offset("".join(folded), place)] if origins else 0


def _offset(folded: str, place: int) -> int:
    """The offset in folded text of what stands at this place of its canonical form; 0 where nothing does."""
    at = 1  # canonical text begins with a space
    for run in _patterns()[0].finditer(folded):
        start, end = run.span()
        if place < at + end - start:
            return start + max(0, place - at)
        at += end - start + 1
    return 0


@lru_cache(maxsize=4096)
def _fold_piece(cluster: str) -> str:
    return _fold(cluster)
