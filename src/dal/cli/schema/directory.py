"""`dal schema lint` and `dal schema new`: what needs a directory of migrations and no database.

Without `--dir` that is the directory of `--env`, else of the nearest dal.toml, else the library's own. A directory with
`sqlite/` and `postgresql/` in it stands for both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dal.cli.options import AsJson
from dal.cli.output import print_json
from dal.cli.running import FAILED, complain, run
from dal.cli.schema.options import DatabaseUrl, Dir, Env, NewDir, Phase, PlaceName, PlaceOption
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.schema.connection import EngineName, Place
    from dal.schema.findings import Finding

_ENGINES: tuple[EngineName, ...] = ("sqlite", "postgresql")


def lint(
    directory: Dir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    place: PlaceOption = None,
    json: AsJson = False,
) -> None:
    """Look for statements that lose data, lock tables or fail in production, and say the safe way.

    No database is needed; --url and --env only say which engine the files are for. A finding is silenced in its file by
    a line `-- dal:allow RULE` at the top. Exits with 1 when there is an error; warnings are shown.
    """

    async def work() -> int:
        from dal.cli.schema.show import findings_json, print_findings
        from dal.schema import library_set, read_set
        from dal.schema.findings import errors
        from dal.schema.linting import lint as check

        root, known = _directory(directory, env), _place(url, env, place)
        sets: list[dict[str, object]] = []
        found: list[Finding] = []
        places = [known] if known is not None else _places(root)
        if not places:
            raise InvalidInputError(f"{root} does not say which engine its files are for: add --place")
        for where in places:
            engine: EngineName = "postgresql" if where == "postgresql" else "sqlite"
            migrations = library_set(engine) if root is None else read_set(root, engine)
            findings = list(dict.fromkeys((*migrations.findings, *check(migrations, where))))
            found += findings
            files = len(migrations.migrations)
            sets.append(
                {
                    "place": where,
                    "directory": str(migrations.directory),
                    "files": files,
                    "findings": findings_json(findings),
                }
            )
            if not json:
                print_findings(findings, migrations.directory)
                complain(f"{migrations.directory}: {files} files for {where}, {_counted(findings)}")
        if json:
            count = len(errors(found))
            print_json({"sets": sets, "errors": count, "warnings": len(found) - count})
        return FAILED if errors(found) else 0

    run(work())


def new(
    title: Annotated[str, typer.Argument(help="What it changes, in a few words.", show_default=False)],
    directory: NewDir = None,
    url: DatabaseUrl = None,
    env: Env = None,
    place: PlaceOption = None,
    no_transaction: Annotated[
        bool,
        typer.Option("--no-transaction", help="For statements that refuse one, as CREATE INDEX CONCURRENTLY."),
    ] = False,
    phase: Annotated[
        Phase | None,
        typer.Option("--phase", help="Of a change in two releases.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make the next migration and its way back, to be filled in. Never overwrites a file."""

    async def work() -> int:
        from dal.cli.schema.show import shown_path
        from dal.schema import new_migration

        root, known = _directory(directory, env), _place(url, env, place)
        if root is None:
            raise InvalidInputError("say where the migration belongs: --dir, --env, or [schema] directory in dal.toml")
        made: list[Path] = []
        for where in [known] if known is not None else _places(root) or ["sqlite"]:
            made += new_migration(
                root,
                "postgresql" if where == "postgresql" else "sqlite",
                title,
                transaction=not no_transaction,
                phase=None if phase is None else phase.value,
            )
        if json:
            print_json({"files": [str(path) for path in made]})
        else:
            for path in made:
                print(shown_path(path))
        return 0

    run(work())


def _directory(directory: Path | None, env: str | None) -> Path | None:
    """None: the library's own."""
    from dal.schema.deploying.environments import load_environments

    if directory is not None:
        return directory
    project = load_environments(Path.cwd())
    return project.directory if env is None else project.environment(env).directory


def _place(url: str | None, env: str | None, place: PlaceName | None) -> Place | None:
    """Where the files are to run, as the options say; None where they do not."""
    from dal.schema.deploying.environments import load_environments
    from dal.urls import parse_url

    if sum(given is not None for given in (url, env)) > 1:
        raise InvalidInputError("--url and --env both name a database; give one of them")
    if place is not None:
        return place.value
    if env is not None:
        url = load_environments(Path.cwd()).environment(env).url.get_secret_value()
    if url is None:
        return None
    backend = parse_url(url).backend
    if backend not in PlaceName.__members__.values():
        raise InvalidInputError(f"a {backend} store has no migrations; name sqlite, d1 or postgresql")
    return cast("Place", backend)


def _places(root: Path | None) -> list[Place]:
    """Those that a directory has a directory for; none where its files lie in itself."""
    if root is None:
        return list(_ENGINES)
    return [] if any(root.glob("*.sql")) else [engine for engine in _ENGINES if (root / engine).is_dir()]


def _counted(findings: list[Finding]) -> str:
    from dal.schema.findings import errors

    wrong = len(errors(findings))
    warned = len(findings) - wrong
    return f"{wrong} error{'s' * (wrong != 1)}, {warned} warning{'s' * (warned != 1)}"
