"""Addresses: libpq's own meaning, our defaults, and never the password."""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from dal.backends.postgresql import postgresql_store
from dal.backends.postgresql.address import parse_address
from dal.errors import ConfigurationError

SECRET = "p4ss:w/rd"
QUOTED = "p4ss%3Aw%2Frd"


def test_the_password_is_in_no_text_about_the_address() -> None:
    address = parse_address(f"postgresql://ada:{QUOTED}@db.example:6432/app?sslmode=require")
    assert address.label == "postgresql://db.example:6432/app"
    assert conninfo_to_dict(address.conninfo)["password"] == SECRET
    for text in (repr(address), str(address), repr(postgresql_store(f"postgresql://ada:{QUOTED}@db/app"))):
        assert SECRET not in text
        assert QUOTED not in text


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ada:{QUOTED}@db/app?no_such_parameter=1",
        f"host=db password={SECRET} nonsense",
        f"postgresql://ada:{QUOTED}@db/app?connect_timeout={SECRET}",
        f"postgresql://ada:{QUOTED}@[::1/app?prepare_threshold=1",
    ],
)
def test_an_address_that_cannot_be_read_is_not_quoted(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_address(text)
    assert caught.value.__cause__ is None
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ada:{QUOTED}@db:notaport/app",
        f"postgresql://ada:{QUOTED}@db:70000/app",
        f"postgresql://ada:{QUOTED}@db:0/app",
        f"postgresql://ada:{QUOTED}@db:-1/app",
        f"postgresql://ada:{QUOTED}@db:{'1' * 5000}/app",
        f"postgresql://ada:{QUOTED}@h1:5432,h2:x/app",
        f"postgresql://ada:{QUOTED}@h1,h2/app?port=5432,65536",
        f"host=db port=5432x password={SECRET}",
        "postgresql://ada:half@p4ss:p4ss@db/app",
    ],
)
def test_a_port_that_is_none_is_refused_before_anything_is_opened(text: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 65535") as caught:
        postgresql_store(text)
    assert "p4ss" not in str(caught.value)


@pytest.mark.parametrize("place", ["db", "db:5432", "db:65535", "h1:5432,h2", "h1,h2:6432"])
def test_a_port_may_be_left_out_for_any_host(place: str) -> None:
    assert parse_address(f"postgresql://{place}/app").label.startswith("postgresql://")


@pytest.mark.parametrize(
    ("query", "threshold"),
    [("", "auto"), ("?prepare_threshold=none", None), ("?prepare_threshold=0", 0), ("?prepare_threshold=7", 7)],
)
def test_prepare_threshold_is_taken_out_of_the_url(query: str, threshold: int | str | None) -> None:
    address = parse_address(f"postgresql://db/app{query}")
    assert address.prepare_threshold == threshold
    assert "prepare_threshold" not in address.conninfo


def test_the_other_parameters_pass_through_as_they_are() -> None:
    address = parse_address("postgresql://h1,h2:6432/app?prepare_threshold=1&options=-c%20a%3Db+c&sslmode=require")
    parts = conninfo_to_dict(address.conninfo)
    assert (parts["host"], parts["options"], parts["sslmode"]) == ("h1,h2", "-c a=b+c", "require")
    assert "h1" in address.label
    assert "h2" in address.label


def test_a_wrong_prepare_threshold_says_what_is_allowed() -> None:
    with pytest.raises(ConfigurationError, match="none and auto"):
        parse_address("postgresql://db/app?prepare_threshold=maybe")


def test_defaults_give_way_to_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    monkeypatch.delenv("PGAPPNAME", raising=False)
    plain = conninfo_to_dict(parse_address("postgresql://db/app").conninfo)
    assert (plain["connect_timeout"], plain["application_name"], plain["client_encoding"]) == ("5", "dal", "UTF8")
    own = parse_address("postgresql://db/app?connect_timeout=9&application_name=shop")
    assert own.connect_timeout_s == 9
    assert conninfo_to_dict(own.conninfo)["application_name"] == "shop"


def test_session_options_stand_before_those_of_the_caller() -> None:
    # The later one wins on the server, so the caller has the last word.
    address = parse_address("postgresql://db/app?options=-c%20lock_timeout%3D1")
    assert (
        conninfo_to_dict(address.with_options("-c lock_timeout=9"))["options"] == "-c lock_timeout=9 -c lock_timeout=1"
    )
