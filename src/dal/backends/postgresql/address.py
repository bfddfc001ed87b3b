"""Where the database is: a libpq address (URL or keywords) with this library's defaults, and how to name it safely.

Whatever libpq understands passes through: several hosts, TLS files, `target_session_attrs`. One parameter is ours,
`prepare_threshold`. The password stays inside; nothing here prints it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dal.backends.postgresql.errors import BACKEND
from dal.errors import ConfigurationError
from dal.limits import CONNECT_TIMEOUT_S

_PREPARE = "prepare_threshold"


@dataclass(frozen=True, slots=True)
class Address:
    """A database to connect to.

    conninfo           for libpq, password included: never shown.
    label              for messages: hosts and database only.
    prepare_threshold  executions before a statement is prepared on the server; None: never; "auto": at once on a direct
                       connection, never behind a pooler.
    connect_timeout_s  for one attempt at one host.
    """

    conninfo: str = field(repr=False)
    label: str
    prepare_threshold: int | str | None
    connect_timeout_s: float

    def with_options(self, options: str) -> str:
        """The conninfo with server settings for the session, behind those that the caller gave."""
        given = str(conninfo_to_dict(self.conninfo).get("options") or "")
        return make_conninfo(self.conninfo, options=f"{options} {given}".strip())


def parse_address(text: str, *, application_name: str = "dal") -> Address:
    """The address in a URL or a keyword string. Raises ConfigurationError without quoting what it was given.

    application_name  what the server lists the connection as, where neither the address nor PGAPPNAME says.
    """
    text, threshold = _take_prepare_threshold(text)
    try:
        parts = conninfo_to_dict(text)
    except psycopg.Error:
        # libpq quotes what it could not read, and that may be a password: no cause.
        raise _wrong("it is not a PostgreSQL URL or keyword string that libpq can read") from None
    timeout_s = str(parts.get("connect_timeout") or os.environ.get("PGCONNECT_TIMEOUT") or int(CONNECT_TIMEOUT_S))
    if not timeout_s.isascii() or not timeout_s.isdigit():
        raise _wrong("connect_timeout is not a whole number of seconds")
    defaults = {
        "connect_timeout": timeout_s,
        "application_name": str(parts.get("application_name") or os.environ.get("PGAPPNAME") or application_name),
        "client_encoding": "UTF8",
    }
    hosts = str(parts.get("host") or os.environ.get("PGHOST") or "localhost").split(",")
    ports = str(parts.get("port") or os.environ.get("PGPORT") or "5432").split(",")
    if not all(_is_port(port) for port in ports):
        raise _wrong("a port is no number from 1 to 65535 (write a '@', ':' or '/' of a password as %40, %3A or %2F)")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    database = parts.get("dbname") or os.environ.get("PGDATABASE") or ""
    return Address(make_conninfo(text, **defaults), f"postgresql://{places}/{database}", threshold, float(timeout_s))


def _take_prepare_threshold(text: str) -> tuple[str, int | str | None]:
    """The address without our own parameter, which libpq would refuse, and the parameter's value."""
    if not text.startswith(("postgresql://", "postgres://")):
        return text, "auto"
    try:
        parts = urlsplit(text)
    except ValueError:
        raise _wrong("it is not a URL") from None
    settings = parts.query.split("&")
    ours = [setting for setting in settings if setting.startswith(f"{_PREPARE}=")]
    if not ours:
        return text, "auto"
    rest = "&".join(setting for setting in settings if setting not in ours)
    return urlunsplit(parts._replace(query=rest)), _threshold(ours[-1].partition("=")[2])


def _is_port(text: str) -> bool:
    """Whether libpq can connect to it. Where there are several hosts, an empty one is the usual port."""
    text = text.strip()
    return not text or (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= 65535)


def _threshold(value: str) -> int | str | None:
    if value in ("none", "auto"):
        return None if value == "none" else value
    if value.isascii() and value.isdigit():
        return int(value)
    raise ConfigurationError(f"{_PREPARE}={value!r}: allowed are a number from 0, none and auto", backend=BACKEND)


def _wrong(why: str) -> ConfigurationError:
    return ConfigurationError(f"the PostgreSQL address cannot be used: {why}; check DATABASE_URL", backend=BACKEND)
