"""An MCP server that knows the time everywhere: `python -m mcp_bridge.demo.servers.clock`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from mcp_bridge.demo import zones
from mcp_bridge.demo.servers.hints import READS

Zone = Annotated[
    str, Field(description="An IANA time zone such as Europe/Berlin, a city such as Tokyo, or UTC.")
]
TIMES = ("%H:%M", "%H:%M:%S", "%I:%M %p", "%I %p", "%I%p", "%I:%M%p")


class Moment(BaseModel):
    """A moment as the clocks of one time zone show it."""

    timezone: str = Field(description="IANA name of the time zone.")
    datetime: str = Field(description="Date, time and offset in ISO 8601.")
    date: str = Field(description="YYYY-MM-DD")
    time: str = Field(description="HH:MM:SS on a 24-hour clock.")
    weekday: str = Field(description="Monday to Sunday.")
    utc_offset: str = Field(description="Such as +09:00.")
    is_dst: bool = Field(description="Whether daylight saving time is in force.")


class Conversion(BaseModel):
    """One moment on the clocks of two time zones."""

    source: Moment
    target: Moment
    hours: float = Field(description="How far the target's clocks are ahead; negative: behind.")
    summary: str = Field(description="The same in words.")


def moment(when: datetime) -> Moment:
    iso = when.isoformat(timespec="seconds")
    return Moment(
        timezone=str(when.tzinfo),
        datetime=iso,
        date=when.strftime("%Y-%m-%d"),
        time=when.strftime("%H:%M:%S"),
        weekday=when.strftime("%A"),
        utc_offset=iso[len("YYYY-MM-DDTHH:MM:SS") :],
        is_dst=bool(when.dst()),
    )


def compare(when: datetime, target: tzinfo) -> Conversion:
    """That moment, and the same one in another time zone."""
    there = when.astimezone(target)
    ahead = (there.utcoffset() or timedelta()) - (when.utcoffset() or timedelta())
    hours = ahead.total_seconds() / 3600
    summary = f"{there.tzinfo} {how_far(hours)} {when.tzinfo}"
    return Conversion(source=moment(when), target=moment(there), hours=hours, summary=summary)


def how_far(hours: float) -> str:
    if hours == 0:
        return "has the same time as"
    unit = "hour" if abs(hours) == 1 else "hours"
    return f"is {abs(hours):g} {unit} {'ahead of' if hours > 0 else 'behind'}"


def zone_of(name: str) -> ZoneInfo:
    try:
        return zones.find(name)
    except zones.UnknownZone as exc:
        raise ToolError(str(exc)) from exc


def wall_clock(time: str, date: str, zone: ZoneInfo, now: datetime) -> datetime:
    """The moment when the clocks of `zone` show this; the first one where they show it twice.

    Raises:
        ToolError: it cannot be read, or the clocks never show it.
    """
    day = now.astimezone(zone).strftime("%Y-%m-%d") if not date.strip() else date.strip()
    when = read(day, time.strip()).replace(tzinfo=zone)
    # A time that a clock change skips does not survive the way through UTC.
    if when.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != when.replace(tzinfo=None):
        raise ToolError(f"{time} does not exist in {zone} on {day}: a clock change skips it")
    return when


def read(day: str, time: str) -> datetime:
    try:
        date = datetime.strptime(day, "%Y-%m-%d")
    except ValueError:
        raise ToolError(f"cannot read the date {day[:40]!r}; write it as YYYY-MM-DD") from None
    if not 1 < date.year < datetime.max.year:
        raise ToolError(f"the year {date.year} is too far away")
    for form in TIMES:
        try:
            clock = datetime.strptime(time, form).time()
        except ValueError:
            continue
        return datetime.combine(date, clock)
    raise ToolError(f"cannot read the time {time[:40]!r}; write it as HH:MM, such as 14:30")


def build(now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> MCPServer:
    """The server. `now` is its clock."""
    server = MCPServer("clock", title="Clock and time zones", version="1", log_level="WARNING")

    @server.tool(title="Current time", annotations=READS)
    def current_time(timezone: Zone = "UTC") -> Moment:
        """Get the current date and time in a time zone or city."""
        return moment(now().astimezone(zone_of(timezone)))

    @server.tool(title="Convert a time", annotations=READS)
    def convert_time(
        time: Annotated[str, Field(description="HH:MM on the source's clocks, such as 14:30.")],
        source_timezone: Zone,
        target_timezone: Zone,
        date: Annotated[str, Field(description="YYYY-MM-DD; empty: today at the source.")] = "",
    ) -> Conversion:
        """Convert a time of day from one time zone or city to another."""
        target = zone_of(target_timezone)
        return compare(wall_clock(time, date, zone_of(source_timezone), now()), target)

    @server.tool(title="Time difference", annotations=READS)
    def time_difference(source_timezone: Zone, target_timezone: Zone) -> Conversion:
        """Tell how many hours the clocks of two time zones or cities are apart at present."""
        return compare(now().astimezone(zone_of(source_timezone)), zone_of(target_timezone))

    return server


if __name__ == "__main__":
    build().run()
