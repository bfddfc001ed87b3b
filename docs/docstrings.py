"""Turns the project's docstrings into Markdown for the reference.

Aligned `name  explanation` lines become lists, and classes that are all fields (records, operations) show them. Used by
mkdocstrings while the site is built; not part of the library.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ITEM = re.compile(r"(?P<name>[A-Za-z_][\w, ]*?) {2,}(?P<text>\S.*)")
_NAME = re.compile(r"[A-Za-z_][\w, ]*")
_NEXT_ON_THE_LINE = re.compile(r"(?<=[.;]) {3,}(?=\w+ {2,})")


class HouseStyle(griffe.Extension):
    """Rewrites every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        fields = [_field(a) for a in cls.attributes.values() if a.annotation is not None and _is_shown(a)]
        if fields and cls.docstring is not None:
            code = "\n".join(["```python", *fields, "```"])
            cls.docstring.value = f"{cls.docstring.value}\n\n{code}"


def markdown(docstring: str) -> str:
    """The docstring with its aligned lines as a list; code blocks and running text stay as they are."""
    written: list[str] = []
    text_column: int | None = None  # where the explanation of the last item begins
    for whole in docstring.split("\n"):
        for line in _NEXT_ON_THE_LINE.split(whole):
            name, text, column = _item(line, text_column)
            if name:
                if text_column is None:
                    written.append("")
                text_column = column
                written.append(f"- `{name}`: {text}")
            elif text_column is not None and line.strip() and len(line) - len(line.lstrip()) >= 2:
                written.append(f"  {line.strip()}")
            else:
                if text_column is not None:
                    text_column = None
                    if line.strip():
                        written.append("")
                written.append(line)
    return "\n".join(written)


def _item(line: str, text_column: int | None) -> tuple[str, str, int]:
    """Name, explanation and the column where it begins; no name where the line is no item."""
    if found := _ITEM.fullmatch(line):
        return found["name"], found["text"], found.start("text")
    # A long name may leave a single space before the column of the explanations above it.
    if text_column and line[text_column - 1 : text_column] == " " and _NAME.fullmatch(line[: text_column - 1]):
        return line[: text_column - 1].rstrip(), line[text_column:], text_column
    return "", "", 0


def _is_shown(attribute: griffe.Attribute) -> bool:
    """Whether it is a field: declared in the class itself, and no property or class variable."""
    of_class = attribute.value is None or "class-attribute" in attribute.labels
    is_field = "instance-attribute" in attribute.labels and "property" not in attribute.labels
    return of_class and is_field and not attribute.name.startswith("_")


def _field(attribute: griffe.Attribute) -> str:
    default = "" if attribute.value is None else f" = {attribute.value}"
    return f"{attribute.name}: {attribute.annotation}{default}"
