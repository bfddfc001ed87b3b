"""A database with something of all that a dump holds, a thorough change of it, and a damaged file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Final

import psycopg

from dal.backends.postgresql.schema_connection import PostgresSchemaConnection
from dal.backends.postgresql.tools import environment, find_tools

#: Something of all that a dump holds and an extension is not needed for.
MADE: Final = """
    CREATE SCHEMA "Other Schema";
    CREATE TYPE mood AS ENUM ('sad', 'it''s ok', '😀');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text NOT NULL, mood mood, n positive);
    CREATE UNIQUE INDEX users_email ON users (lower(email)) WHERE mood IS NOT NULL;
    CREATE STATISTICS told ON id, email FROM users;
    CREATE TABLE "Other Schema"."Camel Ä" (x serial, owner int REFERENCES users ON DELETE CASCADE);
    CREATE TABLE part (k int, v text) PARTITION BY LIST (k);
    CREATE TABLE part1 PARTITION OF part FOR VALUES IN (1);
    CREATE SEQUENCE free START 77;
    SELECT nextval('free');
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int);
    CREATE OPERATOR === (function = int4eq, leftarg = int, rightarg = int);
    INSERT INTO users (email, mood, n) SELECT 'u' || g || E'\\n%s', 'it''s ok', g FROM generate_series(1, 2000) g;
    INSERT INTO part VALUES (1, 'one');
    INSERT INTO "Other Schema"."Camel Ä" (owner) VALUES (1);
    CREATE VIEW seen AS SELECT id FROM users;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM users;
    CREATE POLICY own ON users USING (id > 0);
    COMMENT ON SCHEMA public IS 'ours';
    GRANT SELECT ON users TO PUBLIC;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    SELECT lo_from_bytea(0, 'large');
    CREATE PUBLICATION told FOR TABLE users;
"""
#: What only a superuser makes.
MADE_BY_SUPERUSER: Final = """
    CREATE CAST (mood AS int) WITH INOUT;
    CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER there FOREIGN DATA WRAPPER elsewhere;
    CREATE USER MAPPING FOR PUBLIC SERVER there;
    CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
    CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted();
"""
CHANGED: Final = """
    CREATE SCHEMA late; CREATE TABLE late.t (x int); CREATE TABLE public.late (id serial PRIMARY KEY, m mood);
    CREATE TYPE later AS ENUM ('q'); ALTER TYPE mood ADD VALUE 'new'; CREATE DOMAIN d AS mood;
    UPDATE users SET email = email || 'x'; DELETE FROM users WHERE id % 2 = 0;
    ALTER TABLE users ADD extra text DEFAULT 'x'; ALTER TABLE part ADD w int;
    DROP TABLE "Other Schema"."Camel Ä"; DROP VIEW seen; CREATE VIEW seen AS SELECT email FROM users;
    CREATE VIEW more AS SELECT * FROM late; CREATE MATERIALIZED VIEW counted2 AS SELECT count(*) FROM users;
    SELECT setval('free', 1000); CREATE SEQUENCE free2; DROP INDEX users_email; DROP TRIGGER touched ON users;
    CREATE FUNCTION g(mood) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE total(bigint) (sfunc = int8pl,
    stype = bigint); CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE COLLATION plain (locale = 'C');
    CREATE TEXT SEARCH CONFIGURATION tc (copy = english); CREATE TEXT SEARCH DICTIONARY td (template = simple);
    CREATE STATISTICS told2 ON id, mood FROM users; DROP STATISTICS told; CREATE PUBLICATION late FOR TABLE part;
    SELECT lo_from_bytea(0, 'another'); COMMENT ON SCHEMA public IS 'changed';
    GRANT CREATE ON SCHEMA public TO PUBLIC; REVOKE SELECT ON users FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
    ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
"""
CHANGED_BY_SUPERUSER: Final = """
    DROP EVENT TRIGGER noted; CREATE EVENT TRIGGER noted2 ON sql_drop EXECUTE FUNCTION noted();
    CREATE FOREIGN DATA WRAPPER late; CREATE SERVER late FOREIGN DATA WRAPPER late; DROP SERVER there CASCADE;
    CREATE CAST (int AS mood) WITH INOUT; CREATE OPERATOR FAMILY late USING btree;
"""


def do(admin: psycopg.Connection[Any], script: str) -> None:
    admin.execute(script.encode())


def whole(connection: PostgresSchemaConnection) -> list[str]:
    """Everything in the database as pg_dump writes it, rows included."""
    tools = find_tools(connection.driver.info.server_version)
    done = subprocess.run(
        [tools.pg_dump], env=environment(connection.driver), capture_output=True, text=True, check=True
    )
    # The last minor versions wrap the script in \restrict with a random word.
    return [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def spoil(file: Path, damage: str) -> None:
    content = bytearray(file.read_bytes())
    match damage:
        case "cut short":
            file.write_bytes(content[:-40])
        case "cut in the middle":
            file.write_bytes(content[: len(content) // 2])
        case "changed":
            place = content.rindex(b"\x78\x9c") + 20 if b"\x78\x9c" in content else len(content) * 3 // 4
            content[place] ^= 0x55
            file.write_bytes(content)
        case "empty":
            file.write_bytes(b"")
        case "another":
            file.write_text("CREATE TABLE t (id int);")
        case "missing":
            file.unlink()
