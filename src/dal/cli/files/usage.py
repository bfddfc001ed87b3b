"""`dal files usage` and `dal files costs`: what is stored, how it grows, what it costs, and what passes a threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dal.cli.files.options import BlobUrl, UserKey, size_of, user_id_of, with_files
from dal.cli.options import After, AsJson, Limit, Url
from dal.cli.output import console, print_json, table
from dal.cli.running import FAILED, complain
from dal.errors import InvalidInputError

if TYPE_CHECKING:
    from dal.access import DataAccess
    from dal.file_models import PricingTier
    from dal.files.costing import CostReport
    from dal.files.growth import Day
    from dal.files.monitoring import Thresholds


def usage(
    url: Url = None,
    blob_url: BlobUrl = None,
    user: UserKey = None,
    by_user: Annotated[bool, typer.Option("--by-user", help="What each user stores, a page at a time.")] = False,
    days: Annotated[int, typer.Option("--days", min=1, max=366, help="How far back the growth is shown.")] = 30,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check",
            metavar="WHAT=MOST",
            help="Exit with 1 when more than that: bytes, files, cost, projected_cost, growth_bytes, class_a, class_b "
            "or egress. May be given several times.",
            show_default=False,
        ),
    ] = None,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """Show what is stored, how it grows and what the month costs; with --user what a user stores, and how that grew.

    Growth is known of the days on which `dal files costs --record` ran.
    """

    async def work(dal: DataAccess) -> int:
        thresholds = thresholds_of(check or [])
        if user is not None:
            return await _show_user(dal, await user_id_of(dal, user), days, json)
        if by_user:
            return await _show_users(dal, limit, after, json)
        monitoring = dal.files.monitoring
        total, grown, spent = await monitoring.usage_total(), await monitoring.growth(days), await monitoring.costs()
        alerts = await monitoring.alerts(thresholds) if check else []
        if json:
            print_json(
                {
                    "total": total._asdict(),
                    "growth": _growth_document(grown),
                    "costs": spent.as_dict(),
                    "alerts": [alert._asdict() for alert in alerts],
                }
            )
        else:
            out = console()
            facts = [(name.replace("_", " "), value) for name, value in total._asdict().items()]
            out.print(table("stored", ("", "how many>"), facts))
            _show_growth(grown)
            show_costs(spent)
        for alert in alerts:
            complain(alert.message)
        return FAILED if alerts else 0

    with_files(url, blob_url, work)


def costs(
    url: Url = None,
    blob_url: BlobUrl = None,
    period: Annotated[
        str | None, typer.Option("--period", metavar="MONTH", help="As 2026-11; else this month.", show_default=False)
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep what is stored today and what the month costs; run it once a day.")
    ] = False,
    set_prices: Annotated[
        Path | None,
        typer.Option(
            "--set-prices",
            metavar="FILE",
            help="A JSON list of price tiers of your own, which win over the published ones.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what a month's storage, requests and transfer cost, so far and as it may end. An estimate."""

    async def work(dal: DataAccess) -> int:
        monitoring = dal.files.monitoring
        if set_prices is not None:
            await monitoring.prices.set(_tiers(set_prices))
        if record and period is not None:
            raise InvalidInputError("--record: keeps the running month; leave --period out")
        spent = await monitoring.record() if record else await monitoring.costs(period)
        if json:
            print_json(spent.as_dict())
        else:
            show_costs(spent)
        return 0

    with_files(url, blob_url, work)


def thresholds_of(checks: list[str]) -> Thresholds:
    """`bytes=5TB`, `projected_cost=100`, … as thresholds. Raises InvalidInputError."""
    from dal.files.monitoring import SUBJECTS, Thresholds

    found: dict[str, Any] = {}
    for check in checks:
        subject, equals, most = check.partition("=")
        if subject not in SUBJECTS or not equals:
            raise InvalidInputError(f"--check {check[:40]!r}: write WHAT=MOST; there are {', '.join(SUBJECTS)}")
        if "cost" not in subject:
            found[subject] = size_of(most)
            continue
        try:
            found[subject] = float(most)
        except ValueError:
            raise InvalidInputError(f"--check {check[:40]!r}: {most[:20]!r} is no amount") from None
    return Thresholds(**found)


def show_costs(spent: CostReport) -> None:
    """A month's costs for people."""
    from dal.files.pricing import money

    rows = [
        (
            line.item.replace("_", " "),
            line.quantity,
            money(line.cost_nanos, spent.currency),
            line.projected_quantity,
            money(line.projected_nanos, spent.currency),
        )
        for line in spent.lines
    ]
    total = money(spent.cost_nanos, spent.currency), "", money(spent.projected_nanos, spent.currency)
    title = f"{spent.period} on {spent.provider}, {spent.share:.0%} of it over"
    heads = ("", "so far>", "cost>", "at its end>", "cost at its end>")
    console().print(table(title, heads, [*rows, ("together", "", *total)]))
    if spent.signed:
        console().print(f"{spent.signed:,} requests were signed; what a bucket was asked with them is not counted")


def _growth_document(grown: list[Day]) -> list[dict[str, object]]:
    return [{**day._asdict(), "day": day.day.isoformat()} for day in grown]


def _show_growth(grown: list[Day]) -> None:
    if grown:
        rows = [(day.day.isoformat(), day.files, day.bytes, f"{day.grown_bytes:+,}") for day in grown]
        together = ("together", "", "", f"{sum(day.grown_bytes for day in grown):+,}")
        console().print(table("by day", ("day", "files>", "bytes>", "more>"), [*rows, together]))


async def _show_user(dal: DataAccess, user_id: str, days: int, as_json: bool) -> int:
    found, grown = await dal.files.usage(user_id), await dal.files.monitoring.growth(days, user_id=user_id)
    if as_json:
        print_json({**found.model_dump(), "growth": _growth_document(grown)})
    else:
        rows = [
            ("bytes", found.used_bytes, found.reserved_bytes, _left(found.bytes_left)),
            ("files", found.used_files, found.reserved_files, _left(found.files_left)),
        ]
        console().print(table(None, ("", "used>", "reserved>", "left>"), rows))
        _show_growth(grown)
    return 0


async def _show_users(dal: DataAccess, limit: int, after: str | None, as_json: bool) -> int:
    page = await dal.files.monitoring.usage_by_user(limit=limit, after=after)
    if as_json:
        print_json(page)
        return 0
    rows = [(u.user_id, u.used_files, u.used_bytes, u.reserved_bytes, _left(u.bytes_left)) for u in page.items]
    console().print(table(None, ("user", "files>", "bytes>", "reserved>", "bytes left>"), rows))
    if page.next is not None:
        complain(f"there are more: --after {page.next}")
    return 0


def _left(left: int | None) -> object:
    return "no limit" if left is None else left


def _tiers(path: Path) -> list[PricingTier]:
    from pydantic import TypeAdapter, ValidationError

    from dal.file_models import PricingTier

    try:
        return TypeAdapter(list[PricingTier]).validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidInputError(f"{path}: is no list of price tiers: {error.errors()[0]['msg']}") from None
