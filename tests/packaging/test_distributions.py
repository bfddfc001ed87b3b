"""The wheel and the source distribution hold what they need, and an installed wheel works from there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120.0

pytest.importorskip("hatchling", reason="hatchling builds the distributions; it is in the extra `test`")


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a wheel and a source distribution of this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    python("-m", "hatchling", "build", "-d", str(directory), cwd=REPOSITORY)
    return directory


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (found,) = distributions.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds the wheel, installed, and nothing else."""
    directory = tmp_path_factory.mktemp("installed")
    command = ["pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    python("-m", *command, "--target", str(directory), str(wheel), cwd=directory)
    return directory


def schema_files() -> set[str]:
    return {path.relative_to(REPOSITORY / "schema").as_posix() for path in (REPOSITORY / "schema").rglob("*.sql")}


def test_the_wheel_holds_the_library_the_schema_and_the_licence_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.removeprefix("dal/_schema/") for name in names if name.startswith("dal/_schema/")} == schema_files()
    modules = {path.relative_to(REPOSITORY / "src").as_posix() for path in (REPOSITORY / "src/dal").rglob("*.py")}
    assert modules <= names
    assert "dal/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {"dal", wheel.name.rpartition("-py3")[0] + ".dist-info"}


def test_the_source_distribution_builds_the_same_wheel(distributions: Path, wheel: Path, tmp_path: Path) -> None:
    (source,) = distributions.glob("*.tar.gz")
    python("-m", "tarfile", "-e", str(source), str(tmp_path), cwd=tmp_path)
    (root,) = tmp_path.iterdir()
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py"):
        assert (root / name).is_file(), name
    python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again"), cwd=root)
    (again,) = (tmp_path / "again").glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_an_installed_wheel_makes_a_store_from_its_own_schema_files(installed: Path, tmp_path: Path) -> None:
    code = (
        "import asyncio, dal\n"
        "from dal.schema import schema_directory\n"
        "async def main():\n"
        "    async with dal.create_data_access('sqlite:new.db') as access:\n"
        "        await access.chats.create('c-1')\n"
        "        print((await access.messages.add('c-1', 'user', 'hello')).sequence_number)\n"
        "asyncio.run(main())\n"
        "print(dal.__file__)\n"
        "print(schema_directory('sqlite'))\n"
        "print(schema_directory('postgresql'))\n"
    )
    number, module, *directories = python("-c", code, cwd=tmp_path, path=installed).splitlines()
    assert number == "1"
    assert module == str(installed / "dal" / "__init__.py")
    assert directories == [str(installed / "dal" / "_schema" / engine) for engine in ("sqlite", "postgresql")]


def test_an_editable_install_reads_the_repositorys_schema() -> None:
    from dal.schema import schema_directory

    if not Path(sys.modules["dal"].__file__ or "").is_relative_to(REPOSITORY / "src"):
        pytest.skip("the tests run against an installed copy")
    assert schema_directory("sqlite") == REPOSITORY / "schema" / "sqlite"


def test_the_installed_command_runs(installed: Path, tmp_path: Path) -> None:
    from dal import __version__

    assert (installed / "bin" / "dal").is_file()
    assert python("-m", "dal.cli", "--version", cwd=tmp_path, path=installed) == f"dal {__version__}\n"


def test_the_version_is_said_once(wheel: Path) -> None:
    from dal import __version__

    assert wheel.name.startswith(f"dal-{__version__}-")


def test_importing_the_library_loads_no_driver_and_is_quick(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, dal\n"
        "print(sorted({'psycopg', 'aiosqlite', 'pydantic', 'typer', 'rich'} & set(sys.modules)))\n"
        "dal.create_data_access('memory://')\n"
        "print(sorted({'psycopg', 'aiosqlite', 'sqlite3', 'typer', 'rich'} & set(sys.modules)))\n"
    )
    assert python("-c", code, cwd=tmp_path, path=installed).splitlines() == ["[]", "[]"]
