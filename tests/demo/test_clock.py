"""The clock server."""

from datetime import UTC, datetime

import pytest

from mcp_bridge.demo import zones
from mcp_bridge.demo.servers.clock import build
from tests.demo.calling import call, refused

SUMMER = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
SERVER = build(lambda: SUMMER)


@pytest.mark.parametrize(
    ("zone", "key", "shown"),
    [
        ("Asia/Tokyo", "Asia/Tokyo", "2026-07-01T21:00:00+09:00"),
        ("tokyo", "Asia/Tokyo", "2026-07-01T21:00:00+09:00"),
        ("New York", "America/New_York", "2026-07-01T08:00:00-04:00"),
        ("america/new_york", "America/New_York", "2026-07-01T08:00:00-04:00"),
        ("Mumbai", "Asia/Kolkata", "2026-07-01T17:30:00+05:30"),
        ("UTC", "UTC", "2026-07-01T12:00:00+00:00"),
    ],
)
async def test_the_time_is_told_for_zones_and_cities(zone: str, key: str, shown: str) -> None:
    told = await call(SERVER, "current_time", timezone=zone)
    assert (told["timezone"], told["datetime"]) == (key, shown)


async def test_without_a_zone_it_is_utc() -> None:
    told = await call(SERVER, "current_time")
    assert told == {
        "timezone": "UTC",
        "datetime": "2026-07-01T12:00:00+00:00",
        "date": "2026-07-01",
        "time": "12:00:00",
        "weekday": "Wednesday",
        "utc_offset": "+00:00",
        "is_dst": False,
    }


@pytest.mark.parametrize("zone", ["Tokio", "../../etc/passwd", "/etc/passwd", "Asia", "", "a\0b"])
async def test_an_unknown_zone_is_refused(zone: str) -> None:
    assert "there is no time zone" in await refused(SERVER, "current_time", timezone=zone)


async def test_a_misspelt_city_gets_the_close_one() -> None:
    told = await refused(SERVER, "current_time", timezone="Tokio")
    assert "did you mean Asia/Tokyo?" in told


@pytest.mark.parametrize("time", ["14:30", "14:30:00", "2:30 PM", "2:30pm", " 14:30 "])
async def test_a_time_is_converted_however_it_is_written(time: str) -> None:
    zones = {"source_timezone": "Berlin", "target_timezone": "Tokyo"}
    told = await call(SERVER, "convert_time", time=time, **zones)
    assert told["source"]["datetime"] == "2026-07-01T14:30:00+02:00"
    assert told["target"]["datetime"] == "2026-07-01T21:30:00+09:00"
    assert told["hours"] == 7
    assert told["summary"] == "Asia/Tokyo is 7 hours ahead of Europe/Berlin"


async def test_a_conversion_uses_the_offsets_of_its_own_date() -> None:
    zones = {"source_timezone": "Berlin", "target_timezone": "Tokyo"}
    told = await call(SERVER, "convert_time", time="20:30", date="2026-01-05", **zones)
    assert told["target"]["datetime"] == "2026-01-06T04:30:00+09:00"
    assert told["target"]["weekday"] == "Tuesday"


@pytest.mark.parametrize(
    ("time", "date", "reason"),
    [
        ("25:00", "", "write it as HH:MM"),
        ("soon", "", "write it as HH:MM"),
        ("12:00", "tomorrow", "write it as YYYY-MM-DD"),
        ("12:00", "0001-01-01", "too far away"),
        ("12:00", "9999-12-31", "too far away"),
        ("02:30", "2026-03-29", "does not exist in Europe/Berlin"),
    ],
)
async def test_a_time_that_cannot_be_is_refused(time: str, date: str, reason: str) -> None:
    zones = {"source_timezone": "Berlin", "target_timezone": "Tokyo"}
    assert reason in await refused(SERVER, "convert_time", time=time, date=date, **zones)


@pytest.mark.parametrize(
    ("source", "target", "hours", "summary"),
    [
        ("Delhi", "New York", -9.5, "America/New_York is 9.5 hours behind Asia/Kolkata"),
        ("London", "Berlin", 1, "Europe/Berlin is 1 hour ahead of Europe/London"),
        ("Rome", "Berlin", 0, "Europe/Berlin has the same time as Europe/Rome"),
    ],
)
async def test_the_difference_of_two_zones_is_told_in_words(
    source: str, target: str, hours: float, summary: str
) -> None:
    zones = {"source_timezone": source, "target_timezone": target}
    told = await call(SERVER, "time_difference", **zones)
    assert (told["hours"], told["summary"]) == (hours, summary)


def test_every_other_place_has_a_zone_that_exists() -> None:
    known = zones.places()
    missing = [p for others in zones.OTHER_PLACES.values() for p in others if p not in known]
    assert missing == []
