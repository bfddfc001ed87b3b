"""D1's SQL: SQLite's, with integers of 64 bits written as text in results, because JSON would round them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from dal.backends.sql import Dialect
from dal.backends.sql.dialect import Planner
from dal.backends.sql.sqlite import SEARCH, sqlite_dialect
from dal.limits import D1_MAX_VALUE_BYTES
from dal.search import OVERFLOW_TERM
from dal.tables import Kind

_MAX_TERMS_BYTES: Final = D1_MAX_VALUE_BYTES // 2  # the index keeps its own copy of them in rows of its own


def encode_terms(terms: Sequence[str]) -> str:
    """The terms as one text; more than a row holds give the one term that says so."""
    text = " ".join(terms)
    if len(text) * 4 > _MAX_TERMS_BYTES and len(text.encode()) > _MAX_TERMS_BYTES:
        return OVERFLOW_TERM
    return text


def d1_dialect(plan: Planner, plan_searched: Planner) -> Dialect:
    """D1's dialect with these ways of planning a batch, without and with a search index."""
    base = sqlite_dialect(plan)
    return replace(
        base,
        plan_searched=plan_searched,
        decoders={**base.decoders, Kind.BIGINT: int},
        selected={Kind.BIGINT: "CAST({} AS TEXT)"},
        search=replace(SEARCH, encode_terms=encode_terms, insert_many=""),  # whatever is for many rows is one statement
    )
