"""What has to be documented is, and links lead somewhere."""

from __future__ import annotations

import inspect
import pydoc
import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token

import dal
from dal import errors, limits
from dal.cli.app import app
from dal.config import Settings
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT

_SITE_CONFIG = ROOT / ".mkdocs.yml"


def _documented() -> list[str]:
    """What the reference takes from docstrings."""
    reference = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    return re.findall(r"^::: (\S+)", reference, re.M)


@pytest.mark.parametrize("variable", [name.upper() for name in Settings.model_fields])
def test_every_environment_variable_is_documented(variable: str) -> None:
    assert f"`{variable}`" in (DOCS / "how-to/configure.md").read_text()


@pytest.mark.parametrize("name", dal.__all__)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    homes = {f"dal.{name}", f"{getattr(dal, name).__module__}.{name}"}
    assert homes & set(_documented())


@pytest.mark.parametrize("name", _documented())
def test_every_name_in_the_reference_is_there_and_has_a_docstring(name: str) -> None:
    assert pydoc.locate(name) is not None
    assert inspect.getdoc(pydoc.locate(name))


def test_every_command_and_option_is_on_the_page_of_the_command_line() -> None:
    text = (DOCS / "reference/command-line.md").read_text()
    commands = list(_commands(typer.main.get_command(app), "dal"))
    assert len(commands) > 5
    for path, command in commands:
        row = re.search(rf"^\| `{path}[ `].*$", text, re.M)
        assert row, path
        named = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for option in named - {"--url", "--blob-url", "--json", "--dir", "--env"}:
            assert f"`{option}" in row[0], f"{path} {option}"


def test_the_errors_page_lists_every_error_with_its_retryable_default() -> None:
    text = (DOCS / "errors.md").read_text()
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.DalError):
            row = re.search(rf"^\| `{name}`.*$", text, re.M)
            assert row, name
            if kind.default_retryable:
                assert "| yes" in row[0], name


@pytest.mark.parametrize(
    ("page", "sentence", "limit"),
    [
        ("text-and-json.md", "`MAX_TEXT_BYTES` = {}", limits.MAX_TEXT_BYTES),
        ("text-and-json.md", "`MAX_JSON_BYTES` = {}", limits.MAX_JSON_BYTES),
        ("text-and-json.md", "`MAX_JSON_DEPTH` = {}", limits.MAX_JSON_DEPTH),
        ("concurrency.md", "At most {} commits wait", limits.MAX_WAITING_COMMITS),
        ("concurrency.md", "Others wait for at most {} seconds", limits.LOCK_TIMEOUT_S),
        ("search.md", "A text has at most {} characters", limits.MAX_SEARCH_CHARS),
        ("search.md", "more than {} different terms", limits.MAX_TERMS_PER_MESSAGE),
        ("errors.md", "up to {} times when a second try", limits.RETRY_ATTEMPTS),
        ("how-to/run-in-production.md", "at most {} tries", limits.RETRY_ATTEMPTS),
        ("how-to/run-in-production.md", "finish, for at most {} seconds", limits.CLOSE_TIMEOUT_S),
        ("how-to/run-in-production.md", "above {} ms is `degraded`", limits.DEGRADED_LATENCY_MS),
        ("how-to/run-in-production.md", "below {} MiB is `degraded`", limits.DEGRADED_DISK_FREE_BYTES / 1024**2),
        ("how-to/configure.md", "connect_timeout={}`", limits.CONNECT_TIMEOUT_S),
        ("how-to/use-d1.md", "below {} requests in five minutes", limits.D1_API_REQUESTS),
        ("how-to/use-d1.md", "minutes: {} at once", limits.D1_API_BURST_REQUESTS),
        ("how-to/use-d1.md", "longer than {} s is refused", limits.STATEMENT_TIMEOUT_S),
        ("how-to/use-d1.md", "| {} bytes | `LimitExceededError`", limits.D1_MAX_VALUE_BYTES),
        ("how-to/use-d1.md", "| {} bytes of SQL |", limits.D1_MAX_SQL_BYTES),
        ("how-to/use-d1.md", "| {} | values travel as one", limits.D1_MAX_PARAMS),
        ("how-to/use-d1.md", "%2B%2B) | {} | never more", limits.D1_MAX_COMPOUND_TERMS),
        ("how-to/use-d1.md", "| {} MiB, then", limits.D1_MAX_REQUEST_BYTES / 1024**2),
        ("how-to/configure.md", "`statement_timeout` of {} s", limits.STATEMENT_TIMEOUT_S),
        ("how-to/configure.md", "`lock_timeout` of {} s", limits.LOCK_TIMEOUT_S),
        ("how-to/configure.md", "no connection within {} s", limits.POOL_WAIT_TIMEOUT_S),
    ],
)
def test_a_limit_that_a_page_quotes_has_that_value(page: str, sentence: str, limit: float) -> None:
    text = " ".join((DOCS / page).read_text().split())
    quoted = sentence.format("four" if limit == 4 else f"{limit:,.0f}")
    assert quoted in text


@pytest.mark.parametrize(
    "name", [name for name in vars(limits) if re.match(r"(MOVE|LEGACY|FENCED?|GATE|PUSH|SHADOW)_|APPLY_TRIES", name)]
)
def test_every_number_of_a_live_move_is_on_its_page(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| ([\d.,]+) ", (DOCS / "reference/live-moves.md").read_text(), re.M)
    assert row
    assert float(row[1].replace(",", "")) == getattr(limits, name)


def test_the_numbers_of_moving_contents_are_those_of_the_library() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", (DOCS / "reference/moving-contents.md").read_text(), re.M)
    assert len(rows) > 10
    for name, value in rows:
        assert float(value.replace(",", "")) == getattr(limits, name), name


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_a_default_that_is_documented_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in map(str.upper, Settings.model_fields):
        monkeypatch.delenv(variable, raising=False)
    row = re.search(rf"^\| `{name.upper()}` \|([^|]*)\|", (DOCS / "how-to/configure.md").read_text(), re.M)
    assert row
    default = getattr(Settings(), name)
    if default is None:
        assert row[1].strip() in ("", "libpq's own", "`dal.db` in `DATA_DIR`")
    else:
        assert row[1].strip() == f"`{_as_a_person_writes(default)}`"


@pytest.mark.parametrize("page", [*pages.pages(), *sorted(ROOT.glob("[A-Z]*.md"))], ids=pages.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in _links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target}: there is no {file.name}"
        if heading:
            assert heading in _headings(file), f"{target}: no such heading"


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    entries = set(re.findall(r"[\w/.-]+\.md", _SITE_CONFIG.read_text()))
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    decisions = {page for page in there if page.startswith("decisions/") and page != "decisions/index.md"}
    assert there - decisions == entries


def test_every_decision_is_linked_from_the_list_of_decisions() -> None:
    listed = (DOCS / "decisions/index.md").read_text()
    for page in (DOCS / "decisions").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in listed, page.name


def test_every_make_target_that_a_page_names_is_there() -> None:
    named = {
        target for page in pages.pages() for target in re.findall(r"(?:^|`)make ([a-z-]+)\b", page.read_text(), re.M)
    }
    subprocess.run(["make", "--dry-run", *sorted({"demo", "test", *named})], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", pages.pages(), ids=pages.name)
def test_every_included_file_is_there(page: Path) -> None:
    for path in re.findall(r'^--8<-- "([^"]+)"', page.read_text(), re.M):
        assert (ROOT / path).is_file(), path


def _as_a_person_writes(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"./{value}" if isinstance(value, Path) else str(value)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The commands below this one. typer brings click under changing names, so nothing here says its type."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{path} {name}")
    else:
        yield path, command


def _links(page: Path) -> list[str]:
    return [
        str(child.attrs["href"])
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text())
        for child in token.children or []
        if child.type == "link_open"
    ]


def _headings(page: Path) -> set[str]:
    tokens: list[Token] = MarkdownIt("commonmark").parse(page.read_text())
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()) for title in titles}
