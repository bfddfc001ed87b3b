"""Store URLs: what they name, and how they are shown without their secrets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
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
    scheme, colon, rest = url.partition(":")
    backend = SCHEMES.get(scheme.lower())
    if not colon or backend is None:
        raise ConfigurationError(f"url: unknown scheme {scheme[:20]!r}; use one of {_FORMS}")
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
