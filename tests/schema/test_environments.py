"""A project's environments: what its file says, what is refused in it, and that no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from dal.errors import ConfigurationError, SchemaError
from dal.schema.deploying.environments import Project, load_environments

SECRET = "hunter2"
FILE = """
[schema]
directory = "migrations"
backups = "kept"
[environments.dev]
url = "sqlite:data/dev.db"
seed = true
[environments.staging]
url_variable = "STAGING_URL"
database = "cutty-*"
[environments.prod]
url = "${PROD_URL}"
database = "cutty-prod"
require_backup = true
after = "staging"
directory = "prod-migrations"
"""
VARIABLES = {
    "STAGING_URL": f"postgresql://me:{SECRET}@staging/cutty-staging",
    "PROD_URL": f"postgresql://me:{SECRET}@prod/cutty-prod",
}


def load(start: Path, **variables: str) -> Project:
    return load_environments(
        start, read_variable=lambda name: SecretStr(variables[name]) if name in variables else None
    )


def written(directory: Path, text: str, name: str = "dal.toml") -> Path:
    (directory / name).write_text(text, encoding="utf-8")
    return directory


def test_the_file_says_where_everything_is(tmp_path: Path) -> None:
    project = load(written(tmp_path, FILE), **VARIABLES)
    assert (project.source, project.directory, project.backups) == (
        tmp_path / "dal.toml",
        tmp_path / "migrations",
        tmp_path / "kept",
    )
    dev, staging, prod = (project.environment(name) for name in ("dev", "staging", "prod"))
    assert dev.url.get_secret_value() == f"sqlite:{tmp_path}/data/dev.db"
    assert (dev.seed, dev.require_backup, dev.after, dev.directory) == (True, False, None, tmp_path / "migrations")
    assert staging.url.get_secret_value() == VARIABLES["STAGING_URL"]
    assert prod.url.get_secret_value() == VARIABLES["PROD_URL"]
    assert (prod.seed, prod.require_backup, prod.after) == (False, True, "staging")
    assert (prod.directory, prod.backups) == (tmp_path / "prod-migrations", tmp_path / "kept")


def test_the_file_is_found_from_a_directory_below(tmp_path: Path) -> None:
    written(tmp_path, FILE)
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)
    (tmp_path / "src" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert load(below).source == tmp_path / "dal.toml"


def test_pyproject_will_do_and_dal_toml_wins_in_one_directory(tmp_path: Path) -> None:
    written(tmp_path, "[tool.dal.environments.dev]\nurl = 'sqlite:p.db'\n", "pyproject.toml")
    assert load(tmp_path).environment("dev").url.get_secret_value() == f"sqlite:{tmp_path}/p.db"
    written(tmp_path, "[environments.dev]\nurl = 'sqlite:d.db'\n")
    assert load(tmp_path).environment("dev").url.get_secret_value() == f"sqlite:{tmp_path}/d.db"


def test_without_a_file_there_is_no_environment(tmp_path: Path) -> None:
    project = load(tmp_path)
    assert (project.source, project.directory, dict(project.environments)) == (None, None, {})
    with pytest.raises(ConfigurationError, match=r"prod: not known; there is no dal\.toml"):
        project.environment("prod")


def test_an_unknown_environment_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"production: not known; .*dal\.toml names: dev, staging, prod"):
        load(written(tmp_path, FILE)).environment("production")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[environments.prod]\nurl = 'sqlite:a'\nrequire_backups = true", "environments.prod.require_backups"),
        ("[schema]\ndirectry = 'x'", r"schema\.directry is not known; what is: directory, backups"),
        ("[enviroments.prod]\nurl = 'sqlite:a'", "enviroments is not known; what is: schema, environments"),
        ("[environments.prod]\nurl = 'sqlite:a'\nrequire_backup = 'yes'", r"prod\.require_backup: .*boolean"),
        ("[environments.prod]\nurl_variable = 'not a name'", "url_variable"),
        ("[environments.prod]\nseed = true", "one of url and url_variable"),
        ("[environments.prod]\nurl = 'sqlite:a'\nurl_variable = 'A'", "one of url and url_variable"),
        ("[environments.prod]\nurl = 'sqlite:a'\nafter = 'stagin'", "'stagin' is not named there"),
        ("[environments.a]\nurl = 'sqlite:a'\nafter = 'a'", "a after a"),
        (
            "[environments.a]\nurl='sqlite:a'\nafter='b'\n[environments.b]\nurl='sqlite:b'\nafter='a'",
            "circle: a after b after a",
        ),
        ("[environments.'a b']\nurl = 'sqlite:a'", "a name has letters"),
        ("[environments.prod]\nurl = 'mysql://x'", r"prod\.url: unknown scheme 'mysql'"),
        ("environments = 3", "environments: .*dictionary"),
        ("x = 1\n[environments.prod\n", r"dal\.toml is not TOML \(at line 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        load(written(tmp_path, text))
    assert str(tmp_path / "dal.toml") in raised.value.message


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"postgresql://host/db?password={SECRET}",
        f"postgresql://host/db?sslmode=require&SSLPASSWORD={SECRET}",
        f"postgres:{SECRET}@[",
        f"mysql://me:{SECRET}@host/db",
    ],
)
def test_a_password_in_the_file_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(written(tmp_path, f"[environments.prod]\nurl = '{url}'"))
    assert SECRET not in repr(raised.value)


@pytest.mark.parametrize("url", ["postgresql://me@host/db", "postgresql:///db?host=/run/pg&sslmode=disable"])
def test_an_address_without_password_may_stand_in_the_file(tmp_path: Path, url: str) -> None:
    project = load(written(tmp_path, f"[environments.prod]\nurl = '{url}'"))
    assert project.environment("prod").url.get_secret_value() == url


def test_a_wrong_type_does_not_show_the_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(written(tmp_path, f"[environments.prod]\nurl = ['{SECRET}']"))
    assert SECRET not in repr(raised.value)


def test_a_variable_is_needed_only_when_its_environment_is(tmp_path: Path) -> None:
    project = load(written(tmp_path, FILE))
    assert project.environment("dev").url
    with pytest.raises(ConfigurationError, match=r"environment prod: PROD_URL is not set; .*dal\.toml"):
        _ = project.environment("prod").url
    assert project.environment("prod").address == "$PROD_URL"


def test_no_secret_is_shown(tmp_path: Path) -> None:
    project = load(written(tmp_path, FILE), **VARIABLES)
    prod = project.environment("prod")
    shown = f"{project!r} {prod!r} {prod} {prod.url} {prod.url!r} {prod.address}"
    assert SECRET not in shown
    assert "postgresql://me:***@prod/cutty-prod" in prod.address


def test_the_process_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, FILE)
    monkeypatch.setenv("PROD_URL", "sqlite:elsewhere.db")
    monkeypatch.setenv("STAGING_URL", "")
    project = load_environments(tmp_path)
    assert project.environment("prod").url.get_secret_value() == "sqlite:elsewhere.db"
    with pytest.raises(ConfigurationError, match="STAGING_URL is not set"):
        _ = project.environment("staging").url


def test_an_odd_directory_keeps_a_relative_path_readable(tmp_path: Path) -> None:
    odd = tmp_path / "50% off? #1"
    odd.mkdir()
    from dal.urls import parse_url

    url = load(written(odd, FILE)).environment("dev").url.get_secret_value()
    assert parse_url(url).path == odd / "data" / "dev.db"


def test_a_wrongly_bound_database_names_both(tmp_path: Path) -> None:
    project = load(written(tmp_path, FILE), **VARIABLES)
    project.environment("prod").check_name("cutty-prod")
    project.environment("staging").check_name("cutty-staging-2")
    project.environment("dev").check_name("anything")
    with pytest.raises(SchemaError, match=r"PROD_URL leads to database 'cutty-dev', and .* demands 'cutty-prod'"):
        project.environment("prod").check_name("cutty-dev")
    with pytest.raises(SchemaError, match="wrongly bound"):
        project.environment("staging").check_name("Cutty-staging")
