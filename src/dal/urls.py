"""Store URLs: what they name, and how they are shown without their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from shlex import quote
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from dal.errors import ConfigurationError

SCHEMES = {
    "memory": "memory",
    "file": "file",
    "sqlite": "sqlite",
    "legacy": "legacy",
    "d1": "d1",
    "postgresql": "postgresql",
    "postgres": "postgresql",
}
_FORMS = (
    "memory://, file:///abs/dir, file:rel/dir, sqlite:///abs/app.db, sqlite:rel.db, postgresql://…, "
    "d1://ACCOUNT/DATABASE, legacy:dir"
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}").fullmatch


#: How to bring up a database whose URL may hold a password, and so is not shown.
SCHEMA_UP: Final = (
    "run `dal schema up` where DATA_STORAGE_TYPE names this database, else `dal schema up --url` with its URL"
)


class StoreUrl(NamedTuple):
    """A parsed URL: the backend and where it is. `path` for file and sqlite, the URL itself for the others."""

    backend: str
    url: str
    path: Path | None = None

    @property
    def account_and_database(self) -> tuple[str, str]:
        """What a d1:// URL names. Raises ConfigurationError for one that does not name both."""
        parts = urlsplit(self.url)
        account, database = unquote(parts.netloc), unquote(parts.path.strip("/"))
        if not account or not database or "@" in account or "/" in database or parts.query or parts.fragment:
            raise ConfigurationError("url: d1 is written d1://ACCOUNT_ID/DATABASE_ID; the token is D1_API_TOKEN")
        return account, database


def parse_url(url: str) -> StoreUrl:
    """What a store URL names. Raises ConfigurationError, without any secret of the URL in it."""
    backend = backend_of(url)
    if backend is None:
        raise ConfigurationError(f"url: {wrong_scheme(url)}; use one of {_FORMS}")
    rest = url.partition(":")[2]
    if backend not in ("file", "sqlite", "legacy"):
        place = StoreUrl(backend, url)
        if backend == "d1":
            _ = place.account_and_database
        return place
    if rest.startswith("//") and not rest.startswith("///"):
        raise ConfigurationError(
            f"url: {backend}:// is followed by a host; write {backend}:///absolute/path or {backend}:relative/path"
        )
    if "?" in rest or "#" in rest:
        raise ConfigurationError(f"url: {backend} takes no '?' or '#' part; write them as %3F and %23 in a path")
    path = unquote(rest[2:] if rest.startswith("//") else rest)
    if not path or "\0" in path or path == ":memory:":
        raise ConfigurationError(f"url: {backend} needs a path; for a store in memory use memory://")
    return StoreUrl(backend, url, Path(path))


def backend_of(url: str) -> str | None:
    """The backend that the scheme of the URL names; None where it names none."""
    check_is_text(url)
    scheme, colon, _ = url.partition(":")
    return SCHEMES.get(scheme.lower()) if colon else None


def wrong_scheme(url: str) -> str:
    """What is wrong with the scheme of a URL. What cannot be a scheme is not shown: it may hold a password."""
    scheme, colon, _ = url.partition(":")
    return f"unknown scheme {scheme!r}" if colon and _SCHEME(scheme) else "names no scheme"


def check_is_text(url: object) -> None:
    """Raises ConfigurationError for a URL of another type, such as a path."""
    if not isinstance(url, str):
        raise ConfigurationError(
            f"url: expected text, found {type(url).__name__}; write a path as file:PATH or sqlite:PATH"
        )


def is_same_store(one: StoreUrl, other: StoreUrl) -> bool:
    """Whether both name the same store, through links too, as far as that is to be seen without opening it."""
    if one.path is not None and other.path is not None:
        return os.path.realpath(one.path) == os.path.realpath(other.path)
    if one.backend == other.backend == "d1":
        return one.account_and_database == other.account_and_database
    return one == other


def schema_up(backend: str, path: Path) -> str:
    """How to bring up the file store or SQLite database at this path: a command that works as it is, anywhere."""
    return f"run `dal schema up --url {quote(path_url(backend, path))}`"


def path_url(backend: str, path: Path) -> str:
    """The URL of the store at this path, whatever characters that has."""
    escaped = os.path.abspath(path).replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    return f"{backend}://{escaped}"


def mask_url(url: str) -> str:
    """The URL as it may be shown: user name, host and path, with `***` for a password and for secret parameters."""
    parts = urlsplit(url)
    if not parts.netloc and not parts.query:
        return url
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{colon and ':***'}{at}{host}"
    query = "&".join(
        f"{key}=***" if key.lower() in ("password", "sslpassword", "token") else f"{key}{eq}{value}"
        for key, eq, value in (field.partition("=") for field in parts.query.split("&"))
    )
    return parts._replace(netloc=netloc, query=query).geturl()
