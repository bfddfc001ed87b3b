"""Values that stores have been known to change, refuse or confuse; all pass the boundary and must come back exact.

Constructed here, so that the kit brings them wherever it goes.
"""

from __future__ import annotations

from typing import Final

from dal.ops import JsonValue

#: Text that is allowed everywhere: as content, in documents, and as a key (1 to 255 characters, no two alike).
TEXTS: Final[dict[str, str]] = {
    "line separator": "a\u2028b\u2029c",
    "next line": "a\u0085b\x0bc\x0cd\x1ce",
    "crlf and tab": "a\r\nb\rc\td\n",
    "only a space": " ",
    "only a newline": "\n",
    "control characters": "\x01\x02\x1f\x7f\x80\x9f",
    "right to left": "\u202eabc\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "decomposed accent": "Cafe\u0301",
    "composed accent": "Caf\u00e9",
    "stacked marks": "Z" + "\u0351\u036b\u0343" * 20,
    "astral": "\U00010348\U0001d11e\U0010ffff",
    "noncharacter": "\ufffe\uffff\U0001fffe",
    "replacement and byte order mark": "\ufeff\ufffd",
    "emoji joined": "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f3f3\ufe0f\u200d\U0001f308",
    "zero width": "a\u200bb\u2060c\u00add",
    "no trailing space": "key",
    "trailing space": "key ",
    "two trailing spaces": "key  ",
    "leading space": " key",
    "trailing no-break space": "key\u00a0",
    "upper case": "KEY",
    "sharp s": "stra\u00dfe",
    "double s": "strasse",
    "dotless i": "\u0131I\u0130i",
    "full width": "\uff4b\uff45\uff59",
    "slash": "a/b",
    "backslash": "a\\b\\",
    "absolute path": "/etc/passwd",
    "one dot": ".",
    "two dots": "..",
    "way up": "../../a",
    "trailing dot": "key.",
    "hidden": ".key",
    "json suffix": "key.json",
    "device name": "CON",
    "drive": "C:\\a:b",
    "percent": "%00%2F%s%(a)s%%",
    "wildcards": "*?[a-z]_%",
    "braces": "{0}{{}}${a}",
    "single quote": "it's '' ok",
    "double quote": 'say "hi" ""',
    "backtick": "`a`",
    "sql": "'; DROP TABLE users; --",
    "sql comment": "/* a */ -- b",
    "placeholders": "? ?1 :a @a $1 %s",
    "search query": '"a" AND (b OR NOT c) NEAR/2 d*',
    "html": "<script>alert(1)</script>&amp;",
    "json": '{"a": [1, "\\u0041"]}',
    "escaped null": "\\u0000 \\x00 \\ud800",
    "number": "1e5",
    "zero": "0",
    "null": "null",
    "true": "true",
    "postgresql array": '{a,"b",NULL}',
    "copy end": "\\.",
    "copy null": "\\N",
    "date": "2026-01-02T03:04:05.678901Z",
    "uuid": "01900000-0000-7000-8000-000000000001",
    "japanese": "\u968e\u5dee\u6a5f\u95a2\u3068\u306f\uff1f",
    "hangul": "\u1112\u1161\u11ab\uae00",
    "thai": "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "longest ascii": "x" * 255,
    "longest astral": "\U0001f600" * 255,
    "longest path": "/".join("..." for _ in range(64))[:255],
}

NUMBERS: Final[dict[str, int | float]] = {
    "zero": 0,
    "one": 1,
    "one, as a float": 1.0,
    "minus zero": -0.0,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "first behind a double's exactness": 2**53 + 1,
    "smallest subnormal": 5e-324,
    "smallest normal": 2.2250738585072014e-308,
    "largest double": 1.7976931348623157e308,
    "1e300": 1e300,
    "-1e300": -1e300,
    "1e16": 1e16,
    "1e22": 1e22,
    "seventeen digits": 1.2345678901234567e18,
    "a tenth": 0.1,
    "a sum of tenths": 0.1 + 0.2,
    "a third": 1 / 3,
}


def nested(depth: int) -> JsonValue:
    """A document of that nesting, arrays and objects in turn."""
    value: JsonValue = "end"
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


DOCUMENTS: Final[dict[str, JsonValue]] = {
    "null": None,
    "true": True,
    "false": False,
    "empty text": "",
    "empty array": [],
    "empty object": {},
    "empty key": {"": ""},
    "types that compare equal": [1, 1.0, True, 0, -0.0, 0.0, False, None, "", [], {}],
    "keys that look alike": {"a": 1, "A": 2, "a ": 3, " a": 4, "\u00e9": 5, "e\u0301": 6, "1": 7, "01": 8},
    "keys of a driver's own": {"$ref": 1, "__class__": "a", "__proto__": {"a": 1}, "table": "users", "%s": "?"},
    "long array": list(range(5000)),
    "long text": "\U0001f600\u2028'\"\\" * 5000,
    "deep": nested(100),
}


def same(left: object, right: object) -> bool:
    """Equal in value and type all the way down: 1, 1.0 and True differ, and so do 0.0 and -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right) if isinstance(left, float) else left == right
