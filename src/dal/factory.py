"""From settings or a URL to an open-able DataAccess: the only module that knows the backends.

Each backend is imported when it is chosen, so that a service on SQLite never loads PostgreSQL's driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dal.access import DataAccess
from dal.config import Settings, given_or_environment
from dal.errors import ConfigurationError, UnsupportedError
from dal.files.options import FileOptions
from dal.layers.group import GroupCommit
from dal.layers.retry import Retry
from dal.store import Store
from dal.urls import StoreUrl, backend_of, is_same_store, parse_url, wrong_scheme
from dal.values import Clock, IdMaker, new_id, now

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.metrics import Meter

    from dal.backends.d1 import D1Address, D1Worker, SelfCheck
    from dal.blobs.base import BlobStore
    from dal.files.options import Scanner
    from dal.schema.connection import Connection


#: What a live move leads from and to. It also leads from a directory of legacy files, which is only read, and has a URL
#: but no DATA_STORAGE_TYPE.
_MOVABLE: Final = ("file", "sqlite", "postgresql", "d1")


def create_data_access(
    url: str | None = None,
    *,
    settings: Settings | None = None,
    auto_migrate: bool | None = None,
    meter: Meter | None = None,
    blob_url: str | None = None,
    scanner: Scanner | None = None,
    clock: Clock = now,
    new_id: IdMaker = new_id,
) -> DataAccess:
    """A DataAccess for the store that the URL, the settings or the environment name, not yet opened.

    url           wins over `settings`, which win over the environment.
    auto_migrate  True: bring the schema up at opening. False: never. None: only an embedded store (file, SQLite) that
                  is still empty makes its own schema; PostgreSQL and D1 never do.
    meter         an OpenTelemetry meter: every call is counted and timed, usage of files' storage shown.
    blob_url      where the contents of files lie; wins over BLOB_URL. Without either only their rows are kept.
    scanner       looks into every new file (`Scanner`); files are quarantined until it has found them clean.
    clock, new_id for tests: the current time (aware UTC), and the ids of new rows (UUID text).
    Raises        ConfigurationError: an unknown storage type or URL scheme, or a wrong setting.
    """
    settings = given_or_environment(settings)
    place = parse_url(url) if url is not None else store_url(settings)
    store = _store_at(place, settings, auto_migrate)
    if settings.migration_enable_dual_write:
        layered: Store = Retry(_router(store, place, settings, "DATA_STORAGE_TYPE" if url is None else "url"))
    else:
        layered = Retry(GroupCommit(store))
    if meter is not None:
        from dal.layers.metrics import Metrics

        layered = Metrics(layered, meter)
    return DataAccess(
        layered,
        clock=clock,
        new_id=new_id,
        blobs=_blobs(blob_url, settings),
        files=file_options(settings, scanner),
        meter=meter,
    )


def file_options(settings: Settings, scanner: Scanner | None = None) -> FileOptions:
    """What the settings decide about files' contents."""
    return FileOptions(
        max_file_bytes=settings.file_max_bytes,
        allowed_types=tuple(kind.strip().lower() for kind in settings.file_allowed_types.split(",") if kind.strip()),
        compress=settings.file_compress,
        deduplicate=settings.file_deduplicate,
        retention_s=settings.file_retention_days * 86_400.0,
        quota_bytes=settings.file_quota_bytes,
        quota_files=settings.file_quota_count,
        scanner=scanner,
    )


def _blobs(url: str | None, settings: Settings) -> BlobStore | None:
    if url is None and settings.blob_url is None:
        return None
    from dal.blobs.factory import create_blob_store

    return create_blob_store(url, settings=settings)


def create_store(
    url: str | None = None, *, settings: Settings | None = None, auto_migrate: bool | None = None
) -> Store:
    """The bare backend, without layers, not yet opened: for tools that speak to the waist."""
    settings = given_or_environment(settings)
    return _store_at(parse_url(url) if url is not None else store_url(settings), settings, auto_migrate)


def _store_at(place: StoreUrl, settings: Settings, auto_migrate: bool | None) -> Store:
    match place.backend:
        case "memory":
            from dal.backends.memory import MemoryStore

            return MemoryStore()
        case "file":
            from dal.backends.file import FileStore

            assert place.path is not None  # noqa: S101  # parse_url and store_url see to it
            return FileStore(place.path, create=auto_migrate is not False, upgrade=bool(auto_migrate))
        case "sqlite":
            from dal.backends.sqlite import sqlite_store

            assert place.path is not None  # noqa: S101
            return sqlite_store(place.path, auto_migrate=auto_migrate)
        case "legacy":
            from dal.backends.sqlite import sqlite_store
            from dal.legacy import LegacyStore
            from dal.legacy.store import BESIDE

            assert place.path is not None  # noqa: S101
            return LegacyStore(place.path, sqlite_store(place.path / BESIDE / "image.db", auto_migrate=True))
        case "postgresql":
            from dal.backends.postgresql import postgresql_store

            return postgresql_store(
                place.url,
                max_connections=settings.db_max_connections,
                idle_timeout_s=settings.db_idle_timeout,
                auto_migrate=bool(auto_migrate),
            )
        case "d1":
            from dal.backends.d1 import d1_store

            worker = _d1_worker(settings)
            # Only migrating goes over the API where there is a Worker: an application then needs no API token.
            token = _d1_token(settings) if worker is None or auto_migrate else ""
            return d1_store(_d1_address(place, settings), token, worker=worker, auto_migrate=bool(auto_migrate))
    raise AssertionError(f"unreachable: parse_url knows no {place.backend}")


def target_url(settings: Settings) -> StoreUrl:
    """The store that MIGRATION_TARGET_URL or MIGRATION_TARGET_TYPE names. The `url` may hold a password: never show it.

    Raises ConfigurationError where neither is set.
    """
    if settings.migration_target_url is not None:
        try:
            return parse_url(settings.migration_target_url.get_secret_value())
        except ConfigurationError as error:
            raise ConfigurationError(f"MIGRATION_TARGET_URL: {error.message}") from error
    if settings.migration_target_type is None:
        raise ConfigurationError(
            "MIGRATION_TARGET_URL: not set; MIGRATION_ENABLE_DUAL_WRITE=true needs it, or MIGRATION_TARGET_TYPE"
        )
    chosen = settings.model_copy(update={"data_storage_type": settings.migration_target_type})
    return store_url(chosen, variable="MIGRATION_TARGET_TYPE")


def _router(source: Store, place: StoreUrl, settings: Settings, source_name: str) -> Store:
    """The store of an application that takes part in a move: over the one it is configured for, and the target.

    source_name  the variable or argument that names the source.
    """
    from dal.move.routing import Router

    sources = (*_MOVABLE, "legacy") if source_name == "url" else _MOVABLE
    if place.backend not in sources:
        raise ConfigurationError(
            f"{_value(source_name, place)} cannot be the source of a move; allowed are {', '.join(sources)}"
        )
    to = target_url(settings)
    target_name = "MIGRATION_TARGET_TYPE" if settings.migration_target_url is None else "MIGRATION_TARGET_URL"
    if to.backend not in _MOVABLE:
        raise ConfigurationError(
            f"{_value(target_name, to)} cannot be the target of a move; allowed are {', '.join(_MOVABLE)}"
        )
    if is_same_store(place, to):
        raise ConfigurationError(f"{_value(target_name, to)} names the store that is to be moved; name another")
    target = _store_at(to, settings, auto_migrate=False)
    return Router(GroupCommit(source), GroupCommit(target), source_backend=source, target_backend=target)


def _value(name: str, place: StoreUrl) -> str:
    """A variable or argument with the value that names this store, as messages show it."""
    if name.endswith("_TYPE"):
        return f"{name}: {place.backend!r}"
    return f"{name}: {'a URL that is not shown' if place.backend == 'postgresql' else repr(place.url)}"


def schema_connection(
    url: str | None = None, *, settings: Settings | None = None, create: bool = False
) -> AbstractAsyncContextManager[Connection]:
    """The SQL database that the URL, the settings or the environment name, for `dal.schema`, until the block ends.

    create  a SQLite file that is missing is made. PostgreSQL's databases are their administrators'.
    Raises  ConfigurationError: an unknown URL.  UnsupportedError: a store whose layout is no SQL.  SchemaError: a
            SQLite file that is not there.  UnavailableError: no answer.
    """
    place = parse_url(url) if url is not None else store_url(given_or_environment(settings))
    match place.backend:
        case "sqlite":
            from dal.backends.sqlite.schema_connection import open_schema as open_sqlite

            assert place.path is not None  # noqa: S101
            return open_sqlite(place.path, create=create)
        case "postgresql":
            from dal.backends.postgresql.schema_connection import open_schema as open_postgresql

            return open_postgresql(place.url)
        case "d1":
            from dal.backends.d1.schema_connection import open_schema as open_d1

            settings = given_or_environment(settings)
            return open_d1(_d1_address(place, settings), _d1_token(settings))
    raise UnsupportedError(
        f"{place.backend}: this store has no SQL schema; it keeps its layout itself", operation="schema_connection"
    )


async def self_check(url: str | None = None, *, settings: Settings | None = None) -> SelfCheck | None:
    """Whether the database does what the library rests on, where only a trial can tell; None where no trial is needed.

    On D1 it takes some fifty requests and a hundred written rows, in a scratch table of its own, which it removes.
    Raises  ConfigurationError, UnavailableError: nothing could be tried.
    """
    settings = given_or_environment(settings)
    place = parse_url(url) if url is not None else store_url(settings)
    if place.backend != "d1":
        return None
    from dal.backends.d1 import d1_self_check

    worker = _d1_worker(settings)
    token = _d1_token(settings) if worker is None else ""
    return await d1_self_check(_d1_address(place, settings), token, worker=worker)


def store_url(settings: Settings, *, variable: str = "DATA_STORAGE_TYPE") -> StoreUrl:
    """What the settings name when no URL is given. For PostgreSQL the `url` may hold a password: never show it.

    variable  the one that chose the type of store, for messages.
    """
    match settings.data_storage_type:
        case "file":
            return StoreUrl("file", f"file:{settings.data_dir}", settings.data_dir)
        case "sqlite":
            path = settings.sqlite_path or settings.data_dir / "dal.db"
            return StoreUrl("sqlite", f"sqlite:{path}", path)
        case "postgresql":
            return StoreUrl("postgresql", _conninfo(settings, variable))
        case "d1":
            for name, value in (("D1_ACCOUNT_ID", settings.d1_account_id), ("D1_DATABASE_ID", settings.d1_database_id)):
                if value is None:
                    raise ConfigurationError(f"{name}: not set; {variable}=d1 needs it")
            try:
                return parse_url(f"d1://{settings.d1_account_id}/{settings.d1_database_id}")
            except ConfigurationError as error:
                given = f"{settings.d1_account_id!r} and {settings.d1_database_id!r}"
                raise ConfigurationError(
                    f"D1_ACCOUNT_ID and D1_DATABASE_ID: {given} are not allowed: {error.message}"
                ) from None
        case "memory":
            return StoreUrl("memory", "memory://")


def _d1_address(place: StoreUrl, settings: Settings) -> D1Address:
    from dal.backends.d1 import D1Address

    return D1Address(settings.d1_api_base, *place.account_and_database)


def _d1_token(settings: Settings) -> str:
    if settings.d1_api_token is None:
        raise ConfigurationError("D1_API_TOKEN: not set; D1 needs an API token that may edit it")
    return settings.d1_api_token.get_secret_value()


def _d1_worker(settings: Settings) -> D1Worker | None:
    from dal.backends.d1 import D1Worker

    url, token = settings.d1_worker_url, settings.d1_worker_token
    if url is None and token is None:
        return None
    if url is None:
        raise ConfigurationError("D1_WORKER_URL: not set; D1_WORKER_TOKEN is of no use without it")
    if token is None:
        raise ConfigurationError("D1_WORKER_TOKEN: not set; D1_WORKER_URL needs the token that the Worker was given")
    return D1Worker(url, token.get_secret_value())


def _conninfo(settings: Settings, variable: str) -> str:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        backend = backend_of(url)
        if backend != "postgresql":
            found = wrong_scheme(url) if backend is None else f"is the URL of a {backend} store"
            raise ConfigurationError(
                f"DATABASE_URL: {found}; {variable}=postgresql needs one as postgresql://host/name"
            )
        return url
    if settings.db_host is None and settings.db_name is None:
        raise ConfigurationError(
            f"DATABASE_URL: not set; {variable}=postgresql needs it, or DB_HOST, DB_NAME, DB_USER and DB_PASSWORD"
        )
    from psycopg.conninfo import make_conninfo

    return make_conninfo(
        host=settings.db_host,
        port=settings.db_port,
        dbname=settings.db_name,
        user=settings.db_user,
        password=None if settings.db_password is None else settings.db_password.get_secret_value(),
        sslmode=settings.db_sslmode,
    )
