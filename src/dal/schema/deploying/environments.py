"""The databases of a project by name (dev, staging, prod), and the rules of each: `dal.toml`, or `[tool.dal]`.

The file holds no secret: an address with a password is read from the environment variable that it names, and a literal
one with a password is refused. What the file says is checked whole when it is read, a variable when it is needed.

    [schema]
    directory = "migrations"
    backups = "backups"
    [environments.dev]
    url = "sqlite:dev.db"
    seed = true
    [environments.prod]
    url = "$PROD_DATABASE_URL"      # the same as url_variable = "PROD_DATABASE_URL"
    database = "cutty-prod"
    require_backup = true
    after = "staging"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from dal.config import read_variable
from dal.errors import ConfigurationError, SchemaError
from dal.schema.backups.identity import database_name
from dal.schema.connection import Reader
from dal.urls import mask_url, parse_url

FILE: Final = "dal.toml"
_PYPROJECT: Final = "pyproject.toml"
_VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_EMBEDDED: Final = ("file", "sqlite")
_SECRET_PARAMETERS: Final = frozenset({"password", "sslpassword", "token"})
ReadVariable: TypeAlias = Callable[[str], SecretStr | None]
_Text = Annotated[str, Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class _Schema(_Table):
    directory: _Text | None = None
    backups: _Text = "backups"


class _Environment(_Table):
    url: _Text | None = None
    url_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    directory: _Text | None = None
    database: _Text | None = None
    require_backup: bool = False
    seed: bool = False
    after: _Text | None = None


class _File(_Table):
    # Named `schema_`, since pydantic has a method of the other name.
    schema_: _Schema = Field(default_factory=_Schema, alias="schema")
    environments: dict[str, _Environment] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One database of a project.

    source            the file that names it, for messages.
    directory         of its migrations; None: the library's own.
    database_pattern  what the name of its database must match, as `cutty-*`; None: any.
    require_backup    `up` backs up first.  backups: into this directory.
    seed              files for `env seed` are applied.
    after             the environment that must have every file before this one gets it.
    """

    name: str
    source: Path
    directory: Path | None
    backups: Path
    database_pattern: str | None
    require_backup: bool
    seed: bool
    after: str | None
    literal_url: str | None
    url_variable: str | None
    read_variable: ReadVariable

    @property
    def url(self) -> SecretStr:
        """Its address. Raises ConfigurationError, naming the variable, where that is not set or names no database."""
        if self.literal_url is not None:
            return SecretStr(self.literal_url)
        assert self.url_variable is not None  # noqa: S101  # `_environment` sees to it
        found = self.read_variable(self.url_variable)
        if found is None:
            raise ConfigurationError(
                f"environment {self.name}: {self.url_variable} is not set; {self.source} reads its address from it"
            )
        return found

    @property
    def address(self) -> str:
        """The address as it may be shown, or the variable that should hold it."""
        try:
            return mask_url(self.url.get_secret_value())
        except ConfigurationError:
            return f"${self.url_variable}"

    def check_name(self, database: str) -> None:
        """Raises SchemaError where the environment is bound to the wrong database."""
        if self.database_pattern is not None and not fnmatchcase(database, self.database_pattern):
            where = "its address" if self.url_variable is None else f"the address in {self.url_variable}"
            raise SchemaError(
                f"environment {self.name} is wrongly bound: {where} leads to database {database!r}, and "
                f"{self.source} demands {self.database_pattern!r} (nothing was written)",
                operation="schema",
            )

    async def check_database(self, reader: Reader) -> None:
        """As `check_name`, with the name that the database itself gives."""
        self.check_name(await database_name(reader))


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a project's file says; without a file, no environment and the defaults.

    source     the file; None where there is none.
    directory  of its migrations; None: the library's own.
    backups    where backups go.
    """

    source: Path | None
    directory: Path | None
    backups: Path
    environments: Mapping[str, Environment]

    def environment(self, name: str) -> Environment:
        """Raises ConfigurationError, naming those that there are."""
        try:
            return self.environments[name]
        except KeyError:
            known = ", ".join(self.environments) or "none"
            place = f"{self.source} names" if self.source else f"there is no {FILE} here, so there are"
            raise ConfigurationError(f"environment {name}: not known; {place}: {known}") from None


def load_environments(start: Path, *, read_variable: ReadVariable = read_variable) -> Project:
    """What the nearest `dal.toml`, or `pyproject.toml` with `[tool.dal]`, says: in `start` or a directory above it.

    In one directory `dal.toml` wins. Relative paths in the file, and of a literal `sqlite:` address, start from its
    directory; those in a variable from the working directory, as everywhere.
    Raises  ConfigurationError: the file is wrong; the message names it and what is wrong in it, never a value.
    """
    for directory in (start.absolute(), *start.absolute().parents):
        for name in (FILE, _PYPROJECT):
            document: object = _read(directory / name)
            if name == _PYPROJECT and isinstance(document, dict):
                tool = document.get("tool")
                document = tool.get("dal") if isinstance(tool, dict) else None
            if document is not None:
                return _project(directory / name, document, read_variable)
    return Project(source=None, directory=None, backups=Path("backups"), environments={})


def _read(path: Path) -> dict[str, object] | None:
    """The file's content; None where there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        place = re.search(r"\(at [^()]*\)$", str(error))  # the rest may quote the file
        raise ConfigurationError(f"{path} is not TOML {place.group() if place else ''}".rstrip()) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from error


def _project(source: Path, document: object, read: ReadVariable) -> Project:
    try:
        file = _File.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(source, found) for found in error.errors())) from None
    root = source.parent
    environments = {
        name: _environment(source, name, said, file.schema_, read) for name, said in file.environments.items()
    }
    _check_order(source, environments)
    return Project(
        source=source,
        directory=_under(root, file.schema_.directory),
        backups=root / file.schema_.backups,
        environments=environments,
    )


def _environment(source: Path, name: str, said: _Environment, schema: _Schema, read: ReadVariable) -> Environment:
    where = f"{source}: environments.{name}"
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{where}: a name has letters, digits, '-' and '_'")
    if (said.url is None) == (said.url_variable is None):
        raise ConfigurationError(f"{where}: give it one of url and url_variable")
    literal, variable = said.url, said.url_variable
    if literal is not None and (reference := _VARIABLE.fullmatch(literal)):
        literal, variable = None, reference[1] or reference[2]
    if literal is not None:
        literal = _literal(where, literal, source.parent)
    return Environment(
        name=name,
        source=source,
        directory=_under(source.parent, said.directory or schema.directory),
        backups=source.parent / schema.backups,
        database_pattern=said.database,
        require_backup=said.require_backup,
        seed=said.seed,
        after=said.after,
        literal_url=literal,
        url_variable=variable,
        read_variable=read,
    )


def _literal(where: str, url: str, root: Path) -> str:
    """The address as the file gives it, a relative path of it from the file's directory."""
    try:
        place = parse_url(url)
        parts = urlsplit(url)
        if place.backend not in _EMBEDDED and "://" not in url:
            raise ValueError
    except (ConfigurationError, ValueError) as error:
        reason = error.message if isinstance(error, ConfigurationError) else "it is not a URL"
        raise ConfigurationError(f"{where}.url: {reason.removeprefix('url: ')}") from None
    parameters = {field.partition("=")[0].lower() for field in parts.query.split("&")}
    if parts.password is not None or parameters & _SECRET_PARAMETERS:
        raise ConfigurationError(
            f'{where}.url: a password does not belong in a file; put the address in a variable and write url = "$NAME"'
        )
    if place.backend in _EMBEDDED and place.path is not None and not place.path.is_absolute():
        scheme, _, path = url.partition(":")
        return f"{scheme}:{root.as_posix().replace('%', '%25').replace('?', '%3F').replace('#', '%23')}/{path}"
    return url


def _under(root: Path, directory: str | None) -> Path | None:
    return None if directory is None else root / directory


def _check_order(source: Path, environments: Mapping[str, Environment]) -> None:
    for name, environment in environments.items():
        seen = [name]
        following = environment.after
        while following is not None:
            if following not in environments:
                raise ConfigurationError(f"{source}: environments.{seen[-1]}.after: {following!r} is not named there")
            if following in seen:
                raise ConfigurationError(f"{source}: after goes in a circle: {' after '.join([*seen, following])}")
            seen.append(following)
            following = environments[following].after


def _explain(source: Path, error: object) -> str:
    """One thing that is wrong in the file, without its value: that might be an address."""
    assert isinstance(error, dict)  # noqa: S101  # pydantic's ErrorDetails
    key = ".".join(str(part) for part in error["loc"]) or "[tool.dal]"
    if error["type"] != "extra_forbidden":
        return f"{source}: {key}: {error['msg']}"
    tables: dict[int, type[BaseModel]] = {1: _File, 2: _Schema, 3: _Environment}
    model = tables.get(len(error["loc"]), _File)
    known = ", ".join(field.alias or name for name, field in model.model_fields.items())
    return f"{source}: {key} is not known; what is: {known}"
