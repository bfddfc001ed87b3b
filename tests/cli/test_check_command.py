"""`dal check` as people and programs use it: tables and JSON, exit codes, a page to hand on, nothing secret shown."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dal.factory import create_store
from dal.ops import Compare, Delete, Insert, Op, Update
from dal.testing import rows
from tests.cli.conftest import Command, document
from tests.cli.test_schema_terminal import Terminal
from tests.move.pairs import COUNTS, seed

ID = rows.row_id
SECRET = "the secret of the difference engine"


async def _fill(url: str, ops: list[Op]) -> None:
    store = create_store(url)
    await store.open()
    if not ops:
        await seed(store)
    else:
        await store.commit(ops)
    await store.close()


def change(url: str, *ops: Op) -> None:
    asyncio.run(_fill(url, list(ops)))


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    """Two stores with the same rows."""
    made = f"file:{tmp_path / 'data'}", f"sqlite:{tmp_path / 'dal.db'}"
    for url in made:
        change(url)
    return made


def test_equal_stores_exit_with_0_and_say_so(run: Command, urls: tuple[str, str]) -> None:
    result = run("check", *urls)
    assert result.exit_code == 0, result.output
    assert "equal" in result.stderr
    for name in COUNTS:
        assert name in result.stdout


def test_differences_exit_with_1_and_are_named_without_content(run: Command, urls: tuple[str, str]) -> None:
    change(urls[1], Update("messages", {"id": ID(205)}, {"content": SECRET}))
    change(urls[1], Insert("user_memory", rows.memory(900, 1, value=SECRET)))
    result = run("check", *urls)
    assert result.exit_code == 1
    assert re.search(rf"content differs +target +messages +{ID(205)} +content", result.stdout)
    assert re.search(rf"extra +target +user_memory +{ID(900)}", result.stdout)
    assert "2 rows differ" in result.stderr
    found = document(run("check", *urls, "--json"), code=1)
    assert found["differences"] == 2
    assert found["tables"]["messages"]["counts"]["content_differs"] == 1
    assert (found["equal"], found["whole"]) == (False, True)
    assert SECRET not in result.output + json.dumps(found)


def test_only_some_units_are_compared(run: Command, urls: tuple[str, str]) -> None:
    change(urls[1], Delete("files", (Compare("id", "=", ID(400)),)))
    found = document(run("check", *urls, "--only", "memory, chats", "--json"))
    assert set(found["tables"]) == {"chat_sessions", "messages", "user_memory"}
    assert run("check", *urls, "--only", "files").exit_code == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "messages"], "no such unit"),
        (["--only", " ,"], "no unit to compare"),
        (["--mode", "quick", "--sample", "5"], "only a deep check"),
        (["--yes"], "go with --repair"),
        (["--delete-extra"], "go with --repair"),
        (["--report", "/nowhere/at/all.html"], "cannot be written"),
        (["--sample", "0"], "sample"),
    ],
)
def test_wrong_usage_exits_with_2(run: Command, urls: tuple[str, str], options: list[str], said: str) -> None:
    result = run("check", *urls, *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_an_unknown_kind_of_store_is_wrong_usage_and_a_missing_one_a_failure(
    run: Command, urls: tuple[str, str], tmp_path: Path
) -> None:
    assert run("check", urls[0], "mysql://localhost/dal").exit_code == 2
    missing = tmp_path / "missing.db"
    assert run("check", urls[0], f"sqlite:{missing}").exit_code == 1
    assert not missing.exists()


@pytest.mark.parametrize("mode", ["quick", "tail"])
def test_stores_that_are_in_no_move_have_no_registries(run: Command, urls: tuple[str, str], mode: str) -> None:
    result = run("check", *urls, "--mode", mode)
    assert result.exit_code == 1
    assert "use a deep check" in result.stderr


def test_repair_goes_through_a_move(run: Command, urls: tuple[str, str]) -> None:
    for yes in ([], ["--yes"]):
        result = run("check", *urls, "--repair", *yes)
        assert result.exit_code == 0, result.output
        assert "repair: there is nothing to copy or to delete" in result.stderr
        assert "--yes" not in result.stderr
    change(urls[1], Delete("files", (Compare("id", "=", ID(400)),)))
    result = run("check", *urls, "--repair", "--yes")
    assert result.exit_code == 1
    assert "a move repairs rows" in result.stderr


def test_a_check_that_ran_out_of_time_goes_on_from_its_file(
    run: Command, urls: tuple[str, str], tmp_path: Path
) -> None:
    change(urls[1], Delete("files", (Compare("id", "=", ID(400)),)))
    place, tries, rows = tmp_path / "place.json", 0, 0
    while True:
        result = run("check", *urls, "--max-seconds", "0", "--resume", str(place), "--json")
        tries += 1
        if not place.exists():
            break
        so_far = document(result, code=1 if json.loads(result.stdout)["differences"] else 3)
        assert rows <= so_far["rows"] <= so_far["total"] == 2 * sum(COUNTS.values()) - 1
        rows = so_far["rows"]
        assert f"not everything was compared, {rows} of {so_far['total']} rows of both sides" in result.stderr
        assert tries < 20
    found = document(result, code=1)
    assert tries > 3
    assert (found["differences"], found["total"]) == (1, None)
    assert found["rows"] == 2 * sum(COUNTS.values()) - 1
    place.write_text("{")
    assert run("check", *urls, "--resume", str(place)).exit_code == 2


def test_the_page_needs_nothing_from_elsewhere_and_shows_content_only_when_asked(
    run: Command, urls: tuple[str, str], tmp_path: Path
) -> None:
    change(urls[1], Update("messages", {"id": ID(205)}, {"content": f"<script>{SECRET}"}))
    page = tmp_path / "report.html"
    assert run("check", *urls, "--report", str(page)).exit_code == 1
    text = page.read_text()
    assert "1 row differs" in text
    assert ID(205) in text
    assert f"text, {len(SECRET) + 8} characters" in text
    assert re.search(
        r'<th>content differs</th><td class="n">1</td>.*<rect class="content_differs" x="0.0" width="1000', text
    )
    assert "<title>equal: 23</title>" in text
    assert SECRET not in text
    assert not re.search(r"(src|href|url|@import|https?:)", text)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert run("check", *urls, "--report", str(page), "--show-content").exit_code == 1
    text = page.read_text()
    assert f"&lt;script&gt;{SECRET}" in text
    assert "<script" not in text


def test_a_password_is_shown_nowhere(run: Command, urls: tuple[str, str], tmp_path: Path) -> None:
    result = run("check", urls[0], "postgresql://ada:s3cret@127.0.0.1:1/none", "--json")
    assert result.exit_code == 1
    assert "s3cret" not in result.output


def test_a_terminal_sees_the_progress_and_then_the_table(urls: tuple[str, str]) -> None:
    code, seen = Terminal("check", *urls).finish()
    assert code == 0
    assert "messages" in seen
    assert "rows/s" in seen


def test_a_pipe_sees_no_progress(spawn: Callable[..., object], run: Command, urls: tuple[str, str]) -> None:
    result = run("check", *urls)
    assert result.stderr.count("\n") == 1, result.stderr
