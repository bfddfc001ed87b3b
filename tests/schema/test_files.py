"""Reading a directory of migrations: names, headers, order, text, and every oddity by its name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dal.errors import SchemaError
from dal.schema import library_set, read_set
from dal.schema.directives import Directives
from dal.schema.files import MigrationSet
from dal.schema.findings import Finding
from tests.schema.written import write_set

A = "CREATE TABLE a (id INTEGER);\n"


def write(directory: Path, **files: str) -> MigrationSet:
    """Files by name without `.sql`, each with a way back unless it has one."""
    texts = {f"{name}.sql": text for name, text in files.items()}
    return write_set(directory, "sqlite", {**{f"rollback/{name}": "SELECT 1;\n" for name in texts}, **texts})


def rules(found: MigrationSet) -> list[str]:
    return [finding.rule for finding in found.findings]


def the_finding(found: MigrationSet, rule: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.rule == rule]
    return finding


def test_a_tidy_set_has_no_findings(tmp_path: Path) -> None:
    found = write(tmp_path / "shop", **{"0001_a": A, "0002_b": "-- why\nDROP TABLE a;\n"})
    assert found.findings == ()
    assert (found.name, found.engine, found.directory) == ("shop", "sqlite", tmp_path / "shop")
    first, second = found.migrations
    assert (first.name, first.number, first.checksum) == ("0001_a.sql", 1, hashlib.sha256(A.encode()).hexdigest())
    assert [(s.sql, s.line) for s in second.statements] == [("DROP TABLE a", 2)]
    assert second.down is not None
    assert second.down.name == "rollback/0002_b.sql"
    assert second.directives == Directives()


def test_the_librarys_own_sets_are_tidy() -> None:
    for found in (library_set("sqlite"), library_set("postgresql")):
        assert found.name == "dal"
        assert found.findings == ()
        assert [m.directives.optional for m in found.migrations] == [False, True, False, False]


def test_a_directory_per_engine_is_one_set(tmp_path: Path) -> None:
    write_set(tmp_path / "shop" / "sqlite", "sqlite", {"0001_a.sql": A})
    write_set(tmp_path / "shop" / "postgresql", "postgresql", {"0001_b.sql": A})
    for engine, name in (("sqlite", "0001_a.sql"), ("postgresql", "0001_b.sql")):
        found = read_set(tmp_path / "shop", engine)  # type: ignore[arg-type]
        assert (found.name, [m.name for m in found.migrations]) == ("shop", [name])


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="--dir"):
        read_set(tmp_path / "nowhere", "sqlite")


def test_no_other_set_is_called_like_the_librarys(tmp_path: Path) -> None:
    assert write(tmp_path / "shop" / "dal", **{"0001_a": A}).name == "shop/dal"


def test_all_directives_are_read(tmp_path: Path) -> None:
    header = (
        "-- Purpose: odd\n\n-- dal:no-transaction\n--dal:foreign-keys=off\n-- dal:requires 0001_a.sql, 0002_b.sql\n"
        "-- dal:allow drop-table late-migration\n-- dal:env seed dev\n-- dal:phase=contract\n-- dal:optional\n"
    )
    found = write(tmp_path, **{"0001_a": A, "0002_b": A, "0003_c": header + A})
    assert found.findings == ()
    assert found.migrations[2].directives == Directives(
        optional=True,
        transaction=False,
        requires=("0001_a.sql", "0002_b.sql"),
        foreign_keys=False,
        allow=frozenset({"drop-table", "late-migration"}),
        env=frozenset({"seed", "dev"}),
        phase="contract",
    )


@pytest.mark.parametrize("line", ["-- dal:no-transactions", "-- dal:requires", "-- dal:", "-- dal:optional yes"])
def test_a_directive_that_is_none_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    finding = the_finding(write(tmp_path, **{"0001_a": f"-- head\n{line}\n{A}"}), "unknown-directive")
    assert (finding.severity, finding.file, finding.line) == ("error", "0001_a.sql", 2)


def test_a_directive_below_the_header_is_not_ignored_in_silence(tmp_path: Path) -> None:
    finding = the_finding(write(tmp_path, **{"0001_a": f"{A}-- dal:no-transaction\n{A}"}), "unknown-directive")
    assert (finding.line, "below the first statement" in finding.message) == (2, True)


def test_two_files_of_one_number_are_both_there_in_a_declared_order(tmp_path: Path) -> None:
    found = write(tmp_path, **{"0003_access": "-- dal:requires 0003_metrics.sql\n" + A, "0003_metrics": A, "0002_x": A})
    assert [m.name for m in found.migrations] == ["0002_x.sql", "0003_metrics.sql", "0003_access.sql"]
    assert rules(found) == ["duplicate-number"]
    assert the_finding(found, "duplicate-number").severity == "warning"


def test_requires_may_put_a_low_number_behind_a_high_one(tmp_path: Path) -> None:
    found = write(tmp_path, **{"0001_a": "-- dal:requires 0003_c.sql\n" + A, "0002_b": A, "0003_c": A})
    assert [m.name for m in found.migrations] == ["0002_b.sql", "0003_c.sql", "0001_a.sql"]


def test_a_cycle_is_named(tmp_path: Path) -> None:
    found = write(
        tmp_path,
        **{
            "0001_a": "-- dal:requires 0002_b.sql\n" + A,  # waits for the circle, and is not in it
            "0002_b": "-- dal:requires 0003_c.sql\n" + A,
            "0003_c": "-- dal:requires 0004_d.sql\n" + A,
            "0004_d": "-- dal:requires 0002_b.sql\n" + A,
        },
    )
    finding = the_finding(found, "requires-cycle")
    assert finding.severity == "error"
    assert "0002_b.sql → 0003_c.sql → 0004_d.sql → 0002_b.sql" in finding.message
    assert len(found.migrations) == 4


def test_requiring_itself_is_a_cycle_and_requiring_nothing_known_an_error(tmp_path: Path) -> None:
    found = write(tmp_path, **{"0001_a": "-- dal:requires 0001_a.sql 0009_z.sql\n" + A})
    assert "0001_a.sql → 0001_a.sql" in the_finding(found, "requires-cycle").message
    assert "0009_z.sql" in the_finding(found, "unknown-requires").message


@pytest.mark.parametrize("name", ["0001_CamelCase", "1_short", "0001-dash", "0001_it's", "0001_😀", "0001"])
def test_a_bad_name_is_an_error_and_keeps_its_place(tmp_path: Path, name: str) -> None:
    found = write(tmp_path, **{name: A, "0002_b": A})
    assert the_finding(found, "bad-name").severity == "error"
    assert [m.name for m in found.migrations] == [f"{name}.sql", "0002_b.sql"]


def test_a_file_without_a_number_has_no_place(tmp_path: Path) -> None:
    found = write(tmp_path, **{"seed": A, "0001_a": A})
    assert [m.name for m in found.migrations] == ["0001_a.sql"]
    assert "not applied" in the_finding(found, "bad-name").message


def test_gaps_are_named(tmp_path: Path) -> None:
    found = write(tmp_path, **{"0001_a": A, "0003_b": A, "0009_c": A, "20240101120000_d": A})
    messages = [f.message for f in found.findings if f.rule == "number-gap"]
    assert len(messages) == 2
    assert "0002 " in messages[0]
    assert "0004 to 0008" in messages[1]


def test_missing_and_orphaned_ways_back(tmp_path: Path) -> None:
    found = write_set(tmp_path, "sqlite", {"0001_a.sql": A, "rollback/0002_gone.sql": A, "checks/explain.sql": "x;"})
    assert rules(found) == ["missing-rollback", "orphan-rollback"]
    assert found.migrations[0].down is None


def test_a_rule_is_silenced_by_the_file_itself(tmp_path: Path) -> None:
    found = write_set(tmp_path, "sqlite", {"0001_a.sql": "-- dal:allow missing-rollback empty-file unreadable\n"})
    assert found.findings == ()
    (tmp_path / "0001_a.sql").write_bytes(b"-- dal:allow unreadable\n\xff")
    assert "unreadable" in rules(read_set(tmp_path, "sqlite"))


def test_windows_line_ends_and_a_mark_change_nothing_but_are_told(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", **{"0001_a": A + A})
    write(tmp_path / "odd", **{"0001_a": ""})
    (tmp_path / "odd" / "0001_a.sql").write_bytes(b"\xef\xbb\xbf" + (A + A).replace("\n", "\r\n").encode())
    found = read_set(tmp_path / "odd", "sqlite")
    assert rules(found) == ["byte-order-mark", "crlf"]
    assert found.migrations[0].checksum == plain.migrations[0].checksum
    assert found.migrations[0].statements == plain.migrations[0].statements


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"SELECT 1;\nSELECT '\xff';\n", 2),
        (b"SELECT 1;\n\nSELECT '\0';\n", 3),
        (b"SELECT 1;\nSELECT 'open;\n", 2),
        (b"\n\nCREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1;\n", 3),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line(tmp_path: Path, text: bytes, line: int) -> None:
    write(tmp_path, **{"0001_a": ""})
    (tmp_path / "0001_a.sql").write_bytes(text)
    found = read_set(tmp_path, "sqlite")
    finding = the_finding(found, "unreadable")
    assert (finding.severity, finding.line) == ("error", line)
    assert found.migrations[0].statements == ()


def test_a_directory_of_a_migrations_name_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").mkdir()
    assert "unreadable" in rules(read_set(tmp_path, "sqlite"))


@pytest.mark.parametrize("text", ["", "-- only words\n", "/* and more */ ;;"])
def test_an_empty_file_is_a_warning(tmp_path: Path, text: str) -> None:
    assert rules(write(tmp_path, **{"0001_a": text})) == ["empty-file"]


def test_a_missing_semicolon_is_a_warning_and_the_statement_is_there(tmp_path: Path) -> None:
    found = write(tmp_path, **{"0001_a": A + "DROP TABLE a -- end\n"})
    assert rules(found) == ["missing-final-semicolon"]
    assert found.findings[0].line == 2
    assert len(found.migrations[0].statements) == 2


@pytest.mark.parametrize(
    "statement", ["BEGIN", "begin immediate", "COMMIT", "END", "ROLLBACK", "SAVEPOINT x", "RELEASE x"]
)
def test_transaction_control_is_an_error_also_in_a_way_back(tmp_path: Path, statement: str) -> None:
    found = write_set(tmp_path, "sqlite", {"0001_a.sql": A, "rollback/0001_a.sql": f"{A}{statement};\n"})
    finding = the_finding(found, "transaction-control")
    assert (finding.severity, finding.file, finding.line) == ("error", "rollback/0001_a.sql", 2)


def test_the_pragma_that_does_nothing_in_a_transaction_is_an_error(tmp_path: Path) -> None:
    finding = the_finding(write(tmp_path, **{"0001_a": f"PRAGMA foreign_keys=OFF;\n{A}"}), "transaction-control")
    assert "dal:foreign-keys=off" in finding.advice


def test_rows_and_commands_for_psql_are_refused_by_line(tmp_path: Path) -> None:
    for text, line in (("SELECT 1;\nCOPY a (x) FROM stdin;\n1\t'\n\\.\n", 2), ("SELECT 1;\n\n\\set x 1\n", 3)):
        found = write_set(tmp_path, "postgresql", {"0001_a.sql": text, "rollback/0001_a.sql": "SELECT 1;"})
        finding = the_finding(found, "unreadable")
        assert (finding.line, "psql" in finding.message) == (line, True)
