"""One meaning of search: what is found, what is not, and that the index never loses a hit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unicodedata import category, is_normalized

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dal.limits import MAX_TERM_CHARS, MAX_TERMS_PER_MESSAGE
from dal.search import OVERFLOW_TERM, SearchQuery, canonical, index_terms, matches, parse_query, snippet

NASTY = Path(__file__).parents[3] / "shared" / "data" / "nasty" / "nasty.json"

# Text of every kind, with the characters that make trouble drawn often.
ODD = (
    "aZé\u0300ßİıǅΣς日本語がガｶﾞーー々〆ไทยกำລາວខ្មែរမြန်မာहिन्दी한국어العربية١٢①㌔ﬁＡ"
    "_-.@'\"*:()^ \n\u3000\u200d\ufe0f\U000e0100\0\ud800🎉"
)
UNSPACED = "日本語今日は東京コーヒー人々〆切ไทยພາສາខ្មែរမြန်မာ漢字カナ"
any_text = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=[]), max_size=40)
unspaced_text = st.text(st.sampled_from(UNSPACED), min_size=1, max_size=12)


def found(query: str, text: str) -> bool:
    parsed = parse_query(query)
    answer = matches(parsed, text)
    if answer:
        assert is_candidate(parsed, index_terms(text)), "the index lost a hit"
    return answer


def is_candidate(query: SearchQuery, terms: list[str]) -> bool:
    """What a store with an index does before it asks `matches`."""
    return terms == [OVERFLOW_TERM] or all(
        any(t.startswith(term.text) for t in terms) if term.prefix else term.text in terms for term in query.terms
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", " "),
        ("...", " "),
        ("Hello, World", " hello world "),
        ("snake_case", " snake case "),
        ("日本語Python", " 日本語 python "),
        ("第13回", " 第 13 回 "),
        ("今日。本当", " 今日 本当 "),
        ("Café CAFE\u0301", " cafe cafe "),
        ("ｆｕｌｌｗｉｄｔｈ", " fullwidth "),
        ("ｶﾞｷﾞ", " ガギ "),
        ("か\u3099", " が "),
        ("Straße", " strasse "),
        ("İstanbul", " istanbul "),
        ("ΣΊΣΥΦΟΣ", " σίσυφοσ "),
        ("Ёлка", " ёлка "),
        ("हिन्दी", " हिन्दी "),
        ("コーヒー・人々〆切", " コーヒー 人々〆切 "),
        ("㌔①", " キロ 1 "),
        ("❤\ufe0f", " "),
        ("\u0301abc", " abc "),
        ("葛\U000e0100飾", " 葛飾 "),
        ("a\ud800b\0c", " a b c "),
    ],
)
def test_the_canonical_form(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("cafe", "Café"),
        ("Café", "cafe"),
        ("FULLWIDTH", "ｆｕｌｌｗｉｄｔｈ"),
        ("ガ", "ｶﾞｲﾄﾞ"),
        ("ss", "SS"),
        ("strasse", "STRAẞE"),
        ("straße", "Strasse"),
        ("istanbul", "İSTANBUL"),
        ("user@example.com", "write to <user@example.com>!"),
        ("repo-map", "the repo-map works"),
        ("repo-map", "the repo map works"),
        ("snake_case", "def snake_case():"),
        ("snake", "def snake_case():"),
        ("本", "日本語"),
        ("日本", "日本語"),
        ("語", "日本語"),
        ("本語", "日本語"),
        ("ーヒ", "コーヒー"),
        ("python", "日本語Pythonの本"),
        ("語python", "日本語Pythonの本"),
        ("語Pythonの", "日本語Pythonの本"),
        ("ไท", "ภาษาไทย"),
        ("engine difference", "A difference engine"),
        ("日 語", "日本語"),
        ("NOT", "not a bug"),
        ('"quoted" OR (x)', "quoted or x"),
        ("foo*", "foo bar"),
    ],
)
def test_is_found(query: str, text: str) -> None:
    assert found(query, text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("foo", "foobar"),
        ("bar", "foobar"),
        ("foo*", "foobar"),
        ("foo bar", "foo"),
        ("repo-map", "map repo"),
        ("repo-map", "repo the map"),
        ("日本", "今日。本当"),
        ("本日", "日本"),
        ("か", "がく"),
        ("3回", "第13回"),
        ("thon", "日本語Python"),
        ("", "anything"),
        ("...", "..."),
        ("%", "100%"),
        ("\ud800", "\ud800"),
        (OVERFLOW_TERM, OVERFLOW_TERM),
    ],
)
def test_is_not_found(query: str, text: str) -> None:
    assert not found(query, text)


def test_a_query_without_a_word_has_no_patterns() -> None:
    assert parse_query(" \t…！❤\ufe0f ") == SearchQuery((), ())


@given(any_text, any_text)
def test_no_text_and_no_query_fails(query: str, text: str) -> None:
    found(query, text)
    cut = snippet(parse_query(query), text, max_chars=10)
    assert len(cut) <= 10
    assert cut.removeprefix("…").removesuffix("…") in text


@given(any_text)
@example("e\ufe00\u0301")
@example("ǅ\u0345")
def test_canonical_text_is_its_own_canonical_form(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form
    assert form.startswith(" ")
    assert form.endswith(" ")
    assert "  " not in form


def test_every_single_character_folds_once_and_for_all() -> None:
    for code in range(sys.maxunicode + 1):
        form = canonical(chr(code))
        assert canonical(form) == form, hex(code)
        assert is_normalized("NFKC", form), hex(code)
        assert OVERFLOW_TERM not in form


@given(any_text)
def test_any_text_with_a_word_finds_itself(text: str) -> None:
    assert found(text, text) == (canonical(text) != " ")


@given(any_text)
def test_any_word_finds_its_text(text: str) -> None:
    for word in canonical(text).split():
        assert found(word, text)


@given(any_text, unspaced_text, any_text, st.data())
def test_any_piece_of_an_unspaced_run_is_found(before: str, run: str, after: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(run) - 1))
    end = data.draw(st.integers(start + 1, len(run)))
    piece = run[start:end]
    assert found(piece, f"{before} {run} {after}")


@given(any_text, any_text, any_text)
def test_what_is_found_in_a_part_is_found_in_the_whole(query: str, text: str, more: str) -> None:
    if found(query, text):
        assert found(query, f"{more} {text} {more}")


@given(any_text)
@example("日ि")
@example("\U00031350")
def test_terms_are_distinct_sorted_and_need_no_quoting(text: str) -> None:
    terms = index_terms(text)
    assert terms == sorted(set(terms))
    for term in terms:
        # Cn: letters that the regex module knows and Python's own tables do not yet.
        assert all(category(character)[0] in "LMN" or category(character) == "Cn" for character in term)
        # The last character of a run may be a mark of another script, which alone is no word.
        assert canonical(term).strip() == term or category(term[0])[0] == "M"
    assert all(len(term) <= MAX_TERM_CHARS for term in terms)


def test_terms_are_words_bigrams_and_last_characters() -> None:
    assert index_terms("日本語Python 3") == sorted(["日本", "本語", "語", "python", "3"])
    assert index_terms("The the THE") == ["the"]
    assert index_terms("字") == ["字"]


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_word_is_indexed_by_its_beginning_and_matched_whole(letter: str) -> None:
    word = letter * (MAX_TERM_CHARS + 1)
    assert max(map(len, index_terms(word))) == MAX_TERM_CHARS
    assert found(word, word)
    assert not found(word, word + letter)
    assert not found(word, word[:-1])


@pytest.mark.parametrize("mark", ["", "é "])
def test_a_text_with_too_many_terms_is_always_a_candidate(mark: str) -> None:
    words = MAX_TERMS_PER_MESSAGE - bool(mark)
    text = mark + " ".join(f"w{i}" for i in range(words))
    assert len(index_terms(text)) == MAX_TERMS_PER_MESSAGE
    assert index_terms(text + " more") == [OVERFLOW_TERM]
    assert found("more", text + " more")


def test_nasty_strings_find_themselves() -> None:
    if not NASTY.exists():
        pytest.skip("the collection of nasty strings is not present")
    for entry in json.loads(NASTY.read_text("utf-8")):
        text = entry["text"]
        assert found(text, text) == (canonical(text) != " ")
        snippet(parse_query(text), text * 20)


# Snippets


def test_a_short_text_is_its_own_snippet() -> None:
    assert snippet(parse_query("b"), "a b c", max_chars=5) == "a b c"


def test_a_snippet_shows_the_first_match_in_the_original_text() -> None:
    text = "x " * 500 + "Der Café an der Ecke " + "y " * 500
    cut = snippet(parse_query("cafe"), text, max_chars=40)
    assert "Café" in cut
    assert cut.startswith("…")
    assert cut.endswith("…")
    assert len(cut) == 40


@pytest.mark.parametrize("filler", ["㌔", "ｶﾞ", "ﷺ ", "か\u3099", "日本。", "ß ", "Plain, ", "日本 ", "한글A。"])
def test_a_snippet_finds_its_place_wherever_folding_leaves_it(filler: str) -> None:
    for repeats in (100, 3000):
        text = filler * repeats + "針" + filler * repeats
        assert "針" in snippet(parse_query("針"), text, max_chars=30)


@pytest.mark.parametrize("shift", range(7))
@pytest.mark.parametrize("word", ["foobar", "barfoo"])
def test_a_snippet_is_not_fooled_by_a_piece_of_a_longer_word(word: str, shift: int) -> None:
    text = "." * shift + f"{word} " * 5000 + "foo " + f"{word} " * 100
    assert " foo " in snippet(parse_query("foo"), text, max_chars=60)


def test_a_snippet_without_a_match_is_the_beginning() -> None:
    text = "abc " * 100
    assert snippet(parse_query("zebra"), text, max_chars=10) == text[:9] + "…"
    assert snippet(parse_query(""), text, max_chars=10) == text[:9] + "…"


def test_a_match_at_the_end_leaves_no_gap_behind_it() -> None:
    text = "a " * 200 + "end"
    cut = snippet(parse_query("end"), text, max_chars=20)
    assert cut == "…" + text[-19:]


@pytest.mark.parametrize("max_chars", [0, 1, 2, 3])
def test_a_tiny_snippet_stays_within_its_limit(max_chars: int) -> None:
    assert len(snippet(parse_query("b"), "aaa b ccc", max_chars=max_chars)) <= max_chars
