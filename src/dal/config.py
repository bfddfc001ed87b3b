"""Settings: the only reader of the environment.

A wrong value fails at start with the variable's name, the value (never a secret) and what is allowed. Nothing else in
the library looks at `os.environ`.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from dal.errors import ConfigurationError
from dal.limits import MAX_BLOB_BYTES, MAX_INT64

StorageType = Literal["file", "sqlite", "d1", "postgresql", "memory"]
SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_SECRETS = {
    "db_password",
    "d1_api_token",
    "d1_worker_token",
    "database_url",
    "migration_target_url",
    "blob_url",
    "blob_fallback_url",
    "blob_signing_secret",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
}


class Settings(BaseSettings):
    """What the environment says, checked. Frozen; every field is the environment variable of the same name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False, env_ignore_empty=True)

    data_storage_type: StorageType = "file"
    data_dir: Path = Path("./data")
    sqlite_path: Path | None = Field(default=None, description="None: dal.db in DATA_DIR")

    d1_account_id: str | None = None
    d1_database_id: str | None = None
    d1_api_token: SecretStr | None = None
    d1_api_base: str = "https://api.cloudflare.com/client/v4"
    d1_worker_url: str | None = None
    d1_worker_token: SecretStr | None = None

    database_url: SecretStr | None = None
    db_host: str | None = None
    db_port: int = Field(default=5432, ge=1, le=65535)
    db_name: str | None = None
    db_user: str | None = None
    db_password: SecretStr | None = None
    db_sslmode: SslMode | None = None
    db_max_connections: int = Field(default=20, ge=1, le=10_000)
    db_idle_timeout: float = Field(default=300.0, gt=0, description="seconds")

    migration_enable_dual_write: bool = False
    migration_target_type: StorageType | None = None
    migration_target_url: SecretStr | None = None
    migration_batch_size: int = Field(default=1000, ge=1, le=10_000)

    blob_url: SecretStr | None = None
    file_max_bytes: int = Field(default=MAX_BLOB_BYTES, ge=0, le=MAX_BLOB_BYTES)
    file_allowed_types: str = Field(default="", description="media types, comma separated, as image/*; empty: all")
    file_compress: bool = False
    file_deduplicate: bool = False
    file_retention_days: float = Field(default=30.0, ge=0, le=36_500)
    file_quota_bytes: int | None = Field(default=None, ge=0, le=MAX_INT64)
    file_quota_count: int | None = Field(default=None, ge=0, le=MAX_INT64)
    blob_fallback_url: SecretStr | None = None
    blob_signing_secret: SecretStr | None = None
    blob_public_url: str | None = None
    blob_cache_dir: Path | None = None
    blob_cache_bytes: int = Field(default=1024**3, ge=1024**2, description="in BLOB_CACHE_DIR, at most")
    aws_access_key_id: SecretStr | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None

    def __init__(self, **values: object) -> None:
        """From the environment, a given value winning. Raises ConfigurationError, naming every wrong variable."""
        for name in values:
            # Those of pydantic-settings itself begin with `_`. Variables of others stand in the environment, not here.
            if name not in type(self).model_fields and not name.startswith("_"):
                near = get_close_matches(name.lower(), type(self).model_fields, 1)
                raise ConfigurationError(
                    f"settings: {name!r} is no setting" + (f"; is {near[0]!r} meant?" if near else "")
                )
        try:
            super().__init__(**values)  # type: ignore[arg-type]  # pydantic checks them
        except ValidationError as error:
            raise ConfigurationError("; ".join(_explain(e) for e in error.errors())) from None


def given_or_environment(settings: Settings | None) -> Settings:
    """The settings that were given, or without any those of the environment.

    Raises ConfigurationError: a variable is wrong, or what was given are no settings.
    """
    if settings is None:
        return Settings()
    if not isinstance(settings, Settings):
        raise ConfigurationError(
            f"settings: expected Settings, found {type(settings).__name__}; write Settings(…) with its values"
        )
    return settings


def read_variable(name: str) -> SecretStr | None:
    """The environment variable of a name that stands in a file of the user's; None where it is unset or empty."""
    value = os.environ.get(name)
    return SecretStr(value) if value else None


def _explain(error: object) -> str:
    """One wrong variable, without its value where that is a secret."""
    assert isinstance(error, dict)  # noqa: S101  # pydantic's ErrorDetails
    name = str(error["loc"][0]) if error["loc"] else "settings"
    shown = "a value that is not shown" if name in _SECRETS else repr(error["input"])
    return f"{name.upper()}: {shown} is not allowed: {error['msg']}"
