"""Settings and URLs: what is allowed, and clear refusals that never show a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dal import ConfigurationError, Settings, create_data_access
from dal.blobs.factory import create_blob_store
from dal.factory import create_store, store_url
from dal.urls import mask_url, parse_url


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_files_are_the_default() -> None:
    settings = Settings()
    assert (settings.data_storage_type, settings.data_dir) == ("file", Path("./data"))
    assert (settings.db_max_connections, settings.db_idle_timeout, settings.migration_batch_size) == (20, 300.0, 1000)
    assert not settings.migration_enable_dual_write
    assert create_data_access().capabilities.backend == "file"


@pytest.mark.parametrize("kind", ["file", "sqlite", "postgresql", "memory"])
def test_the_storage_type_chooses_the_backend(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", kind)
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/x")
    assert create_data_access().capabilities.backend == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_STORAGE_TYPE", "mongodb"),
        ("DB_PORT", "http"),
        ("DB_PORT", "70000"),
        ("DB_MAX_CONNECTIONS", "0"),
        ("DB_IDLE_TIMEOUT", "-1"),
        ("DB_SSLMODE", "on"),
        ("MIGRATION_ENABLE_DUAL_WRITE", "perhaps"),
        ("MIGRATION_BATCH_SIZE", "0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name) as caught:
        create_data_access()
    assert value in str(caught.value)


def test_url_wins_over_settings_and_settings_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "file")
    sqlite = Settings(data_storage_type="sqlite")
    assert create_data_access(settings=sqlite).capabilities.backend == "sqlite"
    assert create_data_access("memory://", settings=sqlite).capabilities.backend == "memory"


def test_postgresql_needs_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "postgresql")
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        create_data_access()


def test_postgresql_is_put_together_from_its_parts() -> None:
    settings = Settings(
        data_storage_type="postgresql",
        db_host="db.example",
        db_name="app",
        db_user="me",
        db_password="s3 cret",
        db_sslmode="verify-full",
    )
    url = store_url(settings).url
    assert all(part in url for part in ("host=db.example", "port=5432", "dbname=app", "user=me", "sslmode=verify-full"))
    assert "s3 cret" in url
    assert "s3 cret" not in repr(settings)


@pytest.mark.parametrize("url", ["mysql://u:hunter2@h/d", "file:/data", "host=h password=hunter2", "hunter2"])
def test_another_database_url_is_refused_with_its_name_and_what_is_allowed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_STORAGE_TYPE", "postgresql")
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(
        ConfigurationError, match=r"^DATABASE_URL: .*DATA_STORAGE_TYPE=postgresql.*postgresql://"
    ) as caught:
        create_data_access()
    assert "hunter2" not in str(caught.value)


def test_an_address_of_d1_that_cannot_be_meant_names_its_variables() -> None:
    settings = Settings(data_storage_type="d1", d1_account_id="a", d1_database_id="b/c", d1_api_token="t")
    with pytest.raises(ConfigurationError, match=r"^D1_ACCOUNT_ID and D1_DATABASE_ID: 'a' and 'b/c'"):
        create_data_access(settings=settings)


def test_what_is_no_url_and_what_are_no_settings_are_refused(tmp_path: Path) -> None:
    odd: list[tuple[Any, Any, Any]] = [(5, None, None), (tmp_path, None, None), (None, {}, None), (None, None, 5)]
    for url, settings, blob_url in odd:
        with pytest.raises(ConfigurationError, match=r"url|settings"):
            create_data_access(url, settings=settings, blob_url=blob_url)
        with pytest.raises(ConfigurationError, match=r"url|settings"):
            create_store(url or blob_url, settings=settings)
        with pytest.raises(ConfigurationError, match=r"url|settings"):
            create_blob_store(url or blob_url, settings=settings)


def test_a_setting_that_is_none_is_refused_and_a_variable_that_is_none_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="'databse_url' is no setting; is 'database_url' meant") as caught:
        Settings(databse_url="postgresql://u:hunter2@h/d")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="'x' is no setting"):
        Settings(x=1)
    monkeypatch.setenv("DATABSE_URL", "of somebody else")
    assert Settings().database_url is None


def test_taking_part_in_a_move_needs_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIGRATION_ENABLE_DUAL_WRITE", "true")
    with pytest.raises(ConfigurationError, match="MIGRATION_TARGET_URL"):
        create_data_access("sqlite:dal.db")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///abs/dir", "/abs/dir"),
        ("file:rel/dir", "rel/dir"),
        ("file:/abs", "/abs"),
        ("sqlite:///abs/app.db", "/abs/app.db"),
        ("sqlite:rel.db", "rel.db"),
        ("sqlite:///a%20b/%3F.db", "/a b/?.db"),
    ],
)
def test_paths_in_urls(url: str, path: str) -> None:
    assert parse_url(url).path == Path(path)


@pytest.mark.parametrize(
    "url", ["", "app.db", "mysql://x", "file://rel/dir", "sqlite://", "sqlite::memory:", "file:a?b", "file:%00"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    ["d1://", "d1://account", "d1:///database", "d1://user:token@account/database", "d1://a/b/c", "d1://a/b?token=t"],
)
def test_a_d1_url_names_an_account_and_a_database(url: str) -> None:
    with pytest.raises(ConfigurationError, match="d1://ACCOUNT_ID/DATABASE_ID"):
        parse_url(url)
    assert parse_url("d1://account/data%20base").account_and_database == ("account", "data base")


def test_d1_needs_a_token_and_what_the_settings_name() -> None:
    with pytest.raises(ConfigurationError, match="D1_API_TOKEN: not set"):
        create_data_access("d1://account/database")
    with pytest.raises(ConfigurationError, match="D1_DATABASE_ID: not set"):
        create_data_access(settings=Settings(data_storage_type="d1", d1_account_id="a", d1_api_token="t"))
    named = Settings(data_storage_type="d1", d1_account_id="a", d1_database_id="b", d1_api_token="t")
    assert create_data_access(settings=named).capabilities.backend == "d1"


@pytest.mark.parametrize("base", ["", "ftp://host", "https://user:pw@host/client/v4", "host/client/v4"])
def test_an_api_base_that_cannot_be_meant_is_refused(base: str) -> None:
    settings = Settings(d1_api_base=base, d1_api_token="t0ken-text") if base else Settings(d1_api_token="a b\nc")
    with pytest.raises(ConfigurationError, match="D1_API_") as caught:
        create_data_access("d1://account/database", settings=settings)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@h:5/d", "postgresql://me:***@h:5/d"),
        ("postgresql://me@h/d?sslmode=require&password=pw", "postgresql://me@h/d?sslmode=require&password=***"),
        ("postgresql://u:p%40w@h1:1,h2:2/d", "postgresql://u:***@h1:1,h2:2/d"),
        ("sqlite:///a/b.db", "sqlite:///a/b.db"),
        ("file:rel", "file:rel"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert mask_url(url) == shown
