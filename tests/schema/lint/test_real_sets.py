"""The sets of real systems and our own stay usable: no errors, and few warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from dal.schema.connection import Place
from dal.schema.files import library_set, read_set
from dal.schema.linting import lint
from tests.schema.lint.reading import engine_of

_SETS: Final = Path(__file__).parents[2] / "schema_sets"


@pytest.mark.parametrize(
    ("name", "place", "expected"),
    [
        ("cutty", "sqlite", []),
        ("cutty", "d1", []),
        ("patterns", "sqlite", []),
        ("patterns", "d1", []),
        (
            "citadel",
            "postgresql",
            [
                "0007_add_owner_relation_and_role_permissions.sql:8 foreign-key-not-valid",
                "0007_add_owner_relation_and_role_permissions.sql:9 create-index-not-concurrent",
            ],
        ),
    ],
)
def test_sets_of_other_systems(name: str, place: Place, expected: list[str]) -> None:
    found = [one for one in lint(read_set(_SETS / name, engine_of(place)), place) if one.file]
    assert [f"{one.file}:{one.line} {one.rule}" for one in found] == expected
    assert {one.severity for one in found} <= {"warning"}


@pytest.mark.parametrize("place", ["sqlite", "d1", "postgresql"])
def test_our_own_set(place: Place) -> None:
    found = [one for one in lint(library_set(engine_of(place)), place) if one.file]
    assert [one.rule for one in found if one.severity == "error"] == []
    assert {one.rule for one in found} <= {"virtual-table-export"}
