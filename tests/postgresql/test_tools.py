"""PostgreSQL's own programs: which are taken, and what they are told of the connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from dal.backends.postgresql import tools as tools_module
from dal.backends.postgresql.schema_connection import open_schema
from dal.backends.postgresql.tools import environment, find_tools
from dal.errors import ConfigurationError
from tests.engines import postgres


@pytest.fixture
def url(postgres_server: postgres.PostgresServer) -> str:
    return postgres_server.create_database()


async def test_settings_of_tls_and_others_reach_the_program(url: str) -> None:
    given = "sslmode=allow&sslrootcert=/some/root.crt&connect_timeout=7&options=-cwork_mem%3D1MB&application_name=x%20y"
    async with open_schema(f"{url}?{given}") as connection:
        found = environment(connection.driver)
    assert found["PGSSLMODE"] == "allow"
    assert found["PGSSLROOTCERT"] == "/some/root.crt"
    assert found["PGCONNECT_TIMEOUT"] == "7"
    assert found["PGAPPNAME"] == "x y"
    assert found["PGOPTIONS"].endswith("-cwork_mem=1MB")
    assert found["PGDATABASE"] == url.rpartition("/")[2]


async def test_a_secret_that_no_variable_carries_is_refused(url: str) -> None:
    async with open_schema(f"{url}?sslpassword=hidden") as connection:
        with pytest.raises(ConfigurationError, match="sslpassword") as caught:
            environment(connection.driver)
    assert "hidden" not in caught.value.message


def installed(directory: Path, version: str, *, programs: tuple[str, ...] = ("pg_dump", "pg_restore", "psql")) -> Path:
    directory.mkdir(parents=True)
    for program in programs:
        path = directory / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    return directory


def test_the_oldest_programs_that_fit_the_server_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        installed(tmp_path / "13", "13.22"),
        installed(tmp_path / "18", "18.4 (Debian 18.4-1.pgdg12+1)"),
        installed(tmp_path / "17", "17beta1"),
        installed(tmp_path / "16", "16.1", programs=("pg_dump",)),
        tmp_path / "nowhere",
    ]
    monkeypatch.setattr(tools_module, "_directories", lambda: iter(places))
    assert find_tools(130005).pg_dump == tmp_path / "13" / "pg_dump"
    assert find_tools(150013).major == 17
    assert find_tools(180000).psql == tmp_path / "18" / "psql"
    with pytest.raises(ConfigurationError, match=r"PostgreSQL 19 or later \(found: 13, 17, 18\).*postgresql-client-19"):
        find_tools(190001)


def test_programs_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "_INSTALLED", ((str(tmp_path / "lib"), "*/bin"),))
    monkeypatch.setenv("PATH", str(installed(tmp_path / "somewhere", "97.1")))
    assert find_tools(970001).major == 97
    installed(tmp_path / "lib" / "96" / "bin", "96.3")
    assert find_tools(960001).psql == tmp_path / "lib" / "96" / "bin" / "psql"
