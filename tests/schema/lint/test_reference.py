"""The reference lists every rule as the code explains it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dal.schema.linting import Rule, explain_rules

_PAGE: Final = Path(__file__).parents[3] / "docs" / "reference" / "lint.md"
_NAMES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "d1": "D1"}


@pytest.mark.parametrize("rule", explain_rules(), ids=lambda rule: rule.name)
def test_each_rule_has_its_row(rule: Rule) -> None:
    where = ", ".join(name for place, name in _NAMES.items() if place in rule.places)
    mark = " †" if rule.way_back else ""
    everywhere = "everywhere" if len(rule.places) == len(_NAMES) else where
    row = f"| `{rule.name}`{mark} | {rule.severity} | {everywhere} | {rule.why} | {rule.safe_way} |"
    assert row in _PAGE.read_text().splitlines()


def test_there_are_no_other_rows() -> None:
    rows = [line for line in _PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(explain_rules())
