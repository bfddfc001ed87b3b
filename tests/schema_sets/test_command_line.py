"""The same sets by the commands that people and pipelines use, with the exit codes that pipelines go by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.schema_sets.commands import Project
from tests.schema_sets.conftest import MakeUrl
from tests.schema_sets.sets import CITADEL_BAD_ORDER, NOTHING, PATTERNS, PLACES, SchemaSet, ledger, names_in, rows


def _names(migrations: list[dict[str, Any]]) -> list[str]:
    return [migration["name"] for migration in migrations]


@pytest.mark.parametrize(("schema_set", "place"), PLACES)
def test_a_set_goes_the_whole_way_by_commands(
    schema_set: SchemaSet, place: str, tmp_path: Path, new_url: MakeUrl
) -> None:
    url = new_url(schema_set, on=place)
    project = Project(tmp_path, schema_set, url)
    files = schema_set.files

    first = project.ask("up")
    assert _names(first["applied"]) == files
    assert ledger(url) == files
    assert names_in(url) == schema_set.names()

    assert project.ask("status")["pending"] == []
    assert project.ask("up")["applied"] == []
    assert project.ask("plan")["pending"] == []
    assert project.ask("validate")["ok"]
    assert project.ask("drift")["differences"] == []
    assert all(query["ok"] for query in project.ask("explain")["queries"])
    verified = project.ask("verify")
    assert verified["ok"]
    assert len(verified["checks"]) > 8

    back = project.ask("down", "--steps", str(len(files)), "--yes")
    assert _names(back["taken_back"]) == files[::-1]
    assert ledger(url) == []
    assert names_in(url) == NOTHING
    assert project.ask("status", code=1)["pending"] == files
    assert _names(project.ask("plan", code=1)["pending"]) == files

    assert _names(project.ask("up")["applied"]) == files
    assert names_in(url) == schema_set.names()
    assert project.ask("verify")["ok"]


def test_a_database_named_by_its_url_gets_no_seed(tmp_path: Path, new_url: MakeUrl) -> None:
    url = new_url(PATTERNS)
    project = Project(tmp_path, PATTERNS, url)
    code, output, messages = project.run("up", "--dir", str(PATTERNS.directory), "--url", url, "--json")
    assert code == 0, messages
    assert _names(json.loads(output)["applied"]) == PATTERNS.files[:-1]
    assert rows(url, "SELECT count(*) FROM teams") == [(0,)]
    assert _names(project.ask("up")["applied"]) == PATTERNS.files[-1:], "the environment wants it"


def test_the_bad_order_ends_with_the_file_the_line_and_the_missing_table(tmp_path: Path, new_url: MakeUrl) -> None:
    expected = CITADEL_BAD_ORDER.expected
    url = new_url(CITADEL_BAD_ORDER)
    project = Project(tmp_path, CITADEL_BAD_ORDER, url)
    for arguments in (("up",), ("validate",)):
        code, output, messages = project.run(*arguments, "--env", "dev")
        assert code == 1
        assert f"{expected['fails_at']}:5" in output + messages
        assert expected["missing"] in output + messages
    assert names_in(url) == NOTHING, "it was found on a scratch database, before anything was applied"
    done = json.loads(project.run("up", "--env", "dev", "--json")[1])
    assert not done["ok"]
    assert expected["missing"] in json.dumps(done)
