"""Imports go down only, and `import dal` stays light: the shape of the library, kept by a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

#: The floors of the house, lowest first; a module may import from its own floor and from those below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("collector", "errors", "limits", "tasks", "_version"),
    ("ops", "table", "file_tables", "tables", "search", "values", "urls", "config", "exchange"),
    ("store", "replica"),
    ("backends", "layers", "schema", "blobs"),
    ("models", "file_models", "cursor", "repositories", "move"),
    ("files",),
    ("access",),
    ("importing", "legacy", "files_move"),
    ("factory",),
    ("testing",),
    ("cli", "demo"),
)
#: Neighbours on one floor that must not know each other, and skips that the floors alone would allow.
FORBIDDEN: tuple[tuple[str, str], ...] = (
    ("backends", "layers"),
    ("layers", "backends"),
    ("backends", "models"),
    ("backends", "repositories"),
    ("repositories", "backends"),
    ("repositories", "layers"),
    ("repositories", "schema"),
    ("access", "backends"),
    ("access", "layers"),
    ("move", "backends"),
    ("move", "models"),
    ("move", "repositories"),
)
#: A parent package that says nothing about where the module stands.
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def modules() -> list[Path]:
    return sorted((SOURCE / "dal").rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module of ours that a file imports at run time, wherever in the file, with the line."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (SOURCE / Path(*whole.split("."))).with_suffix(".py").exists()
                yield (whole if is_module or node.module == "dal" else str(node.module)), node.lineno


def floor(module: str) -> str | None:
    """The part of the library a module belongs to; None for others' modules and for `dal` itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "dal" and len(parts) > 1 else None


def test_every_module_stands_on_a_floor() -> None:
    homes = {home for path in modules() if (home := floor(name_of(path)))}
    assert homes - {"__main__"} <= set(FLOOR_OF), "name the new part in FLOORS"


def test_imports_go_down_only() -> None:
    wrong = []
    for path in modules():
        home = floor(name_of(path))
        if home is None or home == "__main__":
            continue  # `dal` itself loads its names when they are asked for
        for module, line in imported(path):
            target = floor(module)
            if target is None or target == home or target not in FLOOR_OF:
                continue
            if FLOOR_OF[target] > FLOOR_OF[home] or (home, target) in FORBIDDEN:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_backends_are_imported_by_the_factory_and_the_kit_alone() -> None:
    allowed = {"backends", "factory", "testing", "cli", "demo", "importing", "schema"}
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in modules()
        for module, line in imported(path)
        if floor(module) == "backends" and floor(name_of(path)) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_no_backend_imports_another() -> None:
    shared = {"conditions", "interpreter", "memory", "overlay", "replication", "rows", "sql"}
    wrong = []
    for path in modules():
        parts = name_of(path).split(".")
        if parts[:2] != ["dal", "backends"] or len(parts) < 3:
            continue
        for module, line in imported(path):
            other = module.split(".")
            if other[:2] == ["dal", "backends"] and len(other) > 2 and other[2] not in {parts[2], *shared}:
                wrong.append(f"{path.relative_to(SOURCE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def loaded_by(program: str) -> set[str]:
    """The modules in memory after a program ran in a fresh interpreter."""
    ask = f"import asyncio, sys\n{program}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.split())


DRIVERS = {"psycopg", "psycopg_pool", "aiosqlite", "sqlite3", "httpx", "rich", "typer", "opentelemetry", "pytest"}


def test_importing_the_library_loads_no_driver() -> None:
    found = loaded_by("import dal")
    assert found & DRIVERS == set()
    found = loaded_by("from dal import create_data_access, DataAccess, Settings, User, NotFoundError")
    assert found & DRIVERS == set()


@pytest.mark.parametrize(
    ("url", "unwanted"),
    [
        ("memory://", {"psycopg", "psycopg_pool", "aiosqlite", "sqlite3", "httpx"}),
        ("file:{place}/data", {"psycopg", "psycopg_pool", "aiosqlite", "httpx"}),
        ("sqlite:{place}/dal.db", {"psycopg", "psycopg_pool", "httpx"}),
    ],
)
def test_a_backend_loads_only_its_own_driver(url: str, unwanted: set[str], tmp_path: Path) -> None:
    program = f"""
import dal
async def main():
    async with dal.create_data_access({url.format(place=tmp_path)!r}) as access:
        await access.chats.create("c")
        await access.messages.add("c", "user", "hello")
asyncio.run(main())"""
    found = loaded_by(program)
    assert found & unwanted == set()
    assert not found & {"rich", "typer", "pytest", "opentelemetry"}


def test_how_long_the_import_takes_is_told() -> None:
    program = "import time; start = time.perf_counter(); import dal; print(time.perf_counter() - start)"
    times_ms = []
    for _ in range(3):
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        times_ms.append(float(run.stdout) * 1000)
    print(f"import dal: {min(times_ms):.0f} ms at best of {len(times_ms)}")
