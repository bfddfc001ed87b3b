"""What D1 refuses and SQLite does not, so that a trial on SQLite says nothing about it.

The lists were measured on D1's engine, workerd 1.20261117: its authorizer and its limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dal.schema.linting.acts import Act, Create, CreateIndex, CreateTable, Plain, Pragma
from dal.schema.linting.context import Context, Hit
from dal.schema.linting.words import Token, one_of, outside

_PRAGMAS: Final = one_of(
    "case_sensitive_like data_version defer_foreign_keys foreign_key_check foreign_key_list foreign_keys "
    "ignore_check_constraints index_info index_list index_xinfo legacy_alter_table optimize page_size quick_check "
    "recursive_triggers reverse_unordered_selects table_info table_list table_xinfo"
)
_CONTROL: Final = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"})
_MODULES: Final = frozenset({"fts5", "fts5vocab", "rtree", "rtree_i32"})
_FUNCTIONS: Final = one_of(
    "FTS3_TOKENIZER FTS5_SOURCE_ID LOAD_EXTENSION MATCHINFO OFFSETS SOUNDEX SQLITE_SOURCE_ID SQLITE_VERSION"
)
_PRAGMA_ADVICE: Final = {
    "integrity_check": "PRAGMA quick_check is allowed",
    "user_version": "Keep a number of your own in a table",
}
STATEMENT_MAX_BYTES: Final = 100_000
COLUMNS_MAX: Final = 100
COMPOUND_MAX: Final = 5
OPERATORS_MAX: Final = 99
_OPERATORS: Final = frozenset({"AND", "OR", "+", "-", "*", "/", "||"})
#: Words after which another expression begins.
_BREAKS: Final = one_of(
    "SELECT FROM WHERE VALUES SET ON USING GROUP ORDER HAVING LIMIT UNION WHEN THEN ELSE END CASE AS BEGIN RETURNING"
)


def check(act: Act, context: Context) -> Iterator[Hit]:
    """Of one act."""
    if context.place != "d1":
        return
    name = getattr(act, "name", "")
    if isinstance(act, CreateTable) and act.module:
        yield from _virtual(act)
    if getattr(act, "temporary", False):
        yield _denied(
            act.place,
            f"D1 has no temporary tables, views or triggers ({name})",
            "Use a table, and drop it in the same file",
        )
    elif isinstance(act, CreateTable | CreateIndex | Create) and name.startswith("_cf_"):
        yield _denied(act.place, f"names that begin with _cf_ are Cloudflare's ({name})")
    elif isinstance(act, Pragma) and act.name not in _PRAGMAS:
        yield _denied(act.place, f"D1 refuses PRAGMA {act.name}", _PRAGMA_ADVICE.get(act.name, ""))
    elif isinstance(act, Plain) and act.words[:1] in (("ATTACH",), ("DETACH",), ("VACUUM",)):
        yield _denied(act.place, f"D1 refuses {act.words[0]}")
    elif isinstance(act, Plain) and act.words and act.words[0] in _CONTROL and not context.in_transaction:
        yield _denied(act.place, f"D1 refuses {act.words[0]}: a batch is its transaction")
    if isinstance(act, CreateTable) and len(act.columns) > COLUMNS_MAX:
        yield _limit(act.place, f"{name} has {len(act.columns)} columns; D1 takes {COLUMNS_MAX}", "Split the table")


def statement(sql: str, tokens: Sequence[Token]) -> Iterator[Hit]:
    """Of a whole statement, trigger bodies and strings included."""
    if [token.text for token in tokens[:2]] == ["CREATE", "TRIGGER"]:
        yield from _trigger(tokens)
    size_bytes = len(sql.encode())
    if size_bytes > STATEMENT_MAX_BYTES:
        yield Hit("statement-too-long", 0, f"it is {size_bytes:,} bytes long; D1 takes {STATEMENT_MAX_BYTES:,}")
    terms = [1]
    operators = [0]
    told: set[str] = set()
    for index, token in enumerate(tokens):
        text = token.text if token.kind in ("word", "sign") else ""
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if text == "(":
            terms.append(1)
            operators.append(0)
        elif text == ")" and len(terms) > 1:
            terms.pop()
            operators.pop()
        elif text in ("UNION", "INTERSECT", "EXCEPT"):
            terms[-1] += 1
            operators[-1] = 0
        elif text in (",", ";") or text in _BREAKS:
            operators[-1] = 0
            if text == ";":
                terms[-1] = 1
        elif text in _OPERATORS or (text == "|" and following is not None and following.text == "|"):
            operators[-1] += 1
        elif following is not None and following.text == "(" and text in _FUNCTIONS:
            yield _denied(token.place, f"D1 has no function {token.raw.lower()}()")
        elif text.startswith("PRAGMA_") and text[7:].lower() not in _PRAGMAS:
            yield _denied(token.place, f"D1 refuses {token.raw.lower()}", _PRAGMA_ADVICE.get(text[7:].lower(), ""))
        if terms[-1] > COMPOUND_MAX and "compound" not in told:
            told.add("compound")
            message = f"more than {COMPOUND_MAX} SELECTs are joined by UNION; D1 takes {COMPOUND_MAX}"
            yield _limit(token.place, message, "Use VALUES with several rows, or several statements")
        if operators[-1] > OPERATORS_MAX and "depth" not in told:
            told.add("depth")
            message = (
                f"an expression joins more than {OPERATORS_MAX + 1} terms; D1 takes a depth of {OPERATORS_MAX + 1}"
            )
            yield _limit(token.place, message, "Write one literal, or bracket it into halves")


def _trigger(tokens: Sequence[Token]) -> Iterator[Hit]:
    """Reported of the hosted service (cloudflare/workers-sdk 4326, 15046, 15314); the engine itself takes them all."""
    start = next((index for index, token in enumerate(tokens) if token.kind == "word" and token.text == "BEGIN"), 0)
    body = outside(tokens[start:])
    if not start or not body:
        return
    if body[0].raw != "BEGIN" or body[-1].raw != "END":
        yield Hit("trigger-splitting", body[0].place, "the trigger's BEGIN or END is not in upper case")
    case = next((token for token in body if token.kind == "word" and token.text == "CASE"), None)
    if case is not None:
        yield Hit("trigger-splitting", case.place, "the trigger holds a CASE … END without brackets around it")


def _virtual(act: CreateTable) -> Iterator[Hit]:
    if act.module not in _MODULES:
        yield _denied(act.place, f"D1 has no virtual tables of {act.module}", "It has fts5, fts5vocab and rtree")
    message = f"D1 cannot export a database that holds a virtual table ({act.name})"
    yield Hit("virtual-table-export", act.place, message)


def _denied(place: int, message: str, advice: str = "") -> Hit:
    return Hit("denied-on-d1", place, message, advice)


def _limit(place: int, message: str, advice: str) -> Hit:
    return Hit("d1-limit", place, message, advice)
